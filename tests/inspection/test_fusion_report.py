"""Reports of planted data on which fusion pays or does not."""

import warnings

import numpy as np
import pandas as pd
import pytest
from counting import CountingModule, lines
from sklearn.compose import ColumnTransformer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import (
    GridSearchCV,
    GroupKFold,
    RepeatedStratifiedKFold,
    StratifiedKFold,
    cross_val_score,
)
from sklearn.naive_bayes import GaussianNB
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skmm import EarlyFusion, LateFusionClassifier, LateFusionRegressor, ModuleEncoder
from skmm.datasets import make_multimodal_classification, make_multimodal_regression
from skmm.exceptions import FusionWarning
from skmm.inspection import fusion_report
from skmm.inspection._comparison import compare
from skmm.inspection._fusion_report import _inner_jobs, _PlannedFit, _Result, _table, choose_subsets

MODEL = make_pipeline(
    EarlyFusion([(name, "passthrough", [name]) for name in "ab"]), LogisticRegression()
)
THREE = LateFusionClassifier([(name, "passthrough", [name]) for name in "abc"], rule="mean")


def data(n=300, names="ab", **truth):
    return make_multimodal_classification(
        n, modalities=dict.fromkeys(names, "vector"), redundant=0, random_state=0, **truth
    )


def quiet_report(*args, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FusionWarning)
        return fusion_report(*args, **options)


@pytest.fixture(scope="module")
def three():
    """Report on three modalities: a and b are informative, c is not."""
    X, y = data(names="abc", private={"a": 0.5, "b": 0.5})
    return quiet_report(THREE, X, y), X, y


@pytest.mark.slow
def test_fusion_of_complementary_modalities_pays():
    X, y = data(private={"a": 0.5, "b": 0.5})
    report = fusion_report(MODEL, X, y)  # a warning would be an error
    assert report.pays_
    assert report.verdict_.startswith("Fusion pays: score 0.9")
    assert "shown" not in report.verdict_  # both are needed


@pytest.mark.slow
def test_fusion_with_noise_does_not_pay():
    X, y = data(private={"a": 1.0}, target_noise=0.5)
    with pytest.warns(FusionWarning, match="Fusion is not shown to pay") as caught:
        report = fusion_report(MODEL, X, y)
    assert caught[0].filename == __file__
    assert not report.pays_
    assert "best single modality (a)" in report.verdict_
    assert report.verdict_.endswith("Nothing is shown to be lost without b.")


class Sure(GaussianNB):
    """Predicts probabilities of 0 and 1."""

    def predict_proba(self, X):
        return np.eye(2)[(np.asarray(X)[:, 0] > 0).astype(int)]


@pytest.mark.slow
def test_fusion_can_do_harm():
    X, y = data(400, private={"a": 1.0})
    X["b"] = np.random.default_rng(0).normal(size=400)
    model = LateFusionClassifier([("a", "passthrough", ["a"]), ("b", Sure(), ["b"])], rule="mean")
    with pytest.warns(FusionWarning, match="Fusion does harm"):
        fusion_report(model, X, y)


@pytest.mark.slow
def test_scores_are_those_of_cross_validation(three):
    report, X, y = three
    scores = report.scores_
    triples = {name: (name, "passthrough", [name]) for name in "abc"}
    for own in (["a"], ["b"], ["a", "c"], ["a", "b", "c"]):
        alone = LateFusionClassifier([triples[name] for name in own], rule="mean")
        rows = scores[(scores["modalities"] == " + ".join(own)) & (scores["kind"] != "best single")]
        assert rows.sort_values("split")["score"].tolist() == cross_val_score(alone, X, y).tolist()
    assert scores.groupby("kind")["modalities"].agg(lambda s: list(s.unique())).to_dict() == {
        "fused": ["a + b + c"],
        "single": ["a", "b", "c"],
        "subset": ["a + b", "a + c", "b + c"],
        "best single": scores.loc[scores["kind"] == "best single", "modalities"].unique().tolist(),
    }
    assert (scores[["fit_seconds", "score_seconds"]] > 0).all(axis=None)


@pytest.mark.slow
def test_differences_are_paired_and_corrected(three):
    report, _, y = three
    scores = report.scores_[report.scores_["kind"] != "best single"]
    by_split = scores.pivot(index="split", columns="modalities", values="score")
    sizes = [len(test) / len(train) for train, test in StratifiedKFold(5).split(y, y)]
    found = report.differences_.set_index("modalities")
    for name in ("a", "c", "a + b", "b + c"):
        expected = compare((by_split["a + b + c"] - by_split[name]).to_numpy(), np.mean(sizes))
        got = found.loc[name, ["difference", "lower", "upper", "p_value"]].astype(float)
        np.testing.assert_allclose(got, expected)
    assert (found["p_holm"] >= found["p_value"]).all()
    (best,) = report.differences_[report.differences_["kind"] == "best single"].index
    assert report.differences_.loc[best, "p_holm"] == report.differences_.loc[best, "p_value"]
    wide = quiet_report(THREE, *three[1:], confidence_level=0.99).differences_
    assert (wide["upper"] >= report.differences_["upper"]).all()


