"""The contracts, held by every public estimator: scikit-learn's, and ours on top of it."""

import inspect
from functools import partial

import numpy as np
import pandas as pd
import pytest
import sklearn
import sklearn.utils.estimator_checks as sklearn_checks
import torch
from sklearn.base import BaseEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.utils import get_tags
from sklearn.utils.estimator_checks import parametrize_with_checks
from torch import nn

import skmm
from skmm import (
    EarlyFusion,
    ImageEncoder,
    LateFusionClassifier,
    ModuleEncoder,
    TextEncoder,
)
from skmm.encoders._base import BaseEncoder, TokenSequence
from skmm.exceptions import CellTypeError
from skmm.readers import read_text, with_position
from skmm.testing import all_estimators, check_encoder, check_fusion
from skmm.testing._encoder_case import EncoderCase
from skmm.testing._encoder_checks import ENCODER_CHECKS, run_checks
from skmm.testing._fusion_case import FusionCase
from skmm.testing._fusion_checks import FUSION_CHECKS
from skmm.testing._instances import (
    EXPECTED_FAILED_CHECKS,
    cells_of,
    expected_failed_checks,
    fitted_instance,
    instances_of,
)

ENCODERS = [i for _, cls in all_estimators("encoder") for i in instances_of(cls)]
FUSIONS = [i for _, cls in all_estimators("fusion") for i in instances_of(cls)]


def name_of(instance):
    """Class and what sets the instance apart, e.g. ``JointFusionClassifier-gated``."""
    for parameter in ("model", "strategy", "rule", "scaling", "trainable"):
        value = getattr(instance, parameter, None)
        if isinstance(value, str | bool):
            return f"{type(instance).__name__}-{value}"
    return type(instance).__name__


# --- discovery ----------------------------------------------------------------------------


def test_every_public_estimator_is_found():
    public = {
        value
        for name in skmm.__all__
        if name != "testing"
        for value in [getattr(skmm, name)]
        if inspect.isclass(value) and issubclass(value, BaseEstimator)
    }
    folders = [getattr(skmm, name) for name in skmm.__all__ if name != "testing"]
    for folder in filter(inspect.ismodule, folders):
        public |= {
            value
            for member in folder.__all__
            for value in [getattr(folder, member)]
            if inspect.isclass(value) and issubclass(value, BaseEstimator)
        }
    assert {cls for _, cls in all_estimators()} == public
    assert len(public) >= 9


def test_kinds():
    encoders, fusions = all_estimators("encoder"), all_estimators("fusion")
    assert sorted(encoders + fusions) == sorted(all_estimators())
    assert ("TextEncoder", TextEncoder) in encoders and ("EarlyFusion", EarlyFusion) in fusions
    with pytest.raises(ValueError, match="kind must be one of .*'encoder', 'fusion'.* got 'x'"):
        all_estimators("x")


def test_an_estimator_without_an_instance_is_told():
    with pytest.raises(LookupError, match="LogisticRegression.*_instances.py"):
        instances_of(LogisticRegression)


@pytest.mark.parametrize("cls", [cls for _, cls in all_estimators()], ids=lambda c: c.__name__)
def test_fitted_instance(cls):
    fitted = fitted_instance(cls)
    assert type(fitted) is cls and hasattr(fitted, "feature_names_in_")


# --- scikit-learn's contract --------------------------------------------------------------

TAKES_NUMBERS = [i for i in [*ENCODERS, *FUSIONS] if get_tags(i).input_tags.two_d_array]
# scikit-learn before 1.8 cannot ask for it; pytest's own xfail_strict does not reach its marks.
STRICT = "xfail_strict" in inspect.signature(parametrize_with_checks).parameters


@parametrize_with_checks(
    TAKES_NUMBERS,
    expected_failed_checks=expected_failed_checks,
    **({"xfail_strict": True} if STRICT else {}),
)
def test_check_estimator(estimator, check):
    check(estimator)


def test_expected_failures_are_checks_that_exist():
    for cls, _, check, reason in EXPECTED_FAILED_CHECKS:
        assert hasattr(sklearn_checks, check)
        assert len(reason) > 20
        assert any(check in expected_failed_checks(i) for i in instances_of(cls))


