"""The hidden truth of a made data set: which factor tells what, and who sees it.

A factor is a piece of the target. Its share is the part of the target's variance that
comes from it, its viewers are the modalities whose cells show it.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import combinations
from numbers import Integral, Real
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import ndtri

__all__ = [
    "Factor",
    "KINDS",
    "Latents",
    "PATTERNS",
    "check_choice",
    "check_integer",
    "check_rates",
    "check_real",
    "draw_latents",
    "draw_missing",
    "plan_factors",
    "show",
]

# --- Raw cells that show latent values: words, images, tables, vectors, series ---
# Every kind shows a latent linearly, as far as its cells can: a bag of words, the pixels,
# the numbers and dummies, the entries or the samples of the series give it back by a
# linear model. A latent is a column of unit variance.

_WORDS_PER_LATENT = 7  # odd: the majority tells the sign
_WORDS_PER_POLE = 4  # different words that say the same
_FILLERS = 20
_FILLERS_PER_ROW = 4
# Of a category column: eight bins of a standard normal latent, which keeps 0.97 of its variance.
_BIN_EDGES = ndtri(np.arange(1, 8) / 8)
_PIXEL_NOISE = 4.0  # gray levels

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
        Side of images, in pixels.
    rng : RandomState
        Draws the code (which word stands for what) and the noise of the cells.

    Returns
    -------
    cells : dict of str to Series
        The columns.
    """
    if kind == "image":
        return {name: _cell_column(_images(latents, image_size, rng))}
    if kind == "tabular":
        return {f"{name}_{column}": cells for column, cells in _table(latents, rng).items()}
    return {name: _SIMPLE[kind](latents, rng)}


def _cell_column(cells: list[np.ndarray] | np.ndarray) -> pd.Series:
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


def _images(latents: np.ndarray, size: int, rng: np.random.RandomState) -> np.ndarray:
    """Images with a colored blob, or colored stripes, as bright as each latent is high."""
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
        color = rng.uniform(0.1, 1, size=3)
        patterns[number] = shape[..., None] * color / color.max()
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

# --- Checks of the arguments that the functions of this folder share ---


def check_integer(
    function: str, name: str, value: object, low: int, high: int | None = None
) -> int:
    """An integer in a closed range, or an error that names the function and the parameter."""
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise TypeError(
            f"{function}: {name} must be an integer, got {value!r} ({type(value).__name__})."
        )
    number = int(value)
    if number < low or (high is not None and number > high):
        upper = "" if high is None else f" and at most {high}"
        raise ValueError(f"{function}: {name} must be at least {low}{upper}, got {number}.")
    return number


def check_real(
    function: str, name: str, value: object, low: float, high: float | None = None
) -> float:
    """A real number in a closed range, or an error that names the function and the parameter."""
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(
            f"{function}: {name} must be a number, got {value!r} ({type(value).__name__})."
        )
    number = float(value)
    # Written so that NaN fails too.
    if not (number >= low and (high is None or number <= high)) or number == float("inf"):
        range_ = f"at least {low:g}" if high is None else f"between {low:g} and {high:g}"
        raise ValueError(f"{function}: {name} must be {range_}, got {value}.")
    return number


def check_choice(function: str, name: str, value: object, choices: tuple[str, ...]) -> str:
    """One of some words, or an error that lists them."""
    if not isinstance(value, str) or value not in choices:
        listed = ", ".join(repr(choice) for choice in choices)
        raise ValueError(f"{function}: {name} must be one of {listed}, got {value!r}.")
    return value


# What a sum of decimal shares may miss 1 by is not a factor.
_NOTHING = 1e-9

Groups = float | Mapping[str | tuple[str, ...], float]


@dataclass(frozen=True)
class Factor:
    """A piece of the target: what it is, who sees it, and how much of the target it is."""

    kind: str
    viewers: tuple[str, ...]
    share: float


@dataclass(frozen=True)
class Latents:
    """Latent values of every row.

    Attributes
    ----------
    columns : dict of str to ndarray of shape (n_samples,)
        Every latent by its name.
    seen : dict of str to list of str
        Modality to the names of the latents that its cells show.
    scores : ndarray of shape (n_samples, n_outputs)
        The target before noise; every output has variance one.
    """

    columns: dict[str, np.ndarray]
    seen: dict[str, list[str]]
    scores: np.ndarray


