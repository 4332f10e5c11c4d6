"""Latents of a synthetic data set, the cells that encode them, and the missing cells.

A factor is an additive part of the target. Its share is its part of the target's variance, and
its viewers are the modalities whose cells encode it.
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
    "sample_latents",
    "sample_missing",
    "plan_factors",
    "show",
]

# --- Raw cells that encode latents: words, images, tables, vectors, series ---
# A latent is a column of unit variance. Every kind encodes it about linearly: a linear model
# recovers it from word counts, pixels, numbers and dummy variables, entries of the vector or
# samples of the series.

_WORDS_PER_LATENT = 7  # odd: the majority is the sign
_WORDS_PER_POLE = 4  # synonyms
_FILLERS = 20
_FILLERS_PER_ROW = 4
# Categories are eight equally likely bins of a standard normal latent: 0.97 of its variance.
_BIN_EDGES = ndtri(np.arange(1, 8) / 8)
_PIXEL_NOISE = 4.0  # gray levels

Cells = dict[str, pd.Series]


def show(
    kind: str, name: str, latents: np.ndarray, image_size: int, rng: np.random.RandomState
) -> Cells:
    """Generate the cells of one modality.

    Parameters
    ----------
    kind : str
        One of `KINDS`.
    name : str
        Name of the modality: its column, or the prefix of its columns.
    latents : ndarray of shape (n_samples, n_latents)
        Latents to encode; n_latents may be 0.
    image_size : int
        Height and width of images, in pixels.
    rng : RandomState
        Source of the encoding (such as the words of a latent) and of the noise of the cells.

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
    """Return a column of arrays, each of which owns its values."""
    return pd.Series([np.array(cell) for cell in cells], dtype=object)


def _amplitude(latents: np.ndarray, reach: float) -> np.ndarray:
    """Map latents from [-reach, reach] to amplitudes in [0, 1]; values beyond are clipped."""
    return np.clip(0.5 + latents / (2 * reach), 0, 1)


def _vocabulary(n_words: int, rng: np.random.RandomState) -> np.ndarray:
    """Return distinct pronounceable words."""
    syllables = [consonant + vowel for consonant in "bdfgklmnprstvz" for vowel in "aeiou"]
    n_syllables = 2 if n_words <= len(syllables) ** 2 else 3
    numbers = rng.choice(len(syllables) ** n_syllables, size=n_words, replace=False)
    places = np.unravel_index(numbers, (len(syllables),) * n_syllables)
    return np.array(["".join(syllables[i] for i in word) for word in zip(*places, strict=True)])