def test_choice_of_the_best_single_modality_is_unbiased():
    """With uninformative modalities, the highest single score is biased, "best single" is not."""
    names, rng, honest, highest = tuple("abcdef"), np.random.default_rng(0), [], []
    sets = [*((name,) for name in names), names]
    empty = np.arange(0)
    jobs = [_PlannedFit(own, split, -1, empty, empty) for own in sets for split in range(5)]
    jobs += [
        _PlannedFit((n,), s, fold, empty, empty) for n in names for s in range(5) for fold in (0, 1)
    ]
    for _ in range(30):
        results = [_Result(rng.normal(0.5, 0.05), 1.0, 1.0) for _ in jobs]
        scores = _table(names, jobs, results).groupby(["kind", "modalities"])["score"].mean()
        best = _table(names, jobs, results).query("kind == 'best single'")["score"]
        honest.append(best.mean())
        highest.append(scores["single"].max())
    assert abs(np.mean(honest) - 0.5) < 0.01
    assert np.mean(highest) > 0.52


def test_choice_uses_no_test_row():
    X, y = data(60, private={"a": 1.0})
    train = np.arange(7, 47)
    jobs = _inner_jobs(("a", "b"), 2, train, MODEL, X, y, 3, None)
    assert [job.names for job in jobs] == [("a",)] * 3 + [("b",)] * 3
    for job in jobs:
        assert job.split == 2 and not set(job.train) & set(job.test)
        assert {*job.train, *job.test} == set(train)
    groups = np.arange(60) // 5
    for job in _inner_jobs(("a", "b"), 2, train, MODEL, X, y, 3, groups):
        assert not set(groups[job.train]) & set(groups[job.test])


@pytest.mark.slow
def test_modality_is_chosen_on_the_inner_folds():
    X, y = data(200, names="abc", private={"a": 0.3, "b": 0.7})
    report = quiet_report(THREE, X, y, cv=3)
    rows = report.scores_[report.scores_["kind"] == "best single"].set_index("split")
    assert rows["modalities"].tolist() == ["b"] * 3
    single = report.scores_.query("kind == 'single' and modalities == 'b'").set_index("split")
    assert rows["score"].tolist() == single["score"].tolist()
    assert (rows["fit_seconds"] > single["fit_seconds"]).all()  # includes the choice


@pytest.mark.slow
@pytest.mark.parametrize("remainder", ["drop", "passthrough"])
def test_column_transformer_without_fusion(remainder):
    rng = np.random.default_rng(0)
    X = pd.DataFrame(rng.normal(size=(200, 3)), columns=["a", "b", "c"])
    y = (X["a"] + X["b"] + X["c"] > 0).astype(int)
    blocks = [("one", StandardScaler(), ["a"]), ("two", StandardScaler(), ["b"])]
    model = make_pipeline(ColumnTransformer(blocks, remainder=remainder), LogisticRegression())
    report = fusion_report(model, X, y)
    names = ["one", "two"] + ["remainder"] * (remainder != "drop")
    singles = report.scores_.loc[report.scores_["kind"] == "single", "modalities"]
    assert singles.unique().tolist() == names
    alone = report.scores_.query("kind == 'single' and modalities == 'two'")["score"]
    expected = cross_val_score(make_pipeline(StandardScaler(), LogisticRegression()), X[["b"]], y)
    np.testing.assert_allclose(alone, expected)


@pytest.mark.slow
def test_search_runs_again_in_every_fold():
    X, y = data(150, private={"a": 0.5, "b": 0.5})
    grid = {"logisticregression__C": [0.1, 1], "earlyfusion__a": ["passthrough", StandardScaler()]}
    triples = [("a", StandardScaler(), ["n"]), ("b", "passthrough", ["b"])]
    X["n"] = [cell[0] for cell in X["a"]]
    search = GridSearchCV(
        make_pipeline(EarlyFusion(triples), LogisticRegression()), grid, cv=2, error_score="raise"
    )
    report = quiet_report(search, X, y, cv=2, inner_cv=2)
    kinds = report.scores_.groupby("kind")["modalities"].first()
    assert kinds["fused"] == "a + b"
    expected = cross_val_score(
        GridSearchCV(
            make_pipeline(EarlyFusion(triples[1:]), LogisticRegression()),
            {"logisticregression__C": [0.1, 1]}, cv=2,
        ), X, y, cv=2,
    )  # fmt: skip
    alone = report.scores_.query("kind == 'single' and modalities == 'b'")["score"]
    assert alone.tolist() == expected.tolist()


@pytest.mark.slow
def test_auto_modalities_are_inferred():
    X, y = data(200, private={"a": 0.5, "b": 0.5})
    auto = fusion_report(LateFusionClassifier(rule="mean"), X, y, cv=3)
    model = LateFusionClassifier([(name, "passthrough", [name]) for name in "ab"], rule="mean")
    expected = fusion_report(model, X, y, cv=3)
    assert auto.verdict_ == expected.verdict_


