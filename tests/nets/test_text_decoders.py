"""Text decoders: equal to torch's own layers, equal step by step and at once, masks."""

import pytest
import torch
from torch import nn

from skmm.nets._layers import TokenMemory
from skmm.nets._text_decoders import GRUDecoder, TokenLoss, TransformerDecoder

DECODERS = {
    "transformer": lambda: TransformerDecoder(11, 16, n_layers=2, dropout=0.3),
    "transformer of odd width": lambda: TransformerDecoder(11, 15, n_heads=3, n_layers=1),
    "gru": lambda: GRUDecoder(11, 16, n_layers=1, dropout=0.3),
    "gru of two layers": lambda: GRUDecoder(11, 16, n_layers=2),
}


@pytest.fixture(params=DECODERS)
def decoder(request):
    torch.manual_seed(0)
    return DECODERS[request.param]().eval()


def make_rows(width, n_rows=5, n_memory=4, n_steps=6, seed=1):
    generator = torch.Generator().manual_seed(seed)
    memory = torch.randn(n_rows, n_memory, width, generator=generator)
    mask = torch.rand(n_rows, n_memory, generator=generator) < 0.6
    mask[:, 0] = True
    ids = torch.randint(0, 11, (n_rows, n_steps), generator=generator)
    ids[:, 0] = 11
    return memory, mask, ids


def test_step_by_step_is_at_once(decoder):
    memory, mask, ids = make_rows(decoder.width)
    whole = decoder(memory, mask, ids)
    assert whole.shape == (5, 6, 11)
    state = decoder.start(memory, mask)
    for step in range(ids.shape[1]):
        logits, state = decoder.advance(ids[:, [step]], state)
        torch.testing.assert_close(logits[:, 0], whole[:, step], rtol=1e-4, atol=1e-5)


def test_later_tokens_have_no_effect(decoder):
    memory, mask, ids = make_rows(decoder.width)
    other = ids.clone()
    other[:, 4:] = (other[:, 4:] + 1) % 11
    before, after = decoder(memory, mask, ids), decoder(memory, mask, other)
    torch.testing.assert_close(before[:, :4], after[:, :4])
    assert (before[:, 4:] - after[:, 4:]).abs().max() > 0.01


def test_only_unmasked_memory_has_an_effect(decoder):
    memory, mask, ids = make_rows(decoder.width)
    expected = decoder(memory, mask, ids)
    hidden = torch.where(mask[..., None], memory, 100.0)
    torch.testing.assert_close(decoder(hidden, mask, ids), expected)
    shown = torch.where(mask[..., None], memory + 1.0 * torch.randn(memory.shape), memory)
    assert (decoder(shown, mask, ids) - expected).abs().amax((1, 2)).min() > 0.01


def test_a_state_can_be_taken_apart(decoder):
    memory, mask, ids = make_rows(decoder.width)
    _, state = decoder.advance(ids[:, :3], decoder.start(memory, mask))
    rows = torch.tensor([3, 3, 0])
    taken, _ = decoder.advance(ids[rows, 3:4], state.take(rows))
    expected = decoder(memory, mask, ids)[rows, 3]
    torch.testing.assert_close(taken[:, 0], expected, rtol=1e-4, atol=1e-5)
    # Two rows of one memory exchange their past.
    memory, mask = memory[[0, 0]], mask[[0, 0]]
    _, state = decoder.advance(ids[:2, :3], decoder.start(memory, mask))
    swapped, _ = decoder.advance(ids[[1, 0], 3:4], state.take_past(torch.tensor([1, 0])))
    expected = decoder(memory, mask, ids[[1, 0]])[:, 3]
    torch.testing.assert_close(swapped[:, 0], expected, rtol=1e-4, atol=1e-5)


