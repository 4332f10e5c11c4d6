"""Which modality asks and which one answers."""

from collections.abc import Sequence
from typing import Any

import numpy as np

__all__ = ["check_names", "check_pair", "present_rows"]


def check_names(
    asked: Sequence[str] | None, names: list[str], owner: str, *, parameter: str | None = None
) -> None:
    """Refuse what is not the name of a modality; ``parameter`` says where it was given."""
    for name in asked or ():
        if name not in names:
            known = ", ".join(map(repr, names))
            given = f"{owner}, {parameter}={name!r}" if parameter else owner
            raise ValueError(
                f"{given}: no modality {name!r}. The modalities of its alignment are {known}."
            )


def check_pair(
    source: str | None, target: str | None, names: list[str], owner: str
) -> tuple[str, str]:
    """Fill in what is left open of source and target, which only two modalities allow."""
    check_names([name for name in (source, target) if name is not None], names, owner)
    if source is not None and target is not None:
        return source, target
    if len(names) != 2:
        raise ValueError(
            f"{owner} needs source and target: which is meant is open among {len(names)}"
            f" modalities, {', '.join(map(repr, names))}."
        )
    first, second = names
    if source is None and target is None:
        return first, second
    if source is None:
        return (first if target == second else second), str(target)
    return source, (first if source == second else second)


def present_rows(vectors: Any) -> np.ndarray:
    """Return which rows have a vector, (n,) bool."""
    return ~np.isnan(vectors).any(axis=1)
