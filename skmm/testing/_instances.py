"""How each public estimator is built for tests: small, fast, without a download.

One table says it for every class. A public estimator that is not in it fails
``tests/test_common.py``, and so does an allowed failure that no longer fails.
"""

from collections.abc import Callable
from typing import Any

import pandas as pd
from sklearn.linear_model import LogisticRegression, Ridge
from torch import nn

from skmm.alignment import (
    AdversarialAlignment,
    AutoencoderAlignment,
    CCAAlignment,
    ContrastiveAlignment,
    PretrainedAlignment,
)
from skmm.encoders import (
    AudioEncoder,
    ImageEncoder,
    ModuleEncoder,
    PointCloudEncoder,
    TabularEncoder,
    TextEncoder,
    TimeSeriesEncoder,
    VideoEncoder,
)
from skmm.fusion import (
    EarlyFusion,
    JointFusionClassifier,
    JointFusionMultiTask,
    JointFusionRegressor,
    LateFusionClassifier,
    LateFusionRegressor,
    Trainer,
)
from skmm.generation import (
    CaptionGenerator,
    FlowMatching,
    ImageGenerator,
    PretrainedCaptionGenerator,
    PretrainedImageGenerator,
    QuestionAnswerer,
    SeriesGenerator,
)
from skmm.retrieval import CrossModalRetriever, PrototypeClassifier, ZeroShotClassifier
from skmm.testing._encoder_case import EncoderCase
from skmm.testing._fusion_case import FusionCase
from skmm.testing._toys import (
    ToySpace,
    fusion_frame,
    toy_captioner,
    toy_cells,
    toy_clip,
    toy_diffusion,
    toy_rows,
)

__all__ = [
    "EXPECTED_FAILED_CHECKS",
    "PRETRAINED",
    "cells_of",
    "expected_failed_checks",
    "fit_pretrained",
    "fitted_instance",
    "instances_of",
]

_TRAINED: dict[str, Any] = {"max_epochs": 2, "random_state": 0}
# Enough steps to learn the blobs of scikit-learn's checks.
_JOINT: dict[str, Any] = {
    "n_components": 8,
    "max_epochs": 5,
    "trainer": Trainer(batch_size=16, learning_rate=0.05),
    "random_state": 0,
}
# One instance of each kind: each check of scikit-learn takes seconds.
_OTHER_STRATEGIES = ("mean", "gated", "film", "low_rank", "attention")
# Numbers as they are and converged far beyond the tolerance with which scikit-learn compares
# two fits. No standardization comes before the estimator, so that sample weights have effect.
_NUMBERS = [("numbers", "passthrough", slice(None))]
# The same numbers as two modalities, for what aligns one with another.
_TWICE = [("left", "passthrough", slice(None)), ("right", "passthrough", slice(None))]
_EXACT: dict[str, Any] = {"estimator": LogisticRegression(tol=1e-10, max_iter=10_000), "cv": 2}


def _text() -> list[Any]:
    return [
        TextEncoder("gru", n_components=4, **_TRAINED),
        TextEncoder("tfidf", n_components=3, random_state=0),
    ]


def _image() -> list[Any]:
    small: dict[str, Any] = {"image_size": 16, **_TRAINED}
    return [
        ImageEncoder("cnn", n_components=8, **small),
        ImageEncoder(nn.Conv2d(3, 4, kernel_size=4, stride=4), **small),
    ]


def _audio() -> list[Any]:
    heard: dict[str, Any] = {"sampling_rate": 16_000, **_TRAINED}
    network = nn.Sequential(nn.AdaptiveAvgPool1d(16), nn.Linear(16, 4))
    return [
        AudioEncoder("cnn", n_components=8, **heard),
        AudioEncoder(network, **heard),
        AudioEncoder(sampling_rate=16_000, window=0.05),
    ]


def _module() -> list[Any]:
    return [
        ModuleEncoder(nn.Linear(1, 3), fine_tune="full", **_TRAINED),
        ModuleEncoder(nn.Softplus(beta=2.0)),
        ModuleEncoder(nn.Linear(1, 3)),
    ]


def _tabular() -> list[Any]:
    return [TabularEncoder("tokens", n_components=4, **_TRAINED), TabularEncoder()]


def _time_series() -> list[Any]:
    return [
        TimeSeriesEncoder("gru", n_components=4, **_TRAINED),
        TimeSeriesEncoder("inception", n_components=4, **_TRAINED),
        TimeSeriesEncoder(nn.Linear(2, 4), **_TRAINED),
        TimeSeriesEncoder(n_kernels=168, random_state=0),
    ]


def _video() -> list[Any]:
    small: dict[str, Any] = {"image_size": 16, **_TRAINED}
    return [
        VideoEncoder("cnn", temporal_pooling="gru", n_components=4, **small),
        VideoEncoder("cnn", temporal_pooling="attention", n_components=4, **small),
        VideoEncoder(nn.Conv2d(3, 4, kernel_size=4, stride=4), n_frames=3, **small),
    ]


