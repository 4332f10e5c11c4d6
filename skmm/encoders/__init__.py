"""Encoders: scikit-learn transformers around a torch model, from cells to vectors."""

from skmm.encoders._audio import AudioEncoder
from skmm.encoders._image import ImageEncoder
from skmm.encoders._module import ModuleEncoder
from skmm.encoders._point_cloud import PointCloudEncoder
from skmm.encoders._store._store import EmbeddingStore
from skmm.encoders._tabular import TabularEncoder
from skmm.encoders._text import TextEncoder
from skmm.encoders._time_series import TimeSeriesEncoder
from skmm.encoders._video import VideoEncoder

__all__ = [
    "AudioEncoder",
    "EmbeddingStore",
    "ImageEncoder",
    "ModuleEncoder",
    "PointCloudEncoder",
    "TabularEncoder",
    "TextEncoder",
    "TimeSeriesEncoder",
    "VideoEncoder",
]
