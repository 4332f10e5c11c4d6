"""Contrastive losses against sums written out pair by pair."""

import math

import numpy as np
import pytest
import torch

from skmm.nets._contrastive import CONTRASTIVE_LOSSES, InfoNCELoss, PairwiseContrast, SigLIPLoss

NEGATIVES = ("all", "hard", "semi_hard")
COMBINATIONS = [(loss, negatives) for loss in CONTRASTIVE_LOSSES for negatives in NEGATIVES]
TEMPERATURE, BIAS, MARGIN = 0.3, -1.5, 0.4


def make(loss, negatives):
    options = {"temperature": TEMPERATURE} if loss in ("infonce", "siglip") else {"margin": MARGIN}
    if loss == "siglip":
        options["bias"] = BIAS
    return CONTRASTIVE_LOSSES[loss](negatives, **options)


def unit(rng, n, width=4):
    vectors = rng.normal(size=(n, width))
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def case(seed, n=9, n_classes=None, n_same=0):
    """Unit vectors of both sides, and which row belongs to which, and which does not."""
    rng = np.random.default_rng(seed)
    left, right = unit(rng, n), unit(rng, n)
    positive = np.eye(n, dtype=bool)
    if n_classes:
        classes = rng.integers(0, n_classes, n)
        positive |= classes[:, None] == classes[None, :]
    left_out = np.zeros((n, n), dtype=bool)
    for i, j in rng.integers(0, n, (n_same, 2)):
        left_out[i, j] = left_out[j, i] = True
    return left, right, positive, ~positive & ~left_out


def softplus(x):
    return math.log1p(math.exp(-abs(x))) + max(x, 0.0)


def semi_hard(negatives, positive):
    below = [s for s in negatives if s < positive]
    return below or [min(negatives)]


def slow_anchor(loss, kind, positives, negatives):
    """Loss of an anchor from its similarities, as the papers write it."""
    t = TEMPERATURE
    if loss == "siglip":
        belongs = sum(softplus(-(s / t + BIAS)) for s in positives)
        if kind == "semi_hard" and negatives:
            sums = [sum(softplus(s / t + BIAS) for s in semi_hard(negatives, p)) for p in positives]
            return belongs + sum(sums) / len(sums)
        weights = [1.0] * len(negatives)
        if kind == "hard" and negatives:
            total = sum(math.exp(s / t) for s in negatives)
            weights = [math.exp(s / t) / total for s in negatives]
        pairs = zip(weights, negatives, strict=True)
        return belongs + sum(w * softplus(s / t + BIAS) for w, s in pairs)
    losses = []
    for p in positives:
        if not negatives:
            losses.append(0.0)
            continue
        if loss == "infonce":
            used = semi_hard(negatives, p) if kind == "semi_hard" else negatives
            weights = [1.0] * len(used)
            if kind == "hard":
                mean = sum(math.exp(s / t) for s in used) / len(used)
                weights = [math.exp(s / t) / mean for s in used]
            against = sum(w * math.exp(s / t) for w, s in zip(weights, used, strict=True))
            losses.append(-math.log(math.exp(p / t) / (math.exp(p / t) + against)))
            continue
        slope = 2.0 if loss == "triplet" else 1.0  # |a - b|^2 = 2 - 2 a.b
        chosen = {
            "all": negatives,
            "hard": [max(negatives)],
            "semi_hard": [max(semi_hard(negatives, p))],
        }[kind]
        hinges = [max(0.0, MARGIN + slope * (s - p)) for s in chosen]
        active = [h for h in hinges if h > 0]
        if loss == "triplet":
            losses.append(sum(active) / max(len(active), 1))
        else:
            losses.append(sum(hinges))
    return sum(losses) / len(losses)


def slow(loss, kind, left, right, positive, negative):
    similarity = left @ right.T
    totals = []
    for i in range(len(left)):
        both = []
        for s, p, n in (
            (similarity[i], positive[i], negative[i]),
            (similarity[:, i], positive[:, i], negative[:, i]),
        ):
            both.append(slow_anchor(loss, kind, s[p].tolist(), s[n].tolist()))
        totals.append(sum(both) / 2)
    return np.array(totals)


def tensors(*arrays):
    return [torch.from_numpy(array) for array in arrays]


@pytest.mark.parametrize(("loss", "kind"), COMBINATIONS)
@pytest.mark.parametrize(
    "options", [{}, {"n_same": 12}, {"n_classes": 3}, {"n_classes": 2, "n_same": 10}, {"n": 1}]
)
def test_equals_the_sum_over_pairs(loss, kind, options):
    for seed in range(4):
        arrays = case(seed, **options)
        fast = make(loss, kind)(*tensors(*arrays)).detach().numpy()
        np.testing.assert_allclose(fast, slow(loss, kind, *arrays), atol=1e-9)


@pytest.mark.parametrize(("loss", "kind"), COMBINATIONS)
def test_a_batch_of_one_class_has_no_negatives(loss, kind):
    left, right, positive, negative = case(0, n_classes=1)
    assert not negative.any()
    left, right = (v.requires_grad_() for v in tensors(left, right))
    losses = make(loss, kind)(left, right, *tensors(positive, negative))
    losses.sum().backward()
    assert torch.isfinite(losses).all() and torch.isfinite(left.grad).all()
    if loss != "siglip":
        assert losses.detach().abs().max() == 0


# Losses that weight hard negatives treat the weights as constant: see the next test.
PLAIN = [c for c in COMBINATIONS if c not in (("infonce", "hard"), ("siglip", "hard"))]


