"""Torch modules that turn decoded cells into tokens: pretrained networks and networks to train.

``collate`` turns cells into tensors, ``forward`` turns those into tokens, a mask and a pooled
vector.
"""

from skmm.backbones._base import Backbone, Encoded

__all__ = [
    "Backbone",
    "Encoded",
]
