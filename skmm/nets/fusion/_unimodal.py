"""Heads that predict from one modality each, in addition to the head over the fused vector."""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from skmm.nets._layers import masked_mean

__all__ = ["UnimodalHeads"]


class UnimodalHeads(nn.Module):
    """A head for each modality, on the modality's mean token as the fusion projects it.

    A fusion network returns the projections of its modalities by ``own_layers``; for a modality
    without one, the input of the head is the mean token.

    Parameters
    ----------
    fusion : nn.Module
        Network whose projections are used; no reference to it is kept.
    n_features : mapping of str to int
        Width of the tokens of each modality, their number of features.
    make_head : callable
        Called with a width; returns a module from (n_rows, width) to (n_rows, n_outputs).
    detached : bool, default=False
        Whether no gradient flows from the heads to the networks of the modalities.

    Examples
    --------
    >>> import torch
    >>> from skmm.nets import MeanFusionModule
    >>> from skmm.nets._layers import Head
    >>> from skmm.nets.fusion._unimodal import UnimodalHeads
    >>> widths = {"image": 8, "text": 4}
    >>> fusion = MeanFusionModule(widths, 16)
    >>> heads = UnimodalHeads(fusion, widths, lambda width: Head(width, 3))
    >>> tokens = {"image": torch.ones(5, 1, 8), "text": torch.ones(5, 1, 4)}
    >>> masks = {"image": torch.ones(5, 1).bool(), "text": torch.zeros(5, 1).bool()}
    >>> outputs, present = heads(fusion, tokens, masks)
    >>> outputs.shape, present[0].tolist()
    (torch.Size([5, 2, 3]), [True, False])
    """

    def __init__(
        self,
        fusion: nn.Module,
        n_features: Mapping[str, int],
        make_head: Callable[[int], nn.Module],
        *,
        detached: bool = False,
    ):
        super().__init__()
        self.modalities = tuple(sorted(n_features))
        self.detached = detached
        layers = self.layers_of(fusion)
        # A list, not a dictionary: torch refuses names such as "type" or "a.b" as keys.
        self.heads = nn.ModuleList(
            make_head(_width(layers.get(name), n_features[name])) for name in self.modalities
        )

    def forward(
        self, fusion: nn.Module, tokens: Mapping[str, Tensor], masks: Mapping[str, Tensor]
    ) -> tuple[Tensor, Tensor]:
        """Predict from each modality alone.

        Parameters
        ----------
        fusion : nn.Module
            Same network as in the constructor.
        tokens : mapping of str to Tensor of shape (n_rows, n_tokens, n_features)
            Tokens of each modality.
        masks : mapping of str to BoolTensor of shape (n_rows, n_tokens)
            True where the token exists.

        Returns
        -------
        outputs : Tensor of shape (n_rows, n_modalities, n_outputs)
            In the order of ``modalities``; meaningless but finite for an absent modality.
        present : BoolTensor of shape (n_rows, n_modalities)
            Which modalities each row has.
        """
        layers = self.layers_of(fusion)
        outputs = []
        for name, head in zip(self.modalities, self.heads, strict=True):
            vector = masked_mean(tokens[name], masks[name])
            vector = layers[name](vector) if name in layers else vector
            outputs.append(head(vector.detach() if self.detached else vector))
        present = [masks[name].any(dim=1) for name in self.modalities]
        return torch.stack(outputs, dim=1), torch.stack(present, dim=1)

    @staticmethod
    def layers_of(fusion: nn.Module) -> dict[str, nn.Module]:
        """Return the layers of a fusion network that belong to one modality, by its name."""
        own_layers: Callable[[], Mapping[str, nn.Module]] = getattr(fusion, "own_layers", dict)
        return dict(own_layers())


def _width(layer: nn.Module | None, n_features: int) -> int:
    """Return the output width of a layer, without using the random number generator."""
    if layer is None:
        return n_features
    was_training = layer.training
    weight = next(layer.parameters())
    with torch.no_grad():
        width: int = layer.eval()(weight.new_zeros(1, n_features)).shape[1]
    layer.train(was_training)
    return width
