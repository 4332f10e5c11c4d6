"""The skorch net of a joint fusion: batches, loss, stops, and what goes into the module."""

import copy

import numpy as np
import pytest
import torch
from fusing import Total
from torch import nn

from skmm._training._batches import (
    Batch,
    BatchIterator,
    EncoderInputs,
    FeatureInputs,
    TensorDataset,
)
from skmm._training._module import JointModule, ModalityEncoders
from skmm._training._net import make_net
from skmm.exceptions import ConvergenceError
from skmm.nets._layers import Head

OPTIONS = {
    "valid": None,
    "max_epochs": 3,
    "batch_size": 16,
    "learning_rate": 0.01,
    "weight_decay": 0.0,
    "n_iter_no_change": 5,
    "callbacks": [],
    "device": torch.device("cpu"),
    "verbose": 0,
}


def dataset(n=50, seed=0, weight=None):
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(n, 3, generator=generator)
    inputs = {"a": FeatureInputs(values, torch.ones(n, dtype=torch.bool))}
    batch = Batch(inputs, sample_weight=weight)
    return TensorDataset(batch, values @ torch.tensor([[1.0], [2.0], [0.0]]))


def module(seed=0, widths=None, n_components=4):
    torch.manual_seed(seed)
    widths = widths or {"a": 3}
    fusion = Total(widths, n_components)
    return JointModule(ModalityEncoders(list(widths), {}), fusion, Head(4, 1), 4)


@pytest.fixture(autouse=True)
def _leave_the_generator_alone():
    with torch.random.fork_rng(devices=[]):
        yield


# --- batches -----------------------------------------------------------------------------------


