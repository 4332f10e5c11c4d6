"""The modalities of an estimator, and the same estimator without some of them.

An estimator has modalities if it contains a fusion or a ``ColumnTransformer``, at any depth. Both
have (name, transformer, columns) triples and drop one with ``set_params(<name>="drop")``.
"""

import difflib
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from numpy.typing import ArrayLike
from sklearn.base import clone
from sklearn.compose import ColumnTransformer
from sklearn.pipeline import Pipeline

from skmm._constraints import Estimator
from skmm._frame._column import column_names
from skmm._frame._types import ColumnKey, Frame
from skmm.inspection._cell_edits import column_positions

__all__ = [
    "check_modalities",
    "columns_of_modality",
    "fusions_of",
    "keep_only",
    "transformer_of",
    "modality_columns",
    "with_triples",
]

_OF_TRIPLES = ("modalities", "transformers")  # the parameters that hold triples
_REMAINDER = "remainder"  # no transformer of a ColumnTransformer may have this name


def _sites(estimator: Estimator) -> dict[str, Any]:
    """Find the outermost parts with triples, by parameter name; "" is the estimator itself."""
    parts = {"": estimator, **estimator.get_params(deep=True)}
    found = {path: part for path, part in parts.items() if _has_triples(part)}
    return {
        path: part
        for path, part in found.items()
        if not any(path != other and path.startswith(other and f"{other}__") for other in found)
    }


def fusions_of(estimator: object) -> list[Any]:
    """Return the outermost fusions and ``ColumnTransformer`` parts of an estimator."""
    if not hasattr(estimator, "get_params"):
        return []
    fitted: Any = getattr(estimator, "best_estimator_", estimator)
    return list(_sites(fitted).values())


def transformer_of(estimator: object, modality: str) -> Any:
    """Return the transformer of a modality, None if there is no such modality.

    It is the fitted one if there is one, and the first step of a pipeline.
    """
    for site in fusions_of(estimator):
        attributes = ("transformers_", "modalities_", "transformers", "modalities")
        for triples in (getattr(site, name, None) for name in attributes):
            for triple in triples if isinstance(triples, list | tuple) else ():
                if isinstance(triple, list | tuple) and triple[0] == modality:
                    transformer = triple[1]
                    return transformer[0] if isinstance(transformer, Pipeline) else transformer
    return None


def _has_triples(part: object) -> bool:
    if isinstance(part, type) or not hasattr(part, "get_params"):
        return False
    return isinstance(part, ColumnTransformer) or "modalities" in part.get_params(deep=False)


def _triples(site: Any) -> list[tuple[str, Any, Any]]:
    triples: list[tuple[str, Any, Any]] = (
        site.transformers if isinstance(site, ColumnTransformer) else site.modalities
    )
    return triples


def _nested(path: str, name: str) -> str:
    return f"{path}__{name}" if path else name


def with_triples(estimator: Estimator, X: Frame, y: ArrayLike | None, *, function: str) -> Any:
    """Clone an estimator, with triples in place of every ``modalities="auto"``.

    An unfitted fusion is fitted for that, because only ``fit`` infers the modalities of a frame.

    Parameters
    ----------
    estimator : estimator
        Fitted or not.
    X, y : frame and target
        Training data of the estimator.
    function : str
        Name of the public function, for error messages.

    Returns
    -------
    estimator : estimator
        Not fitted.
    """
    if not hasattr(estimator, "get_params"):
        raise TypeError(f"{function}: estimator must be an estimator, got {estimator!r}.")
    written = clone(estimator)
    for path, site in _sites(estimator).items():
        if isinstance(site, ColumnTransformer) or not isinstance(site.modalities, str):
            continue
        fitted = site if hasattr(site, "modalities_") else clone(site).fit(X, y)
        names = column_names(X)
        triples = [
            # By position, because columns of an array have no names.
            (
                name,
                transformer if isinstance(transformer, str) else clone(transformer),
                _located(names, columns),
            )
            for name, transformer, columns in fitted.modalities_
        ]
        written.set_params(**{_nested(path, "modalities"): triples})
    return written


def _located(names: list[str], columns: object) -> Any:
    if isinstance(columns, list) and all(column in names for column in columns):
        return [names.index(column) for column in columns]
    return columns


def modality_columns(estimator: Estimator, X: Frame, *, function: str) -> dict[str, list[int]]:
    """Find the modalities of an estimator in a frame.

    Parameters
    ----------
    estimator : estimator
        Returned by :func:`with_triples`.
    X : DataFrame of shape (n_samples, n_columns)
        The frame.
    function : str
        Name of the public function, for error messages.

    Returns
    -------
    columns : dict of str to list of int
        Positions of the columns of each modality that is not dropped and has columns.
    """
    sites = _sites(estimator)
    if not sites:
        raise ValueError(
            f"{function}: {type(estimator).__name__} holds neither a fusion nor a"
            " ColumnTransformer, so it has no modalities. Put one into it, or name the columns,"
            " as in modalities={'photo': ['photo']}."
        )
    found = [_columns_of_site(site, X) for site in sites.values()]
    if any(other != found[0] for other in found):
        raise ValueError(
            f"{function}: {type(estimator).__name__} holds several fusions with different"
            f" modalities ({', '.join(map(repr, sites))}). Give each the same names and columns."
        )
    return found[0]


