"""Models of time series: interpolation of gaps, standardization, padding, learning."""

import pickle

import numpy as np
import pytest
import torch
from torch import nn
from training import accuracy_when_trained, unexplained_when_trained

from skmm.backbones._minirocket import MiniRocket
from skmm.backbones._series import SeriesBackbone, fill_gaps
from skmm.backbones._series_networks import InceptionTime, SeriesGRU
from skmm.backbones._user_module import SeriesModule

LENGTHS = (1, 2, 5, 30, 61)


class Backward(nn.Module):
    """A user's module without masks, which reads a series backward."""

    def __init__(self):
        super().__init__()
        self.gru = nn.GRU(2, 6, batch_first=True)

    def forward(self, x):
        return self.gru(x.flip(1))[0]


def minirocket():
    return MiniRocket(2, n_kernels=84 * 4).fit(series(8), np.random.RandomState(0))


def trained(model):
    model.fit_scale(series(8))
    if hasattr(model, "measure"):
        model.measure(series(1)[0])
    return model


MODELS = {
    "MiniRocket": minirocket,
    "InceptionTime": lambda: trained(InceptionTime(2, n_components=16)),
    "InceptionTime-narrow": lambda: trained(InceptionTime(2, n_components=3, n_blocks=4)),
    "SeriesGRU": lambda: trained(SeriesGRU(2, n_components=7)),
    "SeriesModule": lambda: trained(SeriesModule(Backward(), n_channels=2)),
}
SMALL = [(InceptionTime, {"n_components": 16, "n_blocks": 3}), (SeriesGRU, {"n_components": 16})]
NETWORKS = [name for name in MODELS if name != "MiniRocket"]


def series(n, seed=0, lengths=LENGTHS):
    """Return noise of several lengths on two channels of different scales, with gaps."""
    rng = np.random.default_rng(seed)
    cells = []
    for i in range(n):
        cell = rng.normal(size=(lengths[i % len(lengths)], 2)) * [1.0, 300.0] + [5.0, -1e4]
        if len(cell) > 4:
            cell[1:3, 0] = np.nan
        cells.append(cell.astype(np.float32))
    return cells


def rising(n, seed=0):
    """Return series of several lengths and levels that rise (1) or fall (0)."""
    rng = np.random.default_rng(seed)
    label = rng.integers(0, 2, n)
    cells = []
    for y in label:
        length = rng.integers(12, 40)
        slope = (2 * y - 1) * np.linspace(-1, 1, length)[:, None]
        cell = slope + rng.normal(size=(1, 1)) + 0.5 * rng.normal(size=(length, 1))
        cells.append(cell.astype(np.float32))
    return cells, torch.from_numpy(label)


@pytest.fixture(params=MODELS)
def model(request):
    torch.manual_seed(0)
    return MODELS[request.param]().eval()


def encode(model, cells):
    with torch.no_grad():
        return model(**model.collate(cells))


# ---- all models ----------------------------------------------------------------------------


def test_shapes(model):
    encoded = encode(model, series(5))
    assert encoded.pooled.shape == (5, model.width)
    assert encoded.tokens.shape == (*encoded.mask.shape, model.width)
    n_tokens = [1] * 5 if isinstance(model, MiniRocket) else list(LENGTHS)
    assert encoded.mask.sum(dim=1).tolist() == n_tokens
    assert torch.isfinite(encoded.tokens).all() and torch.isfinite(encoded.pooled).all()


