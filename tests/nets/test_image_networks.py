"""Networks that generate and discriminate images: shapes, spectral norms, formulas."""

import pytest
import torch
from torch import nn

from skmm.nets._image_networks import (
    GANImageGenerator,
    ImageDiscriminator,
    ImageUNet,
    ModulatedBlock,
    SpectralConv2d,
    SpectralLinear,
    patch_size,
    stage_sizes,
    time_features,
)

SIZES = [8, 12, 20, 32, 68]


def networks(n_colors, size):
    small = {"n_channels": 4}
    return (
        ImageUNet(n_colors, size, 6, **small),
        GANImageGenerator(n_colors, size, 5, 6, **small),
        ImageDiscriminator(n_colors, size, 6, **small),
    )


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("n_colors", [1, 4])
def test_shapes_and_gradients(size, n_colors):
    torch.manual_seed(0)
    unet, draw, discriminator = networks(n_colors, size)
    nn.init.normal_(unet.end.weight)  # begins at zero, and would let no gradient through
    for block in [*unet.down, unet.middle, *unet.up]:
        nn.init.normal_(block.conv_out.weight)
    condition, images = torch.randn(3, 6), torch.randn(3, n_colors, size, size)
    velocity = unet(images, torch.tensor([0.0, 0.5, 1.0]), condition)
    drawn = draw(torch.randn(3, 5), condition)
    scores = discriminator(discriminator.features(images), condition)
    assert velocity.shape == drawn.shape == images.shape and scores.shape == (3,)
    assert drawn.abs().max() <= 1
    for network, out in ((unet, velocity), (draw, drawn), (discriminator, scores)):
        out.square().sum().backward()
        assert all((p.grad != 0).any() for p in network.parameters())


def test_sizes_of_maps():
    assert [patch_size(size) for size in (8, 16, 20, 32, 64, 68, 128)] == [1, 1, 2, 2, 2, 4, 4]
    assert [stage_sizes(size) for size in SIZES] == [[8, 4], [12, 6, 3], [10, 5], [16, 8, 4], [17]]


@pytest.mark.slow
def test_unet_starts_at_zero_and_learns_from_time_and_condition():
    torch.manual_seed(0)
    unet = ImageUNet(1, 8, 2, n_channels=4)
    time, condition = torch.rand(24), torch.randn(24, 2)
    images = torch.randn(24, 1, 8, 8)
    assert (unet(images, time, condition) == 0).all()
    target = (time * condition[:, 0])[:, None, None, None] * torch.ones(1, 1, 8, 8)
    adam = torch.optim.Adam(unet.parameters(), lr=1e-2)
    for _ in range(50):
        adam.zero_grad()
        loss = (unet(images, time, condition) - target).square().mean()
        loss.backward()
        adam.step()
    assert loss < 0.2 * target.square().mean()


def test_time_features_tell_times_apart():
    features = time_features(torch.linspace(0, 1, 101), 16)
    assert features.shape == (101, 16)
    torch.testing.assert_close(features.square().sum(dim=1), torch.full((101,), 8.0))
    steps = (features[1:] - features[:-1]).norm(dim=1)
    assert steps.min() > 0.1
    torch.testing.assert_close(features[:, 7], torch.linspace(0, 1, 101).sin())  # the longest wave


def test_modulated_block_by_hand():
    torch.manual_seed(0)
    block = ModulatedBlock(4, 6, 3).eval()
    nn.init.normal_(block.conv_out.weight)
    maps, condition = torch.randn(2, 4, 5, 5), torch.randn(2, 3)
    own = block.conv_in(nn.functional.silu(nn.functional.group_norm(maps, 4)))
    groups = own.reshape(2, 2, -1)
    groups = groups - groups.mean(dim=2, keepdim=True)
    own = (groups / (groups.square().mean(dim=2, keepdim=True) + 1e-5).sqrt()).reshape(own.shape)
    bend = condition @ block.modulate.weight.T + block.modulate.bias
    own = own * (1 + bend[:, :6, None, None]) + bend[:, 6:, None, None]
    expected = block.skip(maps) + block.conv_out(nn.functional.silu(own))
    torch.testing.assert_close(block(maps, condition), expected)


# --- spectral norm ------------------------------------------------------------------------


@pytest.mark.parametrize("layer", [SpectralLinear(7, 5), SpectralConv2d(3, 5, 3, padding=1)])
def test_largest_singular_value_is_one(layer):
    torch.manual_seed(0)
    nn.init.normal_(layer.weight, std=3.0)
    given = torch.randn(2, 7) if isinstance(layer, SpectralLinear) else torch.randn(2, 3, 4, 4)
    for _ in range(60):
        layer(given)
    norms = torch.linalg.svdvals(layer.normalized().flatten(1))
    torch.testing.assert_close(norms[0], torch.tensor(1.0), rtol=1e-3, atol=0)
    before = layer.left.clone()
    layer.eval()(given)
    assert torch.equal(layer.left, before)
    # Scaling the weights by ten has no effect.
    out = layer(given) if layer.bias is None else layer(given) - layer(torch.zeros_like(given))
    with torch.no_grad():
        layer.weight *= 10
    torch.testing.assert_close(layer(given) - layer(torch.zeros_like(given)), out)


def test_gradient_of_the_norm_is_that_of_the_quotient():
    torch.manual_seed(0)
    layer = SpectralLinear(6, 4, bias=False).double()
    given = torch.randn(3, 6, dtype=torch.float64)
    for _ in range(300):
        layer(given)
    layer.eval()
    layer(given).square().sum().backward()
    weight = layer.weight.detach().clone().requires_grad_()
    largest = torch.linalg.matrix_norm(weight, ord=2)
    (given @ (weight / largest).T).square().sum().backward()
    torch.testing.assert_close(layer.weight.grad, weight.grad)


# --- discriminator ------------------------------------------------------------------------


def test_score_is_realness_and_projection():
    torch.manual_seed(0)
    discriminator = ImageDiscriminator(1, 8, 6, n_channels=4).eval()
    features, condition = discriminator.features(torch.randn(5, 1, 8, 8)), torch.randn(5, 6)
    real = features @ discriminator.is_real.normalized().T + discriminator.is_real.bias
    projected = condition @ discriminator.of_condition.normalized().T
    expected = real[:, 0] + (features * projected).sum(dim=1)
    torch.testing.assert_close(discriminator(features, condition), expected)
    # With a condition of zeros, only the linear score remains.
    torch.testing.assert_close(discriminator(features, torch.zeros(5, 6)), real[:, 0])


def test_generator_depends_on_noise_and_condition():
    torch.manual_seed(0)
    generator = GANImageGenerator(1, 8, 4, 4, n_channels=4).eval()
    noise, condition = torch.randn(9, 4), torch.randn(9, 4)
    for varied in (
        generator(noise, condition[:1].expand(9, 4)),
        generator(noise[:1].expand(9, 4), condition),
    ):
        assert varied.std(dim=0).mean() > 0.02
