"""Frames and parts for the tests of fusions; importable in workers."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from sklearn.base import BaseEstimator, TransformerMixin
from torch import nn

from skmm import Trainer
from skmm._training._batches import RowTensors

TRIPLES = [
    ("photo", "passthrough", ["photo"]),
    ("text", "passthrough", ["text"]),
    ("numbers", "passthrough", ["size", "price"]),
]


def views(n=200, *, seed=0, missing=0.0, noise=0.3, strength=(1.0, 1.0, 1.0)):
    """Three views of one latent each: vectors, vectors, two numbers.

    Returns the frame and the score that a target is made of: the sum of the latents, weighted by
    ``strength``. A view of strength 0 is noise.
    """
    rng = np.random.default_rng(seed)
    latent = rng.normal(size=(n, 3))
    photo = latent[:, [0]] * [1.0, -2.0, 0.5, 0.0] + noise * rng.normal(size=(n, 4))
    text = latent[:, [1]] * [1.0, 0.5, -1.0] + noise * rng.normal(size=(n, 3))
    X = pd.DataFrame(
        {
            "photo": pd.Series(list(photo.astype(np.float32)), dtype=object),
            "text": pd.Series(list(text.astype(np.float32)), dtype=object),
            "size": latent[:, 2] + noise * rng.normal(size=n),
            "price": 1000 + 50 * latent[:, 2] + noise * rng.normal(size=n),
        }
    )
    for columns in (["photo"], ["text"], ["size", "price"]):
        X.loc[rng.random(n) < missing, columns] = None
    return X, latent @ np.asarray(strength)


class Recorder(TransformerMixin, BaseEstimator):
    """Passes numbers on and notes which rows it was shown, and whether they held a NaN."""

    def __init__(self, offset=0.0):
        self.offset = offset

    def fit(self, X, y=None, sample_weight=None):
        self.fitted_rows_ = list(np.asarray(X, dtype=float)[:, 0])
        self.y_ = y
        self.sample_weight_ = sample_weight
        return self

    def transform(self, X):
        self.seen_ = np.asarray(X, dtype=float)
        return self.seen_ + self.offset

    def get_feature_names_out(self, input_features=None):
        return np.array(["value"], dtype=object)


class Total(nn.Module):
    """A strategy of the user's: the sum of linear maps."""

    def __init__(self, n_features, n_components, *, dropout=0.0, gain=1.0):
        super().__init__()
        self.names = sorted(n_features)
        self.maps = nn.ModuleList(nn.Linear(n_features[name], n_components) for name in self.names)
        self.gain = gain

    def forward(self, tokens, masks):
        parts = []
        for name, layer in zip(self.names, self.maps, strict=True):
            mask = masks[name].unsqueeze(-1)
            mapped = layer(torch.where(mask, tokens[name], 0.0))
            parts.append(torch.where(mask, mapped, 0.0).sum(dim=1))
        return self.gain * torch.stack(parts).sum(dim=0)


@dataclass(frozen=True)
class NumbersRead(RowTensors):
    """What the trained network of a third party's encoder reads: numbers."""

    x: torch.Tensor

    @classmethod
    def of(cls, X):
        return cls(torch.as_tensor(np.nan_to_num(X.to_numpy(np.float32))))

    @property
    def present(self):
        return torch.ones(len(self.x), dtype=torch.bool)

    def __len__(self):
        return len(self.x)


_OF_TRAINERS = frozenset(Trainer().get_params())


def with_trainer(**options):
    """Return options of an estimator, those of its training moved into a trainer."""
    own = {name: options.pop(name) for name in _OF_TRAINERS & {*options} - {"max_epochs"}}
    return {**options, "trainer": Trainer(**own)} if own else options
