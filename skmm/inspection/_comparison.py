"""Result of the comparison of a fusion with its modalities, and its statistics."""

import html
from collections import Counter
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy import stats

__all__ = [
    "Comparison",
    "FusionReport",
    "compare",
    "holm",
]


_NOTHING = 1e-12  # largest difference of equal scores after rounding
_INSIDE = "best single"  # the modality that a user without fusion would have chosen


class FusionReport:
    """Scores of a fusion, of each modality alone and of subsets, on the same folds.

    Returned by :func:`fusion_report`. Its representation, as text or in a notebook, is the verdict
    and a table.

    Parameters
    ----------
    scores : DataFrame
        Scores of each estimator and split, with the columns of ``scores_``.
    test_per_train : float
        Number of test rows divided by the number of training rows, averaged over the splits.
    score_name : str, default="score"
        Name of the metric in the texts.
    confidence_level : float, default=0.95
        Confidence level of the intervals.

    Attributes
    ----------
    scores_ : DataFrame
        A row for each estimator and split: ``kind`` (``"fused"``, ``"best single"``,
        ``"single"`` or ``"subset"``), ``modalities`` (joined by ``" + "``), ``n_modalities``,
        ``split``, ``score``, ``fit_seconds`` and ``score_seconds``.
    differences_ : DataFrame
        A row for each estimator except the fused one: ``kind``, ``modalities``, ``difference``
        (score of the fused one minus that of this one, averaged over the splits), ``lower`` and
        ``upper`` (corrected interval), ``p_value`` and ``p_holm`` (adjusted for all rows except
        ``"best single"``, which is the main comparison of the report).
    summary_ : DataFrame
        A row for each estimator: ``kind``, ``modalities``, ``n_modalities``, ``score`` and
        ``deviation`` (mean and standard deviation over the splits), ``fit_seconds`` and
        ``score_seconds`` (medians over the splits).
    against_best_ : Series
        The row ``"best single"`` of ``differences_``.
    pays_ : bool
        Whether the interval of the difference to the best single modality lies above 0.
    verdict_ : str
        The result in words.

    See Also
    --------
    fusion_report : Compute the report.

    Examples
    --------
    >>> import pandas as pd
    >>> from skmm.inspection import FusionReport
    >>> kinds = {"single": ["a", "b"], "best single": ["a"], "fused": ["a + b"]}
    >>> scores = pd.DataFrame([
    ...     (kind, name, name.count("+") + 1, split, 0.5 + 0.3 * (kind == "fused") + split / 50)
    ...     for kind, names in kinds.items() for name in names for split in range(3)
    ... ], columns=["kind", "modalities", "n_modalities", "split", "score"])
    >>> scores[["fit_seconds", "score_seconds"]] = 0.1
    >>> FusionReport(scores, test_per_train=0.5).pays_
    True
    """

    def __init__(
        self,
        scores: pd.DataFrame,
        *,
        test_per_train: float,
        score_name: str = "score",
        confidence_level: float = 0.95,
    ):
        self.test_per_train = test_per_train
        self.score_name = score_name
        self.confidence_level = confidence_level
        self.scores_ = scores
        self.summary_ = _summary(scores)
        self.differences_ = _differences(scores, test_per_train, confidence_level)
        own = self.differences_["kind"] == _INSIDE
        self.against_best_ = self.differences_[own].iloc[0]
        self.pays_ = bool(self.against_best_["lower"] > 0)
        self.verdict_ = " ".join([self._judgment(), *self._idle_modalities()])

    def _judgment(self) -> str:
        best = self.against_best_
        if self.pays_:
            opening = "Fusion pays"
        elif best["upper"] < 0:
            opening = "Fusion does harm"
        else:
            opening = "Fusion is not shown to pay"
        mean = self.summary_.set_index("kind")["score"]
        return (
            f"{opening}: {self.score_name} {mean['fused']:.3f}, against {mean[_INSIDE]:.3f} of the"
            f" best single modality ({self._chosen()}). The difference is"
            f" {best['difference']:+.3f}, its {self.confidence_level:.0%} interval"
            f" {best['lower']:+.3f} to {best['upper']:+.3f}."
        )

    def _chosen(self) -> str:
        """Return which modality was chosen, and how often."""
        chosen = self.scores_.loc[self.scores_["kind"] == _INSIDE, "modalities"]
        counts = Counter(chosen).most_common()
        if len(counts) == 1:
            return str(counts[0][0])
        parts = ", ".join(f"{name} in {count}" for name, count in counts)
        return f"{parts} of {len(chosen)} splits"

    def _idle_modalities(self) -> list[str]:
        """Name the modalities that can be left out without a measurable loss."""
        alone = self.scores_.loc[self.scores_["kind"] == "single", "modalities"]
        names = list(alone.unique())
        rest = {" + ".join(n for n in names if n != name): name for name in names}
        found = self.differences_[self.differences_["kind"].isin(["single", "subset"])]
        idle = [
            rest[row["modalities"]]
            for _, row in found.iterrows()
            if row["modalities"] in rest and row["lower"] <= 0
        ]
        if not idle:
            return []
        if len(idle) == 1:
            return [f"Nothing is shown to be lost without {idle[0]}."]
        listed = ", ".join(sorted(idle, key=names.index))
        return [f"Left out one at a time, none of these is shown to be missed: {listed}."]

    def _table(self) -> pd.DataFrame:
        """Return summary and differences as one table of texts."""
        table = self.summary_.merge(self.differences_, on=["kind", "modalities"], how="left")
        interval = [
            "" if pd.isna(row["difference"]) else "{difference:+.3f} [{lower:+.3f}, {upper:+.3f}]"
            .format(**row)
            for _, row in table.iterrows()
        ]  # fmt: skip
        return pd.DataFrame(
            {
                "": table["kind"],
                "modalities": table["modalities"],
                self.score_name: table["score"].map("{:.3f}".format),
                "fused less this": interval,
                "fit (s)": table["fit_seconds"].map("{:.3g}".format),
            }
        )

    def __repr__(self) -> str:
        return f"{self.verdict_}\n\n{self._table().to_string(index=False)}"

    def _repr_html_(self) -> str:
        table = self._table().to_html(index=False, escape=True)
        return f"<p>{html.escape(self.verdict_)}</p>\n{table}"


