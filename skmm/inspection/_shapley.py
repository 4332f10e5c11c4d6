"""The score, and each prediction, divided among the modalities."""

import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from math import factorial
from numbers import Integral
from typing import Any, Literal, NamedTuple, Self

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from sklearn.utils import Bunch, check_random_state
from sklearn.utils.parallel import Parallel, delayed

from skmm._constraints import Estimator, RandomState, Scoring
from skmm._frame._column import column_names, n_rows
from skmm._frame._types import ColumnKey, Frame
from skmm.exceptions import ModalityWarning
from skmm.inspection._cell_edits import exchange_cells, remove_cells
from skmm.inspection._modalities import check_modalities, fusions_of
from skmm.inspection._validation import (
    check_frame,
    check_rows,
    check_scorer,
    respond,
    response_classes,
)

__all__ = [
    "Coalitions",
    "Removal",
    "all_coalitions",
    "choose_coalitions",
    "modality_shapley",
    "sampled_coalitions",
]


_NAME = "modality_shapley"


def modality_shapley(
    estimator: Estimator,
    X: Frame,
    y: ArrayLike | None = None,
    *,
    scoring: Scoring = None,
    modalities: Sequence[str] | Mapping[str, ColumnKey] | None = None,
    removal: Literal["auto", "missing", "permute"] = "auto",
    background: Frame | None = None,
    max_coalitions: int = 256,
    n_repeats: int = 5,
    n_jobs: int | None = None,
    random_state: RandomState = None,
) -> Bunch:
    r"""Divide the score of a fitted estimator, and each prediction, among the modalities.

    The modalities join a team one after the other, and each is credited with what its joining
    changes, the mean over all orders of joining [1]_. The shares add up: those of the score to the
    score less the score without any modality, those of a row to its prediction less the
    prediction without any. How the modalities work together is the interaction of each pair [2]_:
    above 0 they tell more together than one by one, below 0 they tell the same. Nothing is
    fitted, and frozen encoders encode no cell again.

    Parameters
    ----------
    estimator : estimator
        Fitted: a fusion, or any estimator that holds one or a ``ColumnTransformer``, such as a
        pipeline or a search; with ``modalities`` as a dict any estimator of a frame.
    X : DataFrame of shape (n_samples, n_columns)
        Cells; any row may lack any modality, whose share in that row is then 0 with
        ``removal="missing"``. Arrays are taken too.
    y : array-like of shape (n_samples,) or (n_samples, n_targets), default=None
        Target. Without it predictions alone are divided, and no score.
    scoring : str or callable, default=None
        One metric, higher is better. None is the estimator's own ``score``.
    modalities : list of str or dict of str to columns, default=None
        Names of modalities of the estimator, or columns (as in ``ColumnTransformer``) under names
        of your own: ``{"photo": ["front", "back"]}``. None takes all modalities of the estimator;
        those that are not named never leave.
    removal : {"auto", "missing", "permute"}, default="auto"
        What the estimator sees of a modality that is out [3]_. With ``"missing"`` its cells are
        missing, which every fusion takes. With ``"permute"`` cells of other rows replace
        it, which any estimator takes. ``"auto"`` is ``"missing"`` for fusions that answer rows
        that lack every modality (``all_missing="prior"``), else ``"permute"``.
    background : DataFrame of shape (n_rows, n_columns), default=None
        Rows whose cells replace them, with the columns of ``X``; None takes those of ``X``. Of
        ``"permute"`` alone.
    max_coalitions : int, default=256
        All coalitions of up to so many are asked for, which is exact: up to 8 modalities here.
        More are sampled (see *Notes*) till about so many were asked.
    n_repeats : int, default=5
        How often other rows are drawn with ``"permute"``. The mean counts.
    n_jobs : int, default=None
        Workers. They change no share.
    random_state : int, RandomState instance or None, default=None
        Samples the replacing rows and the coalitions.

    Returns
    -------
    result : Bunch
        - ``score_values`` : Series, share of the score of each modality, by its name; None
          without ``y``;
        - ``interactions`` : DataFrame of shape (n_modalities, n_modalities), of the score; 0 on
          the diagonal; None without ``y``;
        - ``score``, ``base_score`` : float, with all modalities and without any; None without
          ``y``;
        - ``row_values`` : ndarray of shape (n_samples, n_modalities, n_outputs), shares of each
          prediction: of the probability of each class in the order of ``classes``, or of the
          predicted value. ``decision_function`` takes the place of probabilities that a
          classifier does not have;
        - ``row_interactions`` : ndarray of shape (n_samples, n_modalities, n_modalities,
          n_outputs);
        - ``predictions``, ``base_values`` : ndarray of shape (n_samples, n_outputs), with all
          modalities and without any;
        - ``modalities`` : list of str;
        - ``classes`` : ndarray of shape (n_classes,), None in regression;
        - ``exact`` : bool, whether all coalitions were asked;
        - ``removal`` : str, ``"missing"`` or ``"permute"``.

        Of an estimator of several tasks at once all that concerns rows is None.

    Raises
    ------
    ValueError
        If a modality or column is not there, if the estimator has no modalities and none are
        given, or if ``removal="missing"`` meets a fusion with ``all_missing="raise"``.

    See Also
    --------
    modality_importance : What the score loses with each modality alone.
    fusion_report : What the estimator is without a modality, fitted again.

    Notes
    -----
    With :math:`v(S)` the score, or the prediction of a row, with the modalities :math:`S` out of
    all :math:`M`, the share of modality :math:`i` and the interaction of :math:`i` and :math:`j`
    are

    .. math::

        \phi_i &= \sum_{S \subseteq M \setminus i} \frac{|S|!\,(|M|-|S|-1)!}{|M|!}
            \left[v(S \cup i) - v(S)\right] \\
        I_{ij} &= \sum_{S \subseteq M \setminus ij} \frac{|S|!\,(|M|-|S|-2)!}{(|M|-1)!}
            \left[v(S \cup ij) - v(S \cup i) - v(S \cup j) + v(S)\right]

    as for modalities in [4]_. Where the coalitions are too many, random orders of joining are
    drawn, each with its reverse [5]_; the shares then still add up. They come in sets in which
    each pair joins side by side, so that the interaction of every pair is estimated: about the
    square of the number of modalities is the smallest number of coalitions.

    A share says what the estimator makes of a modality, not what could be made of it. Shares of
    a score are in its unit: with accuracies, the base is near the share of the largest class.

    References
    ----------
    .. [1] Shapley (1953), "A value for n-person games", Contributions to the Theory of Games II.
    .. [2] Grabisch and Roubens (1999), "An axiomatic approach to the concept of interaction among
       players in cooperative games", International Journal of Game Theory 28.
    .. [3] Covert, Lundberg and Lee (2021), "Explaining by removing: a unified framework for model
       explanation", JMLR 22.
    .. [4] Hu, Li and Zhou (2022), "SHAPE: an unified approach to evaluate the contribution and
       cooperation of individual modalities", IJCAI.
    .. [5] Mitchell, Cooper, Frank and Holmes (2022), "Sampling permutations for Shapley value
       estimation", JMLR 23.

    Examples
    --------
    The voice tells more than the face, the gait tells nothing:

    >>> from skmm import LateFusionClassifier
    >>> from skmm.datasets import make_multimodal_classification
    >>> from skmm.inspection import modality_shapley
    >>> X, y = make_multimodal_classification(
    ...     400, modalities={"voice": "vector", "face": "vector", "gait": "vector"},
    ...     redundant=0, private={"voice": 0.8, "face": 0.2}, random_state=0,
    ... )
    >>> model = LateFusionClassifier(
    ...     [(name, "passthrough", [name]) for name in ("voice", "face", "gait")]
    ... ).fit(X[:200], y[:200])
    >>> result = modality_shapley(model, X[200:], y[200:])
    >>> result.score_values.sort_values(ascending=False).index.tolist()
    ['voice', 'face', 'gait']
    >>> bool(abs(result.base_score + result.score_values.sum() - result.score) < 1e-9)
    True

    Of the first row's probability of class 1, a share for each modality:

    >>> result.row_values[0, :, 1].shape
    (3,)
    """
    if y is None:
        check_frame(X, function=_NAME)
    else:
        check_rows(X, y, function=_NAME)
    _check_options(X, y, scoring, background, max_coalitions, n_repeats)
    scorer = None if y is None else check_scorer(estimator, scoring, function=_NAME)
    # First of all, so that an estimator that is not fitted says so.
    answer = respond(estimator, X, function=_NAME)
    if answer is None and y is None:
        raise TypeError(
            f"{_NAME}: the answers of {type(estimator).__name__} are no one table of numbers, and"
            " cannot be divided row by row. Give y, and the score is divided."
        )
    columns = check_modalities(modalities, estimator, X, y, function=_NAME)
    random = check_random_state(random_state)
    remove = Removal.choose(
        removal, estimator, columns, X, background=background, n_repeats=n_repeats,
        random=random, function=_NAME,
    )  # fmt: skip
    coalitions = choose_coalitions(len(columns), int(max_coalitions), random)
    with warnings.catch_warnings():
        for name in columns:  # that it is away is what was asked for
            message = re.escape(f"Modality {name!r}")
            warnings.filterwarnings("ignore", message=message, category=ModalityWarning)
        found = Parallel(n_jobs=n_jobs)(
            delayed(_ask)(estimator, X, y, scorer, remove, kept, answer is not None)
            for kept in coalitions.members
        )
    scores = None if y is None else np.array([score for score, _ in found])
    answers = None if answer is None else np.array([own for _, own in found])
    result = _shares(list(columns), coalitions, scores, answers)
    classes = response_classes(estimator)
    return Bunch(**result, classes=classes, exact=coalitions.exact, removal=remove.kind)


