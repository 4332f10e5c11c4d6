"""Toy alignments, and frames whose cells are vectors of their space."""

import numpy as np
import pandas as pd
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_is_fitted


class ReadySpace(BaseEstimator):
    """Alignment whose cells are vectors of the space, in a column for each modality."""

    def __init__(self, names=("text", "image"), width=8):
        self.names = names
        self.width = width

    def fit(self, X, y=None):
        self.modalities_ = [(name, "passthrough", [name]) for name in self.names]
        self.n_fits_ = getattr(self, "n_fits_", 0) + 1
        return self

    def transform_modality(self, X, modality):
        check_is_fitted(self)
        values = X[modality]
        values = values.to_list() if hasattr(values, "to_list") else list(values)
        absent = np.full(self.width, np.nan)
        rows = [absent if cell is None or cell is np.nan else np.asarray(cell) for cell in values]
        return np.array(rows, dtype=np.float32).reshape(len(rows), self.width)


def ready_frame(n, *, width=8, noise=0.1, seed=0, names=("text", "image"), first_label=0):
    """Return rows whose modalities have nearly the same direction."""
    rng = np.random.default_rng(seed)
    latent = rng.standard_normal((n, width))
    frame = pd.DataFrame({"title": [f"row {i}" for i in range(n)]})
    for name in names:
        cells = latent + noise * rng.standard_normal((n, width))
        frame[name] = pd.Series(list(cells), dtype=object)
    frame.index = [f"r{first_label + i}" for i in range(n)]
    return frame


def without_cells(frame, **rows):
    """Return a frame without some cells, e.g. ``without_cells(X, image=[0, 3])``."""
    frame = frame.copy()
    for name, positions in rows.items():
        cells = frame[name].to_list()
        frame[name] = pd.Series(
            [None if i in positions else cell for i, cell in enumerate(cells)],
            index=frame.index,
            dtype=object,
        )
    return frame


def units(values):
    """Scale vectors to unit length in float32; NaN stays NaN."""
    exact = np.asarray(values, dtype=np.float64)
    return (exact / np.linalg.norm(exact, axis=1, keepdims=True)).astype(np.float32)


def brute_force(queries, vectors, k):
    """Return positions and cosines of the k nearest rows without NaN, computed in float64."""
    queries, vectors = units(queries).astype(np.float64), units(vectors).astype(np.float64)
    near = np.array([[(q * v).sum() for v in vectors] for q in queries])
    near = np.where(np.isnan(near), -np.inf, near)
    order = np.argsort(-near, axis=1, kind="stable")[:, :k]
    return order, np.take_along_axis(near, order, axis=1)
