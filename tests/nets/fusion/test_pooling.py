"""Mean, maximum and sum of what is there, and joining side by side, against a loop over rows."""

import torch

from skmm.nets import ConcatFusionModule, MaxFusionModule, MeanFusionModule, SumFusionModule


def test_mean_formula(make_batch, n_features):
    torch.manual_seed(0)
    fusion = MeanFusionModule(n_features, 4)
    tokens, masks = make_batch()
    for row in range(6):
        parts = []
        for i, name in enumerate(["image", "table", "text"]):
            kept = tokens[name][row][masks[name][row]]
            if len(kept):
                parts.append(fusion.projections[i](kept.mean(0)))
        expected = torch.stack(parts).mean(0) if parts else torch.zeros(4)
        got = fusion(tokens, masks)[row]
        torch.testing.assert_close(got, expected, atol=1e-6, rtol=1e-5)


def test_mean_lies_between_its_parts(make_batch, n_features):
    fusion = MeanFusionModule(n_features, 4)
    tokens, masks = make_batch()
    everything = {name: torch.ones_like(mask) for name, mask in masks.items()}
    alone = torch.stack(
        [fusion(tokens, {k: m & (k == name) for k, m in everything.items()}) for name in n_features]
    )
    fused = fusion(tokens, everything)
    assert (fused >= alone.amin(0) - 1e-6).all() and (fused <= alone.amax(0) + 1e-6).all()
    torch.testing.assert_close(fused, alone.mean(0))


def test_max_formula(make_batch, n_features):
    torch.manual_seed(0)
    fusion = MaxFusionModule(n_features, 4)
    tokens, masks = make_batch()
    for row in range(6):
        parts = []
        for i, name in enumerate(["image", "table", "text"]):
            kept = tokens[name][row][masks[name][row]]
            if len(kept):
                parts.append(fusion.projections[i](kept.mean(0)))
        expected = torch.stack(parts).amax(0) if parts else torch.zeros(4)
        got = fusion(tokens, masks)[row]
        torch.testing.assert_close(got, expected, atol=1e-6, rtol=1e-5)


def test_max_grows_with_every_modality(make_batch, n_features):
    fusion = MaxFusionModule(n_features, 16)
    tokens, masks = make_batch()
    everything = {name: torch.ones_like(mask) for name, mask in masks.items()}
    less = {**everything, "image": torch.zeros_like(masks["image"])}
    full, part = fusion(tokens, everything), fusion(tokens, less)
    assert (full >= part).all()
    assert (full > part).any()


def test_sum_formula(make_batch, n_features):
    torch.manual_seed(0)
    fusion = SumFusionModule(n_features, 4)
    tokens, masks = make_batch()
    for row in range(6):
        expected = torch.zeros(4)
        for i, name in enumerate(["image", "table", "text"]):
            kept = tokens[name][row][masks[name][row]]
            if len(kept):
                expected = expected + fusion.projections[i](kept.mean(0))
        got = fusion(tokens, masks)[row]
        torch.testing.assert_close(got, expected, atol=1e-6, rtol=1e-5)


def test_in_a_sum_each_modality_adds_the_same_whatever_else_is_there(make_batch, n_features):
    fusion = SumFusionModule(n_features, 4)
    tokens, masks = make_batch()

    def fused(*names):
        own = {key: torch.full_like(mask, key in names) for key, mask in masks.items()}
        return fusion(tokens, own)

    torch.testing.assert_close(fused("image", "text"), fused("image") + fused("text"))
    torch.testing.assert_close(
        fused("image", "text", "table") - fused("image", "table"), fused("text")
    )


def test_concat_formula(make_batch, n_features):
    torch.manual_seed(0)
    fusion = ConcatFusionModule(n_features, 4)
    torch.nn.init.normal_(fusion.absent)
    tokens, masks = make_batch()
    rows = []
    for row in range(6):
        joined = []
        for i, name in enumerate(["image", "table", "text"]):
            kept = tokens[name][row][masks[name][row]]
            joined.append(fusion.projections[i](kept.mean(0)) if len(kept) else fusion.absent[i])
        rows.append(fusion.mix(torch.cat(joined)))
    torch.testing.assert_close(fusion(tokens, masks), torch.stack(rows), atol=1e-6, rtol=1e-5)


def test_absent_vector_is_learned(make_batch, n_features):
    fusion = ConcatFusionModule(n_features, 4)
    tokens, masks = make_batch()
    optimizer = torch.optim.SGD([fusion.absent], lr=0.1)
    fusion(tokens, masks).square().sum().backward()
    before = fusion.absent.detach().clone()
    optimizer.step()
    assert (fusion.absent != before).any(dim=1).all()
