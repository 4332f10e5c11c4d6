"""Puts a made data set together: arguments, latents, target, cells, gaps."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from sklearn.utils import Bunch, check_random_state

from skmm.datasets._cells import KINDS, show
from skmm.datasets._check import check_choice, check_integer, check_real
from skmm.datasets._latent import Factor, Latents, draw_latents, plan_factors
from skmm.datasets._missing import PATTERNS, check_rates, draw_missing

__all__ = ["Modalities", "build_dataset"]

Modalities = Sequence[str] | Mapping[str, str]


def build_dataset(
    function: str,
    n_samples: int,
    modalities: Modalities,
    *,
    n_outputs: int,
    is_classification: bool,
    shares: dict,
    n_nuisance: int,
    noise: float | Mapping[str, float],
    target_noise: float,
    missing: float | Mapping[str, float],
    missing_pattern: str,
    image_size: int,
    random_state: int | np.random.RandomState | None,
) -> Bunch:
    """Check the arguments, draw latents, target, gaps and cells, and put them together.

    The parameters are those of `make_multimodal_classification`; ``n_outputs`` is the number
    of scores, ``shares`` holds the arguments of `plan_factors`.
    """
    n_samples = check_integer(function, "n_samples", n_samples, 1)
    n_nuisance = check_integer(function, "n_nuisance", n_nuisance, 0)
    image_size = check_integer(function, "image_size", image_size, 4, 512)
    target_noise = check_real(function, "target_noise", target_noise, 0)
    check_choice(function, "missing_pattern", missing_pattern, PATTERNS)
    kinds = _check_modalities(function, modalities)
    names = tuple(kinds)
    factors = plan_factors(function, names, **shares)
    noises = _check_noise(function, noise, names)
    rates = check_rates(function, missing, names, missing_pattern)

    # A generator for each part: what one part draws does not shift the others.
    seeds = check_random_state(random_state).randint(2**31 - 1, size=3 + len(names))
    streams = [np.random.RandomState(seed) for seed in seeds]
    latents = draw_latents(factors, names, n_samples, n_outputs, n_nuisance, streams[0])
    y = latents.scores + target_noise * streams[1].standard_normal(latents.scores.shape)
    if is_classification:
        y = (y[:, 0] > 0).astype(int) if n_outputs == 1 else y.argmax(axis=1)
    elif n_outputs == 1:
        y = y[:, 0]
    absent = draw_missing(missing_pattern, rates, y, streams[2])

    cells: dict[str, pd.Series] = {}
    columns: dict[str, list[str]] = {}
    for position, (name, kind) in enumerate(kinds.items()):
        view = _view(latents, name, noises[name], streams[3 + position])
        shown = show(kind, name, view, image_size, streams[3 + position])
        columns[name] = list(shown)
        for column, values in shown.items():
            if column in cells:
                raise ValueError(
                    f"{function}: two modalities make the column {column!r}. Give one of them"
                    " another name."
                )
            values.iloc[np.flatnonzero(absent[:, position])] = None  # NaN, in a column of numbers
            cells[column] = values
    return _bunch(kinds, pd.DataFrame(cells), y, columns, latents, factors, absent)


def _check_modalities(function: str, modalities: object) -> dict[str, str]:
    """Names and kinds of the modalities, in order."""
    if isinstance(modalities, str) or not isinstance(modalities, Mapping | Sequence):
        raise TypeError(
            f"{function}: modalities must be a sequence of kinds or a dict of names to kinds, got"
            f" {modalities!r}."
        )
    if not modalities:
        raise ValueError(f"{function}: modalities is empty. Name at least one of {list(KINDS)}.")
    if isinstance(modalities, Mapping):
        kinds = dict(modalities)
    else:
        kinds = {kind: kind for kind in modalities}
        if len(kinds) < len(modalities):
            raise ValueError(
                f"{function}: modalities names a kind twice, got {list(modalities)}. Two of a kind"
                " need names: {'title': 'text', 'review': 'text'}."
            )
    for name, kind in kinds.items():
        if not isinstance(name, str):
            raise TypeError(f"{function}: names of modalities must be str, got {name!r}.")
        check_choice(function, f"the kind of modality {name!r}", kind, KINDS)
    return kinds


def _check_noise(function: str, noise: object, names: tuple[str, ...]) -> dict[str, float]:
    """Noise of every modality."""
    if not isinstance(noise, Mapping):
        return dict.fromkeys(names, check_real(function, "noise", noise, 0))
    for name in noise:
        if name not in names:
            raise ValueError(
                f"{function}: noise names the modality {name!r}, which is not one of {list(names)}."
            )
    return {
        name: check_real(function, f"noise[{name!r}]", noise.get(name, 0.0), 0) for name in names
    }


def _view(latents: Latents, name: str, noise: float, rng: np.random.RandomState) -> np.ndarray:
    """What a modality sees: its latents with its noise, of unit variance again."""
    n_samples = len(latents.scores)
    seen = [latents.columns[column] for column in latents.seen[name]]
    view = np.column_stack(seen) if seen else np.empty((n_samples, 0))
    return (view + noise * rng.standard_normal(view.shape)) / np.sqrt(1 + noise**2)


def _bunch(
    kinds: dict[str, str],
    X: pd.DataFrame,
    y: np.ndarray,
    columns: dict[str, list[str]],
    latents: Latents,
    factors: list[Factor],
    absent: np.ndarray,
) -> Bunch:
    """All that is known about the data set."""
    targets = ["target"] if y.ndim == 1 else [f"target_{i}" for i in range(y.shape[1])]
    return Bunch(
        data=X,
        target=y,
        frame=pd.concat([X, pd.DataFrame(y, columns=targets, index=X.index)], axis=1),
        feature_names=list(X.columns),
        modalities={column: kinds[name] for name in kinds for column in columns[name]},
        columns=columns,
        latent=pd.DataFrame(latents.columns),
        seen=latents.seen,
        information={
            name: sum(f.share for f in factors if name in f.viewers and f.kind != "synergy")
            for name in kinds
        },
        scores=latents.scores,
        absent=pd.DataFrame(absent, columns=list(kinds)),
    )
