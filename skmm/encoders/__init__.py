"""Encoders: scikit-learn transformers around a torch model, from cells to vectors."""

from skmm.encoders._image import ImageEncoder
from skmm.encoders._module import ModuleEncoder
from skmm.encoders._store import EmbeddingStore
from skmm.encoders._tabular import TabularEncoder
from skmm.encoders._text import TextEncoder

__all__ = ["EmbeddingStore", "ImageEncoder", "ModuleEncoder", "TabularEncoder", "TextEncoder"]
