"""Heads over single modalities, and which layers of a fusion belong to one modality."""

import pytest
import torch
from fusion_modules import FUSION_MODULES
from torch import nn

from skmm.nets._layers import Head
from skmm.nets.fusion._unimodal import UnimodalHeads

ALL = pytest.mark.parametrize("strategy", sorted(FUSION_MODULES))


def build(strategy, n_features, **options):
    torch.manual_seed(0)
    fusion = FUSION_MODULES[strategy](n_features, 8, dropout=0.0)
    return fusion, UnimodalHeads(fusion, n_features, lambda width: Head(width, 3), **options)


@ALL
def test_every_strategy_tells_the_layers_of_each_modality(strategy, n_features, make_batch):
    """Without a modality's tokens, only its own layers get no gradient of the data."""
    fusion, _ = build(strategy, n_features)
    layers = fusion.own_layers()
    assert set(layers) == set(n_features)
    parameters = [p for layer in layers.values() for p in layer.parameters()]
    assert len({id(p) for p in parameters}) == len(parameters)
    tokens, masks = make_batch()
    for name in n_features:
        others = {key: m & (key != name) for key, m in masks.items()}
        fusion.zero_grad()
        fusion(tokens, others).square().sum().backward()
        assert not any(p.grad is not None and p.grad.any() for p in layers[name].parameters())
        fusion(tokens, masks).square().sum().backward()
        assert any(p.grad is not None and p.grad.any() for p in layers[name].parameters())


@ALL
def test_head_reads_only_the_projected_mean_token_of_its_modality(strategy, n_features, make_batch):
    fusion, heads = build(strategy, n_features)
    tokens, masks = make_batch()
    outputs, present = heads(fusion, tokens, masks)
    assert outputs.shape == (6, 3, 3) and outputs.isfinite().all()
    for i, name in enumerate(heads.modalities):
        assert present[:, i].tolist() == [bool(row.any()) for row in masks[name]]
        for row in range(6):
            if not present[row, i]:
                continue
            mean = tokens[name][row][masks[name][row]].mean(dim=0)
            expected = heads.heads[i](fusion.own_layers()[name](mean[None]))
            torch.testing.assert_close(outputs[row, i][None], expected)


@pytest.mark.parametrize("detached", [True, False])
def test_detached_heads_teach_the_layers_nothing(n_features, make_batch, detached):
    fusion, heads = build("concat", n_features, detached=detached)
    outputs, _ = heads(fusion, *make_batch())
    outputs.square().sum().backward()
    touched = [p.grad is not None for layer in fusion.projections for p in layer.parameters()]
    assert touched == [not detached] * len(touched)
    assert all(p.grad is not None for p in heads.parameters())


def test_absent_values_reach_neither_output_nor_gradient(n_features, make_batch):
    fusion, heads = build("concat", n_features)
    tokens, masks = make_batch()
    poisoned = {
        name: block.masked_fill(~masks[name][..., None], torch.nan).requires_grad_()
        for name, block in tokens.items()
    }
    outputs, _ = heads(fusion, poisoned, masks)
    torch.testing.assert_close(outputs, heads(fusion, tokens, masks)[0])
    outputs.sum().backward()
    assert all(block.grad.isfinite().all() for block in poisoned.values())


def test_a_network_that_tells_nothing_has_heads_on_its_tokens(n_features, make_batch):
    class Silent(nn.Module):
        def forward(self, tokens, masks):
            return tokens

    heads = UnimodalHeads(Silent(), n_features, lambda width: Head(width, 2))
    assert [head[-1].in_features for head in heads.heads] == [5, 2, 3]
    assert heads(Silent(), *make_batch())[0].shape == (6, 3, 2)
