"""The triples of a fusion: what they mean, and which of them a frame calls for."""

from collections.abc import Collection
from typing import Any, NamedTuple

import numpy as np

from skmm._compose._default_encoder import default_encoder
from skmm._frame._column import Column, column_names, to_columns
from skmm._frame._modality import infer_modalities

__all__ = ["Modality", "is_predictor", "presence", "resolve_modalities"]


class Modality(NamedTuple):
    """One triple, with its columns and its middle made concrete."""

    name: str
    middle: Any  # an unfitted transformer, or "passthrough"
    columns: Any  # as take_columns takes them


def resolve_modalities(
    modalities: Any,
    X: Any,
    owner: str,
    *,
    reserved: Collection[str] = (),
    predictors: bool = False,
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
    reserved : collection of str, default=()
        Names of the owner's parameters: ``set_params`` could not tell a modality of that name
        from them.
    predictors : bool, default=False
        Whether a middle may be a predictor instead of a transformer.

    Returns
    -------
    resolved : list of Modality
        Without those that are dropped.
    """
    if isinstance(modalities, str):
        triples = _infer(X, owner)
    else:
        triples = _checked(modalities, owner, predictors)
        _check_names([name for name, _, _ in triples], owner, reserved)
    resolved = []
    for name, middle, columns in triples:
        if callable(columns):
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
        if not isinstance(name, str):
            raise ValueError(f"{owner}: {hint} with a str as name, got {name!r}.")
        usable = hasattr(middle, "fit") and hasattr(middle, "transform")
        if not isinstance(middle, str) and not usable and not (predictors and is_predictor(middle)):
            raise TypeError(
                f"{owner}: the transformer of modality {name!r} must have fit and transform, or"
                f" be 'drop', 'passthrough' or a modality's name; got {middle!r}."
            )
    return [tuple(triple) for triple in modalities]


def _check_names(names: list[str], owner: str, reserved: Collection[str]) -> None:
    for name in names:
        if not name or "__" in name:
            raise ValueError(
                f"{owner}: the name of a modality must not be empty nor hold '__', which stands"
                f" between the names of nested parameters; got {name!r}."
            )
        if name in reserved:
            raise ValueError(
                f"{owner}: a modality cannot be named {name!r}, for that is a parameter of"
                f" {owner}. Choose another name."
            )
        if names.count(name) > 1:
            raise ValueError(f"{owner}: the names of modalities must differ, got {name!r} twice.")


def is_predictor(middle: Any) -> bool:
    """Whether a middle predicts from the cells as they are, instead of transforming them."""
    predicts = hasattr(middle, "fit") and hasattr(middle, "predict")
    return predicts and not hasattr(middle, "transform")


def _infer(X: Any, owner: str) -> list[tuple[str, Any, Any]]:
    """One modality per column of cells, one for all columns of the table."""
    found = infer_modalities(X)
    kinds = list(found.values())
    if all(kind == "drop" for kind in kinds):
        # Constant columns say nothing, but a frame of one row has no others.
        kinds = ["drop" if column.missing.all() else "tabular" for column in to_columns(X)]
    if all(kind == "drop" for kind in kinds):
        raise ValueError(
            f"{owner} has nothing to learn from: every cell of X is missing. Give rows that have at"
            " least one modality."
        )
    # Columns by position: their names may be no text, or be absent in a later array.
    triples: list[tuple[str, Any, Any]] = []
    table = [position for position, kind in enumerate(kinds) if kind == "tabular"]
    for position, (name, kind) in enumerate(zip(found, kinds, strict=True)):
        if kind not in ("tabular", "drop"):
            triples.append((_free_name(name, triples), kind, [position]))
    if table:
        triples.append((_free_name("tabular", triples), "tabular", table))
    return triples


def _free_name(wanted: str, triples: list[tuple[str, Any, Any]]) -> str:
    while "__" in wanted:  # stands between the names of nested parameters
        wanted = wanted.replace("__", "_")
    wanted = wanted or "column"
    taken = {name for name, _, _ in triples}
    name, number = wanted, 2
    while name in taken:
        name, number = f"{wanted}_{number}", number + 1
    return name


def presence(columns: list[Column]) -> np.ndarray:
    """Return which rows have at least one cell that is not missing, (n_samples,) bool."""
    missing = columns[0].missing
    for column in columns[1:]:
        missing = missing & column.missing
    return ~missing
