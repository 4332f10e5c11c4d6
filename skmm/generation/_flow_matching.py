"""Pictures by flow matching: straight ways from noise to pictures, followed by a network."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from skmm.generation._image_modules import PICTURE, PictureModule, to_units

__all__ = ["FlowModule", "follow"]

_ROWS_MEASURED = 1024
_LEAST_SCALE = 1e-2  # of pictures that are all one colour; a grey level is 8e-3


class FlowModule(PictureModule):
    """Learns the velocity at each point between noise and pictures, under a condition.

    On the way from noise to a picture, ``x_t = (1 - t) noise + t picture``, the velocity is
    ``picture - noise``; what is learned is its mean over all that may have led to ``x_t``. Were
    pictures noise too, that would be a multiple of ``x_t``: the network gives the rest, from an
    input and to an output of variance 1 [1]_.

    Parameters
    ----------
    *args : object
        Of :class:`PictureModule`; ``head`` is called with pictures, times and conditions.
    **options : object
        Of :class:`PictureModule`.

    References
    ----------
    .. [1] Karras, Aittala, Aila, Laine (2022), "Elucidating the design space of diffusion-based
       generative models", NeurIPS.
    """

    # Standard deviation of pictures where that of the noise is 1. What a picture is of shows
    # through noise long before its pixels do, so much of the way has to be deep in the noise.
    deviation = 0.5

    center: Tensor
    scale: Tensor

    def __init__(self, *args: Any, **options: Any):
        super().__init__(*args, **options)
        self.register_buffer("center", torch.zeros(1, 1, 1, 1))
        self.register_buffer("scale", torch.ones(()))

    def measure(self, pictures: Tensor) -> None:
        """Note mean colour and variance of the training pictures, which are learned without."""
        parts = pictures.split(_ROWS_MEASURED)  # not all pictures as floats at once
        total = torch.stack([to_units(part).sum(dim=(0, 2, 3), keepdim=True) for part in parts])
        self.center = total.sum(dim=0) / (pictures.numel() / pictures.shape[1])
        squares = torch.stack([(to_units(part) - self.center).square().sum() for part in parts])
        self.scale = (squares.sum() / pictures.numel()).sqrt().clamp(min=_LEAST_SCALE)

    def forward(self, **inputs: Tensor) -> Tensor:
        """Return the squared error of the velocity, (n_rows,), at a time and noise for each row.

        In evaluation they are always the same.
        """
        real = (to_units(inputs[PICTURE]) - self.center) * (self.deviation / self.scale)
        n = len(real)
        if self.training:
            noise, within = torch.randn_like(real), torch.rand(n, device=real.device)
        else:
            # On the CPU, so that it is the same on every device.
            fixed = torch.Generator().manual_seed(0)
            noise = torch.randn(real.shape, generator=fixed).to(real.device)
            within = torch.full((n,), 0.5, device=real.device)
        # One time in each n-th of the way: their mean varies less than that of n times at random.
        time = (torch.arange(n, device=real.device) + within) / n
        share = time[:, None, None, None]
        found = self.velocity((1 - share) * noise + share * real, time, self.condition(**inputs))
        return (found - (real - noise)).square().mean(dim=(1, 2, 3))

    def velocity(self, pictures: Tensor, time: Tensor, condition: Tensor) -> Tensor:
        """Return the velocity, of the shape of ``pictures``.

        Parameters
        ----------
        pictures : Tensor of shape (n_rows, n_colors, image_size, image_size)
            Between noise and a picture without mean and scale.
        time : Tensor of shape (n_rows,)
            0 at the noise, 1 at the picture.
        condition : Tensor of shape (n_rows, n_components)
            What the pictures are to be of.
        """
        share = time[:, None, None, None]
        own = self.deviation**2
        variance = own * share.square() + (1 - share).square()
        rest = self.head(pictures / variance.sqrt(), time, condition).float()
        slope = (own * share - (1 - share)) / variance
        return slope * pictures + (self.deviation / variance.sqrt()) * rest

    def guided(self, condition: Tensor, guidance_scale: float) -> Callable[..., Tensor]:
        """Return the velocity as a function of pictures and a time, guided to the condition.

        Parameters
        ----------
        condition : Tensor of shape (n_rows, n_components)
            What the pictures are to be of.
        guidance_scale : float
            How far to go from the velocity without condition to that with it, and beyond.
        """

        def under(given: Tensor) -> Callable[[Tensor, float], Tensor]:
            def velocity(pictures: Tensor, time: float) -> Tensor:
                times = torch.full((len(pictures),), time, device=pictures.device)
                return self.velocity(pictures, times, given)

            return velocity

        asked, free = under(condition), under(self.nothing.expand_as(condition))
        if guidance_scale == 1:
            return asked
        if guidance_scale == 0:
            return free

        def both(pictures: Tensor, time: float) -> Tensor:
            without = free(pictures, time)
            return without + guidance_scale * (asked(pictures, time) - without)

        return both

    def draw(
        self, noise: Tensor, condition: Tensor, *, n_steps: int, solver: str, guidance_scale: float
    ) -> Tensor:
        """Return pictures (n_rows, n_colors, image_size, image_size), about in [-1, 1].

        Parameters
        ----------
        noise : Tensor of the shape of the pictures
            Where each begins.
        condition : Tensor of shape (n_rows, n_components)
            What they are to be of.
        n_steps, solver, guidance_scale : object
            As in :class:`ImageGenerator`.
        """
        end = follow(self.guided(condition, guidance_scale), noise, n_steps, solver)
        return end * (self.scale / self.deviation) + self.center


def follow(
    velocity: Callable[[Tensor, float], Tensor], start: Tensor, n_steps: int, solver: str
) -> Tensor:
    """Follow a field of velocities from time 0 to 1.

    Parameters
    ----------
    velocity : callable
        ``velocity(x, time)`` of the shape of ``x``.
    start : Tensor
        Where to begin.
    n_steps : int
        Equal steps.
    solver : {"euler", "heun"}
        ``"heun"`` takes the mean of the velocities at both ends of a step.

    Returns
    -------
    end : Tensor
        Of the shape of ``start``.
    """
    x, step = start, 1 / n_steps
    for i in range(n_steps):
        first = velocity(x, i * step)
        if solver == "heun":
            first = (first + velocity(x + step * first, (i + 1) * step)) / 2
        x = x + step * first
    return x