def plan_factors(
    function: str,
    names: tuple[str, ...],
    *,
    redundant: float,
    shared: Groups,
    private: Groups | None,
    synergy: Groups,
) -> list[Factor]:
    """Check the shares and give the factors whose share is not zero.

    Parameters
    ----------
    function : str
        The function that asks, for errors.
    names : tuple of str
        The modalities.
    redundant, shared, private, synergy : float, mapping or None
        As in `make_multimodal_classification`.

    Returns
    -------
    factors : list of Factor
        Their shares sum to one.
    """
    redundant = check_real(function, "redundant", redundant, 0, 1)
    groups = {
        "redundant": {names: redundant},
        "shared": _by_group(function, "shared", shared, names, 2),
        "synergy": _by_group(function, "synergy", synergy, names, 2),
    }
    rest = 1 - sum(sum(group.values()) for group in groups.values())
    if private is None:
        private = max(rest, 0.0)
    groups["private"] = _by_group(function, "private", private, names, 1)
    total = 1 - rest + sum(groups["private"].values())
    if not np.isclose(total, 1):
        raise ValueError(
            f"{function}: redundant, shared, private and synergy must sum to 1, got {total:g}."
            " Lower one of them, or leave private=None, which takes what the others leave."
        )
    return [
        Factor(kind, viewers, share)
        for kind in ("redundant", "shared", "private", "synergy")
        for viewers, share in groups[kind].items()
        if share > _NOTHING
    ]


def _by_group(
    function: str, parameter: str, value: object, names: tuple[str, ...], size: int
) -> dict[tuple[str, ...], float]:
    """Share of each group of modalities; a number is split among all groups of one size."""
    if isinstance(value, Mapping):
        return _from_mapping(function, parameter, value, names, size)
    if not isinstance(value, Real):
        raise TypeError(
            f"{function}: {parameter} must be a number or a dict of modalities to numbers, got"
            f" {value!r}."
        )
    share = check_real(function, parameter, value, 0, 1)
    groups = list(combinations(names, size))
    if share > 0 and not groups:
        raise ValueError(
            f"{function}: {parameter}={share:g} needs at least {size} modalities, got"
            f" {len(names)}. Give its share to redundant or private."
        )
    return dict.fromkeys(groups, share / max(len(groups), 1))


def _from_mapping(
    function: str, parameter: str, value: Mapping[Any, Any], names: tuple[str, ...], size: int
) -> dict[tuple[str, ...], float]:
    """Share of each group that a mapping names, in the order of the modalities."""
    groups: dict[tuple[str, ...], float] = {}
    for key, share in value.items():
        members = (key,) if isinstance(key, str) else tuple(key)
        for name in members:
            if name not in names:
                raise ValueError(
                    f"{function}: {parameter} names the modality {name!r}, which is not one of"
                    f" {list(names)}."
                )
        viewers = tuple(name for name in names if name in members)
        fits = len(viewers) == 1 if size == 1 else len(viewers) >= size
        if not fits or viewers in groups:
            wanted = "one modality" if size == 1 else f"at least {size} modalities"
            raise ValueError(
                f"{function}: every key of {parameter} must name {wanted}, each group once, got"
                f" {key!r}."
            )
        groups[viewers] = check_real(function, f"{parameter}[{key!r}]", share, 0, 1)
    return groups


def draw_latents(
    factors: list[Factor],
    names: tuple[str, ...],
    n_samples: int,
    n_outputs: int,
    n_nuisance: int,
    rng: np.random.RandomState,
) -> Latents:
    """Draw the factors, the nuisance of every modality, and the scores that follow.

    A redundant, shared or private factor is a standard normal value per output. A
    factor of synergy is the product of signs, one in each viewer: any sign alone, and
    any group of them but all, says nothing about the product.
    """
    columns: dict[str, np.ndarray] = {}
    seen: dict[str, list[str]] = {name: [] for name in names}
    scores = np.zeros((n_samples, n_outputs))
    for factor in factors:
        # All see what is redundant: its name need not say who.
        viewers = () if factor.kind == "redundant" else factor.viewers
        stem = "_".join((factor.kind, *viewers))
        for output in range(n_outputs):
            if factor.kind == "synergy":
                value = np.ones(n_samples)
                for viewer in factor.viewers:
                    sign = rng.randint(2, size=n_samples) * 2.0 - 1
                    value = value * sign
                    columns[f"{stem}_{output}_in_{viewer}"] = sign
                    seen[viewer].append(f"{stem}_{output}_in_{viewer}")
            else:
                value = rng.standard_normal(n_samples)
                columns[f"{stem}_{output}"] = value
                for viewer in factor.viewers:
                    seen[viewer].append(f"{stem}_{output}")
            scores[:, output] += np.sqrt(factor.share) * value
    for name in names:
        for number in range(n_nuisance):
            columns[f"nuisance_{name}_{number}"] = rng.standard_normal(n_samples)
            seen[name].append(f"nuisance_{name}_{number}")
    return Latents(columns, seen, scores)