# Checks that scikit-learn has and check_estimator leaves out.
LEFT_OUT = [
    "check_dataframe_column_names_consistency",
    "check_param_validation",
    "check_set_output_transform",
    "check_set_output_transform_pandas",
    "check_set_output_transform_polars",
    "check_global_output_transform_pandas",
    "check_global_set_output_transform_polars",
    "check_transformer_get_feature_names_out",
    "check_transformer_get_feature_names_out_pandas",
    "check_get_feature_names_out_error",
    "check_n_features_in_after_fitting",
    "check_inplace_ensure_writeable",
]
# Checks that need no data: all that an estimator runs that takes no matrix of numbers, since
# for those check_estimator stops after the first.
WITHOUT_DATA = [
    "check_do_not_raise_errors_in_init_or_set_params",
    "check_estimator_cloneable",
    "check_estimator_repr",
    "check_estimator_tags_renamed",
    "check_get_params_invariance",
    "check_mixin_order",
    "check_no_attributes_set_in_init",
    "check_parameters_default_constructible",
    "check_param_validation",
    "check_set_params",
    "check_valid_tag_types",
    "check_estimators_unfitted",
    "check_transformers_unfitted",
]


def left_out_pairs():
    for estimator in [*ENCODERS, *FUSIONS]:
        for check in LEFT_OUT if estimator in TAKES_NUMBERS else WITHOUT_DATA:
            yield pytest.param(estimator, check, id=f"{name_of(estimator)}-{check}")


# The checks themselves fit on a frame and then transform an array, or the other way round.
@pytest.mark.filterwarnings("ignore:X (has|does not have valid) feature names:UserWarning")
@pytest.mark.parametrize(("estimator", "check"), [*left_out_pairs()])
def test_checks_that_check_estimator_leaves_out(estimator, check):
    getattr(sklearn_checks, check)(type(estimator).__name__, estimator)


# Checks of scikit-learn 1.9 that are for other kinds of estimators.
OF_OTHERS = {
    "check_array_api_input_and_values",
    "check_array_api_mixed_inputs",
    "check_array_api_same_namespace",
    "check_class_weight_balanced_classifiers",
    "check_class_weight_balanced_linear_classifier",
    "check_classifier_multioutput",
    "check_classifier_not_supporting_multiclass",
    "check_classifiers_multilabel_output_format_decision_function",
    "check_classifiers_multilabel_output_format_predict",
    "check_classifiers_multilabel_output_format_predict_proba",
    "check_classifiers_multilabel_representation_invariance",
    "check_classifiers_predictions",
    "check_clusterer_compute_labels_predict",
    "check_clustering",
    "check_estimator",
    "check_estimators_data_not_an_array",
    "check_estimators_nan_inf",
    "check_fit_non_negative",
    "check_nonsquare_error",
    "check_outlier_contamination",
    "check_outlier_corruption",
    "check_outliers_fit_predict",
    "check_outliers_train",
    "check_sample_weight_equivalence_on_sparse_data",
    "check_sparsify_coefficients",
    "check_transformers_unfitted_stateless",
}


@pytest.mark.skipif(not sklearn.__version__.startswith("1.9."), reason="a list for 1.9")
def test_no_check_is_forgotten():
    yielded = set()
    for instance in TAKES_NUMBERS:
        for _, check in sklearn_checks.estimator_checks_generator(instance):
            yielded.add(check.func.__name__ if isinstance(check, partial) else check.__name__)
    there = {
        name
        for name, value in vars(sklearn_checks).items()
        if name.startswith("check_") and inspect.getmodule(value) is sklearn_checks
    }
    assert there == yielded | set(LEFT_OUT) | set(WITHOUT_DATA) | OF_OTHERS


# --- our contract -------------------------------------------------------------------------


@pytest.mark.parametrize("encoder", ENCODERS, ids=name_of)
def test_check_encoder(encoder):
    check_encoder(encoder, cells_of(encoder))


@pytest.mark.parametrize("fusion", FUSIONS, ids=name_of)
def test_check_fusion(fusion):
    check_fusion(fusion)


@pytest.mark.parametrize("kind", ["bert", "gpt2", "clip"])
def test_check_encoder_on_pretrained_text(kind, tiny_checkpoint):
    check_encoder(TextEncoder(tiny_checkpoint(kind)))


@pytest.mark.parametrize("kind", ["vit", "convnext", "clip"])
def test_check_encoder_on_pretrained_pictures(kind, tiny_checkpoint):
    check_encoder(ImageEncoder(tiny_checkpoint(kind)))


def test_check_encoder_on_several_columns():
    X = cells_of(TextEncoder())
    X["title"] = X["review"].iloc[::-1].to_numpy()
    check_encoder(TextEncoder("tfidf", n_components=3, random_state=0), X)
    check_encoder(TextEncoder("gru", n_components=4, max_epochs=1, random_state=0), X)


