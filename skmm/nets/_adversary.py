"""Networks of adversarial alignment: maps between two spaces, and their discriminators."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

__all__ = ["Discriminator", "OrthogonalMap"]


class OrthogonalMap(nn.Module):
    """Several linear maps of a space that stay close to rotations [1]_.

    Parameters
    ----------
    start : Tensor of shape (n_maps, n_components, n_components)
        Initial maps.

    References
    ----------
    .. [1] Lample, Conneau, Ranzato, Denoyer, Jégou (2018), "Word translation without parallel
       data", ICLR.

    Examples
    --------
    >>> import torch
    >>> from skmm.nets._adversary import OrthogonalMap
    >>> OrthogonalMap(torch.eye(3)[None])(torch.ones(1, 5, 3)).shape
    torch.Size([1, 5, 3])
    """

    def __init__(self, start: Tensor):
        super().__init__()
        self.weight = nn.Parameter(start.clone())

    def forward(self, values: Tensor) -> Tensor:
        """Map vectors (n_maps, n_rows, n_components), each block by its map."""
        return values @ self.weight

    @torch.no_grad()
    def pull(self, strength: float) -> None:
        """Pull the maps toward rotations: ``W <- (1 + s) W - s W W' W``."""
        weight = self.weight
        weight.copy_((1 + strength) * weight - strength * weight @ weight.mT @ weight)

    @torch.no_grad()
    def rotations(self) -> Tensor:
        """Return the orthogonal matrices closest to the maps, of the shape of ``start``."""
        left, _, right = torch.linalg.svd(self.weight)
        rotations: Tensor = left @ right
        return rotations


class Discriminator(nn.Module):
    """Several independent networks that predict which space a vector is from [1]_, [2]_.

    Parameters
    ----------
    n_copies : int
        Number of networks, evaluated in one batch.
    n_components : int
        Length of the vectors.
    hidden_sizes : sequence of int, default=(64, 64)
        Units of the hidden layers.

    References
    ----------
    .. [1] Goodfellow et al. (2014), "Generative adversarial nets", NeurIPS.
    .. [2] Ganin et al. (2016), "Domain-adversarial training of neural networks", JMLR 17.

    Examples
    --------
    >>> import torch
    >>> from skmm.nets._adversary import Discriminator
    >>> Discriminator(2, 3)(torch.ones(2, 5, 3)).shape
    torch.Size([2, 5])
    """

    def __init__(self, n_copies: int, n_components: int, *, hidden_sizes: Sequence[int] = (64, 64)):
        super().__init__()
        sizes = [n_components, *hidden_sizes, 1]
        self.weights, self.offsets = nn.ParameterList(), nn.ParameterList()
        for n_in, n_out in zip(sizes[:-1], sizes[1:], strict=True):
            self.weights.append((2 * torch.rand(n_copies, n_in, n_out) - 1) / n_in**0.5)
            self.offsets.append((2 * torch.rand(n_copies, 1, n_out) - 1) / n_in**0.5)

    def forward(self, values: Tensor) -> Tensor:
        """Return scores (n_copies, n_rows) of vectors (n_copies, n_rows, n_components)."""
        for i, (weight, offset) in enumerate(zip(self.weights, self.offsets, strict=True)):
            if i:
                values = functional.leaky_relu(values, 0.2)
            values = torch.baddbmm(offset, values, weight)
        return values.squeeze(-1)
