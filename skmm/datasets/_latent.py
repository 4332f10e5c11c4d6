"""The hidden truth of a made data set: which factor tells what, and who sees it.

A factor is a piece of the target. Its share is the part of the target's variance that
comes from it, its viewers are the modalities whose cells show it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations
from numbers import Real

import numpy as np

from skmm.datasets._check import check_real

__all__ = ["Factor", "Latents", "draw_latents", "plan_factors"]

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
    function: str, parameter: str, value: Mapping, names: tuple[str, ...], size: int
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
