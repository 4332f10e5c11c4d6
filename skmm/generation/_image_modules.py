"""Modules that generate images from a condition, by flow matching and by a GAN."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields, is_dataclass
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn.functional import relu

from skmm._training._batches import Batch, TensorDataset
from skmm._training._module import ModalityEncoders, fuse_checked
from skmm._training._net import Callback, NeuralNet
from skmm.exceptions import ConvergenceError
from skmm.nets._image_networks import GANImageGenerator, ImageDiscriminator, ImageUNet

__all__ = [
    "AdversarialModule",
    "AdversarialSteps",
    "FlowModule",
    "FollowTraining",
    "ImageBatch",
    "ImageGeneratorModule",
    "WatchAdversaries",
    "WeightAverage",
    "integrate",
    "to_units",
]


@dataclass(frozen=True)
class ImageBatch(Batch):
    """Rows for which images are generated.

    Attributes
    ----------
    image : Tensor of shape (n_rows, n_colors, image_size, image_size), uint8, or None
        True images, in training.
    """

    image: Tensor | None = None

    def true_images(self) -> Tensor:
        """Return the images as floats in [-1, 1]."""
        assert self.image is not None
        return to_units(self.image)


def to_units(images: Tensor) -> Tensor:
    """Convert images of uint8 to floats in [-1, 1]."""
    return images.float() / 127.5 - 1


class WeightAverage:
    """Exponential moving average of weights, which generates better images than the last weights.

    Parameters
    ----------
    decay : float
        Decay of the average. The first steps use ``min(decay, (1 + step) / (10 + step))``, so that
        the initial weights are soon forgotten.
    """

    def __init__(self, decay: float):
        self.decay = decay
        self.n_steps = 0
        self.kept: list[Tensor] = []

    @torch.no_grad()
    def update(self, weights: Iterable[Tensor]) -> None:
        """Update the average by the weights after a step."""
        own = list(weights)
        self.n_steps += 1
        if not self.kept:
            self.kept = [weight.detach().clone() for weight in own]
            return
        decay = min(self.decay, (1 + self.n_steps) / (10 + self.n_steps))
        torch._foreach_lerp_(self.kept, own, 1 - decay)

    @torch.no_grad()
    def swap(self, weights: Iterable[Tensor]) -> None:
        """Swap average and weights in place, since recurrent networks need contiguous memory."""
        for kept, weight in zip(self.kept, weights, strict=False):
            before = weight.clone()
            weight.copy_(kept)
            kept.copy_(before)


class FollowTraining(Callback):
    """Pass the training images to a module, and update its weight average after each step."""

    def on_train_begin(self, net: NeuralNet, X: TensorDataset | None = None, **kwargs: Any) -> None:
        """Compute the statistics of the images."""
        assert X is not None and isinstance(X.batch, ImageBatch) and X.batch.image is not None
        net.module_.measure(X.batch.image)

    def on_batch_end(self, net: NeuralNet, training: bool = False, **kwargs: Any) -> None:
        """Update after a training batch."""
        if training:
            net.module_.average.update(net.module_.parameters())


class ImageGeneratorModule(nn.Module):
    """Base of the modules that fuse modalities to a condition and generate images from it.

    In evaluation the weights are their average over the training steps.

    Parameters
    ----------
    encoders : ModalityEncoders
        From the batch to tokens.
    fusion : nn.Module
        From tokens and masks to a vector, the condition.
    n_components : int
        Width of that vector.
    unconditional_fraction : float
        Fraction of the rows that lose their condition in a training step.
    ema_decay : float
        Decay of the average of the weights.
    """

    # Bounded by the memory of the feature maps.
    rows_at_once = 256
    # Convolutions are faster with threads and half precision, unlike small dense layers.
    gains_by_threads = True
    gains_by_half = True

    def __init__(
        self,
        encoders: ModalityEncoders,
        fusion: nn.Module,
        n_components: int,
        *,
        unconditional_fraction: float,
        ema_decay: float,
    ):
        super().__init__()
        self.encoders = encoders
        self.fusion = fusion
        self.n_components = n_components
        self.average = WeightAverage(ema_decay)
        self.unconditional_fraction = unconditional_fraction
        self.unconditional = nn.Parameter(0.02 * torch.randn(n_components))

    def measure(self, images: Tensor) -> None:
        """Compute statistics of the training images.

        ``images`` has shape (n_rows, n_colors, image_size, image_size), uint8.
        """

    def train(self, mode: bool = True) -> Self:
        """Switch to the last weights for training and to their average for evaluation."""
        if mode != self.training:
            self.average.swap(self.parameters())
        return super().train(mode)

    def finish(self) -> None:
        """Keep only the averaged weights."""
        self.eval()
        self.average = WeightAverage(self.average.decay)

    def kept(self, known: Mapping[str, Tensor]) -> Tensor:
        """Return which rows have a condition, (n_rows,); in training some lose it."""
        exists = torch.stack([mask.any(dim=1) for mask in known.values()]).any(dim=0)
        if self.training and self.unconditional_fraction:
            luck = torch.rand(exists.shape, device=exists.device)
            exists = exists & (luck >= self.unconditional_fraction)
        return exists

    def condition(self, batch: Batch) -> Tensor:
        """Return the condition of each row, (n_rows, n_components).

        A row without any modality, or one that loses its condition in training, gets a learned
        vector instead.
        """
        tokens, known = self.encoders.gather(batch)
        keeps = self.kept(known)
        tokens, masks = self.encoders.completed(tokens, known)
        fused = fuse_checked(self.fusion, tokens, masks, self.n_components)
        return torch.where(keeps[:, None], fused, self.unconditional)


# --- Flow matching: straight paths from noise to images ---

_ROWS_MEASURED = 1024
_LEAST_SCALE = 1e-2  # for images of a single color; a gray level is 8e-3


class FlowModule(ImageGeneratorModule):
    """Predict the velocity at each point between noise and images, given a condition.

    On the path from noise to an image, ``x_t = (1 - t) noise + t image``, the velocity is
    ``image - noise``. The network learns its mean over all pairs that lead to ``x_t``. If images
    were noise as well, this mean would be a multiple of ``x_t``; the U-Net predicts the remainder,
    with inputs and outputs of variance 1 [1]_.

    Parameters
    ----------
    encoders, fusion, n_components, **options : object
        As in :class:`ImageGeneratorModule`.
    unet : ImageUNet
        Called with images, times and conditions.

    References
    ----------
    .. [1] Karras, Aittala, Aila, Laine (2022), "Elucidating the design space of diffusion-based
       generative models", NeurIPS.
    """

    # Standard deviation of images, relative to noise. The content of an image is visible through
    # noise long before its pixels are, so a large part of the path must be dominated by noise.
    deviation = 0.5

    center: Tensor
    scale: Tensor

    def __init__(
        self,
        encoders: ModalityEncoders,
        fusion: nn.Module,
        n_components: int,
        unet: ImageUNet,
        **options: float,
    ):
        super().__init__(encoders, fusion, n_components, **options)
        self.unet = unet
        self.register_buffer("center", torch.zeros(1, 1, 1, 1))
        self.register_buffer("scale", torch.ones(()))

    def measure(self, images: Tensor) -> None:
        """Set mean color and scale of the training images, by which they are standardized."""
        parts = torch.split(images, _ROWS_MEASURED)  # to convert only some images at once
        total = torch.stack([to_units(part).sum(dim=(0, 2, 3), keepdim=True) for part in parts])
        self.center = total.sum(dim=0) / (images.numel() / images.shape[1])
        squares = torch.stack([(to_units(part) - self.center).square().sum() for part in parts])
        self.scale = (squares.sum() / images.numel()).sqrt().clamp(min=_LEAST_SCALE)

    def forward(self, batch: ImageBatch) -> Tensor:
        """Return the squared error of the velocity, (n_rows,), at one time and noise per row.

        In evaluation the times and the noise are always the same.
        """
        real = (batch.true_images() - self.center) * (self.deviation / self.scale)
        n = len(real)
        if self.training:
            noise, within = torch.randn_like(real), torch.rand(n, device=real.device)
        else:
            # Drawn on the CPU, so that the noise is the same on every device.
            fixed = torch.Generator().manual_seed(0)
            noise = torch.randn(real.shape, generator=fixed).to(real.device)
            within = torch.full((n,), 0.5, device=real.device)
        # One time per n-th of the path: the mean loss varies less than with n independent times.
        time = (torch.arange(n, device=real.device) + within) / n
        share = time[:, None, None, None]
        found = self.velocity((1 - share) * noise + share * real, time, self.condition(batch))
        return (found - (real - noise)).square().mean(dim=(1, 2, 3))

    def velocity(self, images: Tensor, time: Tensor, condition: Tensor) -> Tensor:
        """Return the velocity, of the shape of ``images``.

        Parameters
        ----------
        images : Tensor of shape (n_rows, n_colors, image_size, image_size)
            Points between noise and a standardized image.
        time : Tensor of shape (n_rows,)
            0 at the noise, 1 at the image.
        condition : Tensor of shape (n_rows, n_components)
            Fused modalities of each row.
        """
        share = time[:, None, None, None]
        own = self.deviation**2
        variance = own * share.square() + (1 - share).square()
        rest = self.unet(images / variance.sqrt(), time, condition).float()
        slope = (own * share - (1 - share)) / variance
        velocity: Tensor = slope * images + (self.deviation / variance.sqrt()) * rest
        return velocity

    def guided(self, condition: Tensor, guidance_scale: float) -> Callable[..., Tensor]:
        """Return the guided velocity as a function of images and a time.

        Parameters
        ----------
        condition : Tensor of shape (n_rows, n_components)
            Fused modalities of each row.
        guidance_scale : float
            Weight of the velocity with the condition relative to that without it.
        """

        def under(given: Tensor) -> Callable[[Tensor, float], Tensor]:
            def velocity(images: Tensor, time: float) -> Tensor:
                times = torch.full((len(images),), time, device=images.device)
                return self.velocity(images, times, given)

            return velocity

        asked, free = under(condition), under(self.unconditional.expand_as(condition))
        if guidance_scale == 1:
            return asked
        if guidance_scale == 0:
            return free

        def both(images: Tensor, time: float) -> Tensor:
            without = free(images, time)
            return without + guidance_scale * (asked(images, time) - without)

        return both

    def generate(
        self, noise: Tensor, condition: Tensor, *, n_steps: int, solver: str, guidance_scale: float
    ) -> Tensor:
        """Return images (n_rows, n_colors, image_size, image_size), approximately in [-1, 1].

        Parameters
        ----------
        noise : Tensor of the shape of the images
            Start of the integration.
        condition : Tensor of shape (n_rows, n_components)
            Fused modalities of each row.
        n_steps, solver, guidance_scale : object
            As in :class:`FlowMatching`.
        """
        end = integrate(self.guided(condition, guidance_scale), noise, n_steps, solver)
        return end * (self.scale / self.deviation) + self.center


def integrate(
    velocity: Callable[[Tensor, float], Tensor], start: Tensor, n_steps: int, solver: str
) -> Tensor:
    """Integrate a velocity field from time 0 to 1.

    Parameters
    ----------
    velocity : callable
        ``velocity(x, time)`` returns a tensor of the shape of ``x``.
    start : Tensor
        Point at time 0.
    n_steps : int
        Number of equal steps.
    solver : {"euler", "heun"}
        ``"heun"`` uses the mean of the velocities at both ends of a step.

    Returns
    -------
    end : Tensor
        Point at time 1, of the shape of ``start``.
    """
    x, step = start, 1 / n_steps
    for i in range(n_steps):
        first = velocity(x, i * step)
        if solver == "heun":
            first = (first + velocity(x + step * first, (i + 1) * step)) / 2
        x = x + step * first
    return x


# --- Adversarial training of a generator and a discriminator ---

_FASTER = 4.0  # learning rate of the discriminator relative to the generator
_BETAS = (0.0, 0.99)  # no momentum: in adversarial training the gradients rotate
# Spread of generated images relative to real ones below which the generator has collapsed.
_COLLAPSED = 0.02
# Hinge loss of the discriminator below which it is certain of every image.
_CERTAIN = 0.005


class AdversarialModule(ImageGeneratorModule):
    """A generator and its discriminator, each with its own fusion.

    Encoders that are trained get their gradients from the discriminator alone, which compares an
    image with its condition; the generator uses their vectors without a gradient.

    Parameters
    ----------
    encoders, fusion, n_components, **options : object
        As in :class:`ImageGeneratorModule`.
    generator : GANImageGenerator
        Called with noise and conditions.
    discriminator : ImageDiscriminator
        Its ``look`` is called with images, itself with features and conditions.
    discriminator_fusion : nn.Module
        From tokens and masks to the condition for the discriminator.
    """

    def __init__(
        self,
        encoders: ModalityEncoders,
        fusion: nn.Module,
        n_components: int,
        generator: GANImageGenerator,
        *,
        discriminator: ImageDiscriminator,
        discriminator_fusion: nn.Module,
        **options: float,
    ):
        super().__init__(encoders, fusion, n_components, **options)
        self.generator = generator
        self.discriminator = discriminator
        self.discriminator_fusion = discriminator_fusion
        self.discriminator_unconditional = nn.Parameter(torch.zeros(self.n_components))
        self.losses: dict[str, Tensor] = {}  # of the last step

    def discriminator_parameters(self) -> list[nn.Parameter]:
        """Return the parameters of the discriminator, without those of encoders."""
        parts = [*self.discriminator.parameters(), *self.discriminator_fusion.parameters()]
        return [*parts, self.discriminator_unconditional]

    def finish(self) -> None:
        """Keep only the generator with averaged weights."""
        super().finish()
        del self.discriminator, self.discriminator_fusion, self.discriminator_unconditional

    def forward(self, batch: ImageBatch) -> Tensor:
        """Return the sum of the losses of both networks, (n_rows,), for a training step.

        Neither network gets a gradient from the loss of the other.
        """
        real, width = batch.true_images(), self.n_components
        tokens, known = self.encoders.gather(batch)
        keeps = self.kept(known)
        tokens, masks = self.encoders.completed(tokens, known)
        taken = {name: values.detach() for name, values in tokens.items()}
        fused = fuse_checked(self.fusion, taken, masks, width)
        asked = torch.where(keeps[:, None], fused, self.unconditional)
        fused = fuse_checked(self.discriminator_fusion, tokens, masks, width)
        checked = torch.where(keeps[:, None], fused, self.discriminator_unconditional)
        noise = torch.randn(len(real), self.generator.n_noise, device=real.device)
        fake = self.generator(noise, asked)

        features, of_generated = self.discriminator.features(
            torch.cat([real, fake.detach()])
        ).chunk(2)
        other = torch.roll(torch.arange(len(real), device=real.device), 1)
        differs = differing_rows(batch, other) & keeps & keeps[other]
        # Real, generated, and real images under the condition of another row in one pass, since the
        # estimates of the spectral norms change with each pass.
        seen = torch.cat([features, of_generated, features])
        scores = self.discriminator(seen, torch.cat([checked, checked, checked[other]]))
        of_real, of_fake, of_wrong = scores.float().chunk(3)
        of_discriminator = discriminator_loss(of_real, of_fake, of_wrong, differs)
        with _frozen(self.discriminator):
            of_generator = -self.discriminator(
                self.discriminator.features(fake), checked.detach()
            ).float()
        self.losses = {
            "discriminator_loss": of_discriminator.detach().mean(),
            "generator_loss": of_generator.detach().mean(),
            "spread": _relative_spread(fake.detach(), real),
        }
        losses: Tensor = of_discriminator + of_generator
        return losses

    def generate(self, noise: Tensor, condition: Tensor) -> Tensor:
        """Return images (n_rows, n_colors, image_size, image_size) in [-1, 1]."""
        images: Tensor = self.generator(noise, condition)
        return images


def differing_rows(batch: Batch, other: Tensor) -> Tensor:
    """Return which rows have other cells than their partners, (n_rows,).

    A partner with the same cells has the same condition and is no negative.
    """
    differs = torch.zeros(len(other), dtype=torch.bool, device=other.device)
    for tensor in _tensors_of(batch.modalities):
        differs |= (tensor != tensor[other])[:, None].flatten(1).any(dim=1)
    return differs


def _tensors_of(part: object) -> Iterator[Tensor]:
    """Yield all tensors of a modality, however its encoder nests them."""
    if isinstance(part, Tensor):
        yield part
    elif isinstance(part, Mapping):
        for value in part.values():
            yield from _tensors_of(value)
    elif isinstance(part, tuple):
        for value in part:
            yield from _tensors_of(value)
    elif is_dataclass(part):
        for field in fields(part):
            yield from _tensors_of(getattr(part, field.name))


def discriminator_loss(real: Tensor, fake: Tensor, wrong: Tensor, differs: Tensor) -> Tensor:
    """Compute the hinge loss of the discriminator with matching-aware negatives.

    Parameters
    ----------
    real, fake, wrong : Tensor of shape (n_rows,)
        Scores of real and of generated images under their condition, and of real images under the
        condition of another row.
    differs : BoolTensor of shape (n_rows,)
        Whether the other condition differs. If not, the generated image counts twice.

    Returns
    -------
    losses : Tensor of shape (n_rows,)
        Zero where real images score above 1 and both negatives below -1.
    """
    of_fake = relu(1 + fake)
    return relu(1 - real) + (of_fake + torch.where(differs, relu(1 + wrong), of_fake)) / 2


def _relative_spread(fake: Tensor, real: Tensor) -> Tensor:
    """Return the mean standard deviation of a pixel over the images, relative to real ones."""
    own, usual = (images.std(dim=0, correction=0).mean() for images in (fake, real))
    # Real images that are all the same, such as a single one, have no spread to reach.
    return torch.where(usual > 1e-3, own / usual, 1.0)


@contextmanager
def _frozen(module: nn.Module) -> Iterator[None]:
    """Let gradients pass through a module without computing those of its parameters."""
    learning = [weight for weight in module.parameters() if weight.requires_grad]
    for weight in learning:
        weight.requires_grad_(False)
    try:
        yield
    finally:
        for weight in learning:
            weight.requires_grad_(True)


class AdversarialSteps(Callback):
    """Set the learning rate of the discriminator, and the momentum of both networks to zero.

    Parameters
    ----------
    learning_rate : float or None
        Learning rate of the discriminator; None is 4 times that of the generator.
    """

    def __init__(self, learning_rate: float | None):
        self.learning_rate = learning_rate

    def on_train_begin(self, net: NeuralNet, **kwargs: Any) -> None:
        """Move the weights of the discriminator to their own parameter group."""
        optimizer, weights = net.optimizer_, net.module_.discriminator_parameters()
        own, rest = {id(weight) for weight in weights}, optimizer.param_groups[-1]
        rest["params"] = [weight for weight in rest["params"] if id(weight) not in own]
        rate = _FASTER * net.lr if self.learning_rate is None else self.learning_rate
        optimizer.add_param_group({"params": weights, "lr": rate})
        for group in optimizer.param_groups:
            group["betas"] = _BETAS


class WatchAdversaries(Callback):
    """Record the losses of both networks, and raise an error if one of them has failed.

    Parameters
    ----------
    patience : int
        Number of consecutive epochs of failure.
    owner : str
        Class that trains, for messages.
    """

    def __init__(self, patience: int, owner: str):
        self.patience = patience
        self.owner = owner

    def on_epoch_begin(self, net: NeuralNet, **kwargs: Any) -> None:
        """Reset the sums of the epoch."""
        self.sums_: dict[str, Tensor] = {}
        self.n_steps_ = 0

    def on_batch_end(self, net: NeuralNet, training: bool = False, **kwargs: Any) -> None:
        """Add the losses of a step, as tensors, so that the GPU is not waited for."""
        if training:
            self.n_steps_ += 1
            for name, value in net.module_.losses.items():
                self.sums_[name] = self.sums_.get(name, 0.0) + value

    def on_epoch_end(self, net: NeuralNet, **kwargs: Any) -> None:
        """Record the means, and check the last epochs."""
        for name, total in self.sums_.items():
            net.history.record(name, float(total) / self.n_steps_)
        last = net.history[-self.patience :]
        if len(last) < self.patience:
            return
        if all(epoch["spread"] < _COLLAPSED for epoch in last):
            raise ConvergenceError(
                f"{self.owner}: the generator has given the same image for every row in"
                f" {self.patience} epochs. Lower learning_rate, now {net.lr}, or use"
                " method='flow_matching', which has no discriminator."
            )
        if all(epoch["discriminator_loss"] < _CERTAIN for epoch in last):
            raise ConvergenceError(
                f"{self.owner}: the discriminator has been certain of every image in"
                f" {self.patience} epochs, so the generator learns nothing. Lower"
                " discriminator_learning_rate of GAN, give more rows, or use"
                " method='flow_matching'."
            )
