"""Attention and a transformer layer for one row without padding, one head after the other."""

import math

import torch
import torch.nn.functional as F  # noqa: N812


def attend(queries, keys, values, n_heads):
    """Attention of every query, one after the other; also its weights, averaged over the heads."""
    width = queries.shape[1] // n_heads
    out, total = torch.zeros_like(queries), torch.zeros(len(queries), len(keys))
    for j in range(n_heads):
        part = slice(width * j, width * (j + 1))
        for t, query in enumerate(queries[:, part]):
            scores = torch.stack([query @ key / math.sqrt(width) for key in keys[:, part]])
            shares = scores.exp() / scores.exp().sum()
            out[t, part] = sum(w * value for w, value in zip(shares, values[:, part], strict=True))
            total[t] += shares / n_heads
    return out, total


def normed(norm, x):
    centered = x - x.mean(-1, keepdim=True)
    return (
        centered / (centered.square().mean(-1, keepdim=True) + 1e-5).sqrt() * norm.weight
        + norm.bias
    )


def encoder_layer(layer, x):
    """Apply torch's own layer, normalized first; also its attention."""
    attention, n_heads = layer.self_attn, layer.self_attn.num_heads
    h = normed(layer.norm1, x)
    q, k, v = (h @ attention.in_proj_weight.T + attention.in_proj_bias).chunk(3, 1)
    read, weights = attend(q, k, v, n_heads)
    x = x + read @ attention.out_proj.weight.T + attention.out_proj.bias
    h = normed(layer.norm2, x)
    h = F.gelu(h @ layer.linear1.weight.T + layer.linear1.bias)
    return x + h @ layer.linear2.weight.T + layer.linear2.bias, weights
