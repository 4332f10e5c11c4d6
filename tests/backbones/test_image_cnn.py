"""The image network learns and does not depend on batches; resizing equals Pillow's."""

import pickle

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from PIL import Image
from training import accuracy_when_trained, unexplained_when_trained

from skmm.backbones._image_cnn import ImageCNN, stack_images


def sides(n_images, seed=0):
    """Images of several sizes, brighter on the left (0) or on the right (1)."""
    rng = np.random.default_rng(seed)
    label = rng.integers(0, 2, n_images)
    cells = []
    for side in label:
        height, width = rng.integers(20, 50, 2)
        cell = rng.integers(0, 160, (height, width, 3))
        half = slice(width // 2, None) if side else slice(0, width // 2)
        cell[:, half] += rng.integers(30, 90)
        cells.append(cell.astype(np.uint8))
    return cells, torch.from_numpy(label)


@pytest.fixture
def model():
    torch.manual_seed(0)
    return ImageCNN(32, image_size=32).eval()


@pytest.mark.slow
def test_learns_position_of_brightness():
    torch.manual_seed(0)
    # The mean brightness varies, so the network must compare the halves.
    assert (
        accuracy_when_trained(ImageCNN(16, image_size=32), sides(200), sides(200, seed=1), steps=40)
        > 0.95
    )


@pytest.mark.slow
def test_pooled_vector_learns_to_reconstruct():
    torch.manual_seed(0)
    model = ImageCNN(32, image_size=16)
    train, test = sides(200)[0], sides(100, seed=1)[0]
    assert unexplained_when_trained(model, train, test, steps=80, learning_rate=6e-3) < 0.5


def test_shapes_of_tokens_and_pooled_mean(model):
    encoded = model(**model.collate(sides(3)[0]))
    assert encoded.tokens.shape == (3, 4, 32)
    assert encoded.mask.shape == (3, 4)
    assert encoded.mask.all()
    torch.testing.assert_close(encoded.pooled, encoded.tokens.mean(1))


def test_token_is_a_position():
    torch.manual_seed(0)
    model = ImageCNN(16, image_size=128).eval()
    black = torch.zeros(1, 3, 128, 128, dtype=torch.uint8)
    marked = black.clone()
    marked[:, :, 100:, :28] = 255  # bottom left
    change = model(images=marked).tokens - model(images=black).tokens
    quarters = change.norm(dim=2).view(2, 4, 2, 4).sum((1, 3))
    quarters[1, 0] /= 2
    assert quarters.argmax() == 2  # more than twice the change anywhere else


def test_image_does_not_depend_on_its_batch(model):
    images = model.collate(sides(4)[0])["images"]
    for mode in (True, False):
        model.train(mode)
        together = model(images=images).pooled
        alone = torch.cat([model(images=images[i : i + 1]).pooled for i in range(4)])
        torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("size", [1, 2, 16, 33])
def test_any_image_size(size):
    model = ImageCNN(8, image_size=size)
    encoded = model(**model.collate([np.zeros((1, 7, 3), np.uint8)]))
    assert encoded.pooled.shape == (1, 8)
    assert torch.isfinite(encoded.tokens).all()


@pytest.mark.parametrize("n_components", [1, 3, 50])
def test_any_width(n_components):
    model = ImageCNN(n_components, image_size=16)
    assert model.width == n_components
    assert model(**model.collate(sides(2)[0])).tokens.shape[2] == n_components


def test_collate_returns_uint8_and_takes_no_images(model):
    images = model.collate(sides(3)[0])["images"]
    assert images.shape == (3, 3, 32, 32)
    assert images.dtype == torch.uint8
    assert images.is_contiguous()
    assert model.collate([])["images"].shape == (0, 3, 32, 32)
    assert model(**model.collate([])).pooled.shape == (0, 32)


def test_reconstruction_target_is_the_mean_pixel():
    model = ImageCNN(8, image_size=16)
    images = torch.randint(0, 256, (2, 3, 16, 16), dtype=torch.uint8)
    target = model.reconstruction_target(images=images)
    expected = images.numpy().reshape(2, 3, 8, 2, 8, 2).mean(axis=(3, 5)) / 255
    np.testing.assert_allclose(target.numpy(), expected.reshape(2, 192), rtol=1e-5)


def test_seed_state_dict_and_pickle(model):
    torch.manual_seed(0)
    again = ImageCNN(32, image_size=32)
    copied = ImageCNN(32, image_size=32)
    copied.load_state_dict(model.state_dict())
    tensors = model.collate(sides(2)[0])
    expected = model(**tensors).pooled
    for other in (again, copied, pickle.loads(pickle.dumps(model))):
        assert torch.equal(other.eval()(**tensors).pooled, expected)


def test_blocks_are_residual():
    # Blocks whose inner path is zero return their input or its projection.
    torch.manual_seed(0)
    model = ImageCNN(16, image_size=32, n_blocks=2).eval()
    for name, parameter in model.named_parameters():
        if "norm2" in name:
            torch.nn.init.zeros_(parameter)
    images = model.collate(sides(2)[0])["images"]
    x = F.relu(model.stem_norm(model.stem((images - 127.5) / 64)))
    for block in model.blocks:
        if hasattr(block, "shortcut"):
            x = F.relu(block.shortcut(x))
    assert x.std() > 0.01
    torch.testing.assert_close(model(images=images).pooled, x.mean((2, 3)))


def test_blocks_and_dropout():
    assert len(list(ImageCNN(8, n_blocks=3).blocks)) == 4 * 3 + 1
    model = ImageCNN(64, image_size=16, dropout=0.5)
    images = torch.randint(0, 256, (2, 3, 16, 16), dtype=torch.uint8)
    assert not torch.equal(model(images=images).pooled, model(images=images).pooled)
    model.eval()
    assert torch.equal(model(images=images).pooled, model(images=images).pooled)


def test_sizes_must_be_positive():
    with pytest.raises(ValueError, match="ImageCNN: n_components, image_size.*got 8, 0 and 1"):
        ImageCNN(8, image_size=0)


@pytest.fixture
def cells():
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, shape, dtype=np.uint8) for shape in [(40, 60, 3), (16, 16, 3)]]


