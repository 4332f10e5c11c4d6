"""The encoder of Whisper, a transformer that was trained to write down 680,000 hours of speech."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["WhisperEncoder"]


class WhisperEncoder(nn.Module):
    """Encoder of Whisper [1]_, from log-mel frames to one vector every 20 ms.

    Names and shapes of the weights are those of the published checkpoints. A stretch shorter
    than the 30 s of the training has the positions of its beginning.

    Parameters
    ----------
    n_mels : int, default=80
        Mel bands.
    width : int, default=384
        Length of a vector; the defaults are those of the size "tiny".
    n_heads : int, default=6
        Heads of each attention.
    n_layers : int, default=4
        Layers of the transformer.
    n_positions : int, default=1500
        Vectors that a stretch has at most.

    References
    ----------
    .. [1] Radford et al., "Robust speech recognition via large-scale weak supervision",
       ICML 2023.
    """

    positional_embedding: Tensor

    def __init__(
        self,
        *,
        n_mels: int = 80,
        width: int = 384,
        n_heads: int = 6,
        n_layers: int = 4,
        n_positions: int = 1500,
    ):
        super().__init__()
        self.conv1 = nn.Conv1d(n_mels, width, 3, padding=1)
        self.conv2 = nn.Conv1d(width, width, 3, stride=2, padding=1)
        self.register_buffer("positional_embedding", torch.zeros(n_positions, width))
        self.blocks = nn.ModuleList(_Block(width, n_heads) for _ in range(n_layers))
        self.ln_post = nn.LayerNorm(width)

    def forward(self, mel: Tensor) -> Tensor:
        """Encode spectrograms.

        Parameters
        ----------
        mel : Tensor of shape (n_sounds, n_mels, n_frames)
            Log-mel frames, 100 a second; at most twice as many as there are positions.

        Returns
        -------
        vectors : Tensor of shape (n_sounds, n_frames / 2, width)
            One for every second frame.
        """
        x = F.gelu(self.conv2(F.gelu(self.conv1(mel)))).transpose(1, 2)
        x = x + self.positional_embedding[: x.shape[1]]
        for block in self.blocks:
            x = block(x)
        return self.ln_post(x)


class _Block(nn.Module):
    """Attention and two dense layers, each normalised before and added after."""

    def __init__(self, width: int, n_heads: int):
        super().__init__()
        self.attn = _Attention(width, n_heads)
        self.attn_ln = nn.LayerNorm(width)
        self.mlp = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
        )
        self.mlp_ln = nn.LayerNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.attn_ln(x))
        return x + self.mlp(self.mlp_ln(x))


class _Attention(nn.Module):
    """Attention over all vectors of the stretch; keys have no bias."""

    def __init__(self, width: int, n_heads: int):
        super().__init__()
        self.n_heads = n_heads
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width, bias=False)
        self.value = nn.Linear(width, width)
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        heads = [
            part(x).unflatten(-1, (self.n_heads, -1)).transpose(1, 2)
            for part in (self.query, self.key, self.value)
        ]
        return self.out(F.scaled_dot_product_attention(*heads).transpose(1, 2).flatten(2))
