"""Each loss equals its formula, written out in numpy."""

import numpy as np
import pytest
import torch
from scipy.special import expit, log_softmax, softmax
from torch import nn

from skmm.nets._losses import LOSSES, make_loss

rng = np.random.default_rng(0)
SCORES = 2 * rng.normal(size=(40, 4))
CLASSES = rng.integers(0, 4, 40)
LABELS = rng.integers(0, 2, (40, 4)).astype(float)
VALUES = 2 * rng.normal(size=(40, 4))
ROWS = np.arange(40)


def focal(gamma):
    p = softmax(SCORES, axis=1)[ROWS, CLASSES]
    return -((1 - p) ** gamma) * np.log(p)


def focal_labels(gamma):
    p = np.where(LABELS == 1, expit(SCORES), 1 - expit(SCORES))
    return -((1 - p) ** gamma) * np.log(p)


def smoothed(smoothing):
    target = (1 - smoothing) * np.eye(4)[CLASSES] + smoothing / 4
    return -(target * log_softmax(SCORES, axis=1)).sum(axis=1)


def smoothed_labels(smoothing):
    target = (1 - smoothing) * LABELS + smoothing / 2
    return -target * np.log(expit(SCORES)) - (1 - target) * np.log(1 - expit(SCORES))


def hinge(margin):
    rivals = SCORES.copy()
    rivals[ROWS, CLASSES] = -np.inf
    return np.maximum(0, margin - SCORES[ROWS, CLASSES] + rivals.max(axis=1))


def hinge_labels(margin):
    return np.maximum(0, margin - (2 * LABELS - 1) * SCORES)


def huber(delta):
    error = np.abs(SCORES - VALUES)
    return np.where(error <= delta, error**2 / 2, delta * (error - delta / 2))


ODDS = -np.sort(-SCORES, axis=1)  # of being above class 0, 1, 2, 3: they fall


def ordinal():
    above = np.column_stack([np.ones(40), expit(ODDS), np.zeros(40)])
    return -np.log(above[ROWS, CLASSES] - above[ROWS, CLASSES + 1])


CASES = [
    ("cross_entropy", "classes", {}, smoothed(0.0)),
    ("cross_entropy", "labels", {}, smoothed_labels(0.0)),
    ("focal", "classes", {}, focal(2.0)),
    ("focal", "classes", {"gamma": 0.5}, focal(0.5)),
    ("focal", "labels", {"gamma": 3.0}, focal_labels(3.0)),
    ("label_smoothing", "classes", {}, smoothed(0.1)),
    ("label_smoothing", "labels", {"smoothing": 0.3}, smoothed_labels(0.3)),
    ("max_margin", "classes", {"margin": 2.0}, hinge(2.0)),
    ("max_margin", "labels", {}, hinge_labels(1.0)),
    ("squared_error", "values", {}, (SCORES - VALUES) ** 2),
    ("absolute_error", "values", {}, np.abs(SCORES - VALUES)),
    ("huber", "values", {}, huber(1.0)),
    ("huber", "values", {"delta": 0.3}, huber(0.3)),
]
TARGETS = {"classes": CLASSES, "labels": LABELS, "values": VALUES}


@pytest.mark.parametrize(("name", "kind", "params", "expected"), CASES)
def test_formula(name, kind, params, expected):
    losses = make_loss(name, kind, **params)(torch.tensor(SCORES), torch.tensor(TARGETS[kind]))
    np.testing.assert_allclose(losses, expected, rtol=1e-6)


def test_ordinal_formula():
    losses = make_loss("ordinal", "classes")(torch.tensor(ODDS), torch.tensor(CLASSES))
    np.testing.assert_allclose(losses, ordinal(), rtol=1e-6)


def test_every_loss_is_checked():
    checked = {(name, kind) for name, kind, _, _ in CASES} | {("ordinal", "classes")}
    assert checked == {(name, kind) for kind, names in LOSSES.items() for name in names}


@pytest.mark.parametrize(("name", "kind", "params"), [case[:3] for case in CASES])
@pytest.mark.parametrize("scale", [0.0, 1.0, 1e4])
def test_gradients_are_finite_however_sure_the_net(name, kind, params, scale):
    outputs = torch.tensor(scale * SCORES, dtype=torch.float32, requires_grad=True)
    target = torch.tensor(TARGETS[kind])
    losses = make_loss(name, kind, **params)(outputs, target if kind == "classes" else
                                             target.float())  # fmt: skip
    losses.sum().backward()
    assert torch.isfinite(losses).all() and torch.isfinite(outputs.grad).all()


def test_gradients_by_differences():
    for name, kind, params, _ in CASES:
        outputs = torch.tensor(SCORES[:5], requires_grad=True)
        target = torch.tensor(TARGETS[kind][:5])
        loss = make_loss(name, kind, **params)
        assert torch.autograd.gradcheck(lambda o, loss=loss, t=target: loss(o, t), [outputs])
    outputs = torch.tensor(ODDS[:5], requires_grad=True)
    loss, target = make_loss("ordinal", "classes"), torch.tensor([0, 1, 2, 3, 4])
    assert torch.autograd.gradcheck(lambda o: loss(o, target), [outputs])


@pytest.mark.parametrize("scale", [1.0, 1e4])
def test_ordinal_is_finite_however_sure(scale):
    odds = torch.tensor(scale * ODDS, dtype=torch.float32, requires_grad=True)
    losses = make_loss("ordinal", "classes")(odds, torch.tensor(CLASSES))
    losses.sum().backward()
    assert torch.isfinite(losses).all() and torch.isfinite(odds.grad).all()


class PerRow(nn.Module):
    def __init__(self, reduction):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))
        self.reduction = reduction

    def forward(self, outputs, target):
        losses = self.weight * (outputs - target).square().mean(dim=1)
        return losses if self.reduction == "none" else losses.mean()


def test_a_module_is_copied_and_held_to_a_loss_a_row():
    given = PerRow("none")
    loss = make_loss(given, "values")
    np.testing.assert_allclose(
        loss(torch.tensor(SCORES), torch.tensor(VALUES)).detach(),
        ((SCORES - VALUES) ** 2).mean(axis=1),
        rtol=1e-6,
    )
    assert next(loss.parameters()) is not given.weight
    with pytest.raises(ValueError, match=r"PerRow returned .* of shape \(\).*reduction='none'"):
        make_loss(PerRow("mean"), "values")(torch.tensor(SCORES), torch.tensor(VALUES))


@pytest.mark.parametrize(
    ("loss", "kind", "params", "message"),
    [
        ("focal", "classes", {"gama": 1}, "takes no parameter 'gama'. It takes gamma"),
        ("squared_error", "values", {"delta": 1}, "takes no parameter 'delta'. It takes none"),
        ("huber", "classes", {}, "'huber' is not available for classes. Use one of"),
        ("focal", "classes", {"gamma": -1}, "gamma .* at least 0, got -1"),
        ("label_smoothing", "labels", {"smoothing": 1}, "below 1, got 1"),
        ("max_margin", "classes", {"margin": 0}, "margin must be positive, got 0"),
        ("huber", "values", {"delta": 0}, "delta .* must be positive, got 0"),
        (PerRow("none"), "values", {"p": 1}, "PerRow, which takes no loss_params, got"),
    ],
)
def test_wrong_names_and_parameters_are_refused(loss, kind, params, message):
    with pytest.raises(ValueError, match=message):
        make_loss(loss, kind, **params)
