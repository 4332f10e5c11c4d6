"""The torch module of a joint fusion: encoders that are trained with it, fusion, head."""

from collections.abc import Mapping

from torch import Tensor, nn

from skmm.nets import Head, ModalityDropout

__all__ = ["SEPARATOR", "JointModule"]

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
    ):
        super().__init__()
        self.modalities = list(modalities)
        self.n_components = n_components
        # A name may hold a dot, which nn.ModuleDict refuses.
        self.encoder_names = list(encoders)
        self.encoders = nn.ModuleList(encoders.values())
        self.modality_dropout = ModalityDropout(modality_dropout)
        self.fusion = fusion
        self.head = Head(n_components, n_outputs, dropout=dropout)

    def represent(self, **inputs: Tensor) -> Tensor:
        """Return the fused vectors, (n_rows, n_components).

        Parameters
        ----------
        **inputs : Tensor
            ``<modality>|values`` (n_rows, n_features) or the tensors of its encoder, and
            ``<modality>|present`` (n_rows,).
        """
        tokens, masks = {}, {}
        for name in self.modalities:
            own = {
                key.rpartition(SEPARATOR)[2]: tensor
                for key, tensor in inputs.items()
                if key.rpartition(SEPARATOR)[0] == name
            }
            present = own.pop("present")
            if name in self.encoder_names:
                encoder = self.encoders[self.encoder_names.index(name)]
                vectors = encoder(**own).pooled
            else:
                vectors = own["values"]
            tokens[name] = vectors[:, None]  # (n_rows, 1 token, width)
            masks[name] = present[:, None]
        fused = self.fusion(tokens, self.modality_dropout(masks))
        if fused.shape != (len(present), self.n_components):
            raise ValueError(
                f"strategy {type(self.fusion).__name__} gave a tensor of shape"
                f" {tuple(fused.shape)} for {len(present)} rows, but n_components is"
                f" {self.n_components}. Make the two the same."
            )
        return fused

    def forward(self, **inputs: Tensor) -> Tensor:
        """Return the outputs, (n_rows, n_outputs); weights of rows are not looked at."""
        return self.head(self.represent(**inputs))

    def encoder_of(self, name: str) -> nn.Module:
        """Return the trained network of a modality."""
        return self.encoders[self.encoder_names.index(name)]
