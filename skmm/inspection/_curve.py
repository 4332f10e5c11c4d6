"""The score while a modality is missing in more and more rows."""

import re
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from numbers import Integral, Real
from typing import Any, Literal, NamedTuple, cast

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.utils import check_random_state
from sklearn.utils.parallel import Parallel, delayed
from sklearn.utils.validation import check_is_fitted

from skmm._constraints import Estimator, RandomState, Scoring, Splits
from skmm._frame._column import take_rows
from skmm._frame._types import ColumnKey, Frame
from skmm.exceptions import ModalityWarning
from skmm.inspection._cell_edits import has_cells, remove_cells
from skmm.inspection._modalities import check_modalities
from skmm.inspection._validation import check_rows, check_scorer, make_splits

__all__ = ["missing_modality_curve"]

_NAME = "missing_modality_curve"


class _Loss(NamedTuple):
    """What is removed at a point of the table; equal for points that share a score."""

    modality: str
    fraction: float
    repeat: int


_NONE = _Loss("", 0.0, 0)  # nothing is removed


def missing_modality_curve(
    estimator: Estimator,
    X: Frame,
    y: ArrayLike,
    *,
    modalities: Sequence[str] | Mapping[str, ColumnKey] | None = None,
    fractions: Iterable[float] = (0.0, 0.25, 0.5, 0.75, 1.0),
    removal: str | Callable[[Any, Any], Any] = "random",
    when: Literal["test", "both"] = "test",
    cv: Splits = None,
    groups: ArrayLike | None = None,
    scoring: Scoring = None,
    n_repeats: int = 5,
    n_jobs: int | None = None,
    random_state: RandomState = None,
) -> pd.DataFrame:
    """Score an estimator while one modality at a time is removed from more and more rows.

    Removing a modality from a row sets its cells to missing. The rows that lose it at one
    fraction also lose it at every higher fraction, and they are the same for all modalities, so
    that the points of a curve can be compared.

    Parameters
    ----------
    estimator : estimator
        A fusion, or any estimator that contains one or a ``ColumnTransformer``, such as a
        pipeline or a search; with ``modalities`` as a dict any estimator of a frame. It must
        accept missing cells.
    X : DataFrame of shape (n_samples, n_columns)
        Cells; any modality may be missing in any row. Arrays are accepted too.
    y : array-like of shape (n_samples,) or (n_samples, n_targets)
        Target.
    modalities : list of str or dict of str to columns, default=None
        Names of modalities of the estimator, or columns (as in ``ColumnTransformer``) under names
        of your choice: ``{"photo": ["front", "back"]}``. None uses all modalities of the
        estimator. An unfitted fusion with ``modalities="auto"`` is fitted once to infer them.
    fractions : iterable of float, default=(0.0, 0.25, 0.5, 0.75, 1.0)
        Shares, from 0 to 1, of the rows with the modality from which it is removed.
    removal : "random" or callable, default="random"
        Which rows lose it first. A callable ``removal(X, y)`` returns one number for each row, of
        shape (n_samples,): rows with higher numbers lose the modality at lower fractions. Ties are
        broken at random.
    when : {"test", "both"}, default="test"
        Whether the modality is removed from the scored rows only, or from the training rows too,
        at the same fraction.
    cv : int, splitter or iterable, default=None
        Folds, as in ``cross_validate``. With None a fitted estimator is scored on ``X`` without
        fitting it again (``when="test"`` only); otherwise 5 folds are used.
    groups : array-like of shape (n_samples,), default=None
        Groups of the rows, for splitters that keep them together.
    scoring : str or callable, default=None
        One metric, where higher is better. None uses the estimator's own ``score``.
    n_repeats : int, default=5
        How often the rows are sampled.
    n_jobs : int, default=None
        Number of fits that run in parallel. The scores do not depend on it.
    random_state : int, RandomState instance or None, default=None
        Samples the rows. It does not seed the estimator.

    Returns
    -------
    curve : DataFrame
        A row for each modality, fraction, split and repeat, with the columns

        - ``modality``: str;
        - ``fraction``: float, an entry of ``fractions``;
        - ``split``: int, from 0;
        - ``repeat``: int, from 0. Where no row is sampled (fractions 0 and 1) the score is
          computed once and copied to every repeat;
        - ``missing``: float, the share of the scored rows without the modality, including those
          that never had it;
        - ``score``: float.

    Raises
    ------
    ValueError
        If a modality or column does not exist, if a fraction is not from 0 to 1, or if the
        estimator has no modalities and none are given.

    See Also
    --------
    fusion_report : Compare a fusion with subsets of its modalities.

    Notes
    -----
    A :class:`~skmm.exceptions.ModalityWarning` about a modality that was removed is not shown.

    Examples
    --------
    >>> from skmm import LateFusionClassifier
    >>> from skmm.datasets import make_multimodal_classification
    >>> from skmm.inspection import missing_modality_curve
    >>> X, y = make_multimodal_classification(
    ...     300, modalities={"voice": "vector", "face": "vector"},
    ...     redundant=0, private={"voice": 1.0}, random_state=0,
    ... )
    >>> model = LateFusionClassifier(
    ...     [("voice", "passthrough", ["voice"]), ("face", "passthrough", ["face"])]
    ... ).fit(X[:200], y[:200])
    >>> curve = missing_modality_curve(model, X[200:], y[200:], fractions=[0, 0.5, 1],
    ...                                random_state=0)
    >>> curve.pivot_table("score", "fraction", "modality").round(1)
    modality  face  voice
    fraction
    0.0        1.0    1.0
    0.5        1.0    0.8
    1.0        1.0    0.5
    """
    shares = _check_fractions(fractions)
    n = check_rows(X, y, function=_NAME)
    _check_options(removal, when, n_repeats)
    scorer = check_scorer(estimator, scoring, function=_NAME)
    columns = check_modalities(modalities, estimator, X, y, function=_NAME)
    prefit = cv is None and when == "test" and _is_fitted(estimator)
    everything = np.arange(n)
    splits = [(everything[:0], everything)] if prefit else make_splits(estimator, X, y, cv, groups)
    lost = _LostRows(X, y, columns, removal, n_repeats, random_state)

    points = [
        (split, _loss(name, share, repeat), (name, share, split, repeat))
        for name in columns
        for share in shares
        for split in range(len(splits))
        for repeat in range(n_repeats)
    ]
    work: dict[tuple[Any, ...], list[_Loss]] = {}  # what is scored with one fit
    for split, loss, _ in points:
        fit_key = (split, loss) if when == "both" or prefit else (split,)
        answers = work.setdefault(fit_key, [])
        if loss not in answers:
            answers.append(loss)
    with warnings.catch_warnings():
        for name in columns:
            # The message starts with the modality's name; see "Notes".
            message = re.escape(f"Modality {name!r}")
            warnings.filterwarnings("ignore", message=message, category=ModalityWarning)
        results = Parallel(n_jobs=n_jobs)(
            delayed(_answer)(
                estimator, X, y, splits[key[0]], lost, losses, scorer, when=when, prefit=prefit
            )
            for key, losses in work.items()
        )
    found = {
        (key[0], loss): answer
        for (key, losses), answers in zip(work.items(), results, strict=True)
        for loss, answer in zip(losses, answers, strict=True)
    }
    rows = []
    for split, loss, entry in points:
        missing, score = found[split, loss]
        if loss == _NONE:  # one score for all modalities, which may be missing in different rows
            missing = 1 - lost.present[entry[0]][splits[split][1]].mean()
        rows.append((*entry, float(missing), float(score)))
    return pd.DataFrame(
        rows, columns=["modality", "fraction", "split", "repeat", "missing", "score"]
    )


