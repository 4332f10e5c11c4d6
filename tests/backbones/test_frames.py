"""The network over frames: order, padding, learning."""

import pickle

import numpy as np
import pytest
import torch
from torch import nn
from training import accuracy_when_trained, unexplained_when_trained

from skmm.backbones._frames import FrameEncoder, _positions
from skmm.backbones._image_cnn import ImageCNN, resized, stack_images
from skmm.backbones._user_module import ImageModule

POOLINGS = ["mean", "max", "gru", "attention"]
ORDERED = ["gru", "attention"]


def encoder(temporal_pooling, width=8, **options):
    torch.manual_seed(0)
    images = ImageCNN(width, image_size=16)
    return FrameEncoder(images, temporal_pooling=temporal_pooling, **options).eval()


@pytest.fixture
def clips():
    rng = np.random.default_rng(0)
    shapes = [(3, 20, 24, 3), (1, 16, 16, 3), (5, 9, 30, 3)]
    return [rng.integers(0, 256, shape, dtype=np.uint8) for shape in shapes]


def encoded(model, cells):
    with torch.no_grad():
        return model(**model.collate(cells))


@pytest.mark.parametrize("pooling", ["mean", "max"])
def test_mean_and_max_pool_the_vectors_of_the_frames(clips, pooling):
    model = encoder(pooling)
    tokens, mask, pooled = encoded(model, clips)
    assert mask.sum(1).tolist() == [3, 1, 5]
    for i, clip in enumerate(clips):
        with torch.no_grad():
            own = model.images(**model.images.collate(list(clip))).pooled
        torch.testing.assert_close(tokens[i][mask[i]], own)
        expected = own.mean(0) if pooling == "mean" else own.amax(0)
        torch.testing.assert_close(pooled[i], expected)


def test_gru_by_hand(clips):
    model = encoder("gru")
    tokens, mask, pooled = encoded(model, clips)
    for i, clip in enumerate(clips):
        with torch.no_grad():
            own = model.images(**model.images.collate(list(clip))).pooled
            states, ends = model.gru(own)  # a whole sequence without padding
            torch.testing.assert_close(tokens[i][mask[i]], model.project(states))
            torch.testing.assert_close(pooled[i], model.project(ends.flatten()))


