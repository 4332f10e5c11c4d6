"""Cells that are sequences of vectors, and an encoder that gives them as tokens."""

import numpy as np
import pandas as pd
from sklearn.base import BaseEstimator, TransformerMixin

FILLING = np.float32(77.0)  # the value in places without a token


class Tokens(TransformerMixin, BaseEstimator):
    """A cell is an array (n_tokens, width): as a vector its mean, as a sequence itself."""

    def __init__(self, scale=1.0):
        self.scale = scale

    def fit(self, X, y=None):
        self.n_fitted_ = len(X)
        return self

    def transform(self, X):
        return np.stack([self.scale * cell.mean(axis=0) for cell in X.iloc[:, 0]])

    def transform_sequence(self, X):
        cells = [self.scale * cell for cell in X.iloc[:, 0]]
        longest = max(len(cell) for cell in cells)
        tokens = np.full((len(cells), longest, cells[0].shape[1]), FILLING, dtype=np.float32)
        mask = np.zeros((len(cells), longest), dtype=bool)
        for row, cell in enumerate(cells):
            tokens[row, : len(cell)] = cell
            mask[row, : len(cell)] = True
        return tokens, mask


def column(cells):
    """A column of arrays, or of None."""
    series = pd.Series([None] * len(cells), dtype=object)
    for row, cell in enumerate(cells):
        series[row] = cell
    return series


def sequences(n, width, *, shortest=1, longest=6, seed=0):
    """Draw cells of ``shortest`` to ``longest`` tokens."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(shortest, longest + 1, n)
    return column([rng.normal(2.0, 3.0, (k, width)).astype(np.float32) for k in lengths])


def hidden_pairs(n, *, seed=0):
    """Words and patches whose mean is zero in every row; the class is in which there are.

    A text holds one of two words and its negative, an image one of two patches and its negative,
    each beside one to three pairs of other tokens that sum to zero too. The class is 1 where the
    first word meets the second patch or the second word the first patch.
    """
    rng = np.random.default_rng(seed)

    def cells(kinds):
        drawn = []
        for kind in kinds:
            telling = np.eye(4)[kind]
            others = np.pad(rng.normal(size=(rng.integers(1, 4), 2)), ((0, 0), (2, 0)))
            pairs = np.concatenate([telling[None], others])
            drawn.append(rng.permutation(np.concatenate([pairs, -pairs])).astype(np.float32))
        return column(drawn)

    words, patches = rng.integers(0, 2, (2, n))
    return pd.DataFrame({"text": cells(words), "photo": cells(patches)}), words ^ patches