@pytest.mark.parametrize("training", [False, True])
def test_padding_does_not_change_the_output(model, training):
    model.train(training)
    cells = series(10)
    together = encode(model, cells)
    tensors = model.collate(cells)
    far = nn.functional.pad(tensors["series"], (0, 0, 0, 40), value=77.0)
    with torch.no_grad():
        further = model(series=far, lengths=tensors["lengths"])
    torch.testing.assert_close(further.pooled, together.pooled, atol=1e-5, rtol=1e-4)
    for i, cell in enumerate(cells):
        alone = encode(model, [cell])
        torch.testing.assert_close(together.pooled[i], alone.pooled[0], atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(
            together.tokens[i][together.mask[i]], alone.tokens[0], atol=1e-5, rtol=1e-4
        )


def test_invariant_to_the_scale_of_channels(model):
    cells = series(8, seed=1)
    expected = encode(model, cells).pooled
    moved = pickle.loads(pickle.dumps(model))
    moved.center = model.center * 10 + torch.tensor([3.0, -7.0])
    moved.spread = model.spread * 10
    other = encode(moved, [cell * 10 + np.float32([3.0, -7.0]) for cell in cells]).pooled
    close = torch.isclose(other, expected, atol=1e-2, rtol=1e-2)
    assert close.float().mean() > 0.999


def test_no_series_and_no_timestamps(model):
    assert encode(model, []).pooled.shape == (0, model.width)
    with torch.no_grad():
        absent = model(series=torch.zeros(2, 3, 2), lengths=torch.zeros(2, dtype=torch.int64))
    assert not absent.mask.any() and torch.isfinite(absent.pooled).all()


def test_gaps_are_interpolated(model):
    gaps = np.array([[1, -1e4], [np.nan, -9e3], [5, np.nan], [np.nan, np.nan]], np.float32)
    full = np.array([[1, -1e4], [3, -9e3], [5, -9e3], [5, -9e3]], np.float32)
    assert torch.equal(encode(model, [gaps]).pooled, encode(model, [full]).pooled)
    dead = np.array([[np.nan, -1e4], [np.nan, -9e3]], np.float32)
    mean = np.nan_to_num(dead, nan=float(model.center[0]))
    assert torch.equal(encode(model, [dead]).pooled, encode(model, [mean]).pooled)


def test_pickle_and_state_dict(model):
    cells = series(5)
    expected = encode(model, cells).pooled
    assert torch.equal(encode(pickle.loads(pickle.dumps(model)), cells).pooled, expected)
    assert {"center", "spread"} <= set(model.state_dict())


# ---- networks ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NETWORKS)
def test_every_parameter_has_a_gradient(name):
    torch.manual_seed(0)
    model = MODELS[name]()
    encoded = model(**model.collate(series(10)))
    weights = torch.linspace(1, 2, model.width)
    loss = (weights * encoded.pooled).sum() + (weights * encoded.tokens[encoded.mask]).sum()
    loss.backward()
    for parameter_name, parameter in model.named_parameters():
        assert torch.isfinite(parameter.grad).all(), parameter_name
        assert parameter.grad.any(), parameter_name


@pytest.mark.slow
@pytest.mark.parametrize(("cls", "size"), SMALL)
def test_learns_whether_a_series_rises(cls, size):
    torch.manual_seed(0)
    model = cls(1, **size)
    train, test = rising(200), rising(200, seed=1)
    model.fit_scale(train[0])
    assert accuracy_when_trained(model, train, test, steps=30, learning_rate=1e-2) > 0.95


@pytest.mark.slow
@pytest.mark.parametrize(("cls", "size"), SMALL)
def test_pooled_vector_learns_to_reconstruct(cls, size):
    torch.manual_seed(0)
    model = cls(1, **size)
    train, test = rising(200)[0], rising(100, seed=1)[0]
    model.fit_scale(train)
    assert unexplained_when_trained(model, train, test, steps=40, learning_rate=1e-2) < 0.5


@pytest.mark.parametrize("cls", [InceptionTime, SeriesGRU])
def test_token_is_a_timestamp(cls):
    torch.manual_seed(0)
    model = cls(1, n_components=16).eval()
    flat = np.zeros((400, 1), dtype=np.float32)
    marked = flat.copy()
    marked[300] = 5.0
    change = (encode(model, [marked]).tokens - encode(model, [flat]).tokens)[0].norm(dim=1)
    assert abs(int(change.argmax()) - 300) < 20


def test_pooled_vector_is_mean_or_maximum_of_tokens():
    cells = series(3)
    for cls, pool in ((InceptionTime, torch.mean), (SeriesGRU, torch.amax)):
        model = trained(cls(2, n_components=5)).eval()
        encoded = encode(model, cells)
        for tokens, mask, pooled in zip(*encoded, strict=True):
            torch.testing.assert_close(pooled, pool(tokens[mask], dim=0))


def test_shortcuts_add_the_input():
    # If the blocks return zero, the output is that of the shortcuts.
    torch.manual_seed(0)
    model = InceptionTime(2, n_components=8).eval()
    with torch.no_grad():
        for block in model.blocks:
            block.norm.weight.zero_()
    cells = [np.random.default_rng(0).normal(size=(20, 2)).astype(np.float32)]
    x, mask = model.scaled(**model.collate(cells))
    x = x.transpose(1, 2)
    for shortcut in model.shortcuts:
        x = torch.relu(shortcut.norm(shortcut.conv(x), mask))
    assert x.std() > 0.01
    torch.testing.assert_close(encode(model, cells).tokens, x.detach().transpose(1, 2))


def test_norm_is_group_norm_without_padding():
    model = InceptionTime(1, n_components=32)
    norm = model.blocks[0].norm
    x = torch.randn(2, 32, 9)
    expected = nn.functional.group_norm(x[:, :, :6], 4)
    mask = torch.arange(9) < torch.tensor([[6], [6]])
    torch.testing.assert_close(norm(x, mask)[:, :, :6], expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("cls", [InceptionTime, SeriesGRU])
@pytest.mark.parametrize("n_components", [1, 2, 5, 50])
@pytest.mark.parametrize("n_channels", [1, 3])
def test_any_width(cls, n_components, n_channels):
    model = cls(n_channels, n_components=n_components)
    cells = [np.ones((n, n_channels), np.float32) for n in (1, 4)]
    assert model(**model.collate(cells)).tokens.shape == (2, 4, n_components)


def test_sizes_must_be_positive():
    with pytest.raises(ValueError, match="InceptionTime: n_components and n_blocks.*0 and 6"):
        InceptionTime(2, n_components=0)
    with pytest.raises(ValueError, match="SeriesGRU: n_components and n_layers.*8 and 0"):
        SeriesGRU(2, n_components=8, n_layers=0)
    with pytest.raises(ValueError, match="MiniRocket: n_channels must be positive, got 0"):
        MiniRocket(0)


def test_module_may_return_a_vector():
    class Last(nn.Module):
        def forward(self, x):
            return x[:, -1]  # padding would be here

    model = trained(SeriesModule(Last(), n_channels=2))
    cells = series(5)
    encoded = encode(model, cells)
    assert encoded.mask.shape == (5, 1) and model.width == 2
    last = np.stack([cell[-1] for cell in cells])
    expected = (torch.from_numpy(last) - model.center) / model.spread
    torch.testing.assert_close(encoded.pooled, expected)


# ---- gaps, scale, segments -------------------------------------------------------------------


def test_fill_gaps():
    nan = np.nan
    gaps = np.array([[nan, 1], [2, nan], [nan, nan], [4, nan], [nan, nan]], dtype=np.float32)
    filled = fill_gaps(gaps, np.zeros(2))
    assert filled.T.tolist() == [[2, 2, 3, 4, 4], [1, 1, 1, 1, 1]]
    assert np.isnan(gaps).sum() == 7
    nothing = fill_gaps(np.array([[nan, 1]], dtype=np.float32), np.array([7.0, 8.0]))
    assert nothing.tolist() == [[7.0, 1.0]]
    assert fill_gaps(filled, np.zeros(2)) is filled


class Scaled(SeriesBackbone):
    def forward(self, **tensors):
        raise NotImplementedError


def test_scale():
    cells = series(9)
    model = Scaled(2)
    model.fit_scale(cells)
    values = np.concatenate(cells).astype(np.float64)
    np.testing.assert_allclose(model.center, np.nanmean(values, axis=0), rtol=1e-6)
    np.testing.assert_allclose(model.spread, np.nanstd(values, axis=0), rtol=1e-5)


def test_constant_channel_and_channel_without_values():
    model = Scaled(3)
    constant = np.float32(0.1) * np.ones(20, np.float32)
    model.fit_scale([np.stack([constant, np.full(20, np.nan, np.float32), np.arange(20.0)], 1)])
    assert model.spread[:2].tolist() == [1.0, 1.0] and model.center[1] == 0.0
    assert torch.isfinite(model.spread).all()


def test_reconstruction_target_is_the_mean_of_segments():
    model = Scaled(2)
    rng = np.random.default_rng(0)
    cells = [rng.normal(size=(n, 2)).astype(np.float32) for n in (1, 7, 16, 48)]
    target = model.reconstruction_target(**model.collate(cells)).numpy()
    for cell, row in zip(cells, target, strict=True):
        # With each timestamp repeated 16 times, segments begin and end at timestamps.
        expected = cell.repeat(16, axis=0).reshape(16, len(cell), 2).mean(axis=1)
        np.testing.assert_allclose(row.reshape(16, 2), expected, atol=1e-5)