def _check_options(
    X: Frame,
    y: object,
    scoring: object,
    background: Frame | None,
    max_coalitions: object,
    n_repeats: object,
) -> None:
    for name, value, least in (("max_coalitions", max_coalitions, 2), ("n_repeats", n_repeats, 1)):
        if not isinstance(value, Integral) or isinstance(value, bool) or value < least:
            raise ValueError(f"{_NAME}: {name} must be an int of at least {least}, got {value!r}.")
    if y is None and scoring is not None:
        raise ValueError(f"{_NAME}: scoring is given, but no y to score with. Give both or none.")
    if background is None:
        return
    if column_names(background) != column_names(X) or not n_rows(background):
        raise ValueError(
            f"{_NAME}: background must have rows, and the columns of X, {column_names(X)}, got"
            f" {n_rows(background)} rows of {column_names(background)}."
        )


# --- Which coalitions of modalities are asked, and how their values become shares ---
# Shares and interactions are weighted sums of the values of coalitions, with weights that depend on
# the number of modalities alone. So they are worked out before anything is predicted.


class Coalitions(NamedTuple):
    """Coalitions, and the weights of their values.

    Attributes
    ----------
    members : ndarray of shape (n_coalitions, n_modalities), bool
        Who is in; the first is empty and the last one has them all.
    shares : ndarray of shape (n_modalities, n_coalitions)
        Weights in the Shapley value of each modality.
    interactions : ndarray of shape (n_modalities, n_modalities, n_coalitions)
        Weights in the interaction of each pair; zero on the diagonal.
    exact : bool
        Whether all coalitions are there.
    """

    members: np.ndarray
    shares: np.ndarray
    interactions: np.ndarray
    exact: bool