def _loss(modality: str, fraction: float, repeat: int) -> _Loss:
    if fraction == 0:
        return _NONE
    return _Loss(modality, fraction, 0 if fraction == 1 else repeat)


class _LostRows:
    """Determines which rows lose a modality.

    Attributes
    ----------
    columns : dict of str to list of int
        Positions of the columns of each modality.
    present : dict of str to ndarray of shape (n_samples,), bool
        Which rows have the modality.
    """

    def __init__(
        self,
        X: Frame,
        y: ArrayLike,
        columns: dict[str, list[int]],
        removal: str | Callable[[Any, Any], Any],
        n_repeats: int,
        random_state: RandomState,
    ):
        self.columns = columns
        self.present = {name: has_cells(X, own) for name, own in columns.items()}
        n = len(next(iter(self.present.values())))
        self._rank = _rank_by(removal, X, y, n) if callable(removal) else np.zeros(n)
        # Sampled once for all modalities, fractions and splits.
        self._chance = check_random_state(random_state).random_sample((n_repeats, n))

    def __call__(self, rows: np.ndarray, loss: _Loss) -> np.ndarray:
        """Return which of the rows lose the modality, (len(rows),) bool."""
        lost = np.zeros(len(rows), dtype=bool)
        if loss == _NONE:
            return lost
        able = np.flatnonzero(self.present[loss.modality][rows])
        of_all = rows[able]
        order = np.lexsort((self._chance[loss.repeat, of_all], -self._rank[of_all]))
        lost[able[order[: round(loss.fraction * len(able))]]] = True
        return lost


