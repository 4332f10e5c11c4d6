"""Tokens of all modalities as one sequence, for a decoder to look at."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from skmm.nets._layers import Projection, zeroed

__all__ = ["TokenMemory"]


class TokenMemory(nn.Module):
    """From the tokens of each modality to one sequence of a common width.

    In front stands a learned token that every row has, so there is always something to look at.

    Parameters
    ----------
    n_features : dict of str to int
        Length of the tokens of each modality.
    n_components : int
        Length of the tokens that come out.
    dropout : float, default=0.0
        Share of the numbers that is zeroed in training, in [0, 1].

    Examples
    --------
    >>> import torch
    >>> from skmm.nets import TokenMemory
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
        """Put the tokens of all modalities one after the other.

        Parameters
        ----------
        tokens : dict of str to Tensor of shape (n_rows, n_tokens, n_features)
            Tokens of each modality.
        masks : dict of str to BoolTensor of shape (n_rows, n_tokens)
            True where the token exists.

        Returns
        -------
        memory : Tensor of shape (n_rows, 1 + n_tokens of all, n_components)
            Zero where a token does not exist.
        mask : BoolTensor of shape (n_rows, 1 + n_tokens of all)
            True where it does.
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
