"""Deep canonical correlation: networks whose outputs are maximally correlated."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from skmm.nets._layers import Perceptron

__all__ = ["CorrelationLoss", "CorrelationNet"]


class CorrelationNet(nn.Module):
    """A network for each modality [1]_, of two modalities or more [2]_.

    Parameters
    ----------
    n_features : sequence of int
        Length of the vectors of each modality.
    n_components : int
        Length of the outputs.
    hidden_sizes : sequence of int, default=(128,)
        Units of the hidden layers of every network.
    dropout : float, default=0.0
        Share of the hidden units that is zeroed in training, in [0, 1].

    References
    ----------
    .. [1] Andrew, Arora, Bilmes, Livescu (2013), "Deep canonical correlation analysis", ICML.
    .. [2] Benton, Khayrallah, Gujral, Reisinger, Zhang, Arora (2019), "Deep generalized canonical
       correlation analysis", RepL4NLP (arXiv 2017).

    Examples
    --------
    >>> import torch
    >>> from skmm.nets._correlation import CorrelationNet
    >>> net = CorrelationNet([8, 6], n_components=2)
    >>> present = torch.ones(5, 2, dtype=torch.bool)
    >>> outputs, _ = net(present, values_0=torch.ones(5, 8), values_1=torch.ones(5, 6))
    >>> outputs.shape
    torch.Size([5, 2, 2])
    """

    def __init__(
        self,
        n_features: Sequence[int],
        n_components: int,
        *,
        hidden_sizes: Sequence[int] = (128,),
        dropout: float = 0.0,
    ):
        super().__init__()
        self.networks = nn.ModuleList(
            Perceptron(n, n_components, hidden_sizes=hidden_sizes, dropout=dropout)
            for n in n_features
        )

    def forward(self, present: Tensor, **values: Tensor) -> tuple[Tensor, Tensor]:
        """Return the outputs of all networks, and which of them mean something.

        Parameters
        ----------
        present : BoolTensor of shape (n_rows, n_modalities)
            True where the row has the modality.
        **values : Tensor of shape (n_rows, n_features)
            ``values_0``, ``values_1`` and so on: vectors of each modality, any finite values where
            it is absent.

        Returns
        -------
        outputs : Tensor of shape (n_rows, n_modalities, n_components)
            Outputs of the networks.
        present : BoolTensor of shape (n_rows, n_modalities)
            As given.
        """
        outputs = [net(values[f"values_{i}"]) for i, net in enumerate(self.networks)]
        return torch.stack(outputs, dim=1), present


class CorrelationLoss(nn.Module):
    """Variance that a generalized canonical correlation analysis of a batch leaves unexplained.

    It is the share of the variates' variance that the outputs of the modalities do not predict: 0
    if all outputs are equal. The loss is defined for a whole batch, which should have many more
    rows than ``n_components``.

    Parameters
    ----------
    n_components : int
        Number of variates.
    ridge : float, default=1e-3
        Share of the mean variance of a modality's outputs that is added to each of them.

    Examples
    --------
    >>> import torch
    >>> from skmm.nets._correlation import CorrelationLoss
    >>> same = torch.randn(100, 1, 3).expand(100, 2, 3)
    >>> bool(CorrelationLoss(3)((same, torch.ones(100, 2, dtype=torch.bool)), None) < 0.01)
    True
    """

    def __init__(self, n_components: int, *, ridge: float = 1e-3):
        super().__init__()
        self.n_components = n_components
        self.ridge = ridge

    def forward(self, outputs: tuple[Tensor, Tensor], target: Tensor | None) -> Tensor:
        """Return the loss of a batch, of shape ()."""
        values, present = outputs
        present = present & (present.sum(dim=1, keepdim=True) >= 2)
        mask = present.unsqueeze(-1).to(values.dtype)
        counts = mask.sum(dim=0).clamp(min=1)
        centered = (values - (values * mask).sum(dim=0) / counts) * mask
        # Rows with more modalities would count more: see canonical_directions.
        weight = present.sum(dim=1).clamp(min=1).rsqrt()
        whitened = torch.cat(
            [
                torch.linalg.solve_triangular(
                    self._root(centered[:, i]), (centered[:, i] * weight[:, None]).T, upper=False
                )
                for i in range(values.shape[1])
            ]
        )
        explained = torch.linalg.eigvalsh(whitened @ whitened.T)[-self.n_components :]
        unexplained: Tensor = 1 - explained.mean()
        return unexplained

    def _root(self, centered: Tensor) -> Tensor:
        """Return the lower triangle L with ``L @ L.T`` the sum of squares, ridge included."""
        squares = centered.T @ centered
        identity = torch.eye(len(squares), dtype=squares.dtype, device=squares.device)
        # Avoids a singular matrix if all outputs are equal.
        mean = squares.diagonal().mean().clamp(min=1e-6)
        root: Tensor = torch.linalg.cholesky(squares + self.ridge * mean * identity)
        return root
