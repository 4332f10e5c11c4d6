"""Mean, maximum, sum and concatenation of projected modalities, against a loop over rows."""

import pytest
import torch

from skmm.nets import ConcatFusionModule, MaxFusionModule, MeanFusionModule, SumFusionModule


def concatenated(fusion, parts):
    """Return the hidden layer over the parts, with the learned vectors of absent modalities."""
    replaced = zip(parts, fusion.absent, strict=True)
    return fusion.mix(torch.cat([absent if part is None else part for part, absent in replaced]))


def pooled(reduce):
    """Return a function that reduces the present parts of a row, to zeros if there are none."""

    def reduced(fusion, parts):
        present = [part for part in parts if part is not None]
        return reduce(torch.stack(present)) if present else torch.zeros(fusion.n_components)

    return reduced


# Network -> fused vector of one row, from the projections of its modalities (None if absent).
FORMULAS = {
    MeanFusionModule: pooled(lambda parts: parts.mean(0)),
    MaxFusionModule: pooled(lambda parts: parts.amax(0)),
    SumFusionModule: pooled(lambda parts: parts.sum(0)),
    ConcatFusionModule: concatenated,
}


@pytest.mark.parametrize("network", FORMULAS)
def test_formula(make_batch, n_features, network):
    torch.manual_seed(0)
    fusion = network(n_features, 4)
    if network is ConcatFusionModule:
        torch.nn.init.normal_(fusion.absent)
    tokens, masks = make_batch()
    fused = fusion(tokens, masks)
    for row in range(6):
        kept = [tokens[name][row][masks[name][row]] for name in fusion.modalities]
        parts = [
            project(block.mean(0)) if len(block) else None
            for project, block in zip(fusion.projections, kept, strict=True)
        ]
        expected = FORMULAS[network](fusion, parts)
        torch.testing.assert_close(fused[row], expected, atol=1e-6, rtol=1e-5)


def test_mean_is_between_its_parts(make_batch, n_features):
    fusion = MeanFusionModule(n_features, 4)
    tokens, masks = make_batch()
    everything = {name: torch.ones_like(mask) for name, mask in masks.items()}
    alone = torch.stack(
        [fusion(tokens, {k: m & (k == name) for k, m in everything.items()}) for name in n_features]
    )
    fused = fusion(tokens, everything)
    assert (fused >= alone.amin(0) - 1e-6).all() and (fused <= alone.amax(0) + 1e-6).all()
    torch.testing.assert_close(fused, alone.mean(0))


def test_max_grows_with_every_modality(make_batch, n_features):
    fusion = MaxFusionModule(n_features, 16)
    tokens, masks = make_batch()
    everything = {name: torch.ones_like(mask) for name, mask in masks.items()}
    less = {**everything, "image": torch.zeros_like(masks["image"])}
    full, part = fusion(tokens, everything), fusion(tokens, less)
    assert (full >= part).all()
    assert (full > part).any()


def test_each_term_of_a_sum_is_independent_of_the_others(make_batch, n_features):
    fusion = SumFusionModule(n_features, 4)
    tokens, masks = make_batch()

    def fused(*names):
        own = {key: torch.full_like(mask, key in names) for key, mask in masks.items()}
        return fusion(tokens, own)

    torch.testing.assert_close(fused("image", "text"), fused("image") + fused("text"))
    torch.testing.assert_close(
        fused("image", "text", "table") - fused("image", "table"), fused("text")
    )


def test_vectors_of_absent_modalities_are_learned(make_batch, n_features):
    fusion = ConcatFusionModule(n_features, 4)
    tokens, masks = make_batch()
    optimizer = torch.optim.SGD([fusion.absent], lr=0.1)
    fusion(tokens, masks).square().sum().backward()
    before = fusion.absent.detach().clone()
    optimizer.step()
    assert (fusion.absent != before).any(dim=1).all()
