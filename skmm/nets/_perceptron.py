"""Layers one after the other: the multilayer perceptron."""

from collections.abc import Sequence

from torch import nn

__all__ = ["Perceptron"]


class Perceptron(nn.Sequential):
    """Linear layers with something bent between them.

    Parameters
    ----------
    n_features : int
        Length of the input vectors.
    n_outputs : int
        Length of the output vectors.
    hidden_sizes : sequence of int, default=()
        Units of the hidden layers; none makes a linear map.
    dropout : float, default=0.0
        Share of the hidden units that is zeroed in training, in [0, 1].

    Examples
    --------
    >>> import torch
    >>> from skmm.nets import Perceptron
    >>> Perceptron(8, 2, hidden_sizes=(16,))(torch.ones(5, 8)).shape
    torch.Size([5, 2])
    """

    def __init__(
        self,
        n_features: int,
        n_outputs: int,
        *,
        hidden_sizes: Sequence[int] = (),
        dropout: float = 0.0,
    ):
        layers: list[nn.Module] = []
        for size in hidden_sizes:
            layers += [nn.Linear(n_features, size), nn.GELU(), nn.Dropout(dropout)]
            n_features = size
        super().__init__(*layers, nn.Linear(n_features, n_outputs))
