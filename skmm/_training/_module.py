"""The torch module of a joint fusion: encoders that are trained with it, fusion, head."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from skmm._compose._sequence_block import thinned
from skmm._training._balance import Balance
from skmm.nets import Head, ModalityDropout, masked_mean
from skmm.nets._layers import to_shares

__all__ = [
    "JointModule",
    "SEPARATOR",
    "StandIn",
    "make_stand_in",
    "modality_tensors",
]

# --- What stands for a modality that a row lacks, where it is not just left out ---

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


SEPARATOR = "|"  # between the name of a modality and that of one of its tensors, which has none


class JointModule(nn.Module):
    """From tensors of all modalities to the outputs.

    Parameters
    ----------
    modalities : sequence of str
        Names.
    encoders : mapping of str to nn.Module
        Networks that are trained here, by modality; the others come as features.
    fusion : nn.Module
        From tokens and masks to a vector.
    n_components : int
        Width of that vector.
    n_outputs : int
        Width of the output.
    modality_dropout : float
        Probability that a row loses a modality in training.
    dropout : float
        Of the head.
    granularity : {"pooled", "sequence"}, default="pooled"
        Whether the encoders' vectors or their tokens are fused. Features bring their own.
    max_tokens : int or None, default=None
        Most tokens of an encoder that are kept.
    stand_in : StandIn or None, default=None
        What is put in place of an absent modality; None masks it.
    """

    def __init__(
        self,
        modalities: list[str],
        encoders: Mapping[str, nn.Module],
        fusion: nn.Module,
        n_components: int,
        n_outputs: int,
        *,
        modality_dropout: float,
        dropout: float,
        granularity: str = "pooled",
        max_tokens: int | None = None,
        stand_in: StandIn | None = None,
    ):
        super().__init__()
        self.modalities = list(modalities)
        self.n_components = n_components
        # A name may hold a dot, which nn.ModuleDict refuses.
        self.encoder_names = list(encoders)
        self.encoders = nn.ModuleList(encoders.values())
        self.modality_dropout = ModalityDropout(modality_dropout)
        self.granularity = granularity
        self.max_tokens = max_tokens
        self.stand_in = stand_in
        self.fusion = fusion
        self.head = Head(n_components, n_outputs, dropout=dropout)
        self.balance: Balance | None = None  # of the training alone

    @property
    def rows_at_once(self) -> int:
        """How many rows go through together where nothing is learned.

        The attention of one row over its tokens takes their number squared.
        """
        return 4096 if self.granularity == "pooled" else 128

    def represent(self, **inputs: Tensor) -> Tensor:
        """Return the fused vectors, (n_rows, n_components).

        Parameters
        ----------
        **inputs : Tensor
            ``<modality>|values`` (n_rows, n_features), or (n_rows, n_tokens, n_features) with
            ``<modality>|mask`` (n_rows, n_tokens), or the tensors of its encoder; and
            ``<modality>|present`` (n_rows,).
        """
        tokens, known = self.gather(**inputs)
        if self.training and self.balance is not None:
            self.balance.look(self.fusion, tokens, known)
        return self.fuse(tokens, known)

    def fuse(self, tokens: dict[str, Tensor], known: dict[str, Tensor]) -> Tensor:
        """Return the fused vectors of what :meth:`gather` gave, (n_rows, n_components)."""
        tokens, masks = self.completed(tokens, known)
        fused = self.fusion(tokens, masks)
        n_rows = len(next(iter(masks.values())))
        if fused.shape != (n_rows, self.n_components):
            raise ValueError(
                f"strategy {type(self.fusion).__name__} gave a tensor of shape"
                f" {tuple(fused.shape)} for {n_rows} rows, but n_components is"
                f" {self.n_components}. Make the two the same."
            )
        return fused

    def completed(
        self, tokens: dict[str, Tensor], known: dict[str, Tensor]
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Return them as the fusion gets them: modalities hidden in training, stand-ins put in."""
        masks = self.modality_dropout(known)
        if self.stand_in is not None:
            tokens, masks = self.stand_in(tokens, masks, known)
        return tokens, masks

    def gather(self, **inputs: Tensor) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Return tokens (n_rows, n_tokens, width) and masks (n_rows, n_tokens) by modality."""
        tokens, masks = {}, {}
        for name in self.modalities:
            own, present = modality_tensors(inputs, name), inputs[f"{name}{SEPARATOR}present"]
            if name in self.encoder_names:
                values, mask = self._encode(self.encoder_of(name), own)
            else:
                values, mask = own["values"], own.get("mask")
            tokens[name] = values if values.ndim == 3 else values[:, None]  # one token
            masks[name] = present[:, None].expand(tokens[name].shape[:2])
            if mask is not None:
                masks[name] = masks[name] & mask
        return tokens, masks

    def weights(self, **inputs: Tensor) -> Tensor:
        """Return the weight of each modality, (n_rows, n_modalities); NaN where it is absent.

        What stands in for an absent modality has no weight: the others sum to one.
        """
        tokens, known = self.gather(**inputs)
        fusion: Any = self.fusion  # one that has weights
        weights = fusion.weights(*self.completed(tokens, known))  # in the order of the names
        order = [sorted(self.modalities).index(name) for name in self.modalities]
        present = torch.stack([known[name].any(dim=1) for name in self.modalities], dim=1)
        kept = torch.where(present, weights[:, order], 0.0)
        return torch.where(present, to_shares(kept), torch.nan)

    def token_weights(self, **inputs: Tensor) -> dict[str, Tensor]:
        """Return the weight of each token by modality, (n_rows, n_tokens); NaN where none is."""
        tokens, known = self.gather(**inputs)
        fusion: Any = self.fusion  # one that has attention
        weights = fusion.token_weights(*self.completed(tokens, known))
        return {name: torch.where(known[name], weights[name], torch.nan) for name in known}

    def _encode(self, encoder: nn.Module, own: dict[str, Tensor]) -> tuple[Tensor, Tensor | None]:
        encoded = encoder(**own)
        if self.granularity == "pooled":
            return encoded.pooled, None
        tokens, mask = encoded.tokens, encoded.mask
        if mask is None:
            mask = torch.ones(tokens.shape[:2], dtype=torch.bool, device=tokens.device)
        return thinned(tokens, mask, self.max_tokens)

    def take_auxiliary(self) -> Tensor | None:
        """Return what is added to the loss of each row of the last training batch, if anything."""
        return None if self.stand_in is None else self.stand_in.take_auxiliary()

    def forward(self, **inputs: Tensor) -> Tensor:
        """Return the outputs, (n_rows, n_outputs); weights of rows are not looked at."""
        return self.head(self.represent(**inputs))

    def encoder_of(self, name: str) -> nn.Module:
        """Return the trained network of a modality."""
        return self.encoders[self.encoder_names.index(name)]


def modality_tensors(inputs: Mapping[str, Tensor], name: str) -> dict[str, Tensor]:
    """Pick the tensors of one modality, named as its network takes them.

    Parameters
    ----------
    inputs : mapping of str to Tensor
        ``<modality>|<tensor>``.
    name : str
        Modality.

    Returns
    -------
    own : dict of str to Tensor
        Without ``present``.
    """
    return {
        key.rpartition(SEPARATOR)[2]: tensor
        for key, tensor in inputs.items()
        if key.rpartition(SEPARATOR)[0] == name and not key.endswith(f"{SEPARATOR}present")
    }
