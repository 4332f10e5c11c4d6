"""A transformer that draws a series, all of its steps at once."""

import torch
from torch import Tensor, nn

from skmm.nets._series_decoders import SeriesDecoder

__all__ = ["TransformerSeriesDecoder"]


class TransformerSeriesDecoder(SeriesDecoder):
    """Queries for places attend to each other and to the memory [1]_.

    Nothing waits for the step before: the steps are not fed back [2]_.

    Parameters
    ----------
    n_channels : int
        Values of a step.
    width : int
        Width of the layers and length of the memory's vectors, a multiple of ``n_heads``.
    dropout : float, default=0.0
        Share of the hidden units that is zeroed in training, in [0, 1].
    n_heads : int, default=4
        Number of attention heads.
    n_layers : int, default=2
        Number of layers.
    position : {"steps", "share"}, default="steps"
        What a step is told of its place: the steps before it, or their share of the length.

    References
    ----------
    .. [1] Carion et al. (2020), "End-to-end object detection with transformers", ECCV.
    .. [2] Gu, Bradbury, Xiong, Li, Socher (2018), "Non-autoregressive neural machine translation",
       ICLR.

    Examples
    --------
    >>> import torch
    >>> from skmm.nets import TransformerSeriesDecoder
    >>> decoder = TransformerSeriesDecoder(2, 16)
    >>> memory, mask = torch.ones(2, 3, 16), torch.ones(2, 3).bool()
    >>> decoder(memory, mask, torch.tensor([7, 4])).shape
    torch.Size([2, 7, 2])
    >>> decoder.predict_length(memory, mask).shape
    torch.Size([2])
    """

    def __init__(
        self,
        n_channels: int,
        width: int,
        *,
        dropout: float = 0.0,
        n_heads: int = 4,
        n_layers: int = 2,
        position: str = "steps",
    ):
        if width % n_heads or width < 2:
            raise ValueError(
                f"TransformerSeriesDecoder needs a width of at least 2 that is a multiple of"
                f" n_heads, got {width} and n_heads={n_heads}."
            )
        super().__init__(n_channels, width, position=position)
        self.layers = nn.ModuleList(
            nn.TransformerDecoderLayer(
                width,
                n_heads,
                4 * width,
                dropout=dropout,
                activation="gelu",
                batch_first=True,
                norm_first=True,
            )
            for _ in range(n_layers)
        )
        self.out = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, n_channels))

    def shapes(self, memory: Tensor, mask: Tensor, lengths: Tensor) -> Tensor:
        """Return series (n_rows, n_steps, n_channels) before height and level are put in."""
        n_steps = int(lengths.max())
        x = self.places(lengths, n_steps)
        absent = torch.arange(n_steps, device=lengths.device) >= lengths[:, None]
        for layer in self.layers:
            x = layer(x, memory, tgt_key_padding_mask=absent, memory_key_padding_mask=~mask)
        return self.out(x)