def choose_coalitions(n: int, limit: int, random: np.random.RandomState) -> Coalitions:
    """Choose all coalitions of ``n`` modalities, or a sample if they are more than ``limit``."""
    return all_coalitions(n) if 2**n <= limit else sampled_coalitions(n, limit, random)


def all_coalitions(n: int) -> Coalitions:
    """Give every coalition of ``n`` modalities."""
    members = (np.arange(2**n)[:, None] >> np.arange(n) & 1).astype(bool)
    sizes = members.sum(axis=1)
    # Of a modality that joins a coalition of this size, over all orders of joining.
    joins = np.array([factorial(s) * factorial(n - s - 1) / factorial(n) for s in range(n)])
    shares = np.where(members.T, joins[np.maximum(sizes - 1, 0)], -joins[np.minimum(sizes, n - 1)])
    interactions = np.zeros((n, n, 2**n))
    if n > 1:
        pairs = np.array(
            [factorial(s) * factorial(n - s - 2) / factorial(n - 1) for s in range(n - 1)]
        )
        for i in range(n):
            for j in range(n):
                own = members[:, i].astype(int) + members[:, j]
                sign = np.where(own == 1, -1.0, 1.0)
                interactions[i, j] = (i != j) * sign * pairs[np.clip(sizes - own, 0, n - 2)]
    return Coalitions(members, shares, interactions, exact=True)


