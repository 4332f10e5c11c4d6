"""The contracts, held by every public estimator: scikit-learn's, and ours on top of it."""

import inspect
from functools import partial

import pytest
import sklearn
import sklearn.utils.estimator_checks as sklearn_checks
from representatives import first_of_each_class, name_of, one_of_each_engine
from sklearn.base import BaseEstimator, clone
from sklearn.linear_model import LogisticRegression
from sklearn.utils import get_tags
from sklearn.utils.estimator_checks import parametrize_with_checks

import skmm
from skmm import (
    CCAAlignment,
    EarlyFusion,
    ImageEncoder,
    JointFusionRegressor,
    LateFusionRegressor,
    TextEncoder,
)
from skmm.testing import all_estimators, check_encoder, check_fusion
from skmm.testing._instances import (
    EXPECTED_FAILED_CHECKS,
    cells_of,
    expected_failed_checks,
    fitted_instance,
    instances_of,
)

ENCODERS = [i for _, cls in all_estimators("encoder") for i in instances_of(cls)]
FUSIONS = [
    i
    for kind in ("fusion", "alignment")
    for _, cls in all_estimators(kind)
    for i in instances_of(cls)
]
# Estimators that use an alignment, and those that generate.
OTHERS = [
    i
    for kind in ("generation", "retrieval")
    for _, cls in all_estimators(kind)
    for i in instances_of(cls)
]


def split_by_speed(candidates):
    """Return the first instance of each class, for the fast suite, and of each other engine."""
    first = first_of_each_class(candidates)
    return first, [i for i in one_of_each_engine(candidates) if i not in first]


# One of each kind of code.
QUICK = (
    *(TextEncoder, ImageEncoder, EarlyFusion, LateFusionRegressor, JointFusionRegressor),
    CCAAlignment,
)


def fast_and_slow(candidates):
    """Return every instance, marked slow but for the first of a few classes."""
    fast = [i for i in first_of_each_class(candidates) if type(i) in QUICK]
    return [
        pytest.param(i, id=name_of(i), marks=() if i in fast else pytest.mark.slow)
        for i in candidates
    ]


# --- discovery ----------------------------------------------------------------------------


def test_every_public_estimator_is_found():
    folders = [getattr(skmm, name) for name in skmm.__all__ if name != "testing"]
    members = {
        getattr(folder, member)
        for folder in filter(inspect.ismodule, [skmm, *folders])
        for member in folder.__all__
        if member != "testing"
    }
    public = {m for m in members if inspect.isclass(m) and issubclass(m, BaseEstimator)}
    # Objects that hold parameters of an estimator, such as a loss, have no fit; a trainer fits
    # a module.
    learning = {cls for cls in public if hasattr(cls, "fit")} - {skmm.Trainer}
    assert {cls for _, cls in all_estimators()} == learning
    assert len(public) >= 9


def test_kinds():
    encoders, fusions = all_estimators("encoder"), all_estimators("fusion")
    others = all_estimators("alignment") + all_estimators("retrieval")
    others += all_estimators("generation")
    assert sorted(encoders + fusions + others) == sorted(all_estimators())
    assert ("TextEncoder", TextEncoder) in encoders and ("EarlyFusion", EarlyFusion) in fusions
    with pytest.raises(ValueError, match="kind must be one of .*'encoder', 'fusion'.* got 'x'"):
        all_estimators("x")


def test_an_estimator_without_an_instance_is_an_error():
    with pytest.raises(LookupError, match="LogisticRegression.*_instances.py"):
        instances_of(LogisticRegression)


@pytest.mark.parametrize("cls", [cls for _, cls in all_estimators()], ids=lambda c: c.__name__)
def test_fitted_instance(cls):
    fitted = fitted_instance(cls)
    assert type(fitted) is cls and hasattr(fitted, "feature_names_in_")


# --- scikit-learn's contract --------------------------------------------------------------

TAKES_NUMBERS = [i for i in [*ENCODERS, *FUSIONS, *OTHERS] if get_tags(i).input_tags.two_d_array]
# scikit-learn before 1.8 cannot ask for it; pytest's own xfail_strict does not reach its marks.
STRICT = "xfail_strict" in inspect.signature(parametrize_with_checks).parameters


checks_of = partial(
    parametrize_with_checks,
    expected_failed_checks=expected_failed_checks,
    **({"xfail_strict": True} if STRICT else {}),
)
FIRST, OTHER_ENGINES = split_by_speed(TAKES_NUMBERS)


@checks_of(FIRST)
def test_check_estimator(estimator, check):
    check(estimator)


@pytest.mark.slow
@checks_of(OTHER_ENGINES)
def test_check_estimator_of_other_engines(estimator, check):
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
    for estimator in one_of_each_engine([*ENCODERS, *FUSIONS, *OTHERS]):
        for check in LEFT_OUT if estimator in TAKES_NUMBERS else WITHOUT_DATA:
            of_transformers = "transform" in check or "feature_names_out" in check
            if of_transformers and not hasattr(estimator, "transform"):
                continue
            yield pytest.param(estimator, check, id=f"{name_of(estimator)}-{check}")


# The checks themselves fit on a frame and then transform an array, or the other way round.
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:X (has|does not have valid) feature names:UserWarning")
@pytest.mark.parametrize(("estimator", "check"), [*left_out_pairs()])
def test_checks_that_check_estimator_leaves_out(estimator, check):
    if hasattr(estimator, "trainer") and estimator.max_epochs:
        estimator = clone(estimator).set_params(max_epochs=1)  # none of them asks what was learned
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


@pytest.mark.parametrize("encoder", fast_and_slow(one_of_each_engine(ENCODERS)))
def test_check_encoder(encoder):
    check_encoder(encoder, cells_of(encoder))


# One a class and engine, and the joint strategies whose networks differ most. A checkpoint's space
# takes texts, images and audio alone, which this frame does not hold.
THAT_FUSE = [
    fusion
    for fusion in FUSIONS
    if fusion in TAKES_NUMBERS
    and (
        fusion in one_of_each_engine(FUSIONS)
        or getattr(fusion, "strategy", None) in ("gated", "low_rank", "attention")
    )
]


@pytest.mark.parametrize("fusion", fast_and_slow(THAT_FUSE))
def test_check_fusion(fusion):
    check_fusion(fusion)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["bert", "gpt2", "clip"])
def test_check_encoder_on_pretrained_text(kind, tiny_checkpoint):
    check_encoder(TextEncoder(tiny_checkpoint(kind)))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["vit", "convnext", "clip"])
def test_check_encoder_on_pretrained_images(kind, tiny_checkpoint):
    check_encoder(ImageEncoder(tiny_checkpoint(kind)))


@pytest.mark.slow
def test_check_encoder_on_several_columns():
    X = cells_of(TextEncoder())
    X["title"] = X["review"].iloc[::-1].to_numpy()
    check_encoder(TextEncoder("tfidf", n_components=3, random_state=0), X)
    check_encoder(TextEncoder("gru", n_components=4, max_epochs=1, random_state=0), X)