def test_check_encoder_needs_cells():
    encoder = ModuleEncoder(nn.Linear(4, 2))
    with pytest.raises(ValueError, match="no toy cells of modality 'module'. Give X, a DataFrame"):
        check_encoder(encoder)
    for X in ([1, 2, 3, 4], cells_of(encoder).iloc[:2], cells_of(encoder).assign(value=None)):
        with pytest.raises(ValueError, match="at least four rows without missing cells"):
            check_encoder(encoder, X)


# --- the checks can fail --------------------------------------------------------------------


class Lengths(BaseEncoder):
    """Number of letters and of spaces of a text: a whole encoder in thirty lines."""

    modality = "text"
    _parameter_constraints = {"scale": [float], "random_state": ["random_state"]}

    def __init__(self, scale=1.0, random_state=0):
        self.scale = scale
        self.random_state = random_state

    def _fit_columns(self, columns, y):
        self.n_outputs_ = 2 * len(columns)

    def _vector(self, cell):
        text = read_text(cell)
        return [self.scale * len(text), self.scale * text.count(" ")]

    def _encode_columns(self, columns):
        features = np.full((len(columns[0].values), 2 * len(columns)), np.nan, np.float32)
        for c, column in enumerate(columns):
            for row in np.flatnonzero(~column.missing):
                try:
                    features[row, 2 * c : 2 * c + 2] = self._vector(column.values[row])
                except CellTypeError as error:
                    raise with_position(
                        error, column=column.name, row=column.labels[row]
                    ) from error
        return features

    def _encode_sequence(self, columns):
        features = self._encode_columns(columns).reshape(-1, len(columns), 2)
        mask = ~np.column_stack([column.missing for column in columns])
        return TokenSequence(np.nan_to_num(features), mask)

    def _output_names(self, names):
        return [f"{name}_{what}" for name in names for what in ("letters", "spaces")]


def test_check_encoder_on_an_encoder_of_ones_own():
    check_encoder(Lengths())


class LoadsInInit(Lengths):
    def __init__(self, scale=1.0, random_state=0):
        super().__init__(scale, random_state)
        self.weights = np.ones(3)


class LooksInInit(Lengths):
    def __init__(self, scale=1.0, random_state=0):
        super().__init__(float(scale), random_state)


class EmptyForMissing(Lengths):
    def _encode_columns(self, columns):
        return np.nan_to_num(super()._encode_columns(columns))


class NanOfOneSpelling(Lengths):
    def _encode_columns(self, columns):
        features = super()._encode_columns(columns)
        features[[cell is pd.NaT for cell in columns[0].values]] = 0.0
        return features


class TokensForMissing(Lengths):
    def _encode_sequence(self, columns):
        tokens, mask = super()._encode_sequence(columns)
        return TokenSequence(tokens, np.ones_like(mask))


class DependsOnBatch(Lengths):
    def _encode_columns(self, columns):
        features = super()._encode_columns(columns)
        return features - np.nanmean(features, axis=0) if len(features) > 1 else features


class DependsOnPosition(Lengths):
    def _encode_columns(self, columns):
        features = super()._encode_columns(columns)
        return features + np.arange(len(features), dtype=np.float32)[:, None]


class DependsOnIndex(Lengths):
    def _encode_columns(self, columns):
        features = super()._encode_columns(columns)
        return features + np.array([[len(str(label))] for label in columns[0].labels], np.float32)


class ChangesInput(Lengths):
    def transform(self, X):
        if isinstance(X, pd.DataFrame):
            X.iloc[0, 0] = "changed"
        return super().transform(X)


class GivesItsMemory(Lengths):
    def _encode_columns(self, columns):
        features = super()._encode_columns(columns)
        self._last = getattr(self, "_last", features)
        return self._last if self._last.shape == features.shape else features


class Guesses(Lengths):
    def _vector(self, cell):
        return super()._vector(str(cell))


class Anonymous(Lengths):
    def _encode_columns(self, columns):
        try:
            return super()._encode_columns(columns)
        except CellTypeError:
            raise CellTypeError("some cell is wrong") from None


class Doubles(Lengths):
    def _encode_columns(self, columns):
        return super()._encode_columns(columns).astype(np.float64)


class SameNames(Lengths):
    def get_feature_names_out(self, input_features=None):
        return np.array(["x"] * len(super().get_feature_names_out(input_features)), dtype=object)


class SeedsTorch(Lengths):
    def _fit_columns(self, columns, y):
        torch.manual_seed(0)
        super()._fit_columns(columns, y)


