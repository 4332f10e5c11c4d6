"""Any content of a frame: a clear error or a right answer, from every public estimator.

A clear error is raised by skmm or scikit-learn on purpose and says where the trouble is: see
:func:`is_clear`. A right answer has a row for each row, says the same when the rows come in
another order, and holds no NaN but where a cell is missing: see :func:`check_answers`.
"""

import traceback
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import sklearn
import torch
from columns import objects
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from odd_frames import KINDS, odd_frames
from representatives import one_of_each_engine
from sklearn.base import BaseEstimator, TransformerMixin, clone, is_classifier
from sklearn.exceptions import ConvergenceWarning, UndefinedMetricWarning

import skmm
from skmm import frame_report, infer_modalities, make_multimodal_pipeline
from skmm.exceptions import FusionWarning, ModalityWarning
from skmm.fusion import JointFusionMultiTask, LateFusionClassifier, LateFusionRegressor
from skmm.generation import (
    CaptionGenerator,
    ImageGenerator,
    QuestionAnswerer,
    SeriesGenerator,
)
from skmm.model_selection import check_group_leakage, group_by_content
from skmm.retrieval import CrossModalRetriever, PrototypeClassifier, ZeroShotClassifier
from skmm.testing import all_estimators
from skmm.testing._instances import PRETRAINED, instances_of
from skmm.testing._toys import ToySpace

HOMES = tuple(str(Path(package.__file__).parent) for package in (skmm, sklearn))
# What an error may name in addition to a class.
PLACES = (
    "column",
    "row",
    "sample",
    "feature",
    "modalit",
    "class",
    "target",
    "cell",
    "return",
    "training",
    "x ",
    "y ",
)
VALIDATION = "sklearn/utils/validation.py"
OWN_MODULE = ("torch/nn/modules/linear.py", "torch/nn/modules/conv.py")
LIKELY = {
    "text": ["texts", "words", "strings"],
    "image": ["images"],
    "audio": ["audio_clips"],
    "video": ["clips"],
    "timeseries": ["series"],
    "pointcloud": ["points"],
    "tabular": ["floats", "integers", "words", "category", "booleans", "dates"],
    "fusion": ["floats", "texts", "words", "category", "vectors"],
}
INSTANCES = {
    name: instances_of(cls)
    for name, cls in all_estimators()
    if not issubclass(cls, PRETRAINED)  # a checkpoint reads its cells, as in an encoder
}
CASES = [
    (name, instances.index(instance))
    for name, instances in INSTANCES.items()
    for instance in one_of_each_engine(instances)
]


TOY_SPACE = ("transform_modality", "_letters_of")  # functions of the toy space


def is_clear(error):
    """Return whether an error was raised on purpose and names its cause.

    It is a ValueError or TypeError (those of skmm are); the line that raised it is skmm's or
    scikit-learn's, not one deep in numpy, pandas or torch that stumbled; and its message names a
    class, or a place in the data. What scikit-learn's validation makes of a frame is its own.
    So is what a user's own part says: the toy space, or a torch module that was handed over.
    """
    frames = traceback.extract_tb(error.__traceback__)
    files = [frame.filename for frame in frames]
    if files[-1].endswith("testing/_toys.py") and frames[-1].name in TOY_SPACE:
        return True
    if files[-1].endswith(OWN_MODULE) and "shapes cannot be multiplied" in str(error):
        return True
    if not isinstance(error, ValueError | TypeError):
        # The message of scikit-learn about integers beyond 64 bits.
        return isinstance(error, OverflowError) and files_hold(files, VALIDATION)
    if files_hold(files, VALIDATION):
        return True
    message = str(error).lower()
    named = any(name.lower() in message for name, _ in all_estimators())
    named = named or any(place in message for place in PLACES)
    return files[-1].startswith(HOMES) and len(message) > 15 and named


def files_hold(files, ending):
    return any(file.endswith(ending) for file in files)


