"""Autoencoders of several modalities around one latent vector."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from skmm.nets._layers import Perceptron

__all__ = ["GivenLoss", "SharedAutoencoder"]


class SharedAutoencoder(nn.Module):
    """An encoder and a decoder for each modality, and a latent vector that all of them share.

    The forward pass returns losses: the latent vector of each modality, and that of all modalities
    together, is decoded into every modality [1]_. With ``variational`` an encoder returns a normal
    distribution, the distributions of several modalities are multiplied with the standard normal
    prior (a product of experts), and latent vectors are sampled [2]_.

    Parameters
    ----------
    n_features : sequence of int
        Length of the vectors of each modality, which should have variance 1.
    n_components : int
        Length of the latent vector.
    hidden_sizes : sequence of int, default=(128,)
        Units of the hidden layers of every encoder; decoders have them in reverse order.
    dropout : float, default=0.0
        Share of the encoders' hidden units that is zeroed in training, in [0, 1].
    variational : bool, default=False
        Whether latent vectors are sampled.
    reconstruction_weight, cross_weight, contrastive_weight, kl_weight : float
        Weights of the terms of the loss; ``kl_weight=1`` is the evidence lower bound for features
        of residual variance 1.
    temperature : float, default=0.1
        What similarities are divided by in the contrastive term, InfoNCE [3]_ between the latent
        vectors of two modalities.

    References
    ----------
    .. [1] Ngiam, Khosla, Kim, Nam, Lee, Ng (2011), "Multimodal deep learning", ICML.
    .. [2] Wu, Goodman (2018), "Multimodal generative models for scalable weakly-supervised
       learning", NeurIPS.
    .. [3] van den Oord, Li, Vinyals (2018), "Representation learning with contrastive predictive
       coding".

    Examples
    --------
    >>> import torch
    >>> from skmm.nets._autoencoder import SharedAutoencoder
    >>> net = SharedAutoencoder([8, 6], n_components=2)
    >>> present = torch.tensor([[True, True], [True, False]])
    >>> net(present, values_0=torch.ones(2, 8), values_1=torch.ones(2, 6)).shape
    torch.Size([2])
    >>> latent, _ = net.join([net.encode(0, torch.ones(2, 8))], present[:, :1])
    >>> net.decode(1, latent).shape
    torch.Size([2, 6])
    """

    def __init__(
        self,
        n_features: Sequence[int],
        n_components: int,
        *,
        hidden_sizes: Sequence[int] = (128,),
        dropout: float = 0.0,
        variational: bool = False,
        reconstruction_weight: float = 1.0,
        cross_weight: float = 1.0,
        contrastive_weight: float = 0.1,
        kl_weight: float = 0.1,
        temperature: float = 0.1,
    ):
        super().__init__()
        self.variational = variational
        self.n_components = n_components
        self.reconstruction_weight = reconstruction_weight
        self.cross_weight = cross_weight
        self.contrastive_weight = contrastive_weight
        self.kl_weight = kl_weight
        self.temperature = temperature
        n_latent = 2 * n_components if variational else n_components
        self.encoders = nn.ModuleList(
            Perceptron(n, n_latent, hidden_sizes=hidden_sizes, dropout=dropout) for n in n_features
        )
        self.decoders = nn.ModuleList(
            Perceptron(n_components, n, hidden_sizes=tuple(hidden_sizes)[::-1]) for n in n_features
        )
        self._n_features = sum(n_features) / len(n_features)

    def encode(self, i: int, values: Tensor) -> tuple[Tensor, Tensor]:
        """Encode the vectors of modality ``i``.

        Parameters
        ----------
        i : int
            Index of the modality.
        values : Tensor of shape (n_rows, n_features)
            Its vectors.

        Returns
        -------
        mean, precision : Tensor of shape (n_rows, n_components)
            Distribution of the latent vector without the prior; the precision is 1 if the network
            is not variational.
        """
        encoded = self.encoders[i](values)
        if not self.variational:
            return encoded, torch.ones_like(encoded)
        mean, log_precision = encoded.chunk(2, dim=1)
        return mean, log_precision.clamp(-10, 10).exp()

    def join(
        self, experts: Sequence[tuple[Tensor, Tensor]], present: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Join the encodings of several modalities: their mean, or the product of experts.

        Parameters
        ----------
        experts : sequence of (mean, precision)
            From :meth:`encode`, each of shape (n_rows, n_components).
        present : BoolTensor of shape (n_rows, n_modalities)
            Which of them are used.

        Returns
        -------
        mean, precision : Tensor of shape (n_rows, n_components)
            Distribution of the latent vector; its mean is zero for a row without any modality.
        """
        mask = present.unsqueeze(-1)
        means = torch.stack([mean for mean, _ in experts], dim=1)
        precisions = torch.stack([precision for _, precision in experts], dim=1)
        means, precisions = torch.where(mask, means, 0.0), torch.where(mask, precisions, 0.0)
        total = precisions.sum(dim=1)
        # The prior is one more expert, of mean 0 and precision 1.
        total = total + 1 if self.variational else total.clamp(min=1)
        return (means * precisions).sum(dim=1) / total, total

    def decode(self, i: int, latent: Tensor) -> Tensor:
        """Decode latent vectors into vectors (n_rows, n_features) of modality ``i``."""
        vectors: Tensor = self.decoders[i](latent)
        return vectors

    def forward(self, present: Tensor, **values: Tensor) -> Tensor:
        """Return the loss of each row.

        Parameters
        ----------
        present : BoolTensor of shape (n_rows, n_modalities)
            True where the row has the modality.
        **values : Tensor of shape (n_rows, n_features)
            ``values_0``, ``values_1`` and so on: vectors of each modality, any finite values where
            it is absent.

        Returns
        -------
        losses : Tensor of shape (n_rows,)
            Weighted sum of the terms.
        """
        targets = [values[f"values_{i}"] for i in range(len(self.encoders))]
        experts = [self.encode(i, target) for i, target in enumerate(targets)]
        several = present.sum(dim=1) >= 2
        own: list[tuple[Tensor, Tensor]] = []
        other: list[tuple[Tensor, Tensor]] = []
        divergence: list[tuple[Tensor, Tensor]] = []
        # From each modality alone, then from all that the row has.
        for source in [*range(len(targets)), None]:
            if source is None:
                posterior, active = self.join(experts, present), several
            else:
                posterior = self.join([experts[source]], present[:, source : source + 1])
                active = present[:, source]
            latent = self._sampled(*posterior)
            divergence.append((self._divergence(*posterior), active))
            for i, target in enumerate(targets):
                error = (self.decode(i, latent) - target).square().mean(dim=1)
                terms = own if source is None or source == i else other
                terms.append((error, active & present[:, i]))
        losses = self.reconstruction_weight * _mean(own) + self.cross_weight * _mean(other)
        if self.variational:
            losses = losses + self.kl_weight * 2 / self._n_features * _mean(divergence)
        if self.contrastive_weight:
            means = [mean for mean, _ in experts]
            losses = losses + self.contrastive_weight * self._contrast(means, present)
        return losses

    def _sampled(self, mean: Tensor, precision: Tensor) -> Tensor:
        if not (self.variational and self.training):
            return mean
        return mean + torch.randn_like(mean) * precision.rsqrt()

    def _divergence(self, mean: Tensor, precision: Tensor) -> Tensor:
        """Compute the Kullback-Leibler divergence from the prior, (n_rows,)."""
        if not self.variational:
            return mean.new_zeros(len(mean))
        return 0.5 * (mean.square() + 1 / precision - 1 + precision.log()).sum(dim=1)

    def _contrast(self, means: Sequence[Tensor], present: Tensor) -> Tensor:
        """Compute the InfoNCE loss of the rows' partners, (n_rows,)."""
        units = [functional.normalize(mean, dim=1) for mean in means]
        rows = torch.arange(len(present), device=present.device)
        terms = []
        for i, one in enumerate(units):
            for j in range(len(units)):
                both = present[:, i] & present[:, j]
                if i == j:
                    continue
                scores = (one @ units[j].T) / self.temperature
                # Only rows that have both are candidates.
                scores = scores.masked_fill(~both[None, :], torch.finfo(scores.dtype).min)
                terms.append((functional.cross_entropy(scores, rows, reduction="none"), both))
        return _mean(terms)


def _mean(terms: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
    """Compute the mean over the terms that a row has, (n_rows,); zero where it has none."""
    values = torch.stack([torch.where(mask, value, 0.0) for value, mask in terms], dim=1)
    counts = torch.stack([mask for _, mask in terms], dim=1).sum(dim=1)
    return values.sum(dim=1) / counts.clamp(min=1)


class GivenLoss(nn.Module):
    """Loss of a module whose outputs are losses already.

    Examples
    --------
    >>> import torch
    >>> from skmm.nets._autoencoder import GivenLoss
    >>> GivenLoss()(torch.tensor([1.0, 2.0]), None)
    tensor([1., 2.])
    """

    def forward(self, outputs: Tensor, target: Tensor | None) -> Tensor:
        """Return the outputs, (n_rows,)."""
        return outputs
