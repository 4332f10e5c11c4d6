"""Several tasks in one loss: missing targets, weights of tasks, and heads."""

import numpy as np
import pytest
import torch
from torch import nn

from skmm.nets._losses import OrdinalHead, OrdinalLoss, make_loss
from skmm.nets._task_loss import FixedWeights, GradNormWeights, TaskLoss, UncertaintyWeights

NAN = float("nan")


def two_tasks(balance, *, shares=(1.0, 1.0), class_weights=None):
    losses = [make_loss("cross_entropy", "classes"), make_loss("squared_error", "values")]
    weights = [class_weights, None]
    return TaskLoss(losses, [3, 1], [False, True], torch.tensor(shares), weights, balance)


OUTPUTS = torch.tensor([[0.5, 1.0, -1.0, 0.2], [0.0, 2.0, 0.0, -1.0], [1.0, 0.0, 0.0, 3.0]])
TARGET = torch.tensor([[1.0, NAN], [NAN, 0.5], [NAN, NAN]])


def by_hand():
    scores = OUTPUTS[0, :3].numpy()
    return -np.log(np.exp(scores[1]) / np.exp(scores).sum()), (-1.0 - 0.5) ** 2


def test_missing_targets_are_no_loss_and_few_weigh_as_much_as_many():
    entropy, error = by_hand()
    loss = two_tasks(FixedWeights(torch.tensor([2.0, 3.0])), shares=(0.25, 0.5))
    for training in (True, False):
        rows = loss.train(training)(OUTPUTS, TARGET)
        np.testing.assert_allclose(rows, [2 * entropy / 0.25, 3 * error / 0.5, 0.0], rtol=1e-6)


def test_missing_targets_have_no_gradient():
    outputs = OUTPUTS.clone().requires_grad_()
    two_tasks(FixedWeights(torch.ones(2)))(outputs, TARGET).sum().backward()
    assert torch.isfinite(outputs.grad).all()
    assert (outputs.grad[0, :3] != 0).all() and outputs.grad[1, 3] != 0
    assert (outputs.grad[2] == 0).all()
    assert outputs.grad[0, 3] == 0 and (outputs.grad[1, :3] == 0).all()


def test_classes_have_weights():
    entropy, _ = by_hand()
    weights = torch.tensor([1.0, 5.0, 1.0])
    rows = two_tasks(FixedWeights(torch.ones(2)), class_weights=weights)(OUTPUTS, TARGET)
    assert rows[0].item() == pytest.approx(5 * entropy, rel=1e-6)


def test_uncertainty_formula():
    balance = UncertaintyWeights([False, True])
    with torch.no_grad():
        balance.scaled.copy_(torch.tensor([0.07, -0.05]))
    s = balance.log_variances.detach().numpy()
    losses = np.array([[0.3, 2.0], [1.0, 0.0]])
    expected = np.exp(-s[0]) * losses[:, 0] + np.exp(-s[1]) * losses[:, 1] / 2 + s.sum() / 2
    found = balance(torch.tensor(losses, dtype=torch.float32), torch.ones(2, 2, dtype=torch.bool))
    np.testing.assert_allclose(found.detach(), expected, rtol=1e-6)
    np.testing.assert_allclose(balance.current(), np.exp(-s) * [1, 0.5], rtol=1e-6)


def test_uncertainty_finds_the_noise():
    """At the optimum the variance of values is their squared error, of classes twice the loss."""
    balance = UncertaintyWeights([False, True])
    optimizer = torch.optim.Adam(balance.parameters(), lr=0.01)
    losses = torch.tensor([[0.7, 4.0]])
    for _ in range(500):
        optimizer.zero_grad()
        balance(losses, torch.ones(1, 2, dtype=torch.bool)).sum().backward()
        optimizer.step()
    np.testing.assert_allclose(balance.log_variances.detach().exp(), [1.4, 4.0], rtol=1e-3)


def gradnorm_step(weights, x, outputs_of, targets, initial, alpha, rate=0.025):
    """One step of GradNorm for a linear trunk ``x @ W`` and heads ``v_i``, written out."""
    W, heads = outputs_of
    losses, norms = [], []
    for v, y in zip(heads, targets, strict=True):
        error = x @ W @ v - y
        losses.append((error**2).mean())
        gradient = 2 / len(x) * x.T @ np.outer(error, v)
        norms.append(np.sqrt((gradient**2).sum()))
    losses, norms = np.array(losses), np.array(norms)
    pulls = weights * norms
    ratios = losses / initial
    goals = pulls.mean() * (ratios / ratios.mean()) ** alpha
    # d abs(w * norm - goal) / d log(w)
    moved = np.exp(np.log(weights) - rate * np.sign(pulls - goals) * pulls / pulls.mean())
    return moved * len(weights) / moved.sum()


