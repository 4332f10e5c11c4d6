"""Readers turn one raw cell into one decoded object. Nothing in this folder imports torch.

Every reader comes as a family of plain functions: ``read_*`` decodes a cell, ``digest_*`` names
its content (what the store keeps embeddings under), ``load_*`` does both from one look at the
cell. A reader knows no row and no column: who does adds them with :func:`with_position`.
"""

from skmm.readers._image import digest_image, load_image, read_image
from skmm.readers._source import digest_bytes, source_bytes, with_position
from skmm.readers._text import digest_text, read_text

__all__ = [
    "digest_bytes",
    "digest_image",
    "digest_text",
    "load_image",
    "read_image",
    "read_text",
    "source_bytes",
    "with_position",
]
