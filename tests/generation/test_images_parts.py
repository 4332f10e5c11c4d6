"""Parts of the image generators against references: flow, weight average, GAN, targets."""

import io

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from torch import nn

from skmm._training._batches import FeatureInputs
from skmm._training._module import ModalityEncoders
from skmm.exceptions import CellTypeError, MediaDecodeError
from skmm.generation._image_modules import (
    AdversarialModule,
    FlowModule,
    ImageBatch,
    WeightAverage,
    differing_rows,
    discriminator_loss,
    integrate,
    to_units,
)
from skmm.generation._image_targets import images_of_rows, to_user_images
from skmm.nets import ConcatFusionModule
from skmm.nets._image_networks import GANImageGenerator, ImageDiscriminator, ImageUNet

OPTIONS = {"unconditional_fraction": 0.0, "ema_decay": 0.9}


def flow(**options):
    torch.manual_seed(0)
    unet = ImageUNet(1, 8, 6, n_channels=4)
    nn.init.normal_(unet.end.weight, std=0.1)
    fusion = ConcatFusionModule({"a": 3}, 6)
    return FlowModule(ModalityEncoders(["a"], {}), fusion, 6, unet, **{**OPTIONS, **options})


def batch(n=5):
    generator = torch.Generator().manual_seed(1)
    values = torch.randn(n, 3, generator=generator)
    image = torch.randint(0, 256, (n, 1, 8, 8), generator=generator, dtype=torch.uint8)
    return ImageBatch({"a": FeatureInputs(values, torch.arange(n) != 2)}, image=image)


# --- flow matching -------------------------------------------------------------------------


def test_loss_is_the_squared_error_of_the_velocity():
    module, inputs = flow(), batch()
    module.measure(inputs.image)
    torch.manual_seed(7)
    losses = module(inputs)
    torch.manual_seed(7)
    real = inputs.image.double() / 255 * 2 - 1
    deviation = FlowModule.deviation
    real = (real - real.mean()) / real.std(correction=0) * deviation
    noise, within = torch.randn(5, 1, 8, 8), torch.rand(5)
    condition = module.condition(inputs)
    torch.testing.assert_close(condition[2], module.unconditional)
    for row in range(5):
        t = (row + within[row]) / 5
        assert row / 5 <= t <= (row + 1) / 5
        between = (1 - t) * noise[[row]] + t * real[[row]].float()
        total = deviation**2 * t**2 + (1 - t) ** 2
        rest = module.unet(between / total**0.5, t[None], condition[[row]])
        # Between two Gaussians the mean velocity is linear in the point.
        slope = (deviation**2 * t - (1 - t)) / total
        velocity = slope * between + deviation / total**0.5 * rest
        expected = ((velocity - (real[row] - noise[row])) ** 2).mean()
        assert losses[row].item() == pytest.approx(expected.item(), rel=1e-4)
    # In evaluation nothing is random.
    module.eval()
    torch.testing.assert_close(module(inputs), module(inputs), rtol=0, atol=0)


@pytest.mark.parametrize(("solver", "order"), [("euler", 1), ("heun", 2)])
def test_integration_of_a_known_field(solver, order):
    """The solution of x' = a x + t is known; errors decrease with the order of the solver."""
    rates = torch.tensor([-1.0, 0.5, 2.0], dtype=torch.float64)
    start = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)
    end = (start + 1 / rates**2) * rates.exp() - (rates + 1) / rates**2
    errors = [
        (integrate(lambda x, t: rates * x + t, start, n, solver) - end).abs() for n in (32, 64, 128)
    ]
    for coarse, fine in zip(errors, errors[1:], strict=False):
        torch.testing.assert_close(
            coarse / fine, torch.full_like(end, 2.0**order), rtol=0.1, atol=0
        )
    # A constant velocity needs a single step.
    far = torch.tensor([5.0, 5.0, 5.0])
    torch.testing.assert_close(
        integrate(lambda x, t: far - start.float(), start.float(), 1, solver), far
    )


def test_guidance_extrapolates_the_velocity():
    module, inputs = flow().eval(), batch()
    condition, x = module.condition(inputs), torch.randn(5, 1, 8, 8)
    asked = module.velocity(x, torch.full((5,), 0.3), condition)
    free = module.velocity(x, torch.full((5,), 0.3), module.unconditional.expand(5, -1))
    for scale, expected in (
        (1.0, asked),
        (0.0, free),
        (3.0, free + 3 * (asked - free)),
        (0.5, (asked + free) / 2),
    ):
        torch.testing.assert_close(module.guided(condition, scale)(x, 0.3), expected)
    # A row without any modality has no condition to be guided to.
    torch.testing.assert_close(module.guided(condition, 3.0)(x, 0.3)[2], free[2])


