"""The modules of a network over modalities: encoders trained with it, imputer, fusion, head."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from skmm._compose._sequence_block import thinned
from skmm._training._balance import Balance
from skmm._training._batches import Batch, FeatureInputs, ModalityInputs
from skmm.nets._layers import ModalityDropout, masked_mean, to_shares

__all__ = [
    "Imputer",
    "JointModule",
    "ModalityEncoders",
    "fuse_checked",
    "make_imputer",
]

Tokens: TypeAlias = dict[str, Tensor]  # of each modality, or their masks


class ModalityEncoders(nn.Module):
    """From a batch to the tokens of every modality and their masks.

    Ready features pass through, encoders that are trained are run. In training a row may lose a
    modality, and an imputer may put a token in place of each that a row does not have.

    Parameters
    ----------
    modalities : sequence of str
        Names.
    networks : mapping of str to nn.Module
        Encoders that are trained here, by modality; the others come as features.
    modality_dropout : float, default=0.0
        Probability that a row loses a modality in training.
    granularity : {"pooled", "sequence"}, default="pooled"
        Whether the encoders' vectors or their tokens are given. Features bring their own.
    max_tokens : int or None, default=None
        Most tokens of an encoder that are kept.
    imputer : Imputer or None, default=None
        What replaces an absent modality; None leaves it masked.
    """

    def __init__(
        self,
        modalities: Sequence[str],
        networks: Mapping[str, nn.Module],
        *,
        modality_dropout: float = 0.0,
        granularity: str = "pooled",
        max_tokens: int | None = None,
        imputer: "Imputer | None" = None,
    ):
        super().__init__()
        self.modalities = list(modalities)
        # A name may hold a dot, which nn.ModuleDict refuses.
        self.trained = list(networks)
        self.networks = nn.ModuleList(networks.values())
        self.modality_dropout = ModalityDropout(modality_dropout)
        self.granularity = granularity
        self.max_tokens = max_tokens
        self.imputer = imputer

    @property
    def rows_at_once(self) -> int:
        """Number of rows processed together in prediction.

        The memory of attention grows with the square of the number of tokens of a row.
        """
        return 4096 if self.granularity == "pooled" else 128

    def network_of(self, name: str) -> nn.Module:
        """Return the trained network of a modality."""
        return self.networks[self.trained.index(name)]

    def forward(self, batch: Batch) -> tuple[Tokens, Tokens]:
        """Return tokens (n_rows, n_tokens, width) and masks (n_rows, n_tokens), completed."""
        return self.completed(*self.gather(batch))

    def gather(self, batch: Batch) -> tuple[Tokens, Tokens]:
        """Return tokens (n_rows, n_tokens, width) and masks (n_rows, n_tokens) by modality."""
        tokens, masks = {}, {}
        for name in self.modalities:
            own = batch.modalities[name]
            values, mask = self.encode(name, own)
            tokens[name] = values if values.ndim == 3 else values[:, None]  # one token
            masks[name] = own.present[:, None].expand(tokens[name].shape[:2])
            if mask is not None:
                masks[name] = masks[name] & mask
        return tokens, masks

    def encode(self, name: str, own: ModalityInputs) -> tuple[Tensor, Tensor | None]:
        """Return the vectors or tokens of one modality, and which tokens exist."""
        if isinstance(own, FeatureInputs):
            return own.values, own.mask
        encoded = self.network_of(name)(own.inputs)
        if self.granularity == "pooled":
            return encoded.pooled, None
        tokens, mask = encoded.tokens, encoded.mask
        if mask is None:
            mask = torch.ones(tokens.shape[:2], dtype=torch.bool, device=tokens.device)
        return thinned(tokens, mask, self.max_tokens)

    def completed(self, tokens: Tokens, known: Tokens) -> tuple[Tokens, Tokens]:
        """Hide modalities in training, and impute: tokens and masks as a fusion gets them."""
        masks = self.modality_dropout(known)
        if self.imputer is not None:
            tokens, masks = self.imputer(tokens, masks, known)
        return tokens, masks

    def take_auxiliary(self) -> Tensor | None:
        """Return what is added to the loss of each row of the last training batch, if anything."""
        return None if self.imputer is None else self.imputer.take_auxiliary()


class JointModule(nn.Module):
    """From a batch to the outputs of a joint fusion.

    Parameters
    ----------
    encoders : ModalityEncoders
        From the batch to tokens.
    fusion : nn.Module
        From tokens and masks to a vector.
    head : nn.Module
        From that vector to the outputs.
    n_components : int
        Width of the vector.
    """

    def __init__(
        self, encoders: ModalityEncoders, fusion: nn.Module, head: nn.Module, n_components: int
    ):
        super().__init__()
        self.encoders = encoders
        self.fusion = fusion
        self.head = head
        self.n_components = n_components
        self.balance: Balance | None = None  # of the training alone

    @property
    def modalities(self) -> list[str]:
        """Names of the modalities."""
        return self.encoders.modalities

    @property
    def rows_at_once(self) -> int:
        """Number of rows processed together in prediction."""
        return self.encoders.rows_at_once

    def forward(self, batch: Batch) -> Tensor:
        """Return the outputs, (n_rows, n_outputs); weights of rows are ignored."""
        outputs: Tensor = self.head(self.represent(batch))
        return outputs

    def represent(self, batch: Batch) -> Tensor:
        """Return the fused vectors, (n_rows, n_components)."""
        tokens, known = self.encoders.gather(batch)
        if self.training and self.balance is not None:
            self.balance.look(self.fusion, tokens, known)
        return self.fuse(tokens, known)

    def fuse(self, tokens: Tokens, known: Tokens) -> Tensor:
        """Return the fused vectors of what was gathered, (n_rows, n_components)."""
        tokens, masks = self.encoders.completed(tokens, known)
        return fuse_checked(self.fusion, tokens, masks, self.n_components)

    def weights(self, batch: Batch) -> Tensor:
        """Return the weight of each modality, (n_rows, n_modalities); NaN where it is absent.

        Imputed modalities have no weight: those of the others sum to one.
        """
        tokens, known = self.encoders.gather(batch)
        fusion: Any = self.fusion  # one that has weights
        weights = fusion.weights(*self.encoders.completed(tokens, known))  # in order of the names
        order = [sorted(self.modalities).index(name) for name in self.modalities]
        present = torch.stack([known[name].any(dim=1) for name in self.modalities], dim=1)
        kept = torch.where(present, weights[:, order], 0.0)
        return torch.where(present, to_shares(kept), torch.nan)

    def token_weights(self, batch: Batch) -> Tokens:
        """Return the weight of each token by modality, (n_rows, n_tokens); NaN where none is."""
        tokens, known = self.encoders.gather(batch)
        fusion: Any = self.fusion  # one that has attention
        weights = fusion.token_weights(*self.encoders.completed(tokens, known))
        return {name: torch.where(known[name], weights[name], torch.nan) for name in known}

    def take_auxiliary(self) -> Tensor | None:
        """Return what is added to the loss of each row of the last training batch, if anything."""
        return self.encoders.take_auxiliary()


def fuse_checked(fusion: nn.Module, tokens: Tokens, masks: Tokens, n_components: int) -> Tensor:
    """Return the fused vectors, (n_rows, n_components), and raise for another shape."""
    fused: Tensor = fusion(tokens, masks)
    n_rows = len(next(iter(masks.values())))
    if fused.shape != (n_rows, n_components):
        raise ValueError(
            f"strategy {type(fusion).__name__} gave a tensor of shape {tuple(fused.shape)} for"
            f" {n_rows} rows, but n_components is {n_components}. Make the two the same."
        )
    return fused


# --- Imputers: what replaces a modality that a row does not have ---


class Imputer(ABC, nn.Module):
    """Put one token in place of each modality that a row does not have, and mark it as present.

    Parameters
    ----------
    n_features : mapping of str to int
        Width of the tokens of each modality, their number of features.
    """

    def __init__(self, n_features: Mapping[str, int]):
        super().__init__()
        self.modalities = sorted(n_features)
        self.auxiliary: Tensor | None = None

    def forward(
        self, tokens: Mapping[str, Tensor], masks: Mapping[str, Tensor], known: Mapping[str, Tensor]
    ) -> tuple[Tokens, Tokens]:
        """Fill in absent modalities.

        Parameters
        ----------
        tokens : mapping of str to Tensor of shape (n_rows, n_tokens, n_features)
            Tokens of each modality.
        masks : mapping of str to BoolTensor of shape (n_rows, n_tokens)
            Which of them the network receives; modality dropout may have hidden some.
        known : mapping of str to BoolTensor of shape (n_rows, n_tokens)
            Which of them exist.

        Returns
        -------
        tokens, masks : dict of str to Tensor
            Each row has at least one token of each modality.
        """
        vectors = self._vectors(tokens, masks, known)
        filled, marked = {}, {}
        for name in self.modalities:
            absent = ~masks[name].any(dim=1, keepdim=True)  # (n_rows, 1)
            # In the first place: a sequence of one token has no other.
            first = torch.where(absent, vectors[name], tokens[name][:, 0])
            filled[name] = torch.cat([first[:, None], tokens[name][:, 1:]], dim=1)
            marked[name] = torch.cat([masks[name][:, :1] | absent, masks[name][:, 1:]], dim=1)
        return filled, marked

    @abstractmethod
    def _vectors(
        self, tokens: Mapping[str, Tensor], masks: Mapping[str, Tensor], known: Mapping[str, Tensor]
    ) -> Tokens:
        """Return what replaces each modality, (n_rows or 1, n_features)."""

    def take_auxiliary(self) -> Tensor | None:
        """Return and forget each row's loss of the last training batch, None without one."""
        auxiliary, self.auxiliary = self.auxiliary, None
        return auxiliary

    def __getstate__(self) -> dict[str, Any]:
        # Part of the autograd graph of a batch, which cannot be copied.
        return {**self.__dict__, "auxiliary": None}