@pytest.mark.parametrize("batch_size", [1, 7, 50, 64])
def test_batches_in_order_and_shuffled_hold_every_row_once(batch_size):
    data = dataset()
    plain = BatchIterator(data, batch_size)
    batches = list(plain)
    assert len(batches) == len(plain) == -(-50 // batch_size)
    torch.testing.assert_close(torch.cat([y for _, y in batches]), data.target)
    torch.manual_seed(0)
    once, again = ([y for _, y in BatchIterator(data, batch_size, shuffle=True)] for _ in "ab")
    assert max(len(y) for y in once) <= batch_size
    torch.testing.assert_close(torch.cat(once).sort(0)[0], data.target.sort(0)[0])
    assert not torch.equal(torch.cat(once), torch.cat(again))


def test_inputs_and_target_stay_together():
    for inputs, y in BatchIterator(dataset(), 8, shuffle=True):
        expected = inputs.modalities["a"].values @ torch.tensor([[1.0], [2.0], [0.0]])
        torch.testing.assert_close(y, expected)


# --- training ----------------------------------------------------------------------------------


def test_training_equals_a_hand_written_loop():
    data, net_module, by_hand = dataset(), module(), module()
    net = make_net(net_module, nn.MSELoss(reduction="none"), **OPTIONS)
    torch.manual_seed(1)
    net.train(data)
    torch.manual_seed(1)
    optimizer = torch.optim.AdamW(by_hand.parameters(), lr=0.01, weight_decay=0.0)
    by_hand.train()
    for _ in range(3):
        for rows in torch.randperm(50).split(16):
            inputs, y = data[rows]
            optimizer.zero_grad()
            nn.functional.mse_loss(by_hand(inputs), y).backward()
            optimizer.step()
    for a, b in zip(net_module.parameters(), by_hand.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("weighted", [True, False])
def test_loss_is_a_mean_over_rows(weighted):
    weight = torch.rand(50) if weighted else None
    data = dataset(weight=weight)
    net = make_net(module(), nn.MSELoss(reduction="none"), **{**OPTIONS, "max_epochs": 1})
    inputs, y = data[torch.arange(50)]
    output = net.module_(inputs)
    errors = ((output - y) ** 2)[:, 0]
    expected = (errors * weight).mean() if weighted else errors.mean()
    torch.testing.assert_close(net.get_loss(output, y, inputs), expected)


def test_several_targets_are_averaged_row_by_row():
    net = make_net(module(), nn.MSELoss(reduction="none"), **OPTIONS)
    output, y = torch.tensor([[1.0, 3.0], [0.0, 0.0]]), torch.zeros(2, 2)
    weighted = net.get_loss(output, y, Batch({}, sample_weight=torch.tensor([2.0, 5.0])))
    assert weighted.item() == pytest.approx((2 * 5 + 5 * 0) / 2)


def test_a_loss_of_nan_stops_the_training_and_names_the_remedy():
    data = dataset()
    data.batch.modalities["a"].values[3] = torch.nan
    net = make_net(module(), nn.MSELoss(reduction="none"), **OPTIONS)
    with pytest.raises(ConvergenceError, match="in epoch 1. Use a learning_rate below 0.01"):
        net.train(data)


class Interrupt(nn.Module):
    """A loss during which the user presses Ctrl-C."""

    def forward(self, output, y):
        raise KeyboardInterrupt


def test_an_interrupt_of_the_user_is_raised():
    net = make_net(module(), Interrupt(), **OPTIONS)
    with pytest.raises(KeyboardInterrupt):
        net.train(dataset())


def test_early_stopping_restores_the_best_epoch():
    train, valid = dataset(seed=0), dataset(seed=1)
    valid.target = valid.target * -1.0  # the better the training, the worse this
    kept = {}

    from skorch.callbacks import Callback

    class Keep(Callback):
        def on_epoch_end(self, net, **kwargs):
            kept[len(net.history)] = copy.deepcopy(net.module_.state_dict())

    options = {**OPTIONS, "valid": valid, "max_epochs": 50, "callbacks": [Keep()]}
    net = make_net(module(), nn.MSELoss(reduction="none"), **options)
    net.train(train)
    losses = net.history[:, "valid_loss"]
    best = int(np.argmin(losses)) + 1
    assert len(losses) == best + OPTIONS["n_iter_no_change"] < 50
    for name, tensor in net.module_.state_dict().items():
        torch.testing.assert_close(tensor, kept[best][name])


def test_no_data_is_kept_after_training():
    net = make_net(module(), nn.MSELoss(reduction="none"), **{**OPTIONS, "valid": dataset(seed=1)})
    net.train(dataset())
    assert net.train_split is None
    assert all(p.grad is None for p in net.module_.parameters())


def test_verbose_prints_a_line_for_each_epoch(capsys):
    make_net(module(), nn.MSELoss(reduction="none"), **OPTIONS).train(dataset())
    assert capsys.readouterr().out == ""
    make_net(module(), nn.MSELoss(reduction="none"), **{**OPTIONS, "verbose": 1}).train(dataset())
    assert capsys.readouterr().out.count("\n") >= 3


# --- module ------------------------------------------------------------------------------------


def test_module_distinguishes_names_with_a_common_prefix():
    widths = {"a": 2, "a|b": 3, "a.b": 1}
    net = module(widths=widths).eval()
    inputs = {
        name: FeatureInputs(torch.randn(5, width), torch.ones(5, dtype=torch.bool))
        for name, width in widths.items()
    }
    fusion = net.fusion
    expected = sum(m(inputs[n].values) for n, m in zip(fusion.names, fusion.maps, strict=True))
    torch.testing.assert_close(net.represent(Batch(inputs)), expected)


def test_absent_values_reach_neither_output_nor_gradient():
    net = module().eval()
    present = torch.tensor([True, False])
    values = torch.tensor([[1.0, 2.0, 3.0], [torch.nan, torch.inf, 0.0]], requires_grad=True)
    output = net(Batch({"a": FeatureInputs(values, present)}))
    output.sum().backward()
    assert torch.isfinite(output).all()
    assert all(torch.isfinite(p.grad).all() for p in net.parameters())
    assert (values.grad[1] == 0).all()


def test_strategy_of_the_wrong_width_is_named():
    wrong = module(n_components=5)
    inputs, _ = dataset(2)[torch.arange(2)]
    with pytest.raises(
        ValueError, match=r"Total gave a tensor of shape \(2, 5\).*n_components is 4"
    ):
        wrong(inputs)


# --- batches that hold more than features --------------------------------------------------------


@pytest.mark.parametrize("places", [slice(1, 3), torch.tensor([2, 0])], ids=["slice", "places"])
def test_rows_of_a_batch_are_rows_of_all_that_it_holds(places):
    present = torch.tensor([True, False, True])
    tokens = FeatureInputs(torch.randn(3, 2, 4), present, torch.rand(3, 2) > 0.5)
    encoder = EncoderInputs(FeatureInputs(torch.arange(3), present), present)
    batch = Batch({"a": tokens, "b": encoder}, sample_weight=torch.arange(3.0))
    some = batch.rows(places)
    assert len(some) == 2 and len(batch) == 3
    chosen = torch.arange(3)[places]
    torch.testing.assert_close(some.modalities["a"].values, tokens.values[chosen])
    torch.testing.assert_close(some.modalities["a"].mask, tokens.mask[chosen])
    torch.testing.assert_close(some.modalities["b"].inputs.values, chosen)
    torch.testing.assert_close(some.modalities["b"].present, present[chosen])
    torch.testing.assert_close(some.sample_weight, chosen.float())
    np.testing.assert_array_equal(batch.present(), np.stack([present, present], axis=1))