def _summary(scores: pd.DataFrame) -> pd.DataFrame:
    # The procedure "best single" may have chosen another modality in each split: one row.
    by = scores.assign(
        modalities=scores["modalities"].where(scores["kind"] != _INSIDE, "chosen inside")
    ).groupby(["kind", "modalities"], sort=False)
    summary = by.agg(
        n_modalities=("n_modalities", "first"),
        score=("score", "mean"),
        deviation=("score", "std"),
        fit_seconds=("fit_seconds", "median"),
        score_seconds=("score_seconds", "median"),
    ).reset_index()
    order = {"fused": 0, _INSIDE: 1, "single": 2, "subset": 3}
    return summary.sort_values(
        ["kind", "n_modalities"], key=lambda s: s.map(order) if s.name == "kind" else s,
        kind="stable", ignore_index=True,
    )  # fmt: skip


def _differences(
    scores: pd.DataFrame, test_per_train: float, confidence_level: float
) -> pd.DataFrame:
    by_split = scores.assign(
        modalities=scores["modalities"].where(scores["kind"] != _INSIDE, "chosen inside")
    ).pivot_table("score", "split", ["kind", "modalities"], sort=False)
    fused = by_split["fused"].to_numpy()[:, 0]
    rows = []
    for kind, modalities in _summary(scores)[["kind", "modalities"]].itertuples(index=False):
        if kind != "fused":
            differences = fused - by_split[kind, modalities].to_numpy()
            comparison = compare(differences, test_per_train, confidence_level=confidence_level)
            rows.append((kind, modalities, *comparison))
    table = pd.DataFrame(
        rows, columns=["kind", "modalities", "difference", "lower", "upper", "p_value"]
    )
    many = (table["kind"] != _INSIDE).to_numpy()
    table["p_holm"] = table["p_value"]
    table.loc[many, "p_holm"] = holm(table.loc[many, "p_value"].to_numpy())
    return table


# --- Statistics of scores on the same folds: corrected interval, multiple comparisons ---


class Comparison(NamedTuple):
    """Mean of paired differences, its interval, and the p-value of the difference zero."""

    difference: float
    lower: float
    upper: float
    p_value: float


def compare(
    differences: np.ndarray, test_per_train: float, *, confidence_level: float = 0.95
) -> Comparison:
    """Compute the corrected resampled t-test of Nadeau and Bengio.

    The training sets of the splits overlap, so their scores vary less than scores on independent
    samples: the variance of the mean is estimated as ``1 / n_splits + n_test / n_train`` times
    that of the differences, instead of ``1 / n_splits`` times.

    Parameters
    ----------
    differences : ndarray of shape (n_splits,)
        Score of one estimator minus that of another, on the same split.
    test_per_train : float
        Number of test rows divided by the number of training rows; 0 for the uncorrected test.
    confidence_level : float, default=0.95
        Of the interval.

    Returns
    -------
    comparison : Comparison
        Its p-value is two-sided.

    References
    ----------
    Nadeau and Bengio (2003), "Inference for the generalization error", Machine Learning 52.
    """
    n = len(differences)
    mean, deviation = float(np.mean(differences)), float(np.std(differences, ddof=1))
    if deviation < _NOTHING:
        equal = abs(mean) < _NOTHING
        return Comparison(mean, mean, mean, 1.0 if equal else 0.0)
    error = deviation * np.sqrt(1 / n + test_per_train)
    reach = float(stats.t.ppf((1 + confidence_level) / 2, n - 1)) * error
    p_value = 2 * float(stats.t.sf(abs(mean) / error, n - 1))
    return Comparison(mean, mean - reach, mean + reach, p_value)


def holm(p_values: np.ndarray) -> np.ndarray:
    """Adjust p-values to control the family-wise error rate.

    Parameters
    ----------
    p_values : ndarray of shape (n_comparisons,)
        Unadjusted p-values.

    Returns
    -------
    adjusted : ndarray of shape (n_comparisons,)
        Adjusted p-values, in the same order.

    References
    ----------
    Holm (1979), "A simple sequentially rejective multiple test procedure", Scandinavian Journal
    of Statistics 6.
    """
    order = np.argsort(p_values, kind="stable")
    factors = np.arange(len(p_values), 0, -1)
    adjusted = np.empty(len(p_values))
    adjusted[order] = np.minimum(np.maximum.accumulate(p_values[order] * factors), 1.0)
    return adjusted