def test_resizing_equals_pillow(cells):
    stacked = stack_images(cells, 20)
    assert stacked.shape == (2, 3, 20, 20)
    assert stacked.dtype == torch.uint8
    for i, cell in enumerate(cells):
        expected = Image.fromarray(cell).resize((20, 20), Image.Resampling.BICUBIC)
        np.testing.assert_array_equal(stacked[i].permute(1, 2, 0).numpy(), np.asarray(expected))


def test_crop_equals_pillow(cells):
    for i, cell in enumerate(cells):
        height, width = cell.shape[:2]
        side = min(height, width) // 2  # whole pixels for these cells
        left, top = (width - side) // 2, (height - side) // 2
        cropped = Image.fromarray(cell[top : top + side, left : left + side])
        # Pillow may use pixels outside its box, so only the middle must be equal.
        expected = np.asarray(cropped.resize((32, 32), Image.Resampling.BICUBIC))
        got = stack_images(cells, 32, crop=0.5)[i].permute(1, 2, 0).numpy()
        np.testing.assert_array_equal(got[8:-8, 8:-8], expected[8:-8, 8:-8])


def test_image_of_the_right_size_is_unchanged(cells):
    for crop in (None, 1.0):
        stacked = stack_images([cells[1]], 16, crop=crop)
        np.testing.assert_array_equal(stacked[0].permute(1, 2, 0).numpy(), cells[1])
    assert not torch.equal(stack_images([cells[1]], 16, crop=0.5), stacked)


def test_cells_are_not_changed_and_may_be_views(cells):
    before = [cell.copy() for cell in cells]
    cells[0].flags.writeable = False
    stacked = stack_images([cells[0], cells[0][::-1]], 40)
    stacked.zero_()
    for cell, copy in zip(cells, before, strict=True):
        np.testing.assert_array_equal(cell, copy)


def test_no_images():
    assert stack_images([], 5).shape == (0, 3, 5, 5)
