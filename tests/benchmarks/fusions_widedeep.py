"""pytorch-widedeep's fusers over ready vectors: run by fusions.py, in a Python that has it.

Its requirements (torchvision, NumPy 1) do not go with those of skmm, so it may live in another
environment, which the variable ``WIDEDEEP_PYTHON`` names. Features and results travel in files::

    python fusions_widedeep.py features.npz results.json

A modality goes through a plain MLP of one layer; ``ModelFuser`` joins them. Optimizer, batches,
epochs and early stopping are those of skmm's joint fusions.
"""

import json
import sys
import time

import numpy as np
import torch
from pytorch_widedeep import Trainer
from pytorch_widedeep.callbacks import EarlyStopping
from pytorch_widedeep.models import ModelFuser, WideDeep
from torch import nn

METHODS = ("concatenate", "mean", "max", "sum", "mult", "head")
WIDTH = 128


class Plain(nn.Module):
    """One hidden layer over a modality's vector."""

    def __init__(self, n_features):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(n_features, WIDTH), nn.ReLU(), nn.Dropout(0.2))
        self.output_dim = WIDTH

    def forward(self, x):
        return self.layers(x)


def fit(method, train, y, *, n_classes, seed, max_epochs):
    """A trainer whose model is trained."""
    torch.manual_seed(seed)
    head = {"head_hidden_dims": [WIDTH], "head_dropout": 0.2} if method == "head" else {}
    fuser = ModelFuser([Plain(x.shape[1]) for x in train], fusion_method=method, **head)
    # Its component for texts takes a list of arrays as they are.
    model = WideDeep(deeptext=fuser, pred_dim=1 if n_classes == 2 else n_classes)
    trainer = Trainer(
        model,
        objective="binary" if n_classes == 2 else "multiclass",
        optimizers=torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=1e-2),
        callbacks=[EarlyStopping(patience=10, restore_best_weights=True)],
        verbose=0,
        seed=seed,
        num_workers=0,
        device="cpu",
    )
    trainer.fit(X_text=train, target=y, n_epochs=max_epochs, batch_size=32, val_split=0.1)
    return trainer


def main(source, target):
    torch.set_num_threads(1)
    data = np.load(source)
    names = [key.removeprefix("train_") for key in data if key.startswith("train_")]
    train = [data[f"train_{name}"] for name in names]
    test = [data[f"test_{name}"] for name in names]
    results = {}
    for method in METHODS:
        started = time.process_time()
        trainer = fit(
            method,
            train,
            data["y"],
            n_classes=int(data["n_classes"]),
            seed=int(data["seed"]),
            max_epochs=int(data["max_epochs"]),
        )
        results[method] = {
            "seconds": time.process_time() - started,
            "parameters": sum(p.numel() for p in trainer.model.parameters()),
            "probabilities": trainer.predict_proba(X_text=test, batch_size=256).tolist(),
        }
    with open(target, "w") as file:
        json.dump(results, file)


if __name__ == "__main__":
    main(*sys.argv[1:])
