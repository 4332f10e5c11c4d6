"""The bottleneck against a loop over rows and modalities; it is the only connection."""

import pytest
import torch
from attention_by_hand import encoder_layer, normed

from skmm.nets import BottleneckFusionModule


def stirred(*args, **options):
    torch.manual_seed(0)
    fusion = BottleneckFusionModule(*args, **options)
    for parameter in fusion.parameters():  # biases and norms start at 0 and 1
        torch.nn.init.normal_(parameter, std=0.5)
    return fusion.eval()


def encode_row(fusion, tokens, masks, row):
    """Fuse one row, without its absent modalities."""
    blocks = {}
    for i, name in enumerate(fusion.modalities):
        kept = tokens[name][row][masks[name][row]]
        if len(kept):
            blocks[i] = torch.cat([fusion.firsts[i][None], fusion.projections[i](kept)])
    shared = fusion.bottlenecks
    for layers in fusion.layers if blocks else ():
        copies = []
        for i in blocks:
            x, _ = encoder_layer(layers[i], torch.cat([blocks[i], shared]))
            blocks[i], copy = x[: len(blocks[i])], x[len(blocks[i]) :]
            copies.append(copy)
        shared = sum(copies) / len(copies)
    firsts = [normed(fusion.norm, block[0]) for block in blocks.values()]
    return sum(firsts) / len(firsts) if firsts else torch.zeros(fusion.n_components)


@pytest.mark.parametrize("n_layers", [2, 3])
def test_formula(make_batch, n_features, n_layers):
    fusion = stirred(n_features, 8, n_heads=2, n_layers=n_layers, n_bottlenecks=3)
    tokens, masks = make_batch()
    expected = torch.stack([encode_row(fusion, tokens, masks, row) for row in range(6)])
    torch.testing.assert_close(fusion(tokens, masks), expected, atol=1e-5, rtol=1e-4)
    with torch.no_grad():  # torch takes another path here
        torch.testing.assert_close(fusion(tokens, masks), expected, atol=1e-5, rtol=1e-4)


@pytest.mark.slow
def test_one_bottleneck_is_enough_for_one_product(xor_accuracy):
    assert xor_accuracy(BottleneckFusionModule, n_bottlenecks=1) > 0.95


@pytest.mark.slow
def test_modalities_interact_only_by_the_bottleneck(xor_accuracy):
    class Cut(BottleneckFusionModule):
        """Zeros replace the shared tokens before the last layer."""

        def _fuse(self, tokens, masks):
            def wipe(layer, args, kwargs):
                x = args[0].clone()
                x[:, : len(self.bottlenecks)] = 0.0
                return (x,), kwargs

            handles = [
                layer.register_forward_pre_hook(wipe, with_kwargs=True) for layer in self.layers[-1]
            ]
            fused = super()._fuse(tokens, masks)
            for handle in handles:
                handle.remove()
            return fused

    assert xor_accuracy(Cut) < 0.8  # the mean of separate modalities is additive


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_layers": 1}, "n_layers must be at least 2, got 1. Modalities exchange"),
        ({"n_bottlenecks": 0}, "n_bottlenecks must be at least 1, got 0"),
    ],
)
def test_too_few(options, message):
    with pytest.raises(ValueError, match=f"BottleneckFusionModule: {message}"):
        BottleneckFusionModule({"a": 2}, 4, **options)


def test_weights_are_attention_rollout(make_batch, n_features):
    """The rollout equals products of attention matrices."""
    fusion = stirred(n_features, 8, n_heads=2, n_layers=3, n_bottlenecks=3)
    tokens, masks = make_batch()
    got = fusion.token_weights(tokens, masks)
    for row in (0, 3, 5):
        blocks, places, n = {}, {}, 3
        for i, name in enumerate(fusion.modalities):
            kept = tokens[name][row][masks[name][row]]
            if len(kept):
                blocks[i] = torch.cat([fusion.firsts[i][None], fusion.projections[i](kept)])
                places[i] = [0, 1, 2, *range(n, n + len(blocks[i]))]
                n += len(blocks[i])
        shared, rollout = fusion.bottlenecks, torch.eye(n)
        for layers in fusion.layers:
            step, copies = torch.zeros(n, n), []
            for i, own in places.items():
                x, attention = encoder_layer(layers[i], torch.cat([shared, blocks[i]]))
                copies.append(x[:3])
                blocks[i] = x[3:]
                part = torch.zeros(len(own), n)
                part[:, own] = 0.5 * torch.eye(len(own)) + 0.5 * attention
                step[:3] += part[:3] / len(places)
                step[own[3:]] = part[3:]
            rollout, shared = step @ rollout, sum(copies) / len(copies)
        read = torch.stack([rollout[own[3]] for own in places.values()]).mean(0)
        expected = {i: read[own[4:]] for i, own in places.items()}
        total = sum(own.sum() for own in expected.values())
        for i, name in enumerate(fusion.modalities):
            own = got[name][row][masks[name][row]]
            torch.testing.assert_close(own, expected.get(i, own[:0]) / total, atol=1e-5, rtol=1e-4)
