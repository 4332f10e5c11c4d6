"""All weights of a file or none."""

import pickle
from pathlib import Path

import pytest
import torch
from torch import nn

from skmm.backbones import load_weights
from skmm.exceptions import CheckpointError


class Payload:
    """What a hostile file would hold: loading it would write a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (Path.touch, (Path(self.path),))


@pytest.fixture
def model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))


@pytest.fixture
def save(tmp_path):
    def write(content):
        torch.save(content, tmp_path / "model.pth")
        return tmp_path / "model.pth"

    return write


def test_round_trip(model, save):
    path = save({key: torch.full_like(value, 3) for key, value in model.state_dict().items()})
    assert load_weights(model, path) is model
    assert all((value == 3).all() for value in model.state_dict().values())
    load_weights(model, str(path))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("0.bias"), r"1 weights \(0.bias\) missing, no weights unexpected"),
        (lambda s: s.update(extra=torch.ones(1)), r"no weights missing, 1 weights \(extra\)"),
        (
            lambda s: s.update({"0.weight": torch.ones(4, 3)}),
            r"0.weight has shape \(4, 3\).*\(2, 3\)",
        ),
        (lambda s: s.clear(), r"7 weights \(0.bias, 0.weight, 1.bias, ...\) missing"),
    ],
)
def test_other_weights_are_refused_and_nothing_changes(model, save, change, message):
    state = {key: torch.full_like(value, 3) for key, value in model.state_dict().items()}
    change(state)
    path = save(state)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with pytest.raises(CheckpointError, match=f"Cannot load Sequential from .*{message}"):
        load_weights(model, path)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_file_that_holds_something_else(model, save):
    for content in (torch.ones(3), {"state_dict": {}}, [1, 2]):
        with pytest.raises(CheckpointError, match="not a dictionary of tensors"):
            load_weights(model, save(content))


def test_hostile_file_runs_nothing(model, save, tmp_path):
    mark = tmp_path / "ran"
    with pytest.raises(CheckpointError, match="UnpicklingError"):
        load_weights(model, save({"0.weight": Payload(mark)}))
    (tmp_path / "plain.pth").write_bytes(pickle.dumps(Payload(mark), protocol=2))
    with pytest.raises(CheckpointError):
        load_weights(model, tmp_path / "plain.pth")
    assert not mark.exists()


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", b"PK\x03\x04 torn"])
def test_damaged_file(model, tmp_path, content):
    path = tmp_path / "model.pth"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match="Cannot load Sequential from"):
        load_weights(model, path)


def test_file_cut_short(model, save):
    path = save(model.state_dict())
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(CheckpointError, match="Cannot load Sequential from"):
        load_weights(model, path)


def test_no_file(model, tmp_path):
    for path in (tmp_path / "nowhere.pth", tmp_path):
        with pytest.raises(CheckpointError, match="Cannot load Sequential from"):
            load_weights(model, path)