@pytest.mark.slow
@pytest.mark.parametrize(("loss", "kind"), PLAIN)
def test_gradients(loss, kind):
    left, right, *masks = tensors(*case(1, n_classes=3, n_same=6))
    module = make(loss, kind).double()
    left, right = left.requires_grad_(), right.requires_grad_()
    assert torch.autograd.gradcheck(lambda a, b: module(a, b, *masks), (left, right))


@pytest.mark.parametrize("loss", ["infonce", "siglip"])
def test_weights_of_hard_negatives_have_no_gradient(loss):
    left, right, *masks = tensors(*case(2))
    left.requires_grad_()
    module = make(loss, "hard")
    module(left, right, *masks).sum().backward()
    weights = module._weights((left @ right.T).detach() * module.scale.detach(), masks[1])
    assert torch.isfinite(left.grad).all() and left.grad.abs().sum() > 0
    assert not weights.requires_grad
    np.testing.assert_allclose(weights.sum(dim=1).numpy(), 1.0)


@pytest.mark.slow
@pytest.mark.parametrize(("loss", "kind"), COMBINATIONS)
def test_descent_draws_partners_together(loss, kind):
    torch.manual_seed(0)
    vectors = torch.randn(2, 12, 6, requires_grad=True)
    module = make(loss, kind)
    optimizer = torch.optim.Adam([vectors, *module.parameters()], lr=0.05)
    for _ in range(150):
        left, right = torch.nn.functional.normalize(vectors, dim=2)
        optimizer.zero_grad()
        module(left, right).mean().backward()
        optimizer.step()
    left, right = torch.nn.functional.normalize(vectors.detach(), dim=2)
    found = ((left @ right.T).argmax(dim=1) == torch.arange(12)).float().mean()
    assert found > 0.9


@pytest.mark.parametrize("cls", [InfoNCELoss, SigLIPLoss])
def test_temperature_is_learned_or_stays(cls):
    left, right, *masks = tensors(*case(0))
    for learned in (True, False):
        module = cls(temperature=0.5, learn_temperature=learned)
        assert module.temperature == pytest.approx(0.5)
        optimizer = torch.optim.SGD(
            [p for p in module.parameters() if p.requires_grad]
            or [torch.zeros((), requires_grad=True)],
            lr=0.1,
        )
        losses = module(left, right, *masks).mean()
        if losses.requires_grad:
            losses.backward()
            optimizer.step()
        assert (module.temperature != pytest.approx(0.5, abs=1e-6)) is learned
    assert cls(temperature=1e-3).temperature == pytest.approx(1e-3)


@pytest.mark.parametrize("loss", CONTRASTIVE_LOSSES)
def test_errors(loss):
    with pytest.raises(ValueError, match="negatives must be one of .* got 'some'"):
        CONTRASTIVE_LOSSES[loss]("some")
    name = "temperature" if loss in ("infonce", "siglip") else "margin"
    with pytest.raises(ValueError, match=f"{name} must be above 0, got 0"):
        CONTRASTIVE_LOSSES[loss](**{name: 0})


# --- over pairs of modalities ---------------------------------------------------------------


def batch(seed=0, n=10):
    """Return vectors of three modalities and a target, with missing modalities in some rows."""
    rng = np.random.default_rng(seed)
    vectors = np.stack([unit(rng, n) for _ in range(3)], axis=1)
    target = np.tile(np.arange(n)[:, None], (1, 4))
    target[:, 3] = -1
    target[[1, 2], 0] = -1
    target[[2, 5, 6], 1] = -1
    target[[7], 2] = -1
    return vectors, target


def slow_pairs(loss, kind, vectors, target):
    total = 0.0
    for a, b in ((0, 1), (0, 2), (1, 2)):
        rows = [i for i in range(len(target)) if target[i, a] >= 0 and target[i, b] >= 0]
        own = target[rows]
        n = len(rows)
        positive, negative = np.eye(n, dtype=bool), np.zeros((n, n), dtype=bool)
        for i in range(n):
            for j in range(n):
                if own[i, 3] >= 0 and own[i, 3] == own[j, 3]:
                    positive[i, j] = True
                elif own[i, a] != own[j, a] and own[i, b] != own[j, b]:
                    negative[i, j] = True
        negative &= ~positive
        total += slow(loss, kind, vectors[rows, a], vectors[rows, b], positive, negative).mean()
    return total


@pytest.mark.parametrize(("loss", "kind"), COMBINATIONS)
def test_pairs_of_modalities_with_masks(loss, kind):
    vectors, target = batch()
    module = PairwiseContrast(make(loss, kind))
    for same, classes in (([], []), ([3, 4], []), ([3, 4, 8], [0, 4, 9])):
        own = target.copy()
        own[same, 1] = 99  # the same content
        own[classes, 3] = 5
        losses = module(*tensors(vectors, own))
        assert losses.shape == (len(own),)
        assert losses.mean().item() == pytest.approx(slow_pairs(loss, kind, vectors, own))


def test_absent_modalities_have_no_effect():
    vectors, target = batch()
    module = PairwiseContrast(InfoNCELoss())
    expected = module(*tensors(vectors, target)).mean().item()
    vectors[target[:, :3] < 0] = np.nan
    given = torch.from_numpy(vectors).requires_grad_()
    losses = module(given, torch.from_numpy(target))
    assert losses.mean().item() == pytest.approx(expected)
    losses.mean().backward()
    there = torch.from_numpy(target[:, :3] >= 0)
    assert torch.isfinite(given.grad[there]).all()


def test_rows_of_one_modality_are_not_compared():
    vectors, target = batch()
    alone = target[:, :3].copy()
    alone[:, 1:] = -1
    target[:, :3] = alone
    losses = PairwiseContrast(InfoNCELoss())(*tensors(vectors, target))
    assert losses.abs().max() == 0
