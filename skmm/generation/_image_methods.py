"""Methods of an image generator: flow matching and a GAN, each with parameters of its own."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, TypeAlias

from torch import Tensor, nn

from skmm._constraints import (
    FRACTION,
    LEARNING_RATE,
    NON_NEGATIVE,
    POSITIVE_INT,
    StrOptions,
    refuse_unused,
)
from skmm._training._module import ModalityEncoders
from skmm._training._trainer import Trainer, TrainingDefaults
from skmm.generation._base import BaseMethod
from skmm.generation._image_modules import (
    AdversarialModule,
    AdversarialSteps,
    FlowModule,
    FollowTraining,
    ImageGeneratorModule,
    WatchAdversaries,
)
from skmm.nets import GANImageGenerator, ImageDiscriminator, ImageUNet

__all__ = [
    "GAN",
    "IMAGE_METHODS",
    "BaseImageMethod",
    "FlowMatching",
    "ImageMethod",
    "ImageShape",
    "resolve_method",
]


@dataclass(frozen=True)
class ImageShape:
    """Shape of the images, and how wide the networks are."""

    n_colors: int
    image_size: int
    n_channels: int
    n_components: int


class BaseImageMethod(BaseMethod, ABC):
    """Base of the methods by which images are generated."""

    ema_decay: float

    _module_type: ClassVar[type[ImageGeneratorModule]]

    @abstractmethod
    def training_defaults(self) -> TrainingDefaults:
        """Return what ``"auto"`` of a trainer means for this method."""

    @abstractmethod
    def make_module(
        self,
        shape: ImageShape,
        encoders: ModalityEncoders,
        make_fusion: Callable[[], nn.Module],
        *,
        dropout: float,
        unconditional_fraction: float,
    ) -> ImageGeneratorModule:
        """Build the untrained networks."""

    @abstractmethod
    def noise_shape(self, shape: ImageShape) -> tuple[int, ...]:
        """Return the shape of the noise of one row."""

    def callbacks(self, owner: str) -> list[tuple[str, object]]:
        """Return what watches the training.

        Parameters
        ----------
        owner : str
            Class that is trained, for messages.

        Returns
        -------
        callbacks : list of (name, callback)
            Of skorch.
        """
        return [("skmm_follow", FollowTraining())]

    def check_trainer(self, trainer: Trainer) -> None:
        """Refuse parameters of a trainer that are of no use to the method.

        Parameters
        ----------
        trainer : Trainer
            Of the generator.
        """

    def check_module(self, module: nn.Module, owner: str) -> None:
        """Refuse a module that was trained by another method.

        Parameters
        ----------
        module : nn.Module
            Trained.
        owner : str
            Class that asks, for messages.
        """
        if not isinstance(module, self._module_type):
            raise ValueError(
                f"{owner}: method={self!r} generates with networks that were trained by it, and"
                " the fitted ones were trained by another method. Set that one, or fit again."
            )

    @abstractmethod
    def generate(self, module: ImageGeneratorModule, noise: Tensor, condition: Tensor) -> Tensor:
        """Return images of about [-1, 1], (n_rows, n_colors, image_size, image_size)."""


class FlowMatching(BaseImageMethod):
    """Turn noise into an image in some steps, along the velocity that a U-Net gives.

    The network is trained by plain regression [1]_, [2]_. The ``method`` of
    :class:`ImageGenerator`, with the shorthand ``"flow_matching"``.

    Parameters
    ----------
    n_steps : int, default=16
        Steps from noise to image. More follow the path more closely.
    solver : {"euler", "heun"}, default="euler"
        What makes a step, of first order, or of second order at twice the cost.
    guidance_scale : float, default=2.0
        How far the velocity is pushed from that without condition to that with it and beyond
        [3]_. 1 generates from what was learned; more gives images that show their condition more
        clearly and vary less.
    ema_decay : float, default=0.995
        Decay, for each step of the training, of the moving average of the weights, which is what
        generates.

    See Also
    --------
    GAN : Generates in one step.

    Notes
    -----
    All but ``ema_decay`` are read in ``predict``: after ``set_params`` a fitted generator generates
    another way, without training again.

    References
    ----------
    .. [1] Lipman, Chen, Ben-Hamu, Nickel, Le (2023), "Flow matching for generative modeling",
       ICLR.
    .. [2] Liu, Gong, Liu (2023), "Flow straight and fast: learning to generate and transfer data
       with rectified flow", ICLR.
    .. [3] Ho, Salimans (2022), "Classifier-free diffusion guidance", arXiv:2207.12598.

    Examples
    --------
    >>> from skmm import ImageGenerator
    >>> from skmm.generation import FlowMatching
    >>> images = ImageGenerator(method=FlowMatching(n_steps=8))
    >>> images.set_params(method__guidance_scale=1.0).method
    FlowMatching(guidance_scale=1.0, n_steps=8)
    """

    _module_type = FlowModule

    _parameter_constraints: ClassVar[dict[str, Any]] = {
        "n_steps": POSITIVE_INT,
        "solver": [StrOptions({"euler", "heun"})],
        "guidance_scale": NON_NEGATIVE,
        "ema_decay": FRACTION,
    }

    def __init__(
        self,
        n_steps: int = 16,
        *,
        solver: Literal["euler", "heun"] = "euler",
        guidance_scale: float = 2.0,
        ema_decay: float = 0.995,
    ):
        self.n_steps = n_steps
        self.solver = solver
        self.guidance_scale = guidance_scale
        self.ema_decay = ema_decay

    def training_defaults(self) -> TrainingDefaults:
        """Return what ``"auto"`` of a trainer means for this method.

        Returns
        -------
        defaults : TrainingDefaults
            Those in the table of :class:`skmm.fusion.Trainer`.
        """
        # The moving average of the weights regularizes, and decay pulls it toward zero.
        return TrainingDefaults(batch_size=64, weight_decay=0.0, max_grad_norm=1.0)

    def make_module(
        self,
        shape: ImageShape,
        encoders: ModalityEncoders,
        make_fusion: Callable[[], nn.Module],
        *,
        dropout: float,
        unconditional_fraction: float,
    ) -> FlowModule:
        """Build the untrained networks.

        Parameters
        ----------
        shape : ImageShape
            Of the images and the networks.
        encoders : ModalityEncoders
            From a batch to the tokens of every modality.
        make_fusion : callable
            Gives an untrained fusion.
        dropout : float
            Of the U-Net.
        unconditional_fraction : float
            Share of the rows that lose their condition in training.

        Returns
        -------
        module : FlowModule
            Untrained.
        """
        fusion = make_fusion()
        unet = ImageUNet(
            shape.n_colors,
            shape.image_size,
            shape.n_components,
            dropout=dropout,
            n_channels=shape.n_channels,
        )
        return FlowModule(
            encoders,
            fusion,
            shape.n_components,
            unet,
            unconditional_fraction=unconditional_fraction,
            ema_decay=self.ema_decay,
        )

    def noise_shape(self, shape: ImageShape) -> tuple[int, ...]:
        """Return the shape of the noise of one row, that of its image.

        Parameters
        ----------
        shape : ImageShape
            Of the images.

        Returns
        -------
        noise_shape : tuple of int
            Channels, height and width.
        """
        return shape.n_colors, shape.image_size, shape.image_size

    def check_module(self, module: nn.Module, owner: str) -> None:
        """Refuse a module of another method, and guidance that the module has not learned.

        Parameters
        ----------
        module : nn.Module
            Trained.
        owner : str
            Class that asks, for messages.
        """
        super().check_module(module, owner)
        assert isinstance(module, FlowModule)
        if self.guidance_scale != 1 and not module.unconditional_fraction:
            raise ValueError(
                f"{owner}: guidance_scale={self.guidance_scale} needs a network that was fitted"
                " with an unconditional_fraction above 0. Set guidance_scale=1, or fit again."
            )

    def generate(self, module: ImageGeneratorModule, noise: Tensor, condition: Tensor) -> Tensor:
        """Return the images of some noise under a condition.

        Parameters
        ----------
        module : FlowModule
            Trained.
        noise : Tensor of shape (n_rows, n_colors, image_size, image_size)
            Where each image begins.
        condition : Tensor of shape (n_rows, n_components)
            What they should show.

        Returns
        -------
        images : Tensor of shape (n_rows, n_colors, image_size, image_size)
            About in [-1, 1].
        """
        assert isinstance(module, FlowModule)
        return module.generate(
            noise,
            condition,
            n_steps=self.n_steps,
            solver=self.solver,
            guidance_scale=self.guidance_scale,
        )


class GAN(BaseImageMethod):
    """Generate in one step, by a network that a discriminator teaches.

    The projection discriminator [1]_ with hinge loss, spectral normalization [2]_, two step sizes
    [3]_ and, among what it should refuse, real images under the condition of another row [4]_. The
    ``method`` of :class:`ImageGenerator`, with the shorthand ``"gan"``.

    Parameters
    ----------
    discriminator_learning_rate : float or "auto", default="auto"
        Step size of the discriminator; ``"auto"`` is 4 times the generator's.
    patience : int, default=10
        Epochs in a row in which one network must have lost for the training to be given up.
    ema_decay : float, default=0.995
        Decay, for each step of the training, of the moving average of the generator's weights,
        which is what generates.

    See Also
    --------
    FlowMatching : Gives better images, and trains without surprises.

    Notes
    -----
    The losses do not say how good the images are, so nothing is held out and the training goes on
    to the last epoch: ``early_stopping`` of the trainer is refused, and so are a number as
    ``max_grad_norm``, because one norm over both gradients would let the larger one shorten the
    step of the other, and ``accumulate``, because images are compared within a batch. A training
    raises ``ConvergenceError`` if a loss is not finite, if all generated images are the same, or
    if the discriminator is never wrong.

    References
    ----------
    .. [1] Miyato, Koyama (2018), "cGANs with projection discriminator", ICLR.
    .. [2] Miyato, Kataoka, Koyama, Yoshida (2018), "Spectral normalization for generative
       adversarial networks", ICLR.
    .. [3] Heusel, Ramsauer, Unterthiner, Nessler, Hochreiter (2017), "GANs trained by a two
       time-scale update rule converge to a local Nash equilibrium", NeurIPS.
    .. [4] Reed, Akata, Yan, Logeswaran, Schiele, Lee (2016), "Generative adversarial text to image
       synthesis", ICML.

    Examples
    --------
    >>> from skmm import ImageGenerator
    >>> from skmm.generation import GAN
    >>> ImageGenerator(method=GAN(patience=5)).method
    GAN(patience=5)
    """

    _module_type = AdversarialModule

    _parameter_constraints: ClassVar[dict[str, Any]] = {
        "discriminator_learning_rate": [*LEARNING_RATE, StrOptions({"auto"})],
        "patience": POSITIVE_INT,
        "ema_decay": FRACTION,
    }

    def __init__(
        self,
        discriminator_learning_rate: float | Literal["auto"] = "auto",
        *,
        patience: int = 10,
        ema_decay: float = 0.995,
    ):
        self.discriminator_learning_rate = discriminator_learning_rate
        self.patience = patience
        self.ema_decay = ema_decay

    def training_defaults(self) -> TrainingDefaults:
        """Return what ``"auto"`` of a trainer means for this method.

        Returns
        -------
        defaults : TrainingDefaults
            Those in the table of :class:`skmm.fusion.Trainer`.
        """
        return TrainingDefaults(
            batch_size=64, learning_rate=3e-4, weight_decay=0.0, early_stopping=False
        )

    def make_module(
        self,
        shape: ImageShape,
        encoders: ModalityEncoders,
        make_fusion: Callable[[], nn.Module],
        *,
        dropout: float,
        unconditional_fraction: float,
    ) -> AdversarialModule:
        """Build the untrained networks.

        Parameters
        ----------
        shape : ImageShape
            Of the images and the networks.
        encoders : ModalityEncoders
            From a batch to the tokens of every modality.
        make_fusion : callable
            Gives an untrained fusion; generator and discriminator have one each.
        dropout : float
            Not used: that of the fusions is theirs.
        unconditional_fraction : float
            Share of the rows that lose their condition in training.

        Returns
        -------
        module : AdversarialModule
            Untrained.
        """
        n_colors, size, width = shape.n_colors, shape.image_size, shape.n_components
        fusion = make_fusion()
        generator = GANImageGenerator(n_colors, size, width, width, n_channels=shape.n_channels)
        return AdversarialModule(
            encoders,
            fusion,
            width,
            generator,
            discriminator=ImageDiscriminator(n_colors, size, width, n_channels=shape.n_channels),
            discriminator_fusion=make_fusion(),
            unconditional_fraction=unconditional_fraction,
            ema_decay=self.ema_decay,
        )

    def noise_shape(self, shape: ImageShape) -> tuple[int, ...]:
        """Return the shape of the noise of one row, that of its condition.

        Parameters
        ----------
        shape : ImageShape
            Of the networks.

        Returns
        -------
        noise_shape : tuple of int
            A length.
        """
        return (shape.n_components,)

    def callbacks(self, owner: str) -> list[tuple[str, object]]:
        """Return what watches the training.

        Parameters
        ----------
        owner : str
            Class that is trained, for messages.

        Returns
        -------
        callbacks : list of (name, callback)
            Of skorch.
        """
        own = self.discriminator_learning_rate
        return [
            *super().callbacks(owner),
            ("skmm_steps", AdversarialSteps(None if own == "auto" else float(own))),
            ("skmm_adversaries", WatchAdversaries(self.patience, owner)),
        ]

    def check_trainer(self, trainer: Trainer) -> None:
        """Refuse parameters of a trainer that are of no use to adversaries.

        Parameters
        ----------
        trainer : Trainer
            Of the generator.
        """
        # Real images are compared with the conditions of other rows of the whole batch.
        useless = ["accumulate"]
        if trainer.max_grad_norm is not None:  # None clips nothing, as this method does
            useless.append("max_grad_norm")
        if trainer.early_stopping is not False:
            useless.append("early_stopping")
        refuse_unused(trainer, useless, "with method='gan'")

    def generate(self, module: ImageGeneratorModule, noise: Tensor, condition: Tensor) -> Tensor:
        """Return the images of some noise under a condition.

        Parameters
        ----------
        module : AdversarialModule
            Trained.
        noise : Tensor of shape (n_rows, n_components)
            What makes images of one condition differ.
        condition : Tensor of shape (n_rows, n_components)
            What they should show.

        Returns
        -------
        images : Tensor of shape (n_rows, n_colors, image_size, image_size)
            In [-1, 1].
        """
        assert isinstance(module, AdversarialModule)
        return module.generate(noise, condition)


IMAGE_METHODS: dict[str, type[BaseMethod]] = {"flow_matching": FlowMatching, "gan": GAN}
ImageMethod: TypeAlias = Literal["flow_matching", "gan"] | BaseImageMethod


def resolve_method(method: str | BaseImageMethod) -> BaseImageMethod:
    """Return the method that a parameter names or is, its parameters checked."""
    chosen = IMAGE_METHODS[method]() if isinstance(method, str) else method
    assert isinstance(chosen, BaseImageMethod)
    return chosen.check()