def _point_cloud() -> list[Any]:
    small: dict[str, Any] = {"n_points": 24, **_TRAINED}
    return [
        PointCloudEncoder("pointnet", n_components=4, **small),
        PointCloudEncoder("pointnet", n_components=4, rotation_invariant=True, **small),
        PointCloudEncoder(nn.Linear(4, 4), **small),
        PointCloudEncoder(n_points=24),
        PointCloudEncoder(rotation_invariant=True, center=False, scale=False),
    ]


def _early() -> list[Any]:
    return [
        EarlyFusion(),
        EarlyFusion(scaling="block"),
        EarlyFusion(scaling=None, add_indicator=False),
    ]


def _late_classifier() -> list[Any]:
    rules: tuple[Any, ...] = ("mean", "weighted", "vote", "max", "product")
    return [
        LateFusionClassifier(cv=2, random_state=0),
        *(LateFusionClassifier(_NUMBERS, rule=rule, **_EXACT) for rule in rules),
    ]


def _late_regressor() -> list[Any]:
    return [
        LateFusionRegressor(cv=2, random_state=0),
        LateFusionRegressor(rule="weighted", cv=2),
        LateFusionRegressor(_NUMBERS, rule="mean", estimator=Ridge()),
    ]


def _joint_classifier() -> list[Any]:
    return [
        # The first one has every fitted attribute.
        *(JointFusionClassifier(strategy=s, **_JOINT) for s in ("concat", *_OTHER_STRATEGIES)),
        # So small that a row gives the same numbers in any batch, to the last digit.
        JointFusionClassifier(loss="max_margin", strategy="mean", **{**_JOINT, "n_components": 4}),
        JointFusionClassifier(balance="gradient", **_JOINT),
    ]


def _joint_multi_task() -> list[Any]:
    return [
        *(JointFusionMultiTask(loss_weights=w, **_JOINT) for w in ("equal", "uncertainty")),
        JointFusionMultiTask(balance="auxiliary", **_JOINT),
    ]


def _joint_regressor() -> list[Any]:
    options = {"dropout": 0.1, **_JOINT}  # a third of 8 units would be too many
    return [
        *(JointFusionRegressor(strategy=s, **options) for s in ("concat", "gated")),
        JointFusionRegressor(balance="gradient", **options),
    ]


def _prototypes() -> list[Any]:
    return [PrototypeClassifier(), PrototypeClassifier(metric="cosine", shrinkage=1.0)]


def _retriever() -> list[Any]:
    return [CrossModalRetriever(ToySpace(), missing_query="nan")]


def _zero_shot() -> list[Any]:
    return [ZeroShotClassifier(ToySpace(), classes=["a", "b"], prompt_column="text")]


def _contrastive() -> list[Any]:
    options = {"modalities": _TWICE, **_JOINT}
    return [ContrastiveAlignment(**options), ContrastiveAlignment(loss="triplet", **options)]


def _adversarial() -> list[Any]:
    return [AdversarialAlignment(_TWICE, max_iter=5, random_state=0)]


def _autoencoder() -> list[Any]:
    options = {"modalities": _TWICE, **_JOINT}
    return [AutoencoderAlignment(**options), AutoencoderAlignment(variational=True, **options)]


def _cca() -> list[Any]:
    options: dict[str, Any] = {"modalities": _TWICE, "random_state": 0}
    return [
        # The first one has every fitted attribute.
        CCAAlignment(method="deep", max_epochs=3, **options),
        *(CCAAlignment(method=method, **options) for method in ("regularized", "kernel")),
    ]


def _captions() -> list[Any]:
    # A class of the toy frame is a text of one word.
    return [CaptionGenerator(decoder=decoder, **_JOINT) for decoder in ("transformer", "gru")]


def _images() -> list[Any]:
    small: dict[str, Any] = {"image_size": 8, "n_channels": 4}
    methods: tuple[Any, ...] = (FlowMatching(2), "gan")
    return [ImageGenerator(method=method, **small, **_JOINT) for method in methods]


def _answers() -> list[Any]:
    # The text of the toy frame is the question, and reads as a modality too.
    return [QuestionAnswerer(answers=kind, **_JOINT) for kind in ("closed", "open")]


def _series() -> list[Any]:
    return [SeriesGenerator(decoder=decoder, **_JOINT) for decoder in ("transformer", "gru")]


def _pretrained() -> list[Any]:
    return [PretrainedAlignment("a checkpoint with two towers")]


def _pretrained_captions() -> list[Any]:
    return [PretrainedCaptionGenerator("a checkpoint that writes", max_length=4, random_state=0)]


def _pretrained_images() -> list[Any]:
    small: dict[str, Any] = {"image_size": 8, "n_steps": 2, "random_state": 0}
    return [PretrainedImageGenerator("a pipeline from texts to images", **small)]


