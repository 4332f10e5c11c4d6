"""The torch module of a joint fusion: encoders that are trained with it, fusion, head."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from skmm._training._balance import Balance
from skmm.fusion._stand_in import StandIn
from skmm.fusion._tokens import thinned
from skmm.nets import Head, ModalityDropout
from skmm.nets._layers import to_shares

__all__ = ["SEPARATOR", "JointModule", "modality_tensors"]

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
