"""scikit-learn for data with several modalities.

A row of a DataFrame is a sample; a column holds text, images, numbers or categories, and
any cell may be missing. Encoders turn each modality into features, a fusion joins them and
predicts, and every part is a scikit-learn estimator.

Names are loaded lazily: ``import skmm`` loads neither torch nor scikit-learn; the first use of a
name does.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from skmm import (
        alignment,
        backbones,
        datasets,
        encoders,
        exceptions,
        fusion,
        generation,
        inspection,
        metrics,
        model_selection,
        nets,
        readers,
        retrieval,
        testing,
    )
    from skmm._environment._config import config_context, get_config, set_config
    from skmm._environment._versions import show_versions
    from skmm._frame._modality import infer_modalities
    from skmm._frame_report import frame_report
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
    from skmm.fusion._make import make_multimodal_pipeline
    from skmm.generation import (
        CaptionGenerator,
        ImageGenerator,
        PretrainedCaptionGenerator,
        PretrainedImageGenerator,
        QuestionAnswerer,
        SeriesGenerator,
    )
    from skmm.retrieval import CrossModalRetriever, PrototypeClassifier, ZeroShotClassifier

__version__ = "0.1.0.dev0"

__all__ = [
    "AdversarialAlignment",
    "AudioEncoder",
    "AutoencoderAlignment",
    "CCAAlignment",
    "CaptionGenerator",
    "ContrastiveAlignment",
    "CrossModalRetriever",
    "EarlyFusion",
    "ImageEncoder",
    "ImageGenerator",
    "JointFusionClassifier",
    "JointFusionMultiTask",
    "JointFusionRegressor",
    "LateFusionClassifier",
    "LateFusionRegressor",
    "ModuleEncoder",
    "PointCloudEncoder",
    "PretrainedAlignment",
    "PretrainedCaptionGenerator",
    "PretrainedImageGenerator",
    "PrototypeClassifier",
    "QuestionAnswerer",
    "SeriesGenerator",
    "TabularEncoder",
    "TextEncoder",
    "TimeSeriesEncoder",
    "Trainer",
    "VideoEncoder",
    "ZeroShotClassifier",
    "alignment",
    "backbones",
    "config_context",
    "datasets",
    "encoders",
    "exceptions",
    "frame_report",
    "fusion",
    "generation",
    "get_config",
    "infer_modalities",
    "inspection",
    "make_multimodal_pipeline",
    "metrics",
    "model_selection",
    "nets",
    "readers",
    "retrieval",
    "set_config",
    "show_versions",
    "testing",
]

_FOLDERS = (
    "alignment",
    "backbones",
    "datasets",
    "encoders",
    "exceptions",
    "fusion",
    "generation",
    "inspection",
    "metrics",
    "model_selection",
    "nets",
    "readers",
    "retrieval",
    "testing",
)

# Public name -> the module that exports it. tests/test_import.py checks that this table,
# ``__all__`` and the imports above are equal.
_HOME = {
    "AdversarialAlignment": "skmm.alignment",
    "AudioEncoder": "skmm.encoders",
    "AutoencoderAlignment": "skmm.alignment",
    "CCAAlignment": "skmm.alignment",
    "CaptionGenerator": "skmm.generation",
    "ContrastiveAlignment": "skmm.alignment",
    "CrossModalRetriever": "skmm.retrieval",
    "EarlyFusion": "skmm.fusion",
    "ImageEncoder": "skmm.encoders",
    "ImageGenerator": "skmm.generation",
    "JointFusionClassifier": "skmm.fusion",
    "JointFusionMultiTask": "skmm.fusion",
    "JointFusionRegressor": "skmm.fusion",
    "LateFusionClassifier": "skmm.fusion",
    "LateFusionRegressor": "skmm.fusion",
    "Trainer": "skmm.fusion",
    "ModuleEncoder": "skmm.encoders",
    "PointCloudEncoder": "skmm.encoders",
    "PretrainedAlignment": "skmm.alignment",
    "PretrainedCaptionGenerator": "skmm.generation",
    "PretrainedImageGenerator": "skmm.generation",
    "PrototypeClassifier": "skmm.retrieval",
    "QuestionAnswerer": "skmm.generation",
    "SeriesGenerator": "skmm.generation",
    "TabularEncoder": "skmm.encoders",
    "TextEncoder": "skmm.encoders",
    "TimeSeriesEncoder": "skmm.encoders",
    "VideoEncoder": "skmm.encoders",
    "ZeroShotClassifier": "skmm.retrieval",
    "config_context": "skmm._environment._config",
    "frame_report": "skmm._frame_report",
    "get_config": "skmm._environment._config",
    "infer_modalities": "skmm._frame._modality",
    "make_multimodal_pipeline": "skmm.fusion._make",
    "set_config": "skmm._environment._config",
    "show_versions": "skmm._environment._versions",
}


def __getattr__(name: str) -> Any:
    if name in _FOLDERS:
        return importlib.import_module(f"skmm.{name}")
    if name not in _HOME:
        raise AttributeError(f"module 'skmm' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOME[name]), name)
    globals()[name] = value  # so that the next access does not call __getattr__
    return value


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