class IgnoresItsSeed(Lengths):
    def _fit_columns(self, columns, y):
        super()._fit_columns(columns, y)
        self._noise = torch.rand(1, generator=torch.Generator().manual_seed(id(self) % 2**31))

    def _vector(self, cell):
        return [value + float(self._noise) for value in super()._vector(cell)]


class ForgetsInPickle(Lengths):
    def __getstate__(self):
        return {**super().__getstate__(), "scale": 2.0}


class TakesAnyColumns(Lengths):
    def _check_columns(self, X, *, reset):
        return super()._check_columns(X, reset=True)


class NeedsNoFit(Lengths):
    def __sklearn_is_fitted__(self):
        return True


class LearnsInClone(Lengths):
    def __sklearn_clone__(self):
        copy = type(self)(**self.get_params())
        if hasattr(self, "n_outputs_"):
            copy.n_outputs_ = self.n_outputs_
        return copy


class PandasOnly(Lengths):
    def _check_columns(self, X, *, reset):
        if not isinstance(X, pd.DataFrame):
            raise TypeError("Give a pandas frame.")
        return super()._check_columns(X, reset=reset)


def tells(*parts):
    """Pattern of a message that holds all the parts, in any order."""
    return "(?s)" + "".join(f"(?=.*(?:{part}))" for part in parts)


BROKEN = [
    (LoadsInInit, "check_init_only_stores", "sets .*weights.*, which are no parameters"),
    (LooksInInit, "check_init_only_stores", "looks at its parameters"),
    (LearnsInClone, "check_clone", "has .*n_outputs_"),
    (NeedsNoFit, "check_needs_fit", "has to raise NotFittedError"),
    (Doubles, "check_output", "gives float64"),
    (SameNames, "check_feature_names", "two outputs the same name"),
    (TakesAnyColumns, "check_columns", "has to refuse columns with other names"),
    (ForgetsInPickle, "check_pickle", "something else after a pickle"),
    (ChangesInput, "check_input_is_left_alone", "changes the frame that it is given"),
    (GivesItsMemory, "check_input_is_left_alone", "changes what it gives later"),
    (SeedsTorch, "check_seeds", "torch's random generator"),
    (IgnoresItsSeed, "check_seeds", "other vectors for the same random_state"),
    (PandasOnly, "check_containers", "Give a pandas frame"),
    (EmptyForMissing, "check_missing_cells", "absence must stay visible"),
    (NanOfOneSpelling, "check_missing_cells", "absent .NaTType NaT"),
    (TokensForMissing, "check_missing_cells", "a token for an absent cell"),
    (DependsOnBatch, "check_rows_are_independent", "depends on the other rows"),
    (DependsOnPosition, "check_rows_are_independent", "depends on the other rows"),
    (DependsOnIndex, "check_labels_do_not_matter", "The index of a frame changes"),
    (Guesses, "check_opaque_cells", "has to refuse a cell of type Opaque"),
    (Anonymous, "check_opaque_cells", "does not name"),
]


@pytest.mark.parametrize(
    ("broken", "check", "told"), BROKEN, ids=lambda v: getattr(v, "__name__", None)
)
def test_check_encoder_finds(broken, check, told):
    """By the check that is there for it, in a sentence that tells."""
    checks = [c for c in ENCODER_CHECKS if c.__name__ == check]
    assert len(checks) == 1
    with pytest.raises(AssertionError, match=tells(broken.__name__, told, check)):
        run_checks(checks, EncoderCase(broken()))
    with pytest.raises(AssertionError, match=broken.__name__):
        check_encoder(broken())


def test_check_encoder_finds_a_store_that_mixes_settings_up(tiny_bert, monkeypatch):
    def fingerprint(self, runtime):
        return f"{self.identity['digest']}|{runtime.dtype}"

    monkeypatch.setattr("skmm.encoders._pretrained.PretrainedEngine.fingerprint", fingerprint)
    with pytest.raises(AssertionError, match=r"'pooling'.*belong to other parameters.*check_store"):
        check_encoder(TextEncoder(tiny_bert))


def test_check_encoder_finds_a_store_that_keeps_nothing(tiny_bert, monkeypatch):
    from skmm.encoders._pretrained import PretrainedEngine

    honest = PretrainedEngine.fingerprint
    calls = iter(range(10_000))
    monkeypatch.setattr(
        PretrainedEngine,
        "fingerprint",
        lambda self, runtime: honest(self, runtime) + str(next(calls)),
    )
    with pytest.raises(AssertionError, match="encodes 8 cells anew that are kept"):
        check_encoder(TextEncoder(tiny_bert))


