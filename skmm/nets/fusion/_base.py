"""The interface of a fusion network: from tokens and masks by modality to one vector per row."""

from abc import ABC, abstractmethod
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from skmm.nets._layers import mean_of_zeroed, zeroed

__all__ = ["FusionModule"]


class FusionModule(ABC, nn.Module):
    """Base class of the networks that fuse modalities.

    A subclass implements ``_fuse(tokens, masks)``, which receives lists in the sorted order of the
    modalities and returns a Tensor of shape (n_rows, n_components). Tokens are replaced by zeros
    where their mask is False, so neither an output nor a gradient depends on their values.

    Parameters
    ----------
    n_features : dict of str to int
        Width of the tokens of each modality, their number of features.
    n_components : int
        Width of the fused vector.

    Attributes
    ----------
    modalities : tuple of str
        Names of the modalities, sorted.

    Notes
    -----
    A subclass may define two more methods, which ``skmm.inspection`` calls if they exist:
    ``weights(tokens, masks)`` returns the weights of the modalities, a Tensor of shape
    (n_rows, n_modalities) in the order of ``modalities``; ``token_weights(tokens, masks)`` returns
    the weights of the tokens, a dict of str to Tensor of shape (n_rows, n_tokens).

    Examples
    --------
    A subclass needs only ``_fuse``:

    >>> import torch
    >>> from skmm.nets import FusionModule
    >>> class Total(FusionModule):
    ...     def _fuse(self, tokens, masks):
    ...         return sum(block.sum(dim=1) for block in tokens)
    >>> fusion = Total({"image": 2, "text": 2}, 2)

    The second row has no image; the values that its mask hides have no effect:

    >>> tokens = {
    ...     "image": torch.tensor([[[1.0, 2.0]], [[float("nan"), 0.0]]]),
    ...     "text": torch.ones(2, 1, 2),
    ... }
    >>> masks = {"image": torch.tensor([[True], [False]]), "text": torch.ones(2, 1).bool()}
    >>> fusion(tokens, masks)
    tensor([[2., 3.],
            [1., 1.]])
    """

    def __init__(self, n_features: Mapping[str, int], n_components: int):
        super().__init__()
        if not n_features:
            raise ValueError(f"{type(self).__name__} needs at least one modality in n_features.")
        self.modalities = tuple(sorted(n_features))
        self.n_features = {name: int(n_features[name]) for name in self.modalities}
        self.n_components = int(n_components)

    def forward(self, tokens: Mapping[str, Tensor], masks: Mapping[str, Tensor]) -> Tensor:
        """Fuse a batch of rows.

        Parameters
        ----------
        tokens : dict of str to Tensor of shape (n_rows, n_tokens, n_features)
            Tokens of each modality, by its name. A modality with one vector per row has one token.
            ``n_tokens`` and ``n_features`` may differ between modalities.
        masks : dict of str to BoolTensor of shape (n_rows, n_tokens)
            True where a token exists; all False in rows without the modality. Values of tokens that
            do not exist have no effect.

        Returns
        -------
        fused : Tensor of shape (n_rows, n_components)
            Fused vectors. They are finite even for a row without any modality.

        Raises
        ------
        ValueError
            If a modality is missing in ``tokens`` or ``masks``, or has a wrong shape or dtype.
        """
        return self._fuse(*self._in_order(tokens, masks))

    def own_layers(self) -> dict[str, nn.Module]:
        """Return, for each modality, the layer that processes only this modality.

        ``balance`` of the joint fusions trains a head on the output of each of these layers. A
        layer maps a Tensor of shape (n_rows, n_features) to one of shape (n_rows, width), of any
        width. By default the layers are those of the attribute ``projections``, a ``ModuleList``
        in the order of ``modalities``. A subclass with other layers overrides this method.

        Returns
        -------
        layers : dict of str to nn.Module
            Layer of each modality, by its name. Empty if there is no such attribute.
        """
        own = getattr(self, "projections", None)
        if not isinstance(own, nn.ModuleList) or len(own) != len(self.modalities):
            return {}
        return dict(zip(self.modalities, own, strict=True))

    @abstractmethod
    def _fuse(self, tokens: list[Tensor], masks: list[Tensor]) -> Tensor:
        """Fuse tokens, which are zero where masked, in the order of ``modalities``."""

    def _in_order(
        self, tokens: Mapping[str, Tensor], masks: Mapping[str, Tensor]
    ) -> tuple[list[Tensor], list[Tensor]]:
        ordered_tokens, ordered_masks = [], []
        for name in self.modalities:
            if name not in tokens or name not in masks:
                raise ValueError(
                    f"{type(self).__name__}: tokens or masks have no modality {name!r}. Pass"
                    " every modality, with a mask that is all False where it is absent."
                )
            block, mask = tokens[name], masks[name]
            self._check_shapes(name, block, mask)
            ordered_tokens.append(zeroed(block, mask))
            ordered_masks.append(mask)
        return ordered_tokens, ordered_masks

    def _check_shapes(self, name: str, block: Tensor, mask: Tensor) -> None:
        if block.ndim != 3 or block.shape[-1] != self.n_features[name]:
            raise ValueError(
                f"{type(self).__name__}: tokens[{name!r}] must have shape"
                f" (n_rows, n_tokens, {self.n_features[name]}), got {tuple(block.shape)}."
            )
        if mask.shape != block.shape[:2] or mask.dtype != torch.bool:
            raise ValueError(
                f"{type(self).__name__}: masks[{name!r}] must be boolean of shape"
                f" {tuple(block.shape[:2])}, got {mask.dtype} of shape {tuple(mask.shape)}."
            )

    def _check_heads(self, n_heads: int) -> None:
        """Check that the width suits attention heads and a layer normalization."""
        if n_heads < 1:
            raise ValueError(f"{type(self).__name__}: n_heads must be at least 1, got {n_heads}.")
        if self.n_components < 2:
            raise ValueError(
                f"{type(self).__name__}: n_components must be at least 2, got"
                f" {self.n_components}, as its layers normalize over them."
            )
        if self.n_components % n_heads:
            raise ValueError(
                f"{type(self).__name__}: n_components={self.n_components} is not a multiple of"
                f" n_heads={n_heads}. Choose n_components="
                f"{-(-self.n_components // n_heads) * n_heads} or another n_heads."
            )

    @staticmethod
    def _pool(tokens: list[Tensor], masks: list[Tensor]) -> tuple[list[Tensor], Tensor]:
        """Return the mean token of each modality, and which modalities each row has.

        Returns the vectors, (n_rows, n_features) each, and a mask (n_rows, n_modalities).
        """
        pooled = [mean_of_zeroed(block, mask) for block, mask in zip(tokens, masks, strict=True)]
        return pooled, torch.stack([mask.any(dim=1) for mask in masks], dim=1)