def test_velocity_between_gaussians_is_their_regression():
    """If images were noise, the target of the network would have variance 1 at every time."""
    module = flow().eval()
    given = []
    module.unet.forward = lambda x, t, c: given.append(x) or torch.zeros_like(x)
    deviation = FlowModule.deviation
    noise, real = torch.randn(2, 40_000, 1, 1, 1)
    real = deviation * real
    for t in (0.0, 0.3, 0.7, 1.0):
        between, time = (1 - t) * noise + t * real, torch.full((len(real),), t)
        rest = real - noise - module.velocity(between, time, torch.zeros(len(real), 6))
        own = deviation / (deviation**2 * t**2 + (1 - t) ** 2) ** 0.5
        assert given[-1].std().item() == pytest.approx(1, rel=0.02)
        assert (rest / own).std().item() == pytest.approx(1, rel=0.02)
        assert (rest * between).mean().item() == pytest.approx(0, abs=0.02)


def test_share_without_condition():
    module = flow(unconditional_fraction=0.25)
    inputs = batch().rows(torch.arange(5).repeat_interleave(800))
    lost = (
        (module.condition(inputs) == module.unconditional).all(dim=1).view(5, 800).float().mean(1)
    )
    assert lost[2] == 1
    assert ((lost[[0, 1, 3, 4]] > 0.18) & (lost[[0, 1, 3, 4]] < 0.32)).all()
    lost = (module.eval().condition(inputs) == module.unconditional).all(dim=1)
    assert lost.view(5, 800).float().mean(dim=1).tolist() == [0, 0, 1, 0, 0]


# --- average of the weights ----------------------------------------------------------------


def test_weight_average_follows_its_recursion():
    average, weights = WeightAverage(0.8), [torch.zeros(2), torch.zeros(3)]
    expected, rng = None, np.random.default_rng(0)
    for step in range(1, 60):
        value = float(rng.normal())
        for weight in weights:
            weight.fill_(value)
        average.update(weights)
        decay = min(0.8, (1 + step) / (10 + step))
        expected = value if expected is None else decay * expected + (1 - decay) * value
        assert average.kept[1][0].item() == pytest.approx(expected, rel=1e-4, abs=1e-5)


def test_evaluation_uses_the_average_and_training_the_last_weights():
    module = flow()
    first = [p.detach().clone() for p in module.parameters()]
    module.average.update(module.parameters())
    with torch.no_grad():
        for p in module.parameters():
            p += 1
    module.average.update(module.parameters())
    share = 1 - 3 / 12  # of the second step
    for _ in range(2):
        module.eval().eval()
        for p, before in zip(module.parameters(), first, strict=True):
            torch.testing.assert_close(p, before + share)
        module.train().train()
        for p, before in zip(module.parameters(), first, strict=True):
            torch.testing.assert_close(p, before + 1)
    module.finish()
    for mode in (True, False):
        module.train(mode)
        for p, before in zip(module.parameters(), first, strict=True):
            torch.testing.assert_close(p, before + share)


# --- adversarial training ------------------------------------------------------------------


def adversaries():
    torch.manual_seed(0)
    return AdversarialModule(
        ModalityEncoders(["a"], {}),
        ConcatFusionModule({"a": 3}, 6),
        6,
        GANImageGenerator(1, 8, 6, 6, n_channels=4),
        discriminator=ImageDiscriminator(1, 8, 6, n_channels=4),
        discriminator_fusion=ConcatFusionModule({"a": 3}, 6),
        **OPTIONS,
    )


def test_hinge_loss_by_hand():
    real, fake = torch.tensor([2.0, 0.5, -1.0]), torch.tensor([-2.0, 0.0, 3.0])
    wrong = torch.tensor([1.0, -3.0, 0.0])
    found = discriminator_loss(real, fake, wrong, torch.tensor([True, True, False]))
    assert found.tolist() == [0 + (0 + 2) / 2, 0.5 + (1 + 0) / 2, 2 + 4]


def test_both_networks_get_the_gradient_of_their_own_loss():
    module, inputs = adversaries(), batch()
    module.discriminator.eval()  # keeps its spectral norms constant
    own_weights = {id(p) for p in module.discriminator_parameters()}
    torch.manual_seed(3)
    module(inputs).mean().backward()
    found = {name: p.grad for name, p in module.named_parameters()}
    module.zero_grad()

    torch.manual_seed(3)
    real = to_units(inputs.image)
    tokens, known = module.encoders.gather(inputs)
    exists = known["a"]
    asked = torch.where(exists, module.fusion(tokens, known), module.unconditional)
    checked = torch.where(
        exists, module.discriminator_fusion(tokens, known), module.discriminator_unconditional
    )
    fake = module.generator(torch.randn(5, 6), asked)
    seen = module.discriminator.features(real)
    other = [4, 0, 1, 2, 3]
    differs = torch.tensor([True, True, False, False, True])  # row 2 has no cells
    of_discriminator = discriminator_loss(
        module.discriminator(seen, checked),
        module.discriminator(module.discriminator.features(fake.detach()), checked),
        module.discriminator(seen, checked[other]),
        differs,
    ).mean()
    of_generator = -module.discriminator(module.discriminator.features(fake), checked).mean()
    assert module.losses["discriminator_loss"].item() == pytest.approx(
        of_discriminator.item(), rel=1e-4
    )
    assert module.losses["generator_loss"].item() == pytest.approx(of_generator.item(), rel=1e-4)
    own = list(module.named_parameters())
    for loss, is_discriminator in ((of_discriminator, True), (of_generator, False)):
        chosen = [(n, p) for n, p in own if (id(p) in own_weights) == is_discriminator]
        grads = torch.autograd.grad(
            loss, [p for _, p in chosen], retain_graph=True, allow_unused=True
        )
        for (name, p), grad in zip(chosen, grads, strict=True):
            expected = torch.zeros_like(p) if grad is None else grad
            got = torch.zeros_like(p) if found[name] is None else found[name]
            torch.testing.assert_close(got, expected, rtol=1e-3, atol=1e-6, msg=name)


