"""The low-rank product against the full outer product of Liu et al."""

import itertools

import pytest
import torch

from skmm.nets import LowRankFusionModule


def test_formula_with_the_full_tensor(make_batch, n_features):
    torch.manual_seed(0)
    n, rank = 3, 2
    fusion = LowRankFusionModule(n_features, n, rank=rank)
    torch.nn.init.normal_(fusion.factors)
    torch.nn.init.normal_(fusion.bias)
    tokens, masks = make_batch()
    # (4, 4, 4, n): one weight for every product of entries of the three modalities
    factors = fusion.factors
    weight = sum(
        torch.einsum("ao,bo,co->abco", factors[0, r], factors[1, r], factors[2, r])
        for r in range(rank)
    )
    for row in range(6):
        z = []
        for i, name in enumerate(["image", "table", "text"]):
            kept = tokens[name][row][masks[name][row]]
            part = fusion.projections[i](kept.mean(0)) if len(kept) else torch.zeros(n)
            z.append(torch.cat([part, torch.ones(1)]))
        expected = fusion.bias.clone()
        for a, b, c in itertools.product(range(n + 1), repeat=3):
            expected = expected + weight[a, b, c] * z[0][a] * z[1][b] * z[2][c]
        torch.testing.assert_close(fusion(tokens, masks)[row], expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("n_modalities", [1, 2, 6])
@pytest.mark.parametrize("rank", [1, 8])
def test_starts_at_the_same_scale_whatever_the_number_of_factors(n_modalities, rank):
    torch.manual_seed(0)
    names = [f"m{i}" for i in range(n_modalities)]
    fusion = LowRankFusionModule(dict.fromkeys(names, 10), 64, rank=rank)
    tokens = {name: torch.randn(200, 1, 10) for name in names}
    masks = {name: torch.ones(200, 1, dtype=torch.bool) for name in names}
    fused = fusion(tokens, masks)
    assert 0.2 < fused.std() < 6.0
    assert fused.abs().max() < 200


def test_rank_must_be_positive():
    with pytest.raises(ValueError, match="LowRankFusionModule: rank must be at least 1, got 0"):
        LowRankFusionModule({"a": 2}, 4, rank=0)
