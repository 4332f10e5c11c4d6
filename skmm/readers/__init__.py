"""Functions that decode one raw cell. Nothing in this package imports torch.

The module of each modality has a ``read_*`` function, which decodes a cell; a ``digest_*``
function, which identifies its content for the embedding store; and, for media, a ``load_*``
function, which reads the bytes once and does both. A reader does not know the row and the column
of its cell: the caller adds them to an error with ``skmm.readers._source.with_position``.
"""

from skmm.readers._audio import read_audio
from skmm.readers._image import read_image
from skmm.readers._points import read_points
from skmm.readers._series import read_series
from skmm.readers._text import read_text
from skmm.readers._video import read_video

__all__ = [
    "read_audio",
    "read_image",
    "read_points",
    "read_series",
    "read_text",
    "read_video",
]