# --- Which cells of a made data set are missing ---

PATTERNS = ("random", "never_all", "train_complete", "dependent")

# Odds of being absent at the highest target over those at the lowest.
_LOG_ODDS = 3.0


def check_rates(
    function: str, missing_rate: object, names: tuple[str, ...], pattern: str
) -> np.ndarray:
    """Rate of every modality, (n_modalities,), from a number or a dict."""
    if isinstance(missing_rate, Mapping):
        for name in missing_rate:
            if name not in names:
                raise ValueError(
                    f"{function}: missing_rate names the modality {name!r}, which is not one of"
                    f" {list(names)}."
                )
        rates = [
            check_real(function, f"missing_rate[{name!r}]", missing_rate.get(name, 0.0), 0, 1)
            for name in names
        ]
    else:
        rates = [check_real(function, "missing_rate", missing_rate, 0, 1)] * len(names)
    if pattern == "never_all" and sum(rates) > len(names) - 1:
        raise ValueError(
            f"{function}: missing_pattern='never_all' leaves every row a cell, which needs rates"
            f" that sum to at most {len(names) - 1}, got {sum(rates):g}. Lower missing_rate, or take"
            " missing_pattern='random'."
        )
    return np.array(rates)


def draw_missing(
    pattern: str, rates: np.ndarray, y: np.ndarray, rng: np.random.RandomState
) -> np.ndarray:
    """Which modality is absent in which row.

    Parameters
    ----------
    pattern : str
        One of `PATTERNS`.
    rates : ndarray of shape (n_modalities,)
        Share of the rows in which a modality is absent.
    y : ndarray of shape (n_samples,) or (n_samples, n_targets)
        The target, on whose rank ``"dependent"`` depends (the first, of several).
    rng : RandomState
        Draws the rows.

    Returns
    -------
    absent : ndarray of bool, shape (n_samples, n_modalities)
        True where the modality is absent.
    """
    n_samples = len(y)
    may_lack = np.ones(n_samples, dtype=bool)
    log_odds = np.zeros(n_samples)
    if pattern == "train_complete":
        may_lack[: n_samples // 2] = False
    elif pattern == "dependent":
        log_odds = _LOG_ODDS * _rank(y if y.ndim == 1 else y[:, 0])
    absent = np.zeros((n_samples, len(rates)), dtype=bool)
    for column, rate in enumerate(rates):
        # The highest of log odds + Gumbel noise are a draw without replacement in which a
        # row's odds are what they should be, of exactly as many rows as asked for.
        keys = np.where(may_lack, log_odds + rng.gumbel(size=n_samples), -np.inf)
        n_absent = int(round(rate * may_lack.sum()))
        absent[np.argsort(-keys, kind="stable")[:n_absent], column] = True
    if pattern == "never_all":
        _spread(absent, rng)
    return absent


def _rank(y: np.ndarray) -> np.ndarray:
    """Rank of every value between 0 and 1; equal values share it."""
    values, places = np.unique(y, return_inverse=True)
    return places / max(len(values) - 1, 1)


def _spread(absent: np.ndarray, rng: np.random.RandomState) -> None:
    """Give every row that lacks all one cell back, taken from a row that has two or more.

    So the rate of every modality stays.
    """
    for row in rng.permutation(np.flatnonzero(absent.all(axis=1))):
        n_present = (~absent).sum(axis=1)
        for column in rng.permutation(absent.shape[1]):
            donors = np.flatnonzero(~absent[:, column] & (n_present >= 2))
            if len(donors):
                absent[rng.choice(donors), column] = True
                break
        # Without a donor, which rounded rates can bring about, the rate is missed by a row.
        absent[row, column] = False
