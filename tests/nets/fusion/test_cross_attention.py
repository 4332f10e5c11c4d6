"""Co-attention against loops over rows, ordered pairs, tokens and heads."""

import pytest
import torch
from attention_by_hand import attend, normed

from skmm.nets import CrossAttentionFusionModule


def stirred(*args, **options):
    torch.manual_seed(0)
    fusion = CrossAttentionFusionModule(*args, **options)
    for parameter in fusion.parameters():  # biases and norms start at 0 and 1
        torch.nn.init.normal_(parameter, std=0.5)
    return fusion.eval()


def read_layer(layer, x, source):
    """One layer for one row without padding; a source of no tokens adds nothing."""
    if len(source):
        keys, values = layer.key_value(normed(layer.norm_source, source)).chunk(2, dim=1)
        queries = layer.query(normed(layer.norm_query, x))
        x = x + attend(queries, keys, values, layer.n_heads)[0] @ layer.out.weight.T
    hidden = layer.hidden[0](normed(layer.norm_hidden, x))
    return x + layer.hidden[3](torch.nn.functional.gelu(hidden))


def encode_row(fusion, tokens, masks, row, pairs):
    blocks = [
        fusion.projections[i](tokens[name][row][masks[name][row]])
        for i, name in enumerate(fusion.modalities)
    ]
    parts = []
    for p, (reading, read) in enumerate(pairs):
        x = blocks[reading]
        for layer in fusion.stacks[p]:
            x = read_layer(layer, x, blocks[read])
        parts.append(x.mean(0) if len(x) else fusion.absent[p])
    return fusion.mix(torch.cat(parts))


@pytest.mark.slow
@pytest.mark.parametrize("n_layers", [1, 2])
def test_formula(make_batch, n_features, n_layers):
    fusion = stirred(n_features, 8, n_heads=2, n_layers=n_layers)
    tokens, masks = make_batch()
    pairs = [(0, 1), (0, 2), (1, 0), (1, 2), (2, 0), (2, 1)]
    expected = [encode_row(fusion, tokens, masks, row, pairs) for row in range(6)]
    torch.testing.assert_close(fusion(tokens, masks), torch.stack(expected), atol=1e-5, rtol=1e-4)


def test_a_single_modality_reads_itself():
    fusion = stirred({"a": 3}, 8, n_heads=2)
    tokens, mask = {"a": torch.randn(4, 5, 3)}, torch.rand(4, 5) < 0.7
    mask[0] = False
    expected = [encode_row(fusion, tokens, {"a": mask}, row, [(0, 0)]) for row in range(4)]
    got = fusion(tokens, {"a": mask})
    torch.testing.assert_close(got, torch.stack(expected), atol=1e-5, rtol=1e-4)


def test_vectors_of_absent_modalities_are_learned(make_batch, n_features):
    fusion = CrossAttentionFusionModule(n_features, 8)
    fusion(*make_batch()).square().sum().backward()
    assert (fusion.absent.grad != 0).any(dim=1).all()


def test_layers_must_be_positive():
    with pytest.raises(ValueError, match="n_layers must be at least 1, got 0"):
        CrossAttentionFusionModule({"a": 2}, 4, n_layers=0)


def test_token_weights_are_attention_rollout(make_batch, n_features):
    """Against products of matrices, from the tokens to the mean of those that read."""
    fusion = stirred(n_features, 8, n_heads=2, n_layers=2)
    tokens, masks = make_batch()
    got = fusion.token_weights(tokens, masks)
    for row in (0, 3, 5):
        blocks = [
            fusion.projections[i](tokens[name][row][masks[name][row]])
            for i, name in enumerate(fusion.modalities)
        ]
        totals = [torch.zeros(len(block)) for block in blocks]
        for p, (reading, read) in enumerate(fusion.pairs):
            x, source = blocks[reading], blocks[read]
            own, other = torch.eye(len(x)), torch.zeros(len(x), len(source))
            for layer in fusion.stacks[p] if len(x) and len(source) else ():
                keys, values = layer.key_value(normed(layer.norm_source, source)).chunk(2, dim=1)
                queries = layer.query(normed(layer.norm_query, x))
                attention = attend(queries, keys, values, layer.n_heads)[1]
                own, other = 0.5 * own, 0.5 * other + 0.5 * attention
                x = read_layer(layer, x, source)
            if len(x):
                totals[reading] += own.mean(0)
                totals[read] += other.mean(0)
        whole = sum(total.sum() for total in totals)
        for name, total in zip(fusion.modalities, totals, strict=True):
            torch.testing.assert_close(
                got[name][row][masks[name][row]], total / whole, atol=1e-5, rtol=1e-4
            )
