"""The transformer against one written out by hand, and rollout against matrix products."""

import math

import pytest
import torch
import torch.nn.functional as F  # noqa: N812

from skmm.nets import AttentionFusion


@pytest.fixture
def fusion(n_features):
    torch.manual_seed(0)
    fusion = AttentionFusion(n_features, 8, n_heads=2, n_layers=2)
    for parameter in fusion.parameters():  # biases and norms start at 0 and 1: stir them
        torch.nn.init.normal_(parameter, std=0.5)
    return fusion.eval()


def encode_row(fusion, tokens, masks, row):
    """One row without padding, one head after the other; also the attention of each layer."""
    parts, owner = [fusion.first[None]], [-1]
    for i, name in enumerate(fusion.modalities):
        kept = tokens[name][row][masks[name][row]]
        parts.append(fusion.projections[i](kept) + fusion.types[i])
        owner += [i] * len(kept)
    x = torch.cat(parts)
    attentions = []
    for layer in fusion.layers:
        h = F.layer_norm(x, (8,), layer.norm1.weight, layer.norm1.bias)
        q, k, v = (h @ layer.self_attn.in_proj_weight.T + layer.self_attn.in_proj_bias).chunk(3, 1)
        heads, total = [], 0
        for j in range(2):
            part = slice(4 * j, 4 * j + 4)
            a = torch.softmax(q[:, part] @ k[:, part].T / math.sqrt(4), dim=1)
            heads.append(a @ v[:, part])
            total = total + a / 2
        attentions.append(total)
        out = layer.self_attn.out_proj
        x = x + torch.cat(heads, 1) @ out.weight.T + out.bias
        h = F.layer_norm(x, (8,), layer.norm2.weight, layer.norm2.bias)
        h = F.gelu(h @ layer.linear1.weight.T + layer.linear1.bias)
        x = x + h @ layer.linear2.weight.T + layer.linear2.bias
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


def test_order_of_tokens_is_not_used(fusion, make_batch):
    tokens, masks = make_batch()
    turned = {name: block.flip(1) for name, block in tokens.items()}
    masks_turned = {name: mask.flip(1) for name, mask in masks.items()}
    torch.testing.assert_close(
        fusion(tokens, masks), fusion(turned, masks_turned), atol=1e-5, rtol=1e-4
    )


def test_reads_single_tokens():
    # The answer is which of the words is marked in the picture: a pooled modality lost that.
    torch.manual_seed(0)
    n, n_words = 300, 3
    label = torch.randint(0, 2, (n,))
    marked = torch.randint(0, n_words, (n,))
    keys = F.one_hot(torch.stack([torch.randperm(n_words) for _ in range(n)]), n_words).float()
    answers = torch.randint(0, 2, (n, n_words))
    where = keys.argmax(-1) == marked[:, None]
    answers[where] = label
    words = torch.cat([keys, (answers * 2.0 - 1)[..., None]], dim=-1)
    tokens = {"image": F.one_hot(marked, n_words).float()[:, None], "text": words}
    masks = {k: torch.ones(t.shape[:2], dtype=torch.bool) for k, t in tokens.items()}
    fusion = AttentionFusion({"image": n_words, "text": n_words + 1}, 16)
    head = torch.nn.Linear(16, 2)
    optimizer = torch.optim.Adam([*fusion.parameters(), *head.parameters()], lr=0.01)
    for _ in range(150):
        optimizer.zero_grad()
        scores = head(fusion(tokens, masks))
        F.cross_entropy(scores, label).backward()
        optimizer.step()
    assert (scores.argmax(1) == label).float().mean() > 0.95


def test_heads_must_divide_components():
    with pytest.raises(ValueError, match=r"n_components=10 is not a multiple of n_heads=4.*=12"):
        AttentionFusion({"a": 2}, 10)


def test_one_component_is_too_few():
    with pytest.raises(ValueError, match="n_components must be at least 2, got 1"):
        AttentionFusion({"a": 2}, 1, n_heads=1)