def _texts(latents: np.ndarray, rng: np.random.RandomState) -> pd.Series:
    """Return texts with a fixed number of words for each latent.

    The number of words of the high pole grows with the latent. The other words are of the low
    pole, so that the length of a text is uninformative.
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
    """Return images with a colored blob or stripes for each latent, brighter the higher it is."""
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
    # The sum of all patterns just fits into a byte.
    brightest = patterns.sum(axis=0).max() if n_latents else 1.0
    light = np.tensordot(_amplitude(latents, 3.0), patterns * (215 / brightest), axes=1)
    noise = _PIXEL_NOISE * rng.standard_normal((n_samples, size, size, 3))
    return np.clip(np.rint(20 + light + noise), 0, 255).astype(np.uint8)


def _table(latents: np.ndarray, rng: np.random.RandomState) -> Cells:
    """Return numbers and categories in alternation, and an uninformative column of each kind."""
    n_samples, n_latents = latents.shape
    shown = np.column_stack([latents, rng.standard_normal((n_samples, 2))])
    # The kinds alternate, so the last two, uninformative columns are of different kinds.
    cells: Cells = {}
    for number in range(n_latents + 2):
        kind, position = ("number", "category")[number % 2], number // 2
        values = shown[:, number]
        if kind == "number":
            scale, middle = 10 ** rng.uniform(-1, 2), rng.uniform(-10, 10)
            cells[f"number_{position}"] = pd.Series(scale * (values + middle))
        else:
            # Letters in a random order: their alphabetical order is uninformative.
            letters = rng.permutation(list("abcdefgh"))
            bins = np.digitize(values, _BIN_EDGES)
            column = pd.Categorical(letters[bins].tolist(), categories=sorted(letters.tolist()))
            cells[f"category_{position}"] = pd.Series(column)
    return dict(sorted(cells.items(), key=lambda item: item[0].startswith("category")))


def _vectors(latents: np.ndarray, rng: np.random.RandomState) -> pd.Series:
    """Return embedding vectors: the latents rotated into a space of 16 or more dimensions."""
    n_samples, n_latents = latents.shape
    width = max(16, n_latents)
    basis, _ = np.linalg.qr(rng.standard_normal((width, width)))
    vectors = latents @ basis[:n_latents] + 0.05 * rng.standard_normal((n_samples, width))
    return _cell_column(vectors.astype(np.float32))


def _series(latents: np.ndarray, rng: np.random.RandomState) -> pd.Series:
    """Return time series: a sum of sine waves whose amplitudes encode the latents."""
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

# --- Checks of arguments, shared by the functions of this folder ---


def check_integer(
    function: str, name: str, value: object, low: int, high: int | None = None
) -> int:
    """Return an integer of a closed range; errors name the function and the parameter."""
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
    """Return a real number of a closed range; errors name the function and the parameter."""
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(
            f"{function}: {name} must be a number, got {value!r} ({type(value).__name__})."
        )
    number = float(value)
    # This form of the condition refuses NaN too.
    if not (number >= low and (high is None or number <= high)) or number == float("inf"):
        range_ = f"at least {low:g}" if high is None else f"between {low:g} and {high:g}"
        raise ValueError(f"{function}: {name} must be {range_}, got {value}.")
    return number


def check_choice(function: str, name: str, value: object, choices: tuple[str, ...]) -> str:
    """Return one of the choices; the error lists them."""
    if not isinstance(value, str) or value not in choices:
        listed = ", ".join(repr(choice) for choice in choices)
        raise ValueError(f"{function}: {name} must be one of {listed}, got {value!r}.")
    return value


# Shares below this are rounding errors of the sum, not factors.
_NOTHING = 1e-9

Groups = float | Mapping[str | tuple[str, ...], float]


@dataclass(frozen=True)
class Factor:
    """An additive part of the target: its kind, the modalities that encode it, its share."""

    kind: str
    viewers: tuple[str, ...]
    share: float


@dataclass(frozen=True)
class Latents:
    """Latents of every row.

    Attributes
    ----------
    columns : dict of str to ndarray of shape (n_samples,)
        Name of a latent to its values.
    seen : dict of str to list of str
        Modality to the names of the latents that its cells encode.
    scores : ndarray of shape (n_samples, n_outputs)
        Targets without noise; each output has variance 1.
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
    """Check the shares and return the factors whose share is not zero.

    Parameters
    ----------
    function : str
        Name of the calling function, for errors.
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
    """Return the share of each group of modalities; a float is split among groups of one size."""
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
    """Return the share of each group in a mapping, its members in the order of ``names``."""
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


def sample_latents(
    factors: list[Factor],
    names: tuple[str, ...],
    n_samples: int,
    n_outputs: int,
    n_nuisance: int,
    rng: np.random.RandomState,
) -> Latents:
    """Sample the factors and nuisance latents of every modality, and compute the scores.

    A redundant, shared or private factor is a standard normal value per output. A synergy
    factor is a product of random signs, one for each viewer. It is independent of any proper
    subset of the signs.
    """
    columns: dict[str, np.ndarray] = {}
    seen: dict[str, list[str]] = {name: [] for name in names}
    scores = np.zeros((n_samples, n_outputs))
    for factor in factors:
        # All modalities encode a redundant factor, so its name lists none.
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


# --- Missing cells of a synthetic data set ---

PATTERNS = ("random", "never_all", "train_complete", "dependent")

# Log of the ratio between the odds of being absent at the highest and at the lowest target.
_LOG_ODDS = 3.0


def check_rates(
    function: str, missing_rate: object, names: tuple[str, ...], pattern: str
) -> np.ndarray:
    """Return the rate of every modality, (n_modalities,), from a number or a dict."""
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
            f"{function}: missing_pattern='never_all' requires rates that sum to at most"
            f" {len(names) - 1}, got {sum(rates):g}. Lower missing_rate or set"
            " missing_pattern='random'."
        )
    return np.array(rates)


def sample_missing(
    pattern: str, rates: np.ndarray, y: np.ndarray, rng: np.random.RandomState
) -> np.ndarray:
    """Sample the rows in which each modality is absent.

    Parameters
    ----------
    pattern : str
        One of `PATTERNS`.
    rates : ndarray of shape (n_modalities,)
        Share of the rows in which a modality is absent.
    y : ndarray of shape (n_samples,) or (n_samples, n_targets)
        Targets; ``"dependent"`` uses the ranks of the first.
    rng : RandomState
        Source of the rows.

    Returns
    -------
    absent : ndarray of bool, shape (n_samples, n_modalities)
        True where the modality is absent.
    """
    n_samples = len(y)
    may_be_absent = np.ones(n_samples, dtype=bool)
    log_odds = np.zeros(n_samples)
    if pattern == "train_complete":
        may_be_absent[: n_samples // 2] = False
    elif pattern == "dependent":
        log_odds = _LOG_ODDS * _rank(y if y.ndim == 1 else y[:, 0])
    absent = np.zeros((n_samples, len(rates)), dtype=bool)
    for column, rate in enumerate(rates):
        # Gumbel top-k: the rows with the highest log odds + Gumbel noise are a sample without
        # replacement, weighted by the odds, of exactly n_absent rows.
        keys = np.where(may_be_absent, log_odds + rng.gumbel(size=n_samples), -np.inf)
        n_absent = int(round(rate * may_be_absent.sum()))
        absent[np.argsort(-keys, kind="stable")[:n_absent], column] = True
    if pattern == "never_all":
        _spread(absent, rng)
    return absent


def _rank(y: np.ndarray) -> np.ndarray:
    """Return the rank of every value, scaled to [0, 1]; equal values have equal ranks."""
    values, places = np.unique(y, return_inverse=True)
    return places / max(len(values) - 1, 1)


def _spread(absent: np.ndarray, rng: np.random.RandomState) -> None:
    """Restore a cell of every row without any, and remove one from a row with two or more.

    The rate of every modality is unchanged.
    """
    for row in rng.permutation(np.flatnonzero(absent.all(axis=1))):
        n_present = (~absent).sum(axis=1)
        for column in rng.permutation(absent.shape[1]):
            donors = np.flatnonzero(~absent[:, column] & (n_present >= 2))
            if len(donors):
                absent[rng.choice(donors), column] = True
                break
        # Rounded rates may leave no donor; the rate is then off by a row.
        absent[row, column] = False