@pytest.mark.parametrize("alpha", [0.0, 1.5])
def test_gradnorm_formula(alpha):
    rng = np.random.default_rng(0)
    x, W = rng.normal(size=(20, 5)), rng.normal(size=(5, 4))
    heads = [rng.normal(size=4), 3 * rng.normal(size=4)]
    targets = [rng.normal(size=20), rng.normal(size=20)]
    initial = np.array([2.0, 1.0])
    trunk = torch.tensor(W, requires_grad=True)
    balance = GradNormWeights(torch.tensor(initial), alpha).double()
    balance.watch([trunk])
    expected, known = np.ones(2), torch.ones(20, 2, dtype=torch.bool)
    for _ in range(3):
        columns = [
            (torch.tensor(x) @ trunk @ torch.tensor(v) - torch.tensor(y)).square()
            for v, y in zip(heads, targets, strict=True)
        ]
        losses = torch.stack(columns, dim=1)
        rows = balance(losses, known)
        np.testing.assert_allclose(rows.detach(), losses.detach().numpy() @ expected, rtol=1e-5)
        expected = gradnorm_step(expected, x, (W, heads), targets, initial, alpha)
        np.testing.assert_allclose(balance.current(), expected, rtol=1e-5)
    assert trunk.grad is None  # not trained


def test_gradnorm_evens_out_the_gradients():
    """Of two tasks alike but for the unit of their loss, the larger ends up with less weight."""
    torch.manual_seed(0)
    x = torch.randn(64, 5)
    trunk, heads = nn.Linear(5, 4), nn.Linear(4, 2)
    y = torch.randn(64, 2)
    balance = GradNormWeights(torch.tensor([1.0, 9.0]), 0.0)
    balance.watch(trunk.parameters())
    known = torch.ones(64, 2, dtype=torch.bool)
    scale = torch.tensor([1.0, 9.0])

    def pulls():
        losses = ((heads(trunk(x)) - y).square() * scale).mean(dim=0) * balance.current()
        return [
            torch.cat([g.ravel() for g in torch.autograd.grad(
                loss, list(trunk.parameters()), retain_graph=True)]).norm().item()
            for loss in losses
        ]  # fmt: skip

    before = pulls()
    for _ in range(150):
        balance((heads(trunk(x)) - y).square() * scale, known)
    after = pulls()
    assert max(before) / min(before) > 3
    assert max(after) / min(after) < 1.3
    assert balance.current().sum().item() == pytest.approx(2.0)


def test_gradnorm_ignores_tasks_without_targets_in_a_batch():
    trunk = torch.ones(3, requires_grad=True)
    balance = GradNormWeights(torch.ones(3), 0.0)
    balance.watch([trunk])
    known = torch.tensor([[True, False, True], [True, False, False]])
    losses = torch.stack([trunk * 2, trunk * 0, trunk * 5])[:, :2].T * known
    balance(losses, known)
    moved = balance.current()
    assert moved[0] > moved[1] > moved[2]
    balance(losses[:, :], torch.tensor([[True, False, False]] * 2))  # one task: nothing to even out
    assert torch.equal(balance.current(), moved)


def test_learned_weights_are_ones_in_evaluation():
    loss = two_tasks(GradNormWeights(torch.ones(2))).eval()
    loss.balance.weights = torch.tensor([0.1, 1.9])
    entropy, error = by_hand()
    np.testing.assert_allclose(loss(OUTPUTS, TARGET), [entropy, error, 0.0], rtol=1e-6)


# --- ordinal head ------------------------------------------------------------------------------


def test_ordinal_head_has_the_given_thresholds_and_they_increase():
    thresholds = torch.tensor([-2.0, 0.5, 0.8])
    head = OrdinalHead(4, thresholds)
    torch.testing.assert_close(head.thresholds, thresholds)
    with torch.no_grad():
        head.gaps.fill_(-50.0)
    assert (head.thresholds.diff() > 0).all()
    odds = head(torch.randn(10, 4))
    assert odds.shape == (10, 3) and (odds.diff(dim=1) < 0).all()
    assert head(torch.randn(2, 4)).isfinite().all()


def test_ordinal_head_of_two_classes_is_a_logistic_regression():
    head = OrdinalHead(4, torch.tensor([0.3]))
    fused = torch.randn(6, 4)
    odds = head(fused)
    truth = torch.tensor([0, 1, 1, 0, 1, 0])
    expected = nn.functional.binary_cross_entropy_with_logits(
        odds[:, 0], truth.float(), reduction="none"
    )
    torch.testing.assert_close(OrdinalLoss()(odds, truth), expected)
