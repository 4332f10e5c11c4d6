"""Shapley values of the modalities, of the score and of each prediction."""

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

    The share of a modality is its Shapley value [1]_: the change that it causes when it is added
    to the modalities before it, averaged over all orders. The shares of the score sum to the
    score minus the score without any modality; those of a row sum to its prediction minus the
    prediction without any modality. The interaction of a pair [2]_ is positive if the two
    contribute more together than separately, and negative if they are redundant. Nothing is
    fitted, and frozen encoders encode each cell only once.

    Parameters
    ----------
    estimator : estimator
        Fitted: a fusion, or any estimator that contains one or a ``ColumnTransformer``, such as a
        pipeline or a search; with ``modalities`` as a dict any estimator of a frame.
    X : DataFrame of shape (n_samples, n_columns)
        Cells; any modality may be missing in any row. With ``removal="missing"`` its share in
        such a row is 0. Arrays are accepted too.
    y : array-like of shape (n_samples,) or (n_samples, n_targets), default=None
        Target. Without it only the predictions are divided, not the score.
    scoring : str or callable, default=None
        One metric, where higher is better. None uses the estimator's own ``score``.
    modalities : list of str or dict of str to columns, default=None
        Names of modalities of the estimator, or columns (as in ``ColumnTransformer``) under names
        of your choice: ``{"photo": ["front", "back"]}``. None uses all modalities of the
        estimator. Modalities that are not named are never removed.
    removal : {"auto", "missing", "permute"}, default="auto"
        How a modality is removed [3]_. ``"missing"`` sets its cells to missing, which every
        fusion accepts. ``"permute"`` replaces them by cells of other rows, which any estimator
        accepts. ``"auto"`` is ``"missing"`` for fusions that predict rows without any modality
        (``all_missing`` other than ``"raise"``), else ``"permute"``.
    background : DataFrame of shape (n_rows, n_columns), default=None
        Rows whose cells are the replacements, with the columns of ``X``; None uses the rows of
        ``X``. Used only with ``"permute"``.
    max_coalitions : int, default=256
        Maximum number of coalitions (sets of modalities) that are evaluated. If all of them fit,
        the shares are exact: up to 8 modalities with the default. Otherwise about this number of
        coalitions is sampled (see *Notes*).
    n_repeats : int, default=5
        Number of samples of replacing rows with ``"permute"``, over which scores and predictions
        are averaged.
    n_jobs : int, default=None
        Number of evaluations that run in parallel. The shares do not depend on it.
    random_state : int, RandomState instance or None, default=None
        Samples the replacing rows and the coalitions.

    Returns
    -------
    result : Bunch
        - ``score_values`` : Series indexed by modality, the shares of the score; None without
          ``y``;
        - ``interactions`` : DataFrame of shape (n_modalities, n_modalities), the interactions in
          the score, 0 on the diagonal; None without ``y``;
        - ``score``, ``base_score`` : float, the score with all modalities and without any; None
          without ``y``;
        - ``row_values`` : ndarray of shape (n_samples, n_modalities, n_outputs), the shares of
          each prediction: of the probability of each class in the order of ``classes``, or of the
          predicted value. For a classifier without probabilities, those of its
          ``decision_function``, or of its predicted class as 0 and 1;
        - ``row_interactions`` : ndarray of shape (n_samples, n_modalities, n_modalities,
          n_outputs), the interactions in each prediction;
        - ``predictions``, ``base_values`` : ndarray of shape (n_samples, n_outputs), the
          predictions with all modalities and without any;
        - ``modalities`` : list of str, the names in the order of the shares;
        - ``classes`` : ndarray of shape (n_classes,), None in regression;
        - ``exact`` : bool, whether all coalitions were evaluated;
        - ``removal`` : str, ``"missing"`` or ``"permute"``.

        For an estimator of several tasks at once, all entries about rows are None.

    Raises
    ------
    ValueError
        If a modality or column does not exist, if the estimator has no modalities and none are
        given, or with ``removal="missing"`` and a fusion that has ``all_missing="raise"``.

    See Also
    --------
    modality_importance : Decrease of the score when one modality is shuffled.
    fusion_report : Scores of the estimator fitted again without a modality.

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

    as for modalities in [4]_. Where there are too many coalitions, random orders are sampled, each
    with its reverse [5]_; the shares still add up. The orders are sampled in sets in which every
    pair of modalities is adjacent in one order, so that the interaction of every pair is
    estimated. The smallest number of coalitions is therefore about the square of the number of
    modalities.

    A share measures how this estimator uses a modality, not how much information the modality
    contains. Shares of a score are in the unit of the score. The base score of an accuracy is near
    the frequency of the largest class.

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
    The voice is more informative than the face, and the gait is uninformative:

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

    The share of each modality in the probability of class 1 of the first row:

    >>> result.row_values[0, :, 1].shape
    (3,)
    """
    if y is None:
        check_frame(X, function=_NAME)
    else:
        check_rows(X, y, function=_NAME)
    _check_options(X, y, scoring, background, max_coalitions, n_repeats)
    scorer = None if y is None else check_scorer(estimator, scoring, function=_NAME)
    # Predicted first, so that an estimator that is not fitted raises NotFittedError.
    answer = respond(estimator, X, function=_NAME)
    if answer is None and y is None:
        raise TypeError(
            f"{_NAME}: the predictions of {type(estimator).__name__} are not one table of numbers"
            " and cannot be divided row by row. Give y to divide the score."
        )
    columns = check_modalities(modalities, estimator, X, y, function=_NAME)
    random = check_random_state(random_state)
    remove = Removal.choose(
        removal, estimator, columns, X, background=background, n_repeats=n_repeats,
        random=random, function=_NAME,
    )  # fmt: skip
    coalitions = choose_coalitions(len(columns), int(max_coalitions), random)
    with warnings.catch_warnings():
        for name in columns:  # the modalities are removed on purpose
            message = re.escape(f"Modality {name!r}")
            warnings.filterwarnings("ignore", message=message, category=ModalityWarning)
        found = Parallel(n_jobs=n_jobs)(
            delayed(_evaluate)(estimator, X, y, scorer, remove, kept, answer is not None)
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
        raise ValueError(f"{_NAME}: scoring is given without y. Give both or neither.")
    if background is None:
        return
    if column_names(background) != column_names(X) or not n_rows(background):
        raise ValueError(
            f"{_NAME}: background must have at least one row and the columns of X,"
            f" {column_names(X)}, got {n_rows(background)} rows of {column_names(background)}."
        )


# --- Coalitions of modalities, and the weights that turn their values into shares ---
# Shares and interactions are weighted sums of the values of coalitions. The weights depend only on
# the number of modalities, so they are computed before anything is predicted.


class Coalitions(NamedTuple):
    """Coalitions, and the weights of their values.

    Attributes
    ----------
    members : ndarray of shape (n_coalitions, n_modalities), bool
        Which modalities are in each; the first is empty, the last one has all of them.
    shares : ndarray of shape (n_modalities, n_coalitions)
        Weights in the Shapley value of each modality.
    interactions : ndarray of shape (n_modalities, n_modalities, n_coalitions)
        Weights in the interaction of each pair; zero on the diagonal.
    exact : bool
        Whether these are all coalitions.
    """

    members: np.ndarray
    shares: np.ndarray
    interactions: np.ndarray
    exact: bool


def choose_coalitions(n: int, limit: int, random: np.random.RandomState) -> Coalitions:
    """Return all coalitions of ``n`` modalities, or a sample if there are more than ``limit``."""
    return all_coalitions(n) if 2**n <= limit else sampled_coalitions(n, limit, random)


def all_coalitions(n: int) -> Coalitions:
    """Return every coalition of ``n`` modalities."""
    members = (np.arange(2**n)[:, None] >> np.arange(n) & 1).astype(bool)
    sizes = members.sum(axis=1)
    # Probability that a modality is added to a given coalition of each size, over all orders.
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
    """Return the coalitions of random orders; at least two, at most about ``limit``.

    Orders are sampled in sets in which every pair of modalities is adjacent once, each order with
    its reverse. The interaction of a pair is estimated where the two are adjacent, and averaged
    over the coalitions before them.
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
    largest = 0  # number of coalitions that one set of orders has added
    while not n_sets or len(members) + largest <= limit:
        before = len(members)
        for order, apart in _orders_of_all_pairs(n, random):
            _walk(order, apart, place, shares, pairs)
            n_orders += 1
        n_sets += 1
        largest = max(largest, len(members) - before)
        if len(members) == 2**n:
            break
    # The full coalition comes last.
    at = np.argsort([who.all() for who in members], kind="stable")
    to = np.argsort(at)
    share_weights = np.zeros((n, len(members)))
    for i, c, weight in shares:
        share_weights[i, to[c]] += weight / n_orders
    pair_weights = np.zeros((n, n, len(members)))
    for i, j, c, weight in pairs:  # a set holds each pair twice, once in each direction
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
    """Add modalities in this order; ``apart`` is a step whose pair does not count, or -1."""
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
    """Return orders, each with its reverse, in which every pair is adjacent once.

    These are Walecki's zigzags, which split the complete graph of an even number of points into
    paths, over names in random order. For an odd number one point is added and removed again: its
    two neighbors are then adjacent a second time. That step is returned too, else -1. Those steps
    and their reverses are at each place of an order once, so that the steps that count are at all
    places equally often.
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


# --- Removing modalities from a frame, for an estimator that is fitted with all of them ---


class Removal:
    """Removes modalities from a frame.

    Parameters
    ----------
    kind : {"missing", "permute"}
        Whether their cells are made missing, or replaced by cells of other rows.
    columns : dict of str to list of int
        Positions of the columns of each modality.
    source : frame or None
        Rows whose cells are the replacements; None uses those of the frame itself.
    draws : ndarray of shape (n_draws, n_samples), int
        Row that replaces each row. It replaces all modalities that a row loses, so that the
        replacing cells belong together.
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
        """Check the options and choose what ``"auto"`` means."""
        if kind not in ("auto", "missing", "permute"):
            raise ValueError(
                f"{function}: removal must be 'auto', 'missing' or 'permute', got {kind!r}."
            )
        fusions = fusions_of(estimator)
        refusing = [f for f in fusions if getattr(f, "all_missing", None) == "raise"]
        if kind == "missing" and refusing:
            raise ValueError(
                f"{function}: removal='missing' needs predictions of rows without any modality,"
                f" which {type(refusing[0]).__name__} refuses with all_missing='raise'. Set its"
                " all_missing to the default, or use removal='permute'."
            )
        if kind == "auto":
            able = [getattr(f, "all_missing", "raise") != "raise" for f in fusions]
            kind = "missing" if able and all(able) else "permute"
        if kind == "missing":
            return cls(kind, columns, None, np.zeros((1, n_rows(X)), dtype=int))
        n_source = n_rows(X if background is None else background)
        if n_source < 2 and background is None:
            raise ValueError(
                f"{function}: removal='permute' replaces cells by those of other rows, and X has"
                " one row. Give such rows as background, such as X_train."
            )
        if background is not None:
            # Each row of the background is used once before any is used again.
            order = [random.permutation(n_source) for _ in range(n_repeats)]
            draws = np.stack([np.resize(o, n_rows(X)) for o in order])
        else:
            draws = np.stack([random.permutation(n_source) for _ in range(n_repeats)])
        return cls(kind, columns, background, draws)

    def __call__(self, X: Frame, kept: np.ndarray) -> list[Any]:
        """Return frames without some modalities, one for each draw.

        Parameters
        ----------
        X : frame
            All modalities.
        kept : ndarray of shape (n_modalities,), bool
            Which of them stay.

        Returns
        -------
        frames : list of frame
            The predictions for them are averaged.
        """
        lost = [p for own, k in zip(self.columns.values(), kept, strict=True) if not k for p in own]
        if not lost:
            return [X]
        if self.kind == "missing":
            return [remove_cells(X, lost, np.ones(n_rows(X), dtype=bool))]
        return [exchange_cells(X, lost, order, self.source) for order in self.draws]


# --- The score and predictions of each coalition, and the shares in them ---


def _evaluate(
    estimator: Estimator,
    X: Frame,
    y: ArrayLike | None,
    scorer: Callable[..., float] | None,
    remove: Removal,
    kept: np.ndarray,
    rows_too: bool,
) -> tuple[float, np.ndarray | None]:
    """Compute score and predictions with some modalities, averaged over the replacing rows."""
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
        error.add_note(f"In {_NAME}: {', '.join(out) or 'no modality'} was removed{way_out}.")
        raise
    return (
        float(np.mean(scores)) if scores else np.nan,
        np.mean(np.asarray(answers), axis=0) if answers else None,
    )


def _shares(
    names: list[str], coalitions: Coalitions, scores: np.ndarray | None, answers: np.ndarray | None
) -> dict[str, Any]:
    """Compute shares and interactions from the values of the coalitions.

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