def _answer(
    estimator: Estimator,
    X: Frame,
    y: ArrayLike,
    split: tuple[np.ndarray, np.ndarray],
    lost: _LostRows,
    losses: list[_Loss],
    scorer: Callable[..., float],
    *,
    when: str,
    prefit: bool,
) -> list[tuple[float, float]]:
    """Fit unless fitted; return the share of missing cells and the score for each loss."""
    train, test = split
    answers = []
    model, X_test, y_test = estimator, take_rows(X, test), take_rows(y, test)
    # With "both" there is one loss, which the training rows share.
    in_training = losses[0] if when == "both" else _NONE
    loss = in_training
    try:
        if not prefit:
            own, y_train = take_rows(X, train), take_rows(y, train)
            model = clone(estimator).fit(_after(own, train, lost, in_training), y_train)
        for loss in losses:
            score = scorer(model, _after(X_test, test, lost, loss), y_test)
            missing = 0.0
            if loss != _NONE:
                missing = 1 - (lost.present[loss.modality][test] & ~lost(test, loss)).mean()
            answers.append((missing, score))
    except Exception as error:
        if loss != _NONE:
            error.add_note(
                f"In {_NAME}: modality {loss.modality!r} was set to missing in"
                f" {loss.fraction:.0%} of the rows that have it, which the estimator must"
                " accept."
            )
        raise
    return answers


def _after(X: Frame, rows: np.ndarray, lost: _LostRows, loss: _Loss) -> Any:
    if loss == _NONE:
        return X
    return remove_cells(X, lost.columns[loss.modality], lost(rows, loss))


def _rank_by(removal: Callable[[Any, Any], Any], X: Frame, y: ArrayLike, n: int) -> np.ndarray:
    rank = np.asarray(removal(X, y))
    if rank.shape != (n,) or rank.dtype.kind not in "biuf" or not np.isfinite(rank).all():
        raise ValueError(
            f"{_NAME}: removal(X, y) must return one finite number for each of the {n} rows, got"
            f" {rank.dtype} of shape {rank.shape}. The higher it is, the sooner the row loses the"
            " modality."
        )
    return rank.astype(float)


def _check_fractions(fractions: object) -> list[float]:
    given = list(fractions) if isinstance(fractions, Iterable) else [fractions]
    for share in given:
        if isinstance(share, bool) or not isinstance(share, Real) or not 0 <= float(share) <= 1:
            raise ValueError(
                f"{_NAME}: every entry of fractions must be a number from 0 to 1, got {share!r}."
            )
    if not given or len(set(given)) < len(given):
        raise ValueError(
            f"{_NAME}: fractions must hold at least one number and no duplicates, got {given!r}."
        )
    return [float(cast(float, share)) for share in given]


def _check_options(removal: object, when: object, n_repeats: object) -> None:
    if removal != "random" and not callable(removal):
        raise ValueError(f"{_NAME}: removal must be 'random' or a callable, got {removal!r}.")
    if when not in ("test", "both"):
        raise ValueError(f"{_NAME}: when must be 'test' or 'both', got {when!r}.")
    if not isinstance(n_repeats, Integral) or n_repeats < 1:
        raise ValueError(f"{_NAME}: n_repeats must be an int of at least 1, got {n_repeats!r}.")


def _is_fitted(estimator: Estimator) -> bool:
    try:
        check_is_fitted(estimator)
    except NotFittedError:
        return False
    return True