def test_attention_by_hand(clips):
    model = encoder("attention")
    tokens, mask, pooled = encoded(model, clips)
    layer = model.attention
    n_heads = layer.self_attn.num_heads
    assert n_heads == 4
    for i, clip in enumerate(clips):
        with torch.no_grad():
            own = model.images(**model.images.collate(list(clip))).pooled
            x = own + _positions(len(own), 8)
            q, k, v = (layer.norm1(x) @ layer.self_attn.in_proj_weight.T).chunk(3, dim=1)
            heads = []
            for a, b, c in zip(q.chunk(4, 1), k.chunk(4, 1), v.chunk(4, 1), strict=True):
                heads.append((a @ b.T / 2**0.5).softmax(1) @ c)
            x = x + layer.self_attn.out_proj(torch.cat(heads, 1))
            x = x + layer.linear2(layer.linear1(layer.norm2(x)).relu())
        torch.testing.assert_close(pooled[i], x.mean(0), atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(tokens[i][mask[i]], x, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("width", [2, 5, 8])
def test_positions_are_distinct(width):
    places = _positions(30, width)
    assert places.shape == (30, width) and places.abs().max() <= 1
    distances = torch.cdist(places, places) + torch.eye(30)
    assert distances.min() > 0.01


@pytest.mark.parametrize("pooling", POOLINGS)
def test_which_poolings_depend_on_order(clips, pooling):
    model = encoder(pooling)
    forward = encoded(model, [clips[2]]).pooled
    backward = encoded(model, [clips[2][::-1]]).pooled
    same = torch.allclose(forward, backward, atol=1e-5)
    assert same == (pooling not in ORDERED)


@pytest.mark.parametrize("pooling", POOLINGS)
def test_cell_does_not_depend_on_its_batch(clips, pooling):
    model = encoder(pooling)
    together = encoded(model, clips)
    for i, clip in enumerate(clips):
        alone = encoded(model, [clip])
        torch.testing.assert_close(alone.pooled[0], together.pooled[i], atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(
            alone.tokens[0], together.tokens[i, : len(clip)], atol=1e-5, rtol=1e-4
        )
    # Rows of a tensor that is padded to the longest of a whole column.
    tensors = model.collate(clips)
    rows = {name: tensor[[1, 0]] for name, tensor in tensors.items()}
    with torch.no_grad():
        part = model(**rows)
    assert part.tokens.shape[1] == 3
    torch.testing.assert_close(part.pooled, together.pooled[[1, 0]], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("pooling", POOLINGS)
def test_cells_without_frames(clips, pooling):
    # A joint network has them for rows whose cell is missing.
    model = encoder(pooling).train()
    tensors = {name: t.clone() for name, t in model.collate(clips).items()}
    tensors["n_frames"][1] = 0
    tokens, mask, pooled = model(**tensors)
    assert not mask[1].any() and not pooled[1].any() and tokens.isfinite().all()
    (pooled.tanh().sum() + tokens[mask].tanh().square().sum()).backward()
    for parameter in model.parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all()
    tensors["n_frames"][:] = 0
    tokens, mask, pooled = model(**tensors)
    assert mask.shape == (3, 0) and pooled.shape == (3, 8) and not pooled.any()


def test_collate_reads_iterables_of_frames(clips):
    model = encoder("mean")
    tensors = model.collate([iter(clips[0]), clips[1][0], list(clips[2])])
    assert tensors["n_frames"].tolist() == [3, 1, 5]
    assert tensors["images"].shape == (3, 5, 3, 16, 16)
    assert tensors["images"].dtype == torch.uint8
    torch.testing.assert_close(tensors["images"][2], stack_images(list(clips[2]), 16))
    assert not tensors["images"][0, 3:].any()


def test_resized_images_are_stacked_unchanged(clips):
    small = resized(iter(clips[0]), 16)
    assert all(image.shape == (16, 16, 3) for image in small)
    torch.testing.assert_close(stack_images(small, 16), stack_images(list(clips[0]), 16))


def movers(n, seed):
    """Return clips of a square that moves to the right (1) or to the left (0)."""
    rng = np.random.default_rng(seed)
    to_the_right = rng.integers(0, 2, n)
    cells = []
    for label in to_the_right:
        n_frames = int(rng.integers(4, 8))
        start = rng.integers(0, 15 - 2 * n_frames)
        row = rng.integers(0, 13)
        frames = np.zeros((n_frames, 16, 16, 3), np.uint8)
        for k in range(n_frames):
            frames[k, row : row + 4, start + 2 * k : start + 2 * k + 4] = 255
        cells.append(frames if label else frames[::-1])
    return cells, torch.from_numpy(to_the_right)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("pooling", "steps"),
    [
        ("mean", 10),
        ("max", 10),
        ("gru", 60),
    ],
)
def test_which_poolings_learn_direction(pooling, steps):
    model = encoder(pooling, 16)
    accuracy = accuracy_when_trained(model, movers(300, 0), movers(200, 1), steps=steps)
    if pooling in ORDERED:
        assert accuracy > 0.85
    else:
        assert accuracy < 0.65  # both directions have the same frames


@pytest.mark.slow
def test_learns_to_reconstruct_first_middle_and_last_frame():
    model = encoder("gru", 32)
    rng = np.random.default_rng(0)

    def flashes(n):
        """Return clips of dark and bright frames; the targets depend on their order."""
        lit = rng.integers(0, 2, (n, 3))
        return [np.repeat(255 * row, 256 * 3).reshape(3, 16, 16, 3).astype(np.uint8) for row in lit]

    train, test = flashes(64), flashes(64)
    target = model.reconstruction_target(**model.collate(train[:2]))
    assert target.shape == (2, 3 * 192)
    expected = [clip[:, 0, 0, 0] / 255.0 for clip in train[:2]]
    torch.testing.assert_close(target[:, ::192], torch.tensor(np.array(expected)).float())
    assert unexplained_when_trained(model, train, test, steps=50, learning_rate=1e-2) < 0.1


def test_reconstruction_targets_of_short_clips():
    model = encoder("mean")
    cells = [np.full((n, 16, 16, 3), 0, np.uint8) for n in (1, 2, 4)]
    for cell in cells:
        cell += np.arange(len(cell), dtype=np.uint8)[:, None, None, None] * 51
    found = model.reconstruction_target(**model.collate(cells))[:, ::192] * 5
    torch.testing.assert_close(found, torch.tensor([[0.0, 0, 0], [0, 0, 1], [0, 1, 3]]))


def test_user_module_for_frames(clips):
    torch.manual_seed(0)
    images = ImageModule(nn.Conv2d(3, 6, 4, stride=4), image_size=16)
    images.measure(clips[0][0])
    model = FrameEncoder(images, temporal_pooling="gru").eval()
    assert model.width == 6 and encoded(model, clips).pooled.shape == (3, 6)
    assert model.reconstruction_target(**model.collate(clips)).shape == (3, 3 * 192)


@pytest.mark.parametrize("pooling", POOLINGS)
def test_pickle(clips, pooling):
    model = encoder(pooling)
    again = pickle.loads(pickle.dumps(model))
    torch.testing.assert_close(encoded(again, clips).pooled, encoded(model, clips).pooled)


def test_wrong_pooling():
    with pytest.raises(ValueError, match=r"FrameEncoder: temporal_pooling must be one of 'mean'"):
        encoder("median")
    with pytest.raises(ValueError, match="needs n_components=2 or more, got 1"):
        encoder("attention", 1)