def test_equal_cells_are_no_negatives():
    inputs = batch(6)
    own = inputs.modalities["a"]
    own.present[:] = True
    own.values[1] = own.values[0]
    other = torch.roll(torch.arange(6), 1)
    assert differing_rows(inputs, other).tolist() == [True, False, True, True, True, True]


# --- targets -------------------------------------------------------------------------------


def read(y, n=None, size=8, mode="auto"):
    return images_of_rows(y, len(y) if n is None else n, "Generator", image_size=size, mode=mode)


def test_every_kind_of_image_is_read(tmp_path):
    rng = np.random.default_rng(0)
    cells = rng.integers(0, 256, (5, 8, 8, 3)).astype(np.uint8)
    images = [Image.fromarray(cell) for cell in cells]
    images[2].save(tmp_path / "one.png")
    content = io.BytesIO()
    images[3].save(content, "PNG")
    mixed = [cells[0], images[1], tmp_path / "one.png", content.getvalue(), cells[4] / 255]
    expected = np.moveaxis(cells, 3, 1)
    for y in (mixed, pd.Series(mixed, index=list("edcba")), pd.DataFrame({"photo": mixed}), cells):
        found = read(y)
        assert found.mode == "RGB" and found.known.all()
        np.testing.assert_array_equal(found.pixels, expected)
    np.testing.assert_array_equal(to_user_images(found.pixels, "RGB"), cells)


def test_missing_images():
    cell = np.full((4, 4), 9, np.uint8)
    found = read([None, cell, float("nan"), cell, pd.NA], size=4)
    assert found.known.tolist() == [False, True, False, True, False]
    assert found.mode == "L" and (to_user_images(found.pixels, "L") == cell).all()
    assert read([None, None]).pixels.shape == (0, 1, 8, 8)


def test_modes():
    gray, clear = np.full((8, 8), 100, np.uint8), np.zeros((8, 8, 4), np.uint8)
    red = np.zeros((8, 8, 3), np.uint8)
    red[..., 0] = 200
    assert [read(y).mode for y in ([gray], [gray, red], [gray, red, clear])] == ["L", "RGB", "RGBA"]
    assert read([np.stack([gray] * 3, axis=2)]).mode == "L"
    assert read([red], mode="L").pixels[0, 0, 0, 0] == Image.fromarray(red).convert("L").getpixel(
        (0, 0)
    )
    assert (read([clear], mode="L").pixels == 255).all()  # white shows through


def test_opacity_comes_back():
    rng = np.random.default_rng(0)
    cell = rng.integers(0, 256, (8, 8, 4)).astype(np.uint8)
    cell[0, 0, 3], cell[1, 1, 3] = 0, 255
    back = to_user_images(read([cell]).pixels, "RGBA")[0]
    np.testing.assert_allclose(back[..., 3].astype(int), cell[..., 3], atol=1)
    solid = cell[..., 3] > 100
    np.testing.assert_allclose(back[solid].astype(int), cell[solid], atol=3)


def test_size_is_changed_as_pillow_does():
    rng = np.random.default_rng(0)
    cell = rng.integers(0, 256, (21, 13, 3)).astype(np.uint8)
    expected = np.asarray(Image.fromarray(cell).resize((8, 8), Image.Resampling.BICUBIC))
    np.testing.assert_allclose(
        to_user_images(read([cell]).pixels, "RGB")[0].astype(int), expected, atol=2
    )


@pytest.mark.parametrize(
    ("y", "n", "error", "message"),
    [
        (None, 2, ValueError, "Generator requires y to be passed"),
        ("a.png", 1, TypeError, "y must hold an image for each row, got str"),
        (np.array(3), 1, TypeError, "got ndarray"),
        ([np.zeros((4, 4))], 2, ValueError, "X has 2 rows and y has 1"),
        (pd.DataFrame({"a": [1], "b": [2]}), 1, ValueError, "one column of images, got a frame"),
        ([np.zeros((4, 4)), 5.5], 2, CellTypeError, "Column 'y', row 1: Cannot read an image"),
        (["no file.png"], 1, MediaDecodeError, "Column 'y', row 0"),
        (pd.Series([b"x"], index=["u7"]), 1, MediaDecodeError, "Column 'y', row 'u7'"),
    ],
)
def test_a_target_without_images_is_refused(y, n, error, message):
    with pytest.raises(error, match=message):
        images_of_rows(y, n, "Generator", image_size=8, mode="auto")
