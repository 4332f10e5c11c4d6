"""The transformer against one written out by hand, and rollout against matrix products."""

import pytest
import torch
from attention_by_hand import encoder_layer

from skmm.nets import AttentionFusionModule


@pytest.fixture
def fusion(n_features):
    torch.manual_seed(0)
    fusion = AttentionFusionModule(n_features, 8, n_heads=2, n_layers=2)
    for parameter in fusion.parameters():  # biases and norms start at 0 and 1: stir them
        torch.nn.init.normal_(parameter, std=0.5)
    return fusion.eval()


def encode_row(fusion, tokens, masks, row):
    """One row without padding; also the attention of each layer."""
    parts, owner = [fusion.first[None]], [-1]
    for i, name in enumerate(fusion.modalities):
        kept = tokens[name][row][masks[name][row]]
        parts.append(fusion.projections[i](kept) + fusion.types[i])
        owner += [i] * len(kept)
    x = torch.cat(parts)
    attentions = []
    for layer in fusion.layers:
        x, attention = encoder_layer(layer, x)
        attentions.append(attention)
    return fusion.norm(x[0]), attentions, owner


def test_formula(fusion, make_batch):
    tokens, masks = make_batch()
    expected = torch.stack([encode_row(fusion, tokens, masks, row)[0] for row in range(6)])
    torch.testing.assert_close(fusion(tokens, masks), expected, atol=1e-5, rtol=1e-4)
    with torch.no_grad():  # torch takes another path here
        torch.testing.assert_close(fusion(tokens, masks), expected, atol=1e-5, rtol=1e-4)


def test_weights_are_attention_rollout(fusion, make_batch):
    tokens, masks = make_batch()
    got = fusion.weights(tokens, masks)
    for row in (0, 1, 2, 3, 5):
        _, attentions, owner = encode_row(fusion, tokens, masks, row)
        rollout = torch.eye(len(owner))
        for attention in attentions:
            rollout = (0.5 * torch.eye(len(owner)) + 0.5 * attention) @ rollout
        shares = torch.zeros(3)
        for place, i in enumerate(owner):
            if i >= 0:
                shares[i] += rollout[0, place].item()
        torch.testing.assert_close(got[row], shares / shares.sum(), atol=1e-5, rtol=1e-4)
