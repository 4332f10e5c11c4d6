"""The sum of what is there."""

import torch

from skmm.nets import SumFusionModule


def test_formula(make_batch, n_features):
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


def test_each_modality_adds_the_same_whatever_else_is_there(make_batch, n_features):
    fusion = SumFusionModule(n_features, 4)
    tokens, masks = make_batch()

    def fused(*names):
        own = {key: torch.full_like(mask, key in names) for key, mask in masks.items()}
        return fusion(tokens, own)

    torch.testing.assert_close(fused("image", "text"), fused("image") + fused("text"))
    torch.testing.assert_close(
        fused("image", "text", "table") - fused("image", "table"), fused("text")
    )