def test_a_transformer_layer_is_that_of_torch():
    torch.manual_seed(0)
    decoder = TransformerDecoder(11, 16, n_heads=4, n_layers=1).eval()
    for parameter in decoder.parameters():
        nn.init.normal_(parameter, std=0.3)
    layer, theirs = (
        decoder.layers[0],
        nn.TransformerDecoderLayer(16, 4, 64, activation="gelu", batch_first=True, norm_first=True),
    )
    pairs = [
        (theirs.self_attn.in_proj_weight, layer.own.weight),
        (theirs.self_attn.in_proj_bias, layer.own.bias),
        (theirs.self_attn.out_proj.weight, layer.own_out.weight),
        (theirs.self_attn.out_proj.bias, layer.own_out.bias),
        (
            theirs.multihead_attn.in_proj_weight,
            torch.cat([layer.query.weight, layer.read_in.weight]),
        ),
        (theirs.multihead_attn.in_proj_bias, torch.cat([layer.query.bias, layer.read_in.bias])),
        (theirs.multihead_attn.out_proj.weight, layer.read_out.weight),
        (theirs.multihead_attn.out_proj.bias, layer.read_out.bias),
        (theirs.linear1.weight, layer.hidden[0].weight),
        (theirs.linear1.bias, layer.hidden[0].bias),
        (theirs.linear2.weight, layer.hidden[3].weight),
        (theirs.linear2.bias, layer.hidden[3].bias),
    ]
    for i, norm in enumerate((theirs.norm1, theirs.norm2, theirs.norm3)):
        pairs += [(norm.weight, layer.norms[i].weight), (norm.bias, layer.norms[i].bias)]
    with torch.no_grad():
        for target, source in pairs:
            target.copy_(source)
    memory, mask, ids = make_rows(16)
    x = decoder._embed(ids) + decoder._positions(torch.arange(ids.shape[1])[None])
    x = theirs.eval()(
        x,
        memory,
        tgt_mask=nn.Transformer.generate_square_subsequent_mask(ids.shape[1]),
        memory_key_padding_mask=torch.where(mask, 0.0, -torch.inf),
        tgt_is_causal=True,
    )
    expected = decoder.norm(x) @ decoder.embedding.weight[:11].T + decoder.bias
    torch.testing.assert_close(decoder(memory, mask, ids), expected, rtol=1e-4, atol=1e-4)


def test_a_width_that_is_no_multiple_of_heads_is_refused():
    with pytest.raises(ValueError, match="multiple of n_heads, got 10 and n_heads=4"):
        TransformerDecoder(5, 10, n_heads=4)


# --- memory and loss ----------------------------------------------------------------------


def test_absent_tokens_reach_neither_memory_nor_gradient():
    torch.manual_seed(0)
    memory = TokenMemory({"image": 3, "text": 2}, 8)
    tokens = {"text": torch.randn(2, 4, 2), "image": torch.full((2, 1, 3), torch.nan)}
    masks = {"text": torch.tensor([[True] * 4, [True, False, True, False]])}
    masks["image"] = torch.zeros(2, 1, dtype=torch.bool)
    sequence, mask = memory(tokens, masks)
    assert sequence.shape == (2, 6, 8) and torch.isfinite(sequence).all()
    assert mask.tolist() == [[True, False, *[True] * 4], [True, False, True, False, True, False]]
    assert not sequence[~mask].any()
    sequence.square().sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in memory.parameters() if p.grad is not None)
    # The order of a dictionary has no effect.
    again, _ = memory(dict(reversed(tokens.items())), dict(reversed(masks.items())))
    torch.testing.assert_close(again, sequence)


def test_loss_by_hand():
    torch.manual_seed(0)
    logits, nothing = torch.randn(2, 3, 5), TokenLoss.NOTHING
    target = torch.tensor([[4, 2, 0], [1, 0, nothing]])
    steps = torch.log_softmax(logits, dim=2)
    expected = -torch.stack(
        [steps[0, 0, 4] + steps[0, 1, 2] + steps[0, 2, 0], steps[1, 0, 1] + steps[1, 1, 0]]
    )
    torch.testing.assert_close(TokenLoss(2.5)(logits, target), expected / 2.5)
    smoothed = TokenLoss(label_smoothing=0.1)
    spread = -torch.stack([steps[0].mean(1).sum(), steps[1, :2].mean(1).sum()])
    torch.testing.assert_close(smoothed(logits, target), 0.9 * expected + 0.1 * spread)
    torch.testing.assert_close(smoothed.eval()(logits, target), expected)
