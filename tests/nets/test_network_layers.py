"""Masked reductions against loops, projection and head against their formulas."""

import numpy as np
import pytest
import torch

from skmm.nets._layers import Head, Projection, masked_max, masked_mean, masked_softmax


@pytest.fixture
def block():
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randn(5, 4, 3, generator=generator)
    mask = torch.rand(5, 4, generator=generator) < 0.5
    mask[0], mask[1] = True, False
    return tokens.masked_fill(~mask.unsqueeze(-1), torch.nan), mask


@pytest.mark.parametrize(("reduce", "reference"), [(masked_mean, np.mean), (masked_max, np.max)])
def test_reductions_against_a_loop(block, reduce, reference):
    tokens, mask = block
    expected = np.zeros((5, 3))
    for row in range(5):
        kept = tokens[row].numpy()[mask[row].numpy()]
        if len(kept):
            expected[row] = reference(kept, axis=0)
    np.testing.assert_allclose(reduce(tokens, mask).numpy(), expected, rtol=1e-6)


@pytest.mark.parametrize("reduce", [masked_mean, masked_max])
def test_gradients_of_hidden_values_are_zero(block, reduce):
    tokens, mask = block
    tokens.requires_grad_()
    reduce(tokens, mask).sum().backward()
    assert torch.isfinite(tokens.grad).all()
    assert (tokens.grad[~mask] == 0).all()
    assert (tokens.grad[0].sum(0) - 1).abs().max() < 1e-6  # each unit's gradient is handed on


@pytest.mark.parametrize("reduce", [masked_mean, masked_max])
@pytest.mark.parametrize("n_tokens", [0, 1])
def test_few_tokens(reduce, n_tokens):
    tokens = torch.full((2, n_tokens, 3), 7.0)
    mask = torch.zeros(2, n_tokens, dtype=torch.bool)
    assert torch.equal(reduce(tokens, mask), torch.zeros(2, 3))
    if n_tokens:
        assert torch.equal(reduce(tokens, ~mask), torch.full((2, 3), 7.0))


def test_softmax_against_a_loop(block):
    tokens, mask = block
    scores = torch.where(mask, tokens[..., 0], torch.nan)
    expected = torch.zeros(5, 4)
    for row in range(5):
        if mask[row].any():
            expected[row, mask[row]] = torch.softmax(scores[row, mask[row]], 0)
    torch.testing.assert_close(masked_softmax(scores, mask, dim=1), expected)


def test_softmax_of_an_empty_row_has_a_finite_gradient():
    scores = torch.full((1, 3), torch.nan, requires_grad=True)
    masked_softmax(scores, torch.zeros(1, 3, dtype=torch.bool), dim=1).sum().backward()
    assert torch.equal(scores.grad, torch.zeros(1, 3))


def test_projection_makes_scales_equal():
    torch.manual_seed(0)
    projection = Projection(6, 8, activation=torch.nn.Identity())
    x = torch.randn(4, 6)
    small, large = projection(x), projection(1000 * x)
    assert (small.std() / large.std()).item() == pytest.approx(1.0, abs=0.1)


def test_projection_formula():
    torch.manual_seed(0)
    projection = Projection(3, 4)
    x = torch.randn(2, 3)
    linear = projection[0]
    raw = x @ linear.weight.T + linear.bias
    normed = (raw - raw.mean(1, keepdim=True)) / (
        raw.var(1, correction=0, keepdim=True) + 1e-5
    ) ** 0.5
    expected = 0.5 * normed * (1 + torch.erf(normed / 2**0.5))
    torch.testing.assert_close(projection(x), expected)


def test_head_is_linear_without_hidden_units():
    head = Head(3, 2)
    x = torch.randn(4, 3)
    torch.testing.assert_close(head(2 * x) - head(x), head(x) - head(torch.zeros(4, 3)))


def test_head_with_hidden_units_is_not():
    torch.manual_seed(0)
    head = Head(3, 2, n_hidden=5)
    x = torch.randn(4, 3)
    assert not torch.allclose(head(2 * x) - head(x), head(x) - head(torch.zeros(4, 3)), atol=1e-3)
    assert sum(p.numel() for p in head.parameters()) == (3 + 1) * 5 + (5 + 1) * 2