class _Zeros(Imputer):
    """Zeros: the average of standardized features."""

    def _vectors(
        self, tokens: Mapping[str, Tensor], masks: Mapping[str, Tensor], known: Mapping[str, Tensor]
    ) -> Tokens:
        return {name: tokens[name].new_zeros(1, tokens[name].shape[2]) for name in self.modalities}


class _Learned(Imputer):
    """A vector for each modality that is learned, from zeros."""

    def __init__(self, n_features: Mapping[str, int]):
        super().__init__(n_features)
        # A list, not a dictionary: torch refuses names such as "type" or "a.b" as keys.
        self.vectors = nn.ParameterList(torch.zeros(1, n_features[m]) for m in self.modalities)

    def _vectors(
        self, tokens: Mapping[str, Tensor], masks: Mapping[str, Tensor], known: Mapping[str, Tensor]
    ) -> Tokens:
        return dict(zip(self.modalities, self.vectors, strict=True))


class _Imputed(Imputer):
    """A modality's average token, predicted from those of the modalities that a row has.

    The present modalities are projected to one length and concatenated with indicators. The sum
    of a linear map and of a hidden layer, both initialized with zeros, predicts each modality. It
    learns to predict every modality of a row that has another one, hidden ones included. The
    loss of the task does not train it, because its predictions would overfit the training rows,
    and its loss does not train the encoders.

    Parameters
    ----------
    n_features : mapping of str to int
        Width of the tokens of each modality, their number of features.
    n_components : int
        Width of the projections, and number of units of the hidden layer.
    dropout : float
        Fraction of both that is zeroed in training.

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
        self.nonlinear = nn.ModuleList(
            nn.Linear(n_components, width, bias=False) for width in widths
        )
        self.dropout = nn.Dropout(dropout)
        for layer in (*self.straight, *self.nonlinear):
            for parameter in layer.parameters():
                nn.init.zeros_(parameter)

    def _vectors(
        self, tokens: Mapping[str, Tensor], masks: Mapping[str, Tensor], known: Mapping[str, Tensor]
    ) -> Tokens:
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
            guess = self.straight[i](joined) + self.nonlinear[i](hidden)
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


def make_imputer(
    missing: str, n_features: Mapping[str, int], n_components: int, dropout: float = 0.0
) -> Imputer | None:
    """Build the imputer that ``missing`` of a joint fusion names; None for ``"mask"``."""
    if missing == "zero":
        return _Zeros(n_features)
    if missing == "token":
        return _Learned(n_features)
    if missing == "impute":
        return _Imputed(n_features, n_components, dropout)
    return None