_TABLE: dict[type, Callable[[], list[Any]]] = {
    AdversarialAlignment: _adversarial,
    AudioEncoder: _audio,
    AutoencoderAlignment: _autoencoder,
    CCAAlignment: _cca,
    CaptionGenerator: _captions,
    ContrastiveAlignment: _contrastive,
    CrossModalRetriever: _retriever,
    EarlyFusion: _early,
    ImageEncoder: _image,
    ImageGenerator: _images,
    JointFusionClassifier: _joint_classifier,
    JointFusionMultiTask: _joint_multi_task,
    JointFusionRegressor: _joint_regressor,
    LateFusionClassifier: _late_classifier,
    LateFusionRegressor: _late_regressor,
    ModuleEncoder: _module,
    PointCloudEncoder: _point_cloud,
    PretrainedAlignment: _pretrained,
    PretrainedCaptionGenerator: _pretrained_captions,
    PretrainedImageGenerator: _pretrained_images,
    PrototypeClassifier: _prototypes,
    QuestionAnswerer: _answers,
    SeriesGenerator: _series,
    TabularEncoder: _tabular,
    TextEncoder: _text,
    TimeSeriesEncoder: _time_series,
    VideoEncoder: _video,
    ZeroShotClassifier: _zero_shot,
}

_BATCHES = (
    "trained by stochastic gradients: a row that is there twice is drawn into two batches, a row"
    " of weight two into one"
)
_FOLDS = (
    "learns the rule from out-of-fold votes: a row that is there twice is in two folds, a row"
    " of weight two in one"
)
_HASH = (
    "the check compares joblib.hash of a parameter and of its copy, which differ for any module"
    " that holds a tensor"
)
_WEIGHT_EQUIVALENCE = "check_sample_weight_equivalence_on_dense_data"

# (class, whether an instance is meant, check of scikit-learn, why it may fail)
EXPECTED_FAILED_CHECKS: list[tuple[type, Callable[[Any], bool], str, str]] = [
    (JointFusionClassifier, lambda e: True, _WEIGHT_EQUIVALENCE, _BATCHES),
    (JointFusionMultiTask, lambda e: True, _WEIGHT_EQUIVALENCE, _BATCHES),
    (JointFusionRegressor, lambda e: True, _WEIGHT_EQUIVALENCE, _BATCHES),
    (LateFusionClassifier, lambda e: e.rule == "stacking", _WEIGHT_EQUIVALENCE, _FOLDS),
    (LateFusionRegressor, lambda e: e.rule == "stacking", _WEIGHT_EQUIVALENCE, _FOLDS),
    (
        ModuleEncoder,
        lambda e: any(True for _ in e.module.parameters()),
        "check_estimators_overwrite_params",
        _HASH,
    ),
]


def instances_of(cls: type) -> list[Any]:
    """Return unfitted instances of an estimator, one for each of its modes.

    Parameters
    ----------
    cls : type
        Public estimator of skmm.

    Returns
    -------
    instances : list of estimators
        The first one has every fitted attribute. Those that take a matrix of numbers take
        scikit-learn's.
    """
    if cls not in _TABLE:
        raise LookupError(
            f"No instance of {cls.__name__} is known to the tests. Tell skmm/testing/_instances.py"
            " how a small one is built."
        )
    return _TABLE[cls]()


def cells_of(instance: Any) -> pd.DataFrame:
    """Return cells on which an encoder of :func:`instances_of` can be checked."""
    return toy_cells("number" if isinstance(instance, ModuleEncoder) else instance.modality)


def fitted_instance(cls: type) -> Any:
    """Fit the first instance of an estimator on a toy frame."""
    instance = instances_of(cls)[0]
    if isinstance(instance, PrototypeClassifier):
        frame, classes, _ = fusion_frame()
        return instance.fit(frame[["a", "b"]].fillna(0.0), classes)
    if isinstance(instance, CrossModalRetriever | ZeroShotClassifier):
        return instance.fit(*toy_rows())
    if isinstance(instance, PRETRAINED):
        return fit_pretrained(instance)[0]
    if hasattr(instance, "modalities"):
        return FusionCase(instance).fit()
    return EncoderCase(instance, cells_of(instance)).fit()


# What needs a checkpoint and has no model of its own.
PRETRAINED = (PretrainedAlignment, PretrainedCaptionGenerator, PretrainedImageGenerator)


def fit_pretrained(instance: Any) -> tuple[Any, pd.DataFrame]:
    """Fit an estimator that needs a checkpoint with a toy one; return it and its cells.

    Parameters
    ----------
    instance : estimator
        Of ``PRETRAINED``; it is changed.
    """
    if isinstance(instance, PretrainedImageGenerator):
        model, X = toy_diffusion(), toy_cells("text")
    else:
        model = toy_clip() if isinstance(instance, PretrainedAlignment) else toy_captioner()
        X = toy_cells("image")
    return instance.set_params(model=model).fit(X), X


def expected_failed_checks(estimator: object) -> dict[str, str]:
    """Return the checks of scikit-learn that an instance may fail, and why.

    Parameters
    ----------
    estimator : estimator
        One of :func:`instances_of`.

    Returns
    -------
    checks : dict of str to str
        Name of the check and reason.
    """
    return {
        check: reason
        for cls, is_meant, check, reason in EXPECTED_FAILED_CHECKS
        if isinstance(estimator, cls) and is_meant(estimator)
    }
