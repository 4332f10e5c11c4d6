"""What training through skorch costs over a loop written by hand, side by side in one run.

Both train the same network on the same tensors with the same optimizer, epochs and batches.
"""

import time

import numpy as np
import pandas as pd
import torch
from report import table, write_section
from torch import nn

from skmm import JointFusionClassifier
from skmm._device import one_thread, resolve_device, seeded
from skmm.fusion._net import TensorDataset, make_net

REPEATS = 5
EPOCHS = 10


def problem(n=20_000, n_features=512, n_classes=10):
    rng = np.random.default_rng(0)
    y = rng.integers(0, n_classes, n)
    X = rng.normal(size=(n, n_features)).astype(np.float32)
    X[np.arange(n), y] += 2.0
    return X, y


def untrained(X, y):
    """The network of a joint fusion and its tensors, fitted just enough to exist."""
    frame = pd.DataFrame({"vector": list(X[:200])})
    model = JointFusionClassifier(
        [("vector", "passthrough", ["vector"])], max_epochs=1, early_stopping=False, random_state=0
    ).fit(frame, y[:200])
    tensors = model._inputs.tensors(pd.DataFrame({"vector": list(X)}))
    return model.module_, tensors, torch.as_tensor(y)


def by_hand(module, tensors, target, device):
    module.to(device).train()
    tensors = {name: t.to(device) for name, t in tensors.items()}
    target = target.to(device)
    optimizer = torch.optim.AdamW(module.parameters(), lr=1e-3, weight_decay=1e-2, fused=True)
    for _ in range(EPOCHS):
        for rows in torch.randperm(len(target)).to(device).split(128):
            loss = nn.functional.cross_entropy(
                module(**{name: t[rows] for name, t in tensors.items()}), target[rows]
            )
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()


def by_skmm(module, tensors, target, device):
    tensors = {name: t.to(device) for name, t in tensors.items()}
    net = make_net(
        module,
        nn.CrossEntropyLoss(reduction="none"),
        valid=None,
        max_epochs=EPOCHS,
        batch_size=128,
        learning_rate=1e-3,
        weight_decay=1e-2,
        n_iter_no_change=10,
        callbacks=[],
        device=device,
        verbose=0,
    )
    net.partial_fit(TensorDataset(tensors, target.to(device)))


def main():
    device = resolve_device("auto")
    module, tensors, target = untrained(*problem())
    seconds = {"by hand": [], "skmm": []}
    state = {name: value.clone() for name, value in module.state_dict().items()}
    for _ in range(REPEATS):  # interleaved: a busy moment of the machine hits both
        for name, train in (("by hand", by_hand), ("skmm", by_skmm)):
            module.load_state_dict(state)
            with one_thread(), seeded(0):
                begin = time.perf_counter()
                train(module, tensors, target, device)
                if device.type == "cuda":
                    torch.cuda.synchronize()
            seconds[name].append(time.perf_counter() - begin)
    result = pd.DataFrame(
        {
            "fastest of five (s)": {name: min(values) for name, values in seconds.items()},
            "ratio": {name: min(v) / min(seconds["by hand"]) for name, v in seconds.items()},
        }
    )
    text = (
        "20,000 rows of 512 features, 10 classes, the network of `JointFusionClassifier` with"
        f" its default width, {EPOCHS} epochs of batches of 128, AdamW, one thread.\n\n"
    )
    write_section("Training against a loop written by hand", "training.py", text + table(result))


if __name__ == "__main__":
    main()
