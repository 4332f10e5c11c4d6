"""What stands for a modality that a row lacks, where it is not just left out."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from skmm.nets import masked_mean

__all__ = ["StandIn", "make_stand_in"]

_Tokens = dict[str, Tensor]


class StandIn(ABC, nn.Module):
    """Puts one token in place of each modality that a row lacks, and marks it as present.

    Parameters
    ----------
    n_features : mapping of str to int
        Length of the tokens of each modality.
    """

    def __init__(self, n_features: Mapping[str, int]):
        super().__init__()
        self.modalities = sorted(n_features)
        self.auxiliary: Tensor | None = None

    def forward(
        self, tokens: Mapping[str, Tensor], masks: Mapping[str, Tensor], known: Mapping[str, Tensor]
    ) -> tuple[_Tokens, _Tokens]:
        """Fill in.

        Parameters
        ----------
        tokens : mapping of str to Tensor of shape (n_rows, n_tokens, n_features)
            Tokens of each modality.
        masks : mapping of str to BoolTensor of shape (n_rows, n_tokens)
            Which of them the network is shown; modality dropout may have hidden some.
        known : mapping of str to BoolTensor of shape (n_rows, n_tokens)
            Which of them there are.

        Returns
        -------
        tokens, masks : dict of str to Tensor
            Each row has at least one token of each modality.
        """
        vectors = self._vectors(tokens, masks, known)
        filled, marked = {}, {}
        for name in self.modalities:
            lacks = ~masks[name].any(dim=1, keepdim=True)  # (n_rows, 1)
            # In the first place: a sequence of one token has no other.
            first = torch.where(lacks, vectors[name], tokens[name][:, 0])
            filled[name] = torch.cat([first[:, None], tokens[name][:, 1:]], dim=1)
            marked[name] = torch.cat([masks[name][:, :1] | lacks, masks[name][:, 1:]], dim=1)
        return filled, marked

    @abstractmethod
    def _vectors(
        self, tokens: Mapping[str, Tensor], masks: Mapping[str, Tensor], known: Mapping[str, Tensor]
    ) -> _Tokens:
        """What stands for each modality, (n_rows or 1, n_features)."""

    def take_auxiliary(self) -> Tensor | None:
        """Return and forget each row's loss of the last training batch, None without one."""
        auxiliary, self.auxiliary = self.auxiliary, None
        return auxiliary

    def __getstate__(self) -> dict[str, Any]:
        # It hangs on the graph of a batch, which cannot be copied.
        return {**self.__dict__, "auxiliary": None}


class _Zeros(StandIn):
    """Zeros: the average of standardised features."""

    def _vectors(
        self, tokens: Mapping[str, Tensor], masks: Mapping[str, Tensor], known: Mapping[str, Tensor]
    ) -> _Tokens:
        return {name: tokens[name].new_zeros(1, tokens[name].shape[2]) for name in self.modalities}


class _Learned(StandIn):
    """A vector for each modality that is learned, from zeros."""

    def __init__(self, n_features: Mapping[str, int]):
        super().__init__(n_features)
        # A list, not a dictionary: torch refuses names such as "type" or "a.b" as keys.
        self.vectors = nn.ParameterList(torch.zeros(1, n_features[m]) for m in self.modalities)

    def _vectors(
        self, tokens: Mapping[str, Tensor], masks: Mapping[str, Tensor], known: Mapping[str, Tensor]
    ) -> _Tokens:
        return dict(zip(self.modalities, self.vectors, strict=True))


class _Imputed(StandIn):
    """A modality's average token, predicted from those of the modalities that a row has.

    The present modalities are brought to one length and joined, with markers; a linear map and a
    hidden layer lead from there to each modality, both starting at zeros. It learns to predict
    every modality of a row that has another one, hidden ones included. From the loss of the task
    it learns nothing: it would make up what fits the training rows. Nor do the encoders below
    learn from its loss.

    Parameters
    ----------
    n_features : mapping of str to int
        Length of the tokens of each modality.
    n_components : int
        Length to which modalities are brought, and units of the hidden layer.
    dropout : float
        Share of both that is zeroed in training.

    References
    ----------
    Zhao, Li, Jin, "Missing modality imagination network for emotion recognition with uncertain
    missing modalities", ACL 2021.
    """

    def __init__(self, n_features: Mapping[str, int], n_components: int, dropout: float):
        super().__init__(n_features)
        widths = [n_features[name] for name in self.modalities]
        joined = len(widths) * (n_components + 1)
        self.maps = nn.ModuleList(nn.Linear(w, n_components, bias=False) for w in widths)
        self.hidden = nn.ModuleList(nn.Linear(joined, n_components) for _ in widths)
        self.straight = nn.ModuleList(nn.Linear(joined, width) for width in widths)
        self.bent = nn.ModuleList(nn.Linear(n_components, width, bias=False) for width in widths)
        self.dropout = nn.Dropout(dropout)
        for layer in (*self.straight, *self.bent):
            for parameter in layer.parameters():
                nn.init.zeros_(parameter)

    def _vectors(
        self, tokens: Mapping[str, Tensor], masks: Mapping[str, Tensor], known: Mapping[str, Tensor]
    ) -> _Tokens:
        names = self.modalities
        present = torch.stack([masks[name].any(dim=1) for name in names], dim=1)
        pooled = [masked_mean(tokens[name], masks[name]).detach() for name in names]
        # (n_rows, n_modalities, n_components), zero where absent
        parts = torch.stack([m(x) for m, x in zip(self.maps, pooled, strict=True)], dim=1)
        parts = self.dropout(parts)
        predicted, losses, counted = {}, [], []
        for i, name in enumerate(names):
            others = present.clone()
            others[:, i] = False
            shown = torch.where(others.unsqueeze(-1), parts, 0.0).flatten(start_dim=1)
            joined = torch.cat([shown, others.to(parts.dtype)], dim=1)
            hidden = self.dropout(nn.functional.gelu(self.hidden[i](joined)))
            guess = self.straight[i](joined) + self.bent[i](hidden)
            predicted[name] = guess.detach()
            if self.training:
                truth = masked_mean(tokens[name], known[name]).detach()
                losses.append((guess - truth).square().mean(dim=1))
                counted.append(known[name].any(dim=1) & others.any(dim=1))
        if self.training:
            counts = torch.stack(counted, dim=1)
            loss = torch.where(counts, torch.stack(losses, dim=1), 0.0).sum(dim=1)
            self.auxiliary = loss / counts.sum(dim=1).clamp(min=1)
        return predicted


def make_stand_in(
    missing: str, n_features: Mapping[str, int], n_components: int, dropout: float = 0.0
) -> StandIn | None:
    """Build what ``missing`` of a joint fusion names; None for ``"mask"``."""
    if missing == "zero":
        return _Zeros(n_features)
    if missing == "token":
        return _Learned(n_features)
    if missing == "impute":
        return _Imputed(n_features, n_components, dropout)
    return None