def sampled_coalitions(n: int, limit: int, random: np.random.RandomState) -> Coalitions:
    """Give those met in random orders of joining; at least two, about ``limit`` at most.

    Orders come in sets in which every pair of modalities stands side by side once, each order
    with its reverse. A pair that joins one after the other is what its interaction is made of: of
    those before it, in a random order, its weights are the average.
    """
    seen: dict[bytes, int] = {}
    members: list[np.ndarray] = []

    def place(who: np.ndarray) -> int:
        if who.tobytes() not in seen:
            seen[who.tobytes()] = len(members)
            members.append(who.copy())
        return seen[who.tobytes()]

    shares: list[tuple[int, int, float]] = []  # modality, coalition, weight
    pairs: list[tuple[int, int, int, float]] = []
    place(np.zeros(n, dtype=bool))
    n_orders = n_sets = 0
    largest = 0  # coalitions that a set has added
    while not n_sets or len(members) + largest <= limit:
        before = len(members)
        for order, apart in _orders_of_all_pairs(n, random):
            _walk(order, apart, place, shares, pairs)
            n_orders += 1
        n_sets += 1
        largest = max(largest, len(members) - before)
        if len(members) == 2**n:
            break
    # The full one last.
    at = np.argsort([who.all() for who in members], kind="stable")
    to = np.argsort(at)
    share_weights = np.zeros((n, len(members)))
    for i, c, weight in shares:
        share_weights[i, to[c]] += weight / n_orders
    pair_weights = np.zeros((n, n, len(members)))
    for i, j, c, weight in pairs:  # a pair is there twice in a set, once in each direction
        pair_weights[i, j, to[c]] += weight / (2 * n_sets)
        pair_weights[j, i, to[c]] += weight / (2 * n_sets)
    return Coalitions(np.array(members)[at], share_weights, pair_weights, exact=False)


def _walk(
    order: np.ndarray,
    apart: int,
    place: Callable[[np.ndarray], int],
    shares: list[tuple[int, int, float]],
    pairs: list[tuple[int, int, int, float]],
) -> None:
    """Let modalities join in this order; ``apart`` is a step whose pair does not count, or -1."""
    who = np.zeros(len(order), dtype=bool)
    for step, i in enumerate(order):
        without = place(who)
        if step + 1 < len(order) and step != apart:
            j = order[step + 1]
            who[j] = True
            other = place(who)
            who[i] = True
            both = place(who)
            who[j] = False
            for coalition, weight in (
                (without, 1.0),
                (other, -1.0),
                (place(who), -1.0),
                (both, 1.0),
            ):
                pairs.append((i, j, coalition, weight))
        who[i] = True
        shares += [(i, without, -1.0), (i, place(who), 1.0)]


