"""The mean of what is there."""

import torch

from skmm.nets import MeanFusionModule


def test_formula(make_batch, n_features):
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


def test_lies_between_its_parts(make_batch, n_features):
    fusion = MeanFusionModule(n_features, 4)
    tokens, masks = make_batch()
    everything = {name: torch.ones_like(mask) for name, mask in masks.items()}
    alone = torch.stack(
        [fusion(tokens, {k: m & (k == name) for k, m in everything.items()}) for name in n_features]
    )
    fused = fusion(tokens, everything)
    assert (fused >= alone.amin(0) - 1e-6).all() and (fused <= alone.amax(0) + 1e-6).all()
    torch.testing.assert_close(fused, alone.mean(0))