@pytest.mark.slow
def test_n_jobs_does_not_change_the_scores():
    X, y = data(120, private={"a": 0.5, "b": 0.5})
    options = {"cv": 3, "inner_cv": 2, "random_state": 0}
    tables = [quiet_report(MODEL, X, y, n_jobs=n_jobs, **options) for n_jobs in (None, 2)]
    alone, shared = (t.scores_.drop(columns=["fit_seconds", "score_seconds"]) for t in tables)
    pd.testing.assert_frame_equal(alone, shared, check_exact=True)
    pd.testing.assert_frame_equal(tables[0].differences_, tables[1].differences_, check_exact=True)


@pytest.mark.slow
@pytest.mark.parametrize("n_jobs", [None, 2])
def test_no_cell_is_encoded_again(tmp_path, n_jobs):
    rng = np.random.default_rng(0)
    cells = rng.normal(size=(40, 4)).astype(np.float32)
    which = np.r_[np.arange(40), np.arange(10)]  # ten are repeated
    X = pd.DataFrame({"cell": list(cells[which]), "b": rng.normal(size=50)})
    encoder = ModuleEncoder(CountingModule(tmp_path / "log"))
    triples = [("cell", encoder, ["cell"]), ("b", "passthrough", ["b"])]
    model = LateFusionClassifier(triples, rule="mean")
    quiet_report(model, X, np.arange(50) % 2, cv=3, inner_cv=2, n_jobs=n_jobs)
    assert len(lines(tmp_path / "log")) == 40


@pytest.mark.slow
def test_regression_scoring_and_groups():
    X, y = make_multimodal_regression(
        150, modalities={"a": "vector", "b": "vector"}, redundant=0, random_state=0
    )
    model = LateFusionRegressor([(name, "passthrough", [name]) for name in "ab"])
    groups = np.arange(150) // 10
    report = fusion_report(
        model, X, y, scoring="neg_root_mean_squared_error", cv=GroupKFold(3), groups=groups
    )
    assert report.pays_
    assert "neg_root_mean_squared_error -0." in report.verdict_
    repeated = RepeatedStratifiedKFold(n_splits=2, n_repeats=2, random_state=0)
    X, y = data(100, private={"a": 0.5, "b": 0.5})
    report = quiet_report(MODEL, X, y, cv=repeated, scoring="roc_auc")
    assert report.scores_["split"].nunique() == 4


def test_subsets_up_to_a_limit():
    names = tuple("abcdef")
    random = np.random.RandomState(0)
    everything = choose_subsets(names, 1000, random)
    assert len(everything) == len(set(everything)) == 2**6 - 1
    some = choose_subsets(names, 20, random)
    assert len(some) == len(set(some)) == 20
    assert set(some[:7]) == {*((n,) for n in names), names}
    assert {len(own) for own in some[7:13]} == {5}
    assert {len(own) for own in some[13:]} == {2}
    assert choose_subsets(names, 1, random) == some[:7]
    assert choose_subsets(("a", "b"), 31, random) == [("a",), ("b",), ("a", "b")]
    assert len(choose_subsets(tuple(map(str, range(40))), 100, random)) == 100


@pytest.mark.slow
def test_max_subsets_leaves_subsets_out(three):
    report = quiet_report(THREE, *three[1:], cv=2, max_subsets=2)
    assert set(report.scores_["kind"]) == {"single", "best single", "fused"}


@pytest.mark.parametrize(
    "estimator, options, error, message",
    [
        (LogisticRegression(), {}, ValueError, "holds neither a fusion nor"),
        (LateFusionClassifier([("a", "passthrough", ["a"])]), {}, ValueError, "at least two"),
        (MODEL, {"cv": [(np.arange(50), np.arange(50, 90))]}, ValueError, "at least two"),
        (MODEL, {"max_subsets": 0}, ValueError, "max_subsets must be an int of at least 1"),
        (MODEL, {"confidence_level": 95}, ValueError, "between 0 and 1, got 95"),
        (MODEL, {"scoring": ["accuracy"]}, TypeError, "once for each metric"),
        (MODEL, {"scoring": lambda e, X, y: np.nan}, ValueError, "score of a in split 0 is nan"),
    ],
)
def test_bad_input(estimator, options, error, message):
    X, y = data(100, private={"a": 1.0})
    with pytest.raises(error, match=message):
        fusion_report(estimator, X, y, **options)


@pytest.mark.slow
def test_error_names_the_fitted_modalities():
    X, y = data(100, private={"a": 1.0})
    model = LateFusionClassifier([("a", "passthrough", ["a"]), ("b", StandardScaler(), ["b"])])
    with pytest.raises(ValueError) as caught:
        fusion_report(model, X, y)
    assert "fusion_report: the estimator was fitted with only b." in caught.value.__notes__[-1]
