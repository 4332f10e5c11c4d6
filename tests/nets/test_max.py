"""The largest of what is there."""

import torch

from skmm.nets import MaxFusionModule


def test_formula(make_batch, n_features):
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


def test_grows_with_every_modality(make_batch, n_features):
    fusion = MaxFusionModule(n_features, 16)
    tokens, masks = make_batch()
    everything = {name: torch.ones_like(mask) for name, mask in masks.items()}
    less = {**everything, "image": torch.zeros_like(masks["image"])}
    full, part = fusion(tokens, everything), fusion(tokens, less)
    assert (full >= part).all()
    assert (full > part).any()
