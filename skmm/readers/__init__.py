"""Readers turn one raw cell into one decoded object. Nothing in this folder imports torch.

Every reader comes as a family of plain functions: ``read_*`` decodes a cell, ``digest_*`` names
its content (what the store keeps embeddings under), ``load_*`` does both from one look at the
cell. A reader knows no row and no column: who does adds them with :func:`with_position`.
"""

from skmm.readers._audio import digest_audio, load_audio, read_audio
from skmm.readers._image import (
    ImageList,
    digest_image,
    digest_image_list,
    is_image_list,
    load_image,
    load_image_list,
    read_image,
)
from skmm.readers._points import digest_points, load_points, read_points
from skmm.readers._series import digest_series, load_series, read_series
from skmm.readers._source import digest_bytes, source_bytes, with_position
from skmm.readers._text import as_float, digest_text, read_text
from skmm.readers._video import digest_video, load_video, read_video

__all__ = [
    "ImageList",
    "as_float",
    "digest_audio",
    "digest_bytes",
    "digest_image",
    "digest_image_list",
    "digest_points",
    "digest_series",
    "digest_text",
    "digest_video",
    "is_image_list",
    "load_audio",
    "load_image",
    "load_image_list",
    "load_points",
    "load_series",
    "load_video",
    "read_audio",
    "read_image",
    "read_points",
    "read_series",
    "read_text",
    "read_video",
    "source_bytes",
    "with_position",
]
