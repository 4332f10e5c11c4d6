"""Raw cells that show latent values: words, pictures, tables, vectors, series.

Every kind shows a latent linearly, as far as its cells can: a bag of words, the pixels,
the numbers and dummies, the entries or the samples of the series give it back by a
linear model. A latent is a column of unit variance.
"""

from collections.abc import Callable

import numpy as np
import pandas as pd
from scipy.special import ndtri

__all__ = ["KINDS", "show"]

_WORDS_PER_LATENT = 7  # odd: the majority tells the sign
_WORDS_PER_POLE = 4  # different words that say the same
_FILLERS = 20
_FILLERS_PER_ROW = 4
# Of a category column: eight bins of a standard normal latent, which keeps 0.97 of its variance.
_BIN_EDGES = ndtri(np.arange(1, 8) / 8)
_PIXEL_NOISE = 4.0  # grey levels

Cells = dict[str, pd.Series]


def show(
    kind: str, name: str, latents: np.ndarray, image_size: int, rng: np.random.RandomState
) -> Cells:
    """Cells of one modality.

    Parameters
    ----------
    kind : str
        One of `KINDS`.
    name : str
        Name of the modality; its column, or the first part of its columns' names.
    latents : ndarray of shape (n_samples, n_latents)
        What the cells have to show; n_latents may be 0.
    image_size : int
        Side of pictures, in pixels.
    rng : RandomState
        Draws the code (which word stands for what) and the noise of the cells.

    Returns
    -------
    cells : dict of str to Series
        The columns.
    """
    if kind == "image":
        return {name: _cell_column(_pictures(latents, image_size, rng))}
    if kind == "tabular":
        return {f"{name}_{column}": cells for column, cells in _table(latents, rng).items()}
    return {name: _SIMPLE[kind](latents, rng)}


def _cell_column(cells: list | np.ndarray) -> pd.Series:
    """A column whose cells are arrays; each owns its values."""
    return pd.Series([np.array(cell) for cell in cells], dtype=object)


def _amplitude(latents: np.ndarray, reach: float) -> np.ndarray:
    """Latents as amplitudes in [0, 1]; what is beyond ``reach`` is cut off."""
    return np.clip(0.5 + latents / (2 * reach), 0, 1)


def _vocabulary(n_words: int, rng: np.random.RandomState) -> np.ndarray:
    """Different words that can be pronounced."""
    syllables = [consonant + vowel for consonant in "bdfgklmnprstvz" for vowel in "aeiou"]
    n_syllables = 2 if n_words <= len(syllables) ** 2 else 3
    numbers = rng.choice(len(syllables) ** n_syllables, size=n_words, replace=False)
    places = np.unravel_index(numbers, (len(syllables),) * n_syllables)
    return np.array(["".join(syllables[i] for i in word) for word in zip(*places, strict=True)])


def _texts(latents: np.ndarray, rng: np.random.RandomState) -> pd.Series:
    """Texts in which every latent has as many words of its one pole as it is high.

    The other words are of its other pole, so that the length tells nothing.
    """
    n_samples, n_latents = latents.shape
    words = _vocabulary(n_latents * 2 * _WORDS_PER_POLE + _FILLERS, rng)
    fillers = words[:_FILLERS]
    poles = words[_FILLERS:].reshape(n_latents, 2, _WORDS_PER_POLE)
    counts = np.rint(_amplitude(latents, 2.0) * _WORDS_PER_LATENT)
    # (n_samples, n_latents, words): 1 for the pole of the high values
    pole = (np.arange(_WORDS_PER_LATENT) < counts[..., None]).astype(int)
    choice = rng.randint(_WORDS_PER_POLE, size=pole.shape)
    chosen = poles[np.arange(n_latents)[None, :, None], pole, choice].reshape(n_samples, -1)
    filled = fillers[rng.randint(_FILLERS, size=(n_samples, _FILLERS_PER_ROW))]
    rows = np.concatenate([chosen, filled], axis=1)
    return pd.Series([" ".join(rng.permutation(row)) for row in rows])