class IdleWeights(ImageEncoder):
    def start_training(self, X, y=None):
        network = super().start_training(X, y)
        network.idle = nn.Parameter(torch.ones(1))
        return network


class AbsentIsThere(ImageEncoder):
    def training_tensors(self, X):
        tensors = super().training_tensors(X)
        return {k: t | True if k.endswith("present") else t for k, t in tensors.items()}


class HandsBackNothing(ImageEncoder):
    def end_training(self, network):
        nn.init.normal_(network.backbone.stem.weight)
        return super().end_training(network)


@pytest.mark.parametrize(
    ("broken", "told"),
    [
        (IdleWeights, "idle of the network .* gets no gradient"),
        (AbsentIsThere, "gives a token for an absent cell"),
        (HandsBackNothing, "is not what the network that was handed back gives"),
    ],
)
def test_check_encoder_finds_bad_training(broken, told):
    with pytest.raises(AssertionError, match=tells(told, "check_training")):
        check_encoder(broken("cnn", n_components=8, image_size=16, max_epochs=1, random_state=0))


class Meddles(EarlyFusion):
    """Does something before it is fitted, by either verb."""

    def fit(self, X, y=None, **params):
        self._meddle()
        return super().fit(X, y, **params)

    def fit_transform(self, X, y=None, **params):
        self._meddle()
        return super().fit_transform(X, y, **params)


class FitsTheGiven(Meddles):
    def _meddle(self):
        if isinstance(self.modalities, list) and hasattr(self.modalities[0][1], "fit"):
            self.modalities[0][1].fit(np.array([["a"], ["b"]], dtype=object))


class CentresRows(EarlyFusion):
    def transform(self, X):
        features = np.asarray(super().transform(X))
        return features - features.mean(axis=0)


class GivesNaN(EarlyFusion):
    def _side_by_side(self, values, **options):
        features = super()._side_by_side(values, **options)
        features[~values[0].present, 0] = np.nan
        return features


class EvenOdds(LateFusionClassifier):
    def predict_proba(self, X):
        odds = super().predict_proba(X)
        odds[pd.DataFrame(X).isna().all(axis=1).to_numpy()] = 1 / odds.shape[1]
        return odds


class KeepsDropped(Meddles):
    def _meddle(self):
        if any(middle == "drop" for _, middle, _ in self.modalities):
            self.modalities = [
                (name, "passthrough" if middle == "drop" else middle, columns)
                for name, middle, columns in self.modalities
            ]


class SharesNames(EarlyFusion):
    def get_feature_names_out(self, input_features=None):
        names = super().get_feature_names_out(input_features)
        return np.array([name.partition("__")[2] for name in names], dtype=object)


class HidesParameters(EarlyFusion):
    def get_params(self, deep=True):
        return super().get_params(deep=False)


class SeedsNumpy(Meddles):
    def _meddle(self):
        np.random.seed(0)


@pytest.mark.parametrize(
    ("broken", "check", "told"),
    [
        (FitsTheGiven, "check_triples", "fits the transformer that it was given"),
        (KeepsDropped, "check_drop", "for a modality that is 'drop' than for none"),
        (HidesParameters, "check_parameters", "lacks 'words'"),
        (SharesNames, "check_feature_names", "two outputs the same name"),
        (SeedsNumpy, "check_input_and_seeds", "numpy's random generator"),
        (GivesNaN, "check_missing_at_fit_and_predict", "gives NaN for rows that lack"),
        (EvenOdds, "check_row_without_any_modality", "does not give the prior"),
        (CentresRows, "check_rows_are_independent", "depends on the other rows"),
    ],
)
def test_check_fusion_finds(broken, check, told):
    fusion = broken(rule="mean") if broken is EvenOdds else broken()
    checks = [c for c in FUSION_CHECKS if c.__name__.startswith(check)]
    with pytest.raises(AssertionError, match=tells(broken.__name__, told, check)):
        run_checks(checks, FusionCase(fusion))
    with pytest.raises(AssertionError, match=broken.__name__):
        check_fusion(fusion)


def test_whatever_goes_wrong_is_an_assertion():
    class Raises(Lengths):
        def _vector(self, cell):
            raise ZeroDivisionError("oh")

    with pytest.raises(AssertionError, match="Raises raised ZeroDivisionError in check_.*: oh"):
        check_encoder(Raises())
