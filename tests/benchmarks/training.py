"""What training a joint fusion costs over a loop written by hand, side by side in one run.

All train the same network from the same weights on the same rows, with the same optimizer, epochs
and batches.
"""

import inspect

import numpy as np
import pandas as pd
import torch
from report import table, versions, write_section
from skorch import NeuralNetClassifier
from timing import interleaved, speeds
from torch import nn

from skmm import JointFusionClassifier, Trainer
from skmm._environment._device import one_thread, resolve_device
from skmm._training._batches import Batch, FeatureInputs

N_ROWS, WIDTHS, N_CLASSES = 20_000, {"text": 384, "photo": 1280, "numbers": 20}, 10
N_COMPONENTS = [32, 64, 128]  # widths of the network
REPEATS, EPOCHS, BATCH_SIZE, LEARNING_RATE, WEIGHT_DECAY = 5, 3, 128, 1e-3, 1e-2
BARS = {"by hand": 0.9, "plain skorch": 1.7}


def problem():
    """Blocks of the modalities, (N_ROWS, width) each, and classes that all of them know of."""
    rng = np.random.default_rng(0)
    y = rng.integers(0, N_CLASSES, N_ROWS)
    blocks = {}
    for name, width in WIDTHS.items():
        blocks[name] = rng.normal(size=(N_ROWS, width)).astype(np.float32)
        blocks[name][np.arange(N_ROWS), y] += 2.0
    return blocks, y


def fusion(**options):
    """Return the joint fusion whose training is measured."""
    return JointFusionClassifier(
        [(name, "passthrough", [name]) for name in WIDTHS],
        trainer=Trainer(
            batch_size=BATCH_SIZE,
            learning_rate=LEARNING_RATE,
            weight_decay=WEIGHT_DECAY,
            early_stopping=False,
        ),
        random_state=0,
        **options,
    )


def batch_of(values):
    """Return rows as the network of a joint fusion takes them, from a tensor of each modality."""
    return Batch(
        {
            name: FeatureInputs(own, torch.ones(len(own), dtype=torch.bool, device=own.device))
            for name, own in values.items()
        }
    )


class OfTensors(nn.Module):
    """The network, called as plain skorch calls it: with a tensor of each modality."""

    def __init__(self, module):
        super().__init__()
        self.module = module

    def forward(self, **values):
        return self.module(batch_of(values))


def by_hand(module, batch, target):
    optimizer = torch.optim.AdamW(
        module.parameters(), lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY, fused=True
    )
    for _ in range(EPOCHS):
        for rows in torch.randperm(len(target)).to(target.device).split(BATCH_SIZE):
            loss = nn.functional.cross_entropy(module(batch.rows(rows)), target[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()


def by_skorch(module, arrays, y, device):
    """Train with skorch as it comes: its data loader and its callbacks."""
    net = NeuralNetClassifier(
        OfTensors(module),
        criterion=nn.CrossEntropyLoss,
        optimizer=torch.optim.AdamW,
        optimizer__weight_decay=WEIGHT_DECAY,
        lr=LEARNING_RATE,
        max_epochs=EPOCHS,
        batch_size=BATCH_SIZE,
        iterator_train__shuffle=True,
        train_split=None,
        classes=list(range(N_CLASSES)),
        device=device,
        verbose=0,
    )
    net.fit(arrays, y)


def measure(n_components, blocks, y, device):
    """Table of the three for a width of the network, and seconds of the fastest whole ``fit``."""
    frame = pd.DataFrame({name: list(block) for name, block in blocks.items()})
    options = {"n_components": n_components}
    # Fitted just enough to exist: the rivals train its network.
    fitted = fusion(max_epochs=1, **options).fit(frame[:200], np.arange(200) % N_CLASSES)
    module = fitted.module_.to(device)
    state = {name: value.clone() for name, value in module.state_dict().items()}
    batch = batch_of({name: torch.from_numpy(own) for name, own in blocks.items()}).to(device)
    target = torch.as_tensor(y)
    whole = []

    def again():
        module.load_state_dict(state)
        return module.train()

    def by_skmm():
        """Return the seconds of the epochs; what ``fit`` does before and after is in ``whole``."""
        own = fusion(max_epochs=EPOCHS, **options)
        whole.extend(interleaved({"whole fit": lambda: own.fit(frame, y)}, repeats=1).popitem()[1])
        return float(sum(own.net_.history[:, "dur"]))

    with one_thread():
        seconds = interleaved(
            {
                "skmm": by_skmm,
                "by hand": lambda: by_hand(again(), batch, target.to(device)),
                "plain skorch": lambda: by_skorch(again(), blocks, y, device),
            },
            repeats=REPEATS,
        )
    return speeds(seconds, "skmm", BARS), min(whole)


def main():
    device = resolve_device("auto")
    blocks, y = problem()
    parameters = inspect.signature(JointFusionClassifier).parameters
    widths = " + ".join(map(str, WIDTHS.values()))
    text = (
        f"{N_ROWS} rows of {widths} features, {N_CLASSES} classes, the network of"
        f" `JointFusionClassifier` with strategy {parameters['strategy'].default!r}, {EPOCHS}"
        f" epochs of batches of {BATCH_SIZE}, AdamW (fused on all sides but plain skorch's),"
        f" one torch thread, {versions(['skorch'])}. Seconds of skmm are those of the"
        f" epochs. {REPEATS} interleaved runs. skmm saves a constant time per"
        " batch, so its share is smaller for larger matrix products.\n\n"
    )
    for n_components in N_COMPONENTS:
        result, whole = measure(n_components, blocks, y, device)
        default = n_components == parameters["n_components"].default
        text += (
            f"`n_components={n_components}`{', the default' if default else ''} (the whole `fit`,"
            " which also reads the frame's cells and scales them, took"
            f" {whole:.2f} s at its fastest):\n\n{table(result)}\n\n"
        )
    write_section("Training against a loop written by hand", "training.py", text.rstrip("\n"))


if __name__ == "__main__":
    main()
