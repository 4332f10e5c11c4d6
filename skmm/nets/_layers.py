"""Layers that several networks share: masked reductions, projection, head, modality dropout.

The masked functions accept values that are NaN or infinite where the mask is False; neither the
result nor its gradient depends on them.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

__all__ = [
    "Head",
    "ModalityDropout",
    "Perceptron",
    "Projection",
    "TokenMemory",
    "masked_max",
    "masked_mean",
    "masked_softmax",
    "mean_of_zeroed",
    "to_shares",
    "zeroed",
]


def zeroed(tokens: Tensor, mask: Tensor) -> Tensor:
    """Replace tokens that do not exist by zeros.

    Parameters
    ----------
    tokens : Tensor of shape (n_rows, n_tokens, n_features)
        Values.
    mask : BoolTensor of shape (n_rows, n_tokens)
        True where the token exists.

    Returns
    -------
    tokens : Tensor of shape (n_rows, n_tokens, n_features)
        Same values where the mask is True, zeros elsewhere.

    Examples
    --------
    >>> import torch
    >>> from skmm.nets._layers import zeroed
    >>> zeroed(torch.tensor([[[1.0], [torch.nan]]]), torch.tensor([[True, False]])).flatten()
    tensor([1., 0.])
    """
    # Not by a product with the mask, because NaN * 0 is NaN.
    if tokens.device.type != "cpu" or torch.compiler.is_compiling():
        return torch.where(mask.unsqueeze(-1), tokens, 0.0)
    # Few rows are absent, and filling only these saves a fifth of the training of a small head. On
    # a GPU, ``nonzero`` would wait for the device.
    absent = (~mask).flatten().nonzero().squeeze(1)
    return tokens.flatten(end_dim=1).index_fill(0, absent, 0.0).view(tokens.shape)


def masked_mean(tokens: Tensor, mask: Tensor) -> Tensor:
    """Compute the mean over the tokens that exist, zero where there are none.

    Parameters
    ----------
    tokens : Tensor of shape (n_rows, n_tokens, n_features)
        Values to average.
    mask : BoolTensor of shape (n_rows, n_tokens)
        True where the token exists.

    Returns
    -------
    mean : Tensor of shape (n_rows, n_features)
        One vector per row.

    Examples
    --------
    >>> import torch
    >>> from skmm.nets._layers import masked_mean
    >>> masked_mean(torch.tensor([[[1.0], [3.0], [99.0]]]), torch.tensor([[True, True, False]]))
    tensor([[2.]])
    """
    return mean_of_zeroed(zeroed(tokens, mask), mask)


def mean_of_zeroed(tokens: Tensor, mask: Tensor) -> Tensor:
    """Compute the mean over the tokens that exist, given zeros where they do not.

    Parameters
    ----------
    tokens : Tensor of shape (n_rows, n_tokens, n_features)
        From :func:`zeroed`.
    mask : BoolTensor of shape (n_rows, n_tokens)
        True where the token exists.

    Returns
    -------
    mean : Tensor of shape (n_rows, n_features)
        One vector per row.
    """
    if tokens.shape[1] == 1:
        return tokens.squeeze(1)
    return tokens.sum(dim=1) / mask.sum(dim=1, keepdim=True).clamp(min=1)


def masked_max(tokens: Tensor, mask: Tensor) -> Tensor:
    """Compute the maximum over the tokens that exist, zero where there are none.

    Parameters
    ----------
    tokens : Tensor of shape (n_rows, n_tokens, n_features)
        Values to compare, for each feature.
    mask : BoolTensor of shape (n_rows, n_tokens)
        True where the token exists.

    Returns
    -------
    largest : Tensor of shape (n_rows, n_features)
        One vector per row.

    Examples
    --------
    >>> import torch
    >>> from skmm.nets._layers import masked_max
    >>> masked_max(torch.tensor([[[1.0], [3.0], [99.0]]]), torch.tensor([[True, True, False]]))
    tensor([[3.]])
    """
    if tokens.shape[1] == 0:
        return tokens.sum(dim=1)
    largest = torch.where(mask.unsqueeze(-1), tokens, -torch.inf).amax(dim=1)
    return torch.where(mask.any(dim=1, keepdim=True), largest, 0.0)


def masked_softmax(scores: Tensor, mask: Tensor, *, dim: int) -> Tensor:
    """Compute the softmax over the entries that exist; zeros, not NaN, where there are none.

    Parameters
    ----------
    scores : Tensor
        Scores of any shape.
    mask : BoolTensor
        True where an entry exists; of a shape that broadcasts to that of ``scores``.
    dim : int
        Axis whose weights sum to one.

    Returns
    -------
    weights : Tensor of the shape of ``scores``
        Zero where the mask is False.

    Examples
    --------
    >>> import torch
    >>> from skmm.nets._layers import masked_softmax
    >>> masked_softmax(torch.tensor([5.0, 5.0, 9.0]), torch.tensor([True, True, False]), dim=0)
    tensor([0.5000, 0.5000, 0.0000])
    """
    # The lowest finite number instead of -inf keeps the softmax of an empty row finite.
    lowest = torch.finfo(scores.dtype).min
    weights = torch.softmax(torch.where(mask, scores, lowest), dim=dim)
    return torch.where(mask, weights, 0.0)


def to_shares(weights: Tensor) -> Tensor:
    """Divide weights by their sum in each row.

    Parameters
    ----------
    weights : Tensor of shape (n_rows, n_weights)
        Nonnegative weights.

    Returns
    -------
    shares : Tensor of shape (n_rows, n_weights)
        Each row sums to one; a row of zeros stays zero.
    """
    total = weights.sum(dim=1, keepdim=True)
    return weights / total.clamp(min=torch.finfo(weights.dtype).tiny)


class Projection(nn.Sequential):
    """Linear map to a common length, layer normalization, nonlinearity and dropout.

    The layer normalization [1]_ puts modalities on one scale: a sentence embedding of length one
    weighs as much as raw activations in the hundreds.

    Parameters
    ----------
    n_features : int
        Length of the input vectors.
    n_components : int
        Length of the output vectors.
    dropout : float, default=0.0
        Share of the outputs that is zeroed in training, in [0, 1].
    activation : Module or None, default=None
        Nonlinearity of the normalized outputs. By default GELU; ``nn.Identity()`` for none.

    References
    ----------
    .. [1] Ba, Kiros, Hinton, "Layer normalization", 2016.

    Examples
    --------
    >>> import torch
    >>> from skmm.nets._layers import Projection
    >>> Projection(384, 32)(torch.ones(5, 384)).shape
    torch.Size([5, 32])
    """

    def __init__(
        self,
        n_features: int,
        n_components: int,
        *,
        dropout: float = 0.0,
        activation: nn.Module | None = None,
    ):
        # The normalization of a single number would always be zero.
        norm = nn.LayerNorm(n_components) if n_components > 1 else nn.Identity()
        super().__init__(
            nn.Linear(n_features, n_components),
            norm,
            nn.GELU() if activation is None else activation,
            nn.Dropout(dropout),
        )


class Head(nn.Sequential):
    """Linear layer or hidden layer from the fused vector to the outputs of an estimator.

    Parameters
    ----------
    n_components : int
        Width of the fused vector.
    n_outputs : int
        Number of classes or targets.
    n_hidden : int, default=0
        Units of a hidden layer; 0 for a linear head.
    dropout : float, default=0.0
        Share of the inputs of a linear layer that is zeroed in training, in [0, 1].

    Examples
    --------
    >>> import torch
    >>> from skmm.nets._layers import Head
    >>> Head(32, 3)(torch.ones(5, 32)).shape
    torch.Size([5, 3])
    """

    def __init__(
        self, n_components: int, n_outputs: int, *, n_hidden: int = 0, dropout: float = 0.0
    ):
        layers: list[nn.Module] = []
        if n_hidden:
            layers = [nn.Dropout(dropout), nn.Linear(n_components, n_hidden), nn.GELU()]
        super().__init__(
            *layers, nn.Dropout(dropout), nn.Linear(n_hidden or n_components, n_outputs)
        )


class Perceptron(nn.Sequential):
    """Linear layers with a nonlinearity and dropout between them: a multilayer perceptron.

    Parameters
    ----------
    n_features : int
        Length of the input vectors.
    n_outputs : int
        Length of the output vectors.
    hidden_sizes : sequence of int, default=()
        Units of the hidden layers; a linear map if empty.
    dropout : float, default=0.0
        Share of the hidden units that is zeroed in training, in [0, 1].

    Examples
    --------
    >>> import torch
    >>> from skmm.nets._layers import Perceptron
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