def _orders_of_all_pairs(n: int, random: np.random.RandomState) -> list[tuple[np.ndarray, int]]:
    """Return orders, each with its reverse, in which every pair stands side by side once.

    These are Walecki's zigzags, which split the complete graph of an even number of points into
    paths, over names in random order. An odd number gets one point more, which is taken out
    again: the two beside it then stand side by side a second time, and the step is returned, else
    -1. Those steps and their reverses are each place in an order once, so that the steps that
    count are at all places equally often.
    """
    names = random.permutation(n)
    even = n + n % 2
    orders = []
    for k in range(even // 2):
        zigzag = [(k + (step + 1) // 2 * (1 if step % 2 else -1)) % even for step in range(even)]
        apart = -1
        if even > n:
            taken = zigzag.index(n)
            zigzag.remove(n)
            apart = taken - 1 if taken < n else -1
        order = names[zigzag]
        orders += [(order, apart), (order[::-1], n - 2 - apart if apart >= 0 else -1)]
    return orders


# --- Ways to take modalities from a frame, for an estimator that is fitted with all of them ---


class Removal:
    """Takes modalities from a frame.

    Parameters
    ----------
    kind : {"missing", "permute"}
        Whether their cells are made missing, or replaced by cells of other rows.
    columns : dict of str to list of int
        Positions of the columns of each modality.
    source : frame or None
        Rows whose cells replace them; None takes those of the frame itself.
    draws : ndarray of shape (n_draws, n_samples), int
        Which row replaces each. One row replaces all modalities that a row loses, so
        that the replacing cells belong together.
    """

    def __init__(
        self, kind: str, columns: dict[str, list[int]], source: Frame | None, draws: np.ndarray
    ):
        self.kind = kind
        self.columns = columns
        self.source = source
        self.draws = draws

    @classmethod
    def choose(
        cls,
        kind: object,
        estimator: Estimator,
        columns: dict[str, list[int]],
        X: Frame,
        *,
        background: Frame | None,
        n_repeats: int,
        random: np.random.RandomState,
        function: str,
    ) -> Self:
        """Check and complete what was asked for."""
        if kind not in ("auto", "missing", "permute"):
            raise ValueError(
                f"{function}: removal must be 'auto', 'missing' or 'permute', got {kind!r}."
            )
        fusions = fusions_of(estimator)
        refusing = [f for f in fusions if getattr(f, "all_missing", None) == "raise"]
        if kind == "missing" and refusing:
            raise ValueError(
                f"{function}: removal='missing' asks for rows that lack every modality, which"
                f" {type(refusing[0]).__name__} refuses. Set its all_missing='prior', or take"
                " removal='permute'."
            )
        if kind == "auto":
            able = [getattr(f, "all_missing", "raise") != "raise" for f in fusions]
            kind = "missing" if able and all(able) else "permute"
        if kind == "missing":
            return cls(kind, columns, None, np.zeros((1, n_rows(X)), dtype=int))
        n_source = n_rows(X if background is None else background)
        if n_source < 2 and background is None:
            raise ValueError(
                f"{function}: other rows have to replace its cells, and X has one row. Give rows"
                " whose cells may replace them as background, such as X_train."
            )
        if background is not None:
            # As far as there are enough, every row of the background once.
            order = [random.permutation(n_source) for _ in range(n_repeats)]
            draws = np.stack([np.resize(o, n_rows(X)) for o in order])
        else:
            draws = np.stack([random.permutation(n_source) for _ in range(n_repeats)])
        return cls(kind, columns, background, draws)

    def __call__(self, X: Frame, kept: np.ndarray) -> list[Any]:
        """Frames without some modalities: one for each draw.

        Parameters
        ----------
        X : frame
            All modalities.
        kept : ndarray of shape (n_modalities,), bool
            Which of them stay.

        Returns
        -------
        frames : list of frame
            Estimators are asked about each, and the mean of their answers is what counts.
        """
        lost = [p for own, k in zip(self.columns.values(), kept, strict=True) if not k for p in own]
        if not lost:
            return [X]
        if self.kind == "missing":
            return [remove_cells(X, lost, np.ones(n_rows(X), dtype=bool))]
        return [exchange_cells(X, lost, order, self.source) for order in self.draws]


# --- What the estimator says to each coalition, and the shares in that ---


def _ask(
    estimator: Estimator,
    X: Frame,
    y: ArrayLike | None,
    scorer: Callable[..., float] | None,
    remove: Removal,
    kept: np.ndarray,
    rows_too: bool,
) -> tuple[float, np.ndarray | None]:
    """Score and answer to each row with some modalities; means over the replacing rows."""
    scores, answers = [], []
    try:
        for frame in remove(X, kept):
            if scorer is not None:
                scores.append(float(scorer(estimator, frame, y)))
            if rows_too:
                answers.append(respond(estimator, frame, function=_NAME))
    except Exception as error:
        out = [name for name, k in zip(remove.columns, kept, strict=True) if not k]
        way_out = "; with removal='permute' no cell is missing" if remove.kind == "missing" else ""
        error.add_note(f"In {_NAME}: {', '.join(out) or 'no modality'} was out{way_out}.")
        raise
    return (
        float(np.mean(scores)) if scores else np.nan,
        np.mean(np.asarray(answers), axis=0) if answers else None,
    )


def _shares(
    names: list[str], coalitions: Coalitions, scores: np.ndarray | None, answers: np.ndarray | None
) -> dict[str, Any]:
    """Weigh the values of the coalitions.

    ``scores`` has shape (n_coalitions,), ``answers`` (n_coalitions, n_samples, n_outputs).
    """
    result: dict[str, Any] = {"modalities": names}
    index = pd.Index(names, name="modality")
    result |= dict.fromkeys(("score_values", "interactions", "score", "base_score"))
    if scores is not None:
        result["score_values"] = pd.Series(coalitions.shares @ scores, index=index, name="value")
        result["interactions"] = pd.DataFrame(
            coalitions.interactions @ scores, index=index, columns=pd.Index(names)
        )
        result |= {"score": float(scores[-1]), "base_score": float(scores[0])}
    result |= dict.fromkeys(("row_values", "row_interactions", "predictions", "base_values"))
    if answers is not None:
        result |= {
            "row_values": np.moveaxis(np.tensordot(coalitions.shares, answers, 1), 1, 0),
            "row_interactions": np.moveaxis(
                np.tensordot(coalitions.interactions, answers, 1), 2, 0
            ),
            "predictions": answers[-1],
            "base_values": answers[0],
        }
    return result
