"""Products against full weight matrices of every pair, and against the full outer product."""

import itertools

import pytest
import torch

from skmm.nets import BilinearFusionModule, LowRankFusionModule


def with_one(fusion, tokens, masks, row):
    """Projection of each modality with a 1 appended, zeros and the 1 where it is absent."""
    found, there = [], []
    for i, name in enumerate(fusion.modalities):
        kept = tokens[name][row][masks[name][row]]
        part = fusion.projections[i](kept.mean(0)) if len(kept) else torch.zeros(3)
        found.append(torch.cat([part, torch.ones(1)]))
        there.append(len(kept) > 0)
    return found, there


def pooled(factors, left, right):
    """One pair: every product of two entries under the full matrix of each output."""
    weight = torch.einsum("rao,rbo->abo", factors[0], factors[1])
    total = torch.zeros(3)
    for a, b in itertools.product(range(4), repeat=2):
        total = total + weight[a, b] * left[a] * right[b]
    return total / (1 + total.abs()).sqrt()


def test_bilinear_formula_with_full_matrices(make_batch, n_features):
    torch.manual_seed(0)
    fusion = BilinearFusionModule(n_features, 3, rank=2)
    torch.nn.init.normal_(fusion.factors)
    tokens, masks = make_batch()
    for row in range(6):
        z, there = with_one(fusion, tokens, masks, row)
        parts = [
            pooled(fusion.factors[p], z[i], z[j])
            for p, (i, j) in enumerate([(0, 1), (0, 2), (1, 2)])
            if there[i] or there[j]
        ]
        expected = torch.stack(parts).mean(0) if parts else torch.zeros(3)
        torch.testing.assert_close(fusion(tokens, masks)[row], expected, atol=1e-5, rtol=1e-4)


def test_a_single_modality_is_paired_with_itself():
    torch.manual_seed(0)
    fusion = BilinearFusionModule({"a": 2}, 3, rank=2)
    tokens, masks = {"a": torch.randn(4, 1, 2)}, {"a": torch.ones(4, 1, dtype=torch.bool)}
    for row in range(4):
        z, _ = with_one(fusion, tokens, masks, row)
        expected = pooled(fusion.factors[0], z[0], z[0])
        torch.testing.assert_close(fusion(tokens, masks)[row], expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("n_modalities", [1, 2, 5])
@pytest.mark.parametrize("rank", [1, 8])
def test_initial_scale_is_the_same_for_any_number_of_pairs(n_modalities, rank):
    torch.manual_seed(0)
    names = [f"m{i}" for i in range(n_modalities)]
    fusion = BilinearFusionModule(dict.fromkeys(names, 10), 64, rank=rank)
    tokens = {name: torch.randn(200, 1, 10) for name in names}
    masks = {name: torch.ones(200, 1, dtype=torch.bool) for name in names}
    fused = fusion(tokens, masks)
    assert 0.2 < fused.std() < 2.0
    assert fused.abs().max() < 20


def test_bilinear_rank_must_be_positive():
    with pytest.raises(ValueError, match="BilinearFusionModule: rank must be at least 1, got 0"):
        BilinearFusionModule({"a": 2}, 4, rank=0)


def test_low_rank_formula_with_the_full_tensor(make_batch, n_features):
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
def test_initial_scale_is_the_same_for_any_number_of_factors(n_modalities, rank):
    torch.manual_seed(0)
    names = [f"m{i}" for i in range(n_modalities)]
    fusion = LowRankFusionModule(dict.fromkeys(names, 10), 64, rank=rank)
    tokens = {name: torch.randn(200, 1, 10) for name in names}
    masks = {name: torch.ones(200, 1, dtype=torch.bool) for name in names}
    fused = fusion(tokens, masks)
    assert 0.2 < fused.std() < 6.0
    assert fused.abs().max() < 200


def test_low_rank_must_be_positive():
    with pytest.raises(ValueError, match="LowRankFusionModule: rank must be at least 1, got 0"):
        LowRankFusionModule({"a": 2}, 4, rank=0)
