"""The triples of a fusion: what they mean, and which of them a frame calls for."""

from typing import Any, NamedTuple

import numpy as np

from skmm._column import column_names, n_rows, to_columns
from skmm._modality import default_encoder, infer_modalities

__all__ = ["Modality", "presence", "resolve_modalities"]


class Modality(NamedTuple):
    """One triple, with its columns and its middle made concrete."""

    name: str
    middle: Any  # an unfitted transformer, or "passthrough"
    columns: Any  # as take_columns takes them


def resolve_modalities(
    modalities: Any, X: Any, owner: str, *, predictors: bool = False
) -> list[Modality]:
    """Check the triples against a frame and fill in what they leave open.

    Parameters
    ----------
    modalities : list of (name, transformer, columns), or "auto"
        As the fusions take them.
    X : DataFrame or ndarray of shape (n_samples, n_columns)
        Training frame.
    owner : str
        Class that asks, for messages.
    predictors : bool, default=False
        Whether a middle may be a predictor instead of a transformer.

    Returns
    -------
    resolved : list of Modality
        Without those that are dropped.
    """
    triples = _infer(X) if isinstance(modalities, str) else _checked(modalities, owner, predictors)
    resolved = []
    for name, middle, columns in triples:
        if callable(columns) and not isinstance(columns, type):
            columns = columns(X)
        if isinstance(middle, str) and middle == "drop":
            continue
        names = column_names(X, columns)  # raises for a column that is not there
        if not names:
            continue
        if isinstance(middle, str) and middle != "passthrough":
            middle = default_encoder(middle)
        resolved.append(Modality(name, middle, columns))
    if not resolved:
        raise ValueError(
            f"{owner} has no modality to fuse: every triple is dropped or selects no column."
            " Give at least one (name, transformer, columns)."
        )
    return resolved


def _checked(modalities: Any, owner: str, predictors: bool) -> list[tuple[str, Any, Any]]:
    """Refuse what is not a list of triples, by the position of the first that is not."""
    hint = "modalities must be 'auto' or a list of (name, transformer, columns)"
    if not isinstance(modalities, list | tuple) or not len(modalities):
        raise ValueError(f"{owner}: {hint}, got {modalities!r}.")
    for position, triple in enumerate(modalities):
        if not isinstance(triple, list | tuple) or len(triple) != 3:
            raise ValueError(f"{owner}: {hint}, got {triple!r} at position {position}.")
        name, middle, _ = triple
        if not isinstance(name, str) or "__" in name or not name:
            raise ValueError(
                f"{owner}: the name of a modality must be a str without '__', got {name!r}."
            )
        usable = hasattr(middle, "fit") and (
            hasattr(middle, "transform") or (predictors and hasattr(middle, "predict"))
        )
        if not isinstance(middle, str) and not usable:
            raise TypeError(
                f"{owner}: the transformer of modality {name!r} must have fit and transform, or"
                f" be 'drop', 'passthrough' or a modality's name; got {middle!r}."
            )
    names = [triple[0] for triple in modalities]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"{owner}: the names of modalities must differ, got {twice[0]!r} twice.")
    return [tuple(triple) for triple in modalities]  # type: ignore[misc]


def _infer(X: Any) -> list[tuple[str, Any, Any]]:
    """One modality per column of cells, one for all columns of the table."""
    found = infer_modalities(X)
    has_names = hasattr(X, "columns")
    keys = list(found) if has_names else list(range(len(found)))
    kinds = list(found.values())
    if all(kind == "drop" for kind in kinds):
        # Constant columns say nothing, but a frame of one row has no others.
        kinds = ["drop" if column.missing.all() else "tabular" for column in to_columns(X)]
    triples: list[tuple[str, Any, Any]] = []
    table = [key for key, kind in zip(keys, kinds, strict=True) if kind == "tabular"]
    for key, kind in zip(keys, kinds, strict=True):
        if kind not in ("tabular", "drop"):
            middle = "passthrough" if kind == "vector" else kind
            triples.append((_free_name(str(key), triples), middle, [key]))
    if table:
        triples.append((_free_name("tabular", triples), "tabular", table))
    return triples


def _free_name(wanted: str, triples: list[tuple[str, Any, Any]]) -> str:
    while "__" in wanted:  # would not be a name of nested parameters
        wanted = wanted.replace("__", "_")
    taken = {name for name, _, _ in triples}
    name, number = wanted, 2
    while name in taken:
        name, number = f"{wanted}_{number}", number + 1
    return name


def presence(X: Any) -> np.ndarray:
    """Return which rows have at least one cell that is not missing, (n_samples,) bool."""
    columns = to_columns(X)
    if not columns:
        return np.zeros(n_rows(X), dtype=bool)
    return ~np.all([column.missing for column in columns], axis=0)