class ModalityDropout(nn.Module):
    """Hide whole modalities of a row at random in training, but always keep one of them.

    The network learns to predict when a modality is missing, even if it is never missing in the
    training data, and not to rely on the strongest modality alone [1]_. In evaluation mode nothing
    is hidden.

    Parameters
    ----------
    p : float, default=0.1
        Probability that a present modality of a row is hidden, in [0, 1]. If all would be hidden,
        one of them, sampled at random, is kept.

    References
    ----------
    .. [1] Neverova, Wolf, Taylor, Nebout, "ModDrop: adaptive multi-modal gesture recognition",
       IEEE TPAMI 2016.

    Examples
    --------
    >>> import torch
    >>> from skmm.nets import ModalityDropout
    >>> masks = {"image": torch.ones(1000, 1).bool(), "text": torch.ones(1000, 1).bool()}
    >>> hidden = ModalityDropout(0.5)(masks)
    >>> bool((hidden["image"] | hidden["text"]).all())
    True
    >>> ModalityDropout(0.5).eval()(masks)["text"].all()
    tensor(True)
    """

    def __init__(self, p: float = 0.1):
        super().__init__()
        if not 0.0 <= p <= 1.0:
            raise ValueError(f"{type(self).__name__}: p must be in [0, 1], got {p}.")
        self.p = p

    def forward(self, masks: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Hide modalities.

        Parameters
        ----------
        masks : dict of str to BoolTensor of shape (n_rows, n_tokens)
            True where the token exists; not modified.

        Returns
        -------
        masks : dict of str to BoolTensor of shape (n_rows, n_tokens)
            New masks, False for all tokens of a hidden modality.
        """
        if not self.training or self.p == 0.0:
            return dict(masks)
        names = sorted(masks)  # so that the order of the dictionary has no effect
        present = torch.stack([masks[name].any(dim=1) for name in names], dim=1)
        draws = torch.rand(present.shape, device=present.device).masked_fill(~present, -1.0)
        # The present modality with the largest draw is always kept.
        largest = draws == draws.amax(dim=1, keepdim=True)
        keep = (draws >= self.p) | largest
        return {name: masks[name] & keep[:, [i]] for i, name in enumerate(names)}


class TokenMemory(nn.Module):
    """Projection of the tokens of all modalities to one sequence of a common width.

    The first token is learned and exists in every row, so that attention always has a token.

    Parameters
    ----------
    n_features : dict of str to int
        Width of the tokens of each modality, their number of features.
    n_components : int
        Length of the projected tokens.
    dropout : float, default=0.0
        Share of the values that is zeroed in training, in [0, 1].

    Examples
    --------
    >>> import torch
    >>> from skmm.nets._layers import TokenMemory
    >>> memory = TokenMemory({"image": 8, "text": 4}, 16)
    >>> tokens = {"image": torch.ones(2, 9, 8), "text": torch.ones(2, 5, 4)}
    >>> masks = {name: torch.ones(t.shape[:2]).bool() for name, t in tokens.items()}
    >>> sequence, mask = memory(tokens, masks)
    >>> sequence.shape, mask.shape
    (torch.Size([2, 15, 16]), torch.Size([2, 15]))
    """

    def __init__(self, n_features: Mapping[str, int], n_components: int, *, dropout: float = 0.0):
        super().__init__()
        self.modalities = tuple(sorted(n_features))
        self.projections = nn.ModuleList(
            Projection(n_features[name], n_components, dropout=dropout, activation=nn.Identity())
            for name in self.modalities
        )
        self.types = nn.Parameter(torch.randn(len(self.modalities), n_components) * 0.02)
        self.first = nn.Parameter(torch.randn(1, n_components) * 0.02)

    def forward(
        self, tokens: Mapping[str, Tensor], masks: Mapping[str, Tensor]
    ) -> tuple[Tensor, Tensor]:
        """Concatenate the projected tokens of all modalities.

        Parameters
        ----------
        tokens : dict of str to Tensor of shape (n_rows, n_tokens, n_features)
            Tokens of each modality.
        masks : dict of str to BoolTensor of shape (n_rows, n_tokens)
            True where the token exists.

        Returns
        -------
        memory : Tensor of shape (n_rows, 1 + sum of n_tokens, n_components)
            Zero where a token does not exist.
        mask : BoolTensor of shape (n_rows, 1 + sum of n_tokens)
            True where the token exists.
        """
        parts, exists = [], []
        for name, projection, kind in zip(
            self.modalities, self.projections, self.types, strict=True
        ):
            own = projection(zeroed(tokens[name], masks[name])) + kind
            parts.append(zeroed(own, masks[name]))
            exists.append(masks[name])
        n_rows = len(parts[0])
        first = self.first.expand(n_rows, 1, -1)
        there = torch.ones(n_rows, 1, dtype=torch.bool, device=first.device)
        return torch.cat([first, *parts], dim=1), torch.cat([there, *exists], dim=1)