def attempt(action):
    """Return the result of an action, or None after a clear error."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for category in (
            ModalityWarning,
            FusionWarning,
            ConvergenceWarning,
            UndefinedMetricWarning,
        ):
            warnings.simplefilter("ignore", category)
        warnings.filterwarnings("ignore", "The least populated class", UserWarning)
        warnings.filterwarnings("ignore", "The number of unique classes is greater", UserWarning)
        # With one row the leave-one-out error of a ridge is 0 / 0; its prediction is right.
        warnings.filterwarnings("ignore", module="sklearn.linear_model._ridge")
        try:
            return action()
        except Exception as error:
            if not is_clear(error):
                raise
            return None


def small(name, i):
    """Return an instance whose fit takes milliseconds."""
    instance = clone(instances_of(dict(all_estimators())[name])[i])
    # None where it has no effect, or is the trainer's.
    trains = instance.get_params(deep=False).get("max_epochs") is not None
    return instance.set_params(max_epochs=1) if trains else instance


def target(estimator, n, kind):
    values = np.arange(n)
    if isinstance(estimator, JointFusionMultiTask):
        return pd.DataFrame({"class": values % 2, "value": values * 0.5})
    if isinstance(estimator, CaptionGenerator | QuestionAnswerer):
        return [None if value % 5 == 3 else f"{kind} {value % 3}" for value in values]
    if isinstance(estimator, SeriesGenerator):
        return [None if value % 5 == 3 else [value, 1.0] * (1 + value % 3) for value in values]
    if isinstance(estimator, ImageGenerator):
        return [None if value % 5 == 3 else np.full((4, 4), value / n) for value in values]
    if not is_classifier(estimator):
        return values * 0.5
    return {
        "words": np.where(values % 2, "yes", "no"),
        "numbers": values % 3,
        "booleans": values % 2 == 0,
        "one class": np.zeros(n, dtype=int),
        "series": pd.Series(values % 2, index=pd.RangeIndex(n)[::-1], dtype="category"),
    }[kind]


def answers(estimator, X):
    found = {}
    for verb in ("transform", "predict_proba", "predict"):
        if hasattr(estimator, verb):
            value = getattr(estimator, verb)(X)
            parts = value if isinstance(value, dict) else {"": value}
            if isinstance(value, pd.DataFrame):
                parts = {str(k): value[k] for k in value} if verb == "predict" else {"": value}
            found |= {f"{verb} {key}": np.asarray(part) for key, part in parts.items()}
    return found


def check_answers(estimator, X):
    """Check rows, columns, values and order."""
    found = answers(estimator, X)
    complete = ~X.isna().any(axis=1).to_numpy()
    for what, array in found.items():
        assert len(array) == len(X), f"{what}: {array.shape} for {len(X)} rows"
        if what.startswith("transform"):
            assert array.ndim == 2
            assert array.shape[1] == len(estimator.get_feature_names_out())
        if array.dtype.kind == "f":
            unknown = ~np.isfinite(array).all(axis=tuple(range(1, array.ndim)))
            may = ~complete if what.startswith("transform") else np.zeros(len(X), dtype=bool)
            assert not (unknown & ~may).any(), f"{what}: not finite, no cell missing"
        if what.startswith("predict_proba"):
            np.testing.assert_allclose(array.sum(axis=1), 1, rtol=1e-4)
    if len(X) > 1:
        for what, array in answers(estimator, X.iloc[::-1]).items():
            if array.dtype.kind == "f":
                expected = found[what][::-1]
                np.testing.assert_allclose(array, expected, rtol=1e-3, atol=1e-4, err_msg=what)
    return found


def check_estimator_on(estimator, X, other, y):
    """Fit on a frame and predict for it and another one; return whether both succeeded."""
    if attempt(lambda: estimator.fit(X, y)) is None:
        return False
    answered = attempt(lambda: check_answers(estimator, X)) is not None
    # Another frame with the same names, as at prediction.
    width = min(X.shape[1], other.shape[1])
    other = other.iloc[:, :width]
    other.columns = X.columns[:width]
    attempt(lambda: check_answers(estimator, other))
    attempt(lambda: check_answers(estimator, X.head(0)))
    return answered


def kinds_for(estimator):
    if isinstance(estimator, PrototypeClassifier):
        return ["integers", "booleans", "unsigned"]
    return LIKELY.get(getattr(estimator, "modality", "fusion"), LIKELY["tabular"])


def prepared(estimator, X):
    """Return the estimator with the parameters that depend on the frame."""
    if isinstance(estimator, CrossModalRetriever | ZeroShotClassifier):
        X.columns = ["text", "vector"]
        return estimator.set_params(alignment=ToySpace())
    if hasattr(estimator, "modalities") and not isinstance(estimator, PrototypeClassifier):
        own = estimator.modalities
        if "Alignment" in type(estimator).__name__:
            # By position, because names may be repeated.
            return estimator.set_params(
                modalities=[("left", "passthrough", [0]), ("right", "passthrough", [1])]
            )
        return estimator.set_params(modalities="auto" if own is None else own)
    return estimator


def fuzz(name, i, data):
    """Check the estimator on a drawn frame; return whether it accepted the frame."""
    estimator = small(name, i)
    paired = "Alignment" in name or name in ("CrossModalRetriever", "ZeroShotClassifier")
    likely = ["vectors", "floats", "integers"] if "Alignment" in name else kinds_for(estimator)
    frames = odd_frames(likely, n_columns=2 if paired else None)
    X, other = data.draw(frames), data.draw(frames)
    if name == "QuestionAnswerer":  # few frames have a column of text and another one
        for frame in (X, other):
            frame["asked"] = [None if i % 5 == 4 else f"is it {i % 3} ?" for i in range(len(frame))]
        estimator.set_params(question_column="asked")
    kind = data.draw(st.sampled_from(["words", "numbers", "booleans", "one class", "series"]))
    if paired:
        other.columns = X.columns
    estimator = prepared(estimator, X)
    return check_estimator_on(estimator, X, other, target(estimator, len(X), kind))


QUICK = settings(
    max_examples=8, derandomize=True, deadline=None, database=None,
    suppress_health_check=list(HealthCheck),
    phases=[Phase.explicit, Phase.generate],  # to shrink a failure takes minutes
)  # fmt: skip
DEEP = settings(QUICK, max_examples=16)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "i"), CASES)
@QUICK
@given(data=st.data())
def test_estimator(name, i, data):
    fuzz(name, i, data)


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted({name for name, _ in CASES}))
def test_estimator_deeply(name):
    answered = []

    @DEEP
    @given(data=st.data())
    def run(data):
        answered.append(fuzz(name, 0, data))

    run()
    # An estimator that refuses every frame would pass the checks.
    assert sum(answered) >= len(answered) / 20


# ---- functions that take a frame -----------------------------------------------------------


def check_frames(frames, check, *, n):
    """Draw frames, and assert that the check accepts some of them."""
    answered = []

    @settings(QUICK, max_examples=n)
    @given(drawn=frames)
    def run(drawn):
        answered.append(check(drawn))

    run()
    assert sum(answered) >= len(answered) / 20


def test_modalities():
    def check(X):
        found = attempt(lambda: infer_modalities(X))
        if found is not None:
            assert list(found) == [str(name) if name is not None else f"x{i}"
                                   for i, name in enumerate(X.columns)]  # fmt: skip
        return found is not None

    check_frames(odd_frames(), check, n=60)


@pytest.mark.slow
@settings(QUICK, max_examples=60)
@given(X=odd_frames())
def test_frame_report(X):
    report = frame_report(X, n_samples=2)  # never an error
    assert len(report.summary_) == X.shape[1] and repr(report) and report.html


@pytest.mark.slow
def test_leaks():
    options = {"read_files": False}

    def check(X):
        groups = attempt(lambda: group_by_content(X, **options))
        if groups is not None:
            assert len(groups) == len(X)
            assert check_group_leakage(X, groups=groups, **options).empty
        return groups is not None

    check_frames(odd_frames(["texts", "words", "images"]), check, n=60)


TABLES = ["floats", "words", "integers", "category", "vectors", "booleans"]


def test_pipeline():
    pytest.importorskip("transformers", reason="its default encoders need the extra 'weights'")

    def check(drawn):
        X, other = drawn
        model = make_multimodal_pipeline("classifier", random_state=0)
        return check_estimator_on(model, X, other, np.arange(len(X)) % 2)

    check_frames(st.tuples(odd_frames(TABLES), odd_frames(TABLES)), check, n=6)


# ---- the helpers of this file --------------------------------------------------------------


def test_clear_errors_are_recognized():
    def raised(action):
        try:
            action()
        except Exception as error:
            return error

    hostile = pd.DataFrame({"c": objects([{}, {}])})
    assert is_clear(raised(lambda: infer_modalities(hostile)))
    assert is_clear(raised(lambda: skmm.TextEncoder("tfidf").fit(hostile)))
    assert not is_clear(raised(lambda: np.zeros(2) + np.zeros(3)))  # numpy's own
    assert not is_clear(raised(lambda: {}["c"]))


class Broken(TransformerMixin, BaseEstimator):
    """Transformer with a planted fault."""

    def __init__(self, fault):
        self.fault = fault

    def fit(self, X, y=None):
        return self

    def get_feature_names_out(self):
        return ["one"]

    def transform(self, X):
        values = X[["a"]].to_numpy(dtype=float)
        return {
            "rows": values[:-1],
            "columns": np.hstack([values, values]),
            "nan": np.where(values == values.max(), np.nan, values),
            "order": np.sort(values, axis=0),
        }[self.fault]


@pytest.mark.parametrize("fault", ["rows", "columns", "nan", "order"])
def test_wrong_output_is_found(fault):
    X = pd.DataFrame({"a": [3.0, 1.0, 2.0]})
    with pytest.raises(AssertionError):
        check_estimator_on(Broken(fault), X, X.copy(), None)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("n", [0, 1, 5])
def test_kinds_of_columns_have_their_length(kind, n):
    assert len(KINDS[kind](np.random.default_rng(0), n)) == n


# ---- faults that were found and fixed ----------------------------------------------------------


def test_no_out_of_fold_predictions():
    """Each modality is in one row, so that the weights cannot be learned."""
    X = pd.DataFrame({"a": [1.0, None, None, None], "b": [None, 2.0, None, None]})
    triples = [(name, "passthrough", [name]) for name in X]
    for cls, y in ((LateFusionRegressor, [0.0, 1, 2, 3]), (LateFusionClassifier, [0, 1, 0, 1])):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about one row and one class
            fusion = cls(triples, rule="weighted", cv=2).fit(X, y)
        assert np.isfinite(np.asarray(fusion.predict(X), dtype=float)).all()


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_distances_that_are_nan(metric):
    X = pd.DataFrame({"a": [1.7e308, -1.7e308] * 2})
    with pytest.raises(ValueError, match="PrototypeClassifier: X has values beyond 1e\\+150"):
        PrototypeClassifier(metric=metric).fit(X, [0, 1, 0, 1])
    fitted = PrototypeClassifier(metric=metric).fit(X / 1e200, [0, 1, 0, 1])
    assert fitted.predict(X / 1e200).tolist() == [0, 1, 0, 1]
    with pytest.raises(ValueError, match="X has values beyond"):
        fitted.predict(X)


def test_repeated_column_names_are_refused():
    X = pd.DataFrame([["a b", "c d"], ["e f", "g h"]], columns=["t", "t"])
    for estimator in (skmm.TextEncoder("tfidf"), skmm.EarlyFusion()):
        with pytest.raises(ValueError, match="X has several columns named 't'"):
            estimator.fit(X, [0, 1])


@pytest.mark.parametrize("model", ["onehot", "tokens"])
@pytest.mark.parametrize(
    ("cell", "message"), [(10**400, "infinity"), (1e300, "1e\\+300, beyond float32")]
)
def test_numbers_beyond_float32(cell, message, model):
    X = pd.DataFrame({"a": objects([1.0, 2.0, cell])})
    encoder = skmm.TabularEncoder(model)
    if model == "tokens":
        encoder.set_params(max_epochs=1)
    with pytest.raises(ValueError, match=f"column 'a', row 2: got {message}"):
        encoder.fit(X, [0, 1, 0])
    encoder.fit(X.head(2), [0, 1])
    with pytest.raises(ValueError, match=f"row 2: got {message}"):
        encoder.transform(X)


def test_large_integer_next_to_a_word():
    encoder = skmm.TabularEncoder().fit(pd.DataFrame({"a": objects([1, 2])}))
    with pytest.raises(ValueError, match="column 'a', row 1: got 'abc' in a column that held"):
        encoder.transform(pd.DataFrame({"a": objects([10**400, "abc"])}))


def test_large_integers_are_passed_through():
    X = pd.DataFrame({"a": objects([1, 2, 10**400]), "b": [1.0, 2.0, 3.0]})
    fusion = skmm.EarlyFusion([(name, "passthrough", [name]) for name in X])
    with pytest.raises(ValueError, match="'a' is passed through, but column 'a' .*int too large"):
        fusion.fit(X.head(2)).transform(X)


def test_number_outside_the_range_of_a_module():
    encoder = skmm.ModuleEncoder(torch.nn.Linear(1, 2))
    with pytest.raises(ValueError, match="A cell holds a number that float32 cannot hold"):
        encoder.fit_transform(pd.DataFrame({"a": [1.0, 1e300]}))


def test_outlier_of_a_nearly_constant_column():
    X = pd.DataFrame({"a": [1e-6, 2e-6, 3e-6]})
    encoder = skmm.TabularEncoder().fit(X)
    vectors = np.asarray(encoder.transform(pd.DataFrame({"a": [-1e38, 2e-6, 1e38]})))
    assert np.isfinite(vectors).all() and vectors[0, 0] < -1e37 < 1e37 < vectors[2, 0]


def test_categories_with_half_a_surrogate_pair():
    X = pd.DataFrame({"a": objects(["\ud800", "b", "\ud800"])})
    vectors = np.asarray(skmm.TabularEncoder().fit_transform(X))
    assert vectors[:, 0].tolist() == vectors[[2, 1, 0], 0].tolist()


def test_equal_texts():
    X = pd.DataFrame({"t": ["one and the same text"] * 4})
    vectors = skmm.TextEncoder("tfidf", n_components=2).fit_transform(X)
    assert np.isfinite(vectors).all()