def _pictures(latents: np.ndarray, size: int, rng: np.random.RandomState) -> np.ndarray:
    """Pictures with a coloured blob, or coloured stripes, as bright as each latent is high."""
    n_samples, n_latents = latents.shape
    grid = (np.arange(size) + 0.5) / size
    x, y = np.meshgrid(grid, grid)
    patterns = np.zeros((n_latents, size, size, 3))
    for number in range(n_latents):
        if number % 2 == 0:
            left, top = rng.uniform(0.15, 0.85, size=2)
            shape = np.exp(-((x - left) ** 2 + (y - top) ** 2) / (2 * 0.15**2))
        else:
            angle, phase = rng.uniform(0, np.pi), rng.uniform(0, 2 * np.pi)
            along = x * np.cos(angle) + y * np.sin(angle)
            shape = 0.5 + 0.5 * np.sin(2 * np.pi * rng.uniform(1, 4) * along + phase)
        colour = rng.uniform(0.1, 1, size=3)
        patterns[number] = shape[..., None] * colour / colour.max()
    # So bright that all of them together just fit into a byte.
    brightest = patterns.sum(axis=0).max() if n_latents else 1.0
    light = np.tensordot(_amplitude(latents, 3.0), patterns * (215 / brightest), axes=1)
    noise = _PIXEL_NOISE * rng.standard_normal((n_samples, size, size, 3))
    return np.clip(np.rint(20 + light + noise), 0, 255).astype(np.uint8)


def _table(latents: np.ndarray, rng: np.random.RandomState) -> Cells:
    """Numbers and categories by turns, and one of each that shows nothing."""
    n_samples, n_latents = latents.shape
    shown = np.column_stack([latents, rng.standard_normal((n_samples, 2))])
    # The two useless columns must be one of each kind: their turns follow.
    cells: Cells = {}
    for number in range(n_latents + 2):
        kind, position = ("number", "category")[number % 2], number // 2
        values = shown[:, number]
        if kind == "number":
            scale, middle = 10 ** rng.uniform(-1, 2), rng.uniform(-10, 10)
            cells[f"number_{position}"] = pd.Series(scale * (values + middle))
        else:
            # Letters in a random order, so that their alphabet is no help.
            letters = rng.permutation(list("abcdefgh"))
            bins = np.digitize(values, _BIN_EDGES)
            column = pd.Categorical(letters[bins].tolist(), categories=sorted(letters.tolist()))
            cells[f"category_{position}"] = pd.Series(column)
    return dict(sorted(cells.items(), key=lambda item: item[0].startswith("category")))


def _vectors(latents: np.ndarray, rng: np.random.RandomState) -> pd.Series:
    """Embedding vectors: the latents turned into a space of 16 dimensions, or more."""
    n_samples, n_latents = latents.shape
    width = max(16, n_latents)
    basis, _ = np.linalg.qr(rng.standard_normal((width, width)))
    vectors = latents @ basis[:n_latents] + 0.05 * rng.standard_normal((n_samples, width))
    return _cell_column(vectors.astype(np.float32))


def _series(latents: np.ndarray, rng: np.random.RandomState) -> pd.Series:
    """Time series: waves of different frequencies, as strong as each latent is high."""
    n_samples, n_latents = latents.shape
    length = max(64, 4 * n_latents)
    frequencies = rng.permutation(np.arange(1, length // 2))[:n_latents, None]
    phases = rng.uniform(0, 2 * np.pi, size=(n_latents, 1))
    time = np.arange(length) / length
    waves = np.sin(2 * np.pi * frequencies * time + phases)  # (n_latents, length)
    series = _amplitude(latents, 3.0) @ waves + 0.1 * rng.standard_normal((n_samples, length))
    return _cell_column(series.astype(np.float32))


_SIMPLE: dict[str, Callable[[np.ndarray, np.random.RandomState], pd.Series]] = {
    "text": _texts,
    "vector": _vectors,
    "timeseries": _series,
}
KINDS = ("text", "image", "tabular", "vector", "timeseries")