def _columns_of_site(site: Any, X: Frame) -> dict[str, list[int]]:
    taken = {name: column_positions(X, columns) for name, _, columns in _triples(site)}
    dropped = {name for name, transformer, _ in _triples(site) if _is_drop(transformer)}
    columns = {name: own for name, own in taken.items() if own and name not in dropped}
    if isinstance(site, ColumnTransformer) and not _is_drop(site.remainder):
        used = {position for own in taken.values() for position in own}
        rest = [p for p in range(len(column_names(X))) if p not in used]
        columns |= {_REMAINDER: rest} if rest else {}
    return columns


def _is_drop(transformer: object) -> bool:
    return isinstance(transformer, str) and transformer == "drop"


def check_modalities(
    modalities: Sequence[str] | Mapping[str, ColumnKey] | None,
    estimator: Estimator,
    X: Frame,
    y: ArrayLike | None,
    *,
    function: str,
) -> dict[str, list[int]]:
    """Return the columns of the requested modalities.

    Parameters
    ----------
    modalities : None, list of str or dict of str to columns
        All modalities of the estimator, some of them, or any columns under other names.
    estimator : estimator
        Fitted or not.
    X, y : frame and target
        Training data of the estimator.
    function : str
        Name of the public function, for error messages.

    Returns
    -------
    columns : dict of str to list of int
        Positions in ``X``.
    """
    if isinstance(modalities, Mapping):
        columns = {name: column_positions(X, key) for name, key in modalities.items()}
        empty = [name for name, own in columns.items() if not own]
        if empty or not columns:
            raise ValueError(
                f"{function}: modalities must name at least one modality with at least one column"
                f" each, got {modalities!r}."
            )
        return columns
    # Of a search the best estimator, because the one that it was given is not fitted.
    found = getattr(estimator, "best_estimator_", estimator)
    own = modality_columns(with_triples(found, X, y, function=function), X, function=function)
    if modalities is None:
        return own
    if isinstance(modalities, str) or not isinstance(modalities, Iterable):
        raise TypeError(
            f"{function}: modalities must be None, a list of names or a dict of names to columns,"
            f" got {modalities!r}."
        )
    for name in modalities:
        if name not in own:
            near = difflib.get_close_matches(str(name), own, n=1)
            hint = f": did you mean {near[0]!r}?" if near else "."
            raise ValueError(
                f"{function}: {type(estimator).__name__} has no modality {name!r}{hint} Its"
                f" modalities are {', '.join(map(repr, own))}."
            )
    if not list(modalities):
        raise ValueError(f"{function}: modalities is empty. Name one, or leave it out for all.")
    return {name: own[name] for name in modalities}


def columns_of_modality(
    estimator: Estimator, X: Frame, modality: str, *, function: str
) -> list[int]:
    """Return the columns of a modality, or else the one column of that name.

    Parameters
    ----------
    estimator : estimator
        Fitted.
    X : DataFrame of shape (n_samples, n_columns)
        The frame.
    modality : str
        Name of a modality, which takes precedence, or of a column.
    function : str
        Name of the public function, for error messages.

    Returns
    -------
    columns : list of int
        Positions in ``X``.
    """
    try:
        return check_modalities([modality], estimator, X, None, function=function)[modality]
    except ValueError:
        names = column_names(X)
        if names.count(modality) != 1:
            raise
        return [names.index(modality)]


def keep_only(estimator: Estimator, names: Collection[str]) -> Any:
    """Clone an estimator and drop all modalities except those given.

    Parameters
    ----------
    estimator : estimator
        Returned by :func:`with_triples`.
    names : collection of str
        Modalities to keep.

    Returns
    -------
    estimator : estimator
        Not fitted.
    """
    kept = clone(estimator)
    params: dict[str, Any] = {}
    for path, site in _sites(estimator).items():
        own = [name for name, _, _ in _triples(site)]
        if isinstance(site, ColumnTransformer):
            own.append(_REMAINDER)
        params |= {_nested(path, name): "drop" for name in own if name not in names}
    params |= _grids_without(kept, list(params))
    return kept.set_params(**params) if params else kept


def _grids_without(estimator: Estimator, dropped: list[str]) -> dict[str, Any]:
    """Return the grids of the searches without parameters that would restore dropped modalities."""
    grids = {}
    for path, value in estimator.get_params(deep=True).items():
        owner, _, parameter = path.rpartition("__")
        if parameter not in ("param_grid", "param_distributions"):
            continue
        searched = _nested(owner, "estimator")
        grids[path] = (
            _less(value, searched, dropped)
            if isinstance(value, Mapping)
            else [_less(grid, searched, dropped) for grid in value]
        )
    return grids


def _less(grid: Mapping[str, Any], searched: str, dropped: list[str]) -> dict[str, Any]:
    kept = {}
    for key, values in grid.items():
        path = f"{searched}__{key}"
        if any(d == path or path.startswith(f"{d}__") for d in dropped):
            continue  # a parameter of a dropped modality
        owners = [d.rpartition("__")[0] for d in dropped]
        exchanged = {*owners, *(_nested(o, p) for o in owners for p in _OF_TRIPLES)}
        if any(part == path or part.startswith(f"{path}__") for part in exchanged):
            raise ValueError(
                f"fusion_report: the search replaces {key!r}, and with it the modalities, so that"
                " none can be left out. Report on one fusion at a time."
            )
        kept[key] = values
    return kept
