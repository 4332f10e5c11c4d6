"""Methods of an image generator, flow matching and a GAN, each with its own parameters."""

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
from skmm.nets._image_networks import GANImageGenerator, ImageDiscriminator, ImageUNet

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
    """Shape of the images and width of the networks."""

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
        """Return the values of ``"auto"`` in the trainer for this method."""

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
        """Return the callbacks of the training.

        Parameters
        ----------
        owner : str
            Class that is trained, for messages.

        Returns
        -------
        callbacks : list of (name, callback)
            Callbacks of skorch.
        """
        return [("skmm_follow", FollowTraining())]

    def check_trainer(self, trainer: Trainer) -> None:
        """Refuse parameters of the trainer that have no effect with this method.

        Parameters
        ----------
        trainer : Trainer
            Trainer of the generator.
        """

    def check_module(self, module: nn.Module, owner: str) -> None:
        """Refuse a module that was trained by another method.

        Parameters
        ----------
        module : nn.Module
            Trained module.
        owner : str
            Class of the generator, for messages.
        """
        if not isinstance(module, self._module_type):
            raise ValueError(
                f"{owner}: method={self!r} needs networks that it has trained, and the fitted ones"
                " were trained by another method. Set that method, or fit again."
            )

    @abstractmethod
    def generate(self, module: ImageGeneratorModule, noise: Tensor, condition: Tensor) -> Tensor:
        """Return images of about [-1, 1], (n_rows, n_colors, image_size, image_size)."""


class FlowMatching(BaseImageMethod):
    """Turn noise into an image by integrating a velocity that a U-Net predicts.

    The network is trained by regression on the velocity [1]_, [2]_. A ``method`` of
    :class:`ImageGenerator`, with the shorthand ``"flow_matching"``.

    Parameters
    ----------
    n_steps : int, default=16
        Number of integration steps from noise to image. More steps are more accurate.
    solver : {"euler", "heun"}, default="euler"
        Integration method: of first order, or of second order at twice the cost.
    guidance_scale : float, default=2.0
        Weight of classifier-free guidance, which extrapolates the velocity from that without to
        that with the condition [3]_. 1 is the learned velocity; larger values give images that
        show their condition more clearly and vary less.
    ema_decay : float, default=0.995
        Decay per training step of the moving average of the weights, which generates the images.

    See Also
    --------
    GAN : Generate in one step.

    Notes
    -----
    All parameters except ``ema_decay`` are read by ``predict``, so ``set_params`` changes them on
    a fitted generator without another training.

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
        """Return the values of ``"auto"`` in the trainer for this method.

        Returns
        -------
        defaults : TrainingDefaults
            Values in the table of :class:`skmm.fusion.Trainer`.
        """
        # The moving average regularizes the weights; weight decay would only shrink it.
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
            Shape of the images and width of the networks.
        encoders : ModalityEncoders
            From a batch to the tokens of every modality.
        make_fusion : callable
            Returns an untrained fusion.
        dropout : float
            Dropout of the U-Net.
        unconditional_fraction : float
            Fraction of the rows that lose their condition in a training step.

        Returns
        -------
        module : FlowModule
            Untrained module.
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
        """Return the shape of the noise of one row, which is that of its image.

        Parameters
        ----------
        shape : ImageShape
            Shape of the images.

        Returns
        -------
        noise_shape : tuple of int
            Channels, height and width.
        """
        return shape.n_colors, shape.image_size, shape.image_size

    def check_module(self, module: nn.Module, owner: str) -> None:
        """Refuse a module of another method, and guidance for which it was not trained.

        Parameters
        ----------
        module : nn.Module
            Trained module.
        owner : str
            Class of the generator, for messages.
        """
        super().check_module(module, owner)
        assert isinstance(module, FlowModule)
        if self.guidance_scale != 1 and not module.unconditional_fraction:
            raise ValueError(
                f"{owner}: guidance_scale={self.guidance_scale} needs a network that was fitted"
                " with an unconditional_fraction above 0. Set guidance_scale=1, or fit again."
            )

    def generate(self, module: ImageGeneratorModule, noise: Tensor, condition: Tensor) -> Tensor:
        """Generate images from noise and conditions.

        Parameters
        ----------
        module : FlowModule
            Trained module.
        noise : Tensor of shape (n_rows, n_colors, image_size, image_size)
            Start of the integration.
        condition : Tensor of shape (n_rows, n_components)
            Fused modalities of each row.

        Returns
        -------
        images : Tensor of shape (n_rows, n_colors, image_size, image_size)
            Images, approximately in [-1, 1].
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
    """Generate in one step, by a network trained against a discriminator.

    Adversarial training with a projection discriminator [1]_, hinge loss, spectral normalization
    [2]_ and two learning rates [3]_. Real images under the condition of another row are further
    negatives of the discriminator [4]_. A ``method`` of :class:`ImageGenerator`, with the shorthand
    ``"gan"``.

    Parameters
    ----------
    discriminator_learning_rate : float or "auto", default="auto"
        Learning rate of the discriminator; ``"auto"`` is 4 times that of the generator.
    patience : int, default=10
        Number of consecutive epochs in which one network has failed before training stops with an
        error.
    ema_decay : float, default=0.995
        Decay per training step of the moving average of the generator's weights, which generates
        the images.

    See Also
    --------
    FlowMatching : Generate better images, with a more stable training.

    Notes
    -----
    The losses do not measure the quality of the images, so no rows are held out and the training
    runs to the last epoch: ``early_stopping`` of the trainer is refused. So are a number as
    ``max_grad_norm``, because one norm over both gradients would let the larger one shorten the
    step of the other, and ``accumulate``, because images are compared within a batch. The training
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
        """Return the values of ``"auto"`` in the trainer for this method.

        Returns
        -------
        defaults : TrainingDefaults
            Values in the table of :class:`skmm.fusion.Trainer`.
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
            Shape of the images and width of the networks.
        encoders : ModalityEncoders
            From a batch to the tokens of every modality.
        make_fusion : callable
            Returns an untrained fusion; generator and discriminator have one each.
        dropout : float
            Not used: the fusions have their own.
        unconditional_fraction : float
            Fraction of the rows that lose their condition in a training step.

        Returns
        -------
        module : AdversarialModule
            Untrained module.
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
        """Return the shape of the noise of one row, which is that of its condition.

        Parameters
        ----------
        shape : ImageShape
            Width of the networks.

        Returns
        -------
        noise_shape : tuple of int
            ``(n_components,)``.
        """
        return (shape.n_components,)

    def callbacks(self, owner: str) -> list[tuple[str, object]]:
        """Return the callbacks of the training.

        Parameters
        ----------
        owner : str
            Class that is trained, for messages.

        Returns
        -------
        callbacks : list of (name, callback)
            Callbacks of skorch.
        """
        own = self.discriminator_learning_rate
        return [
            *super().callbacks(owner),
            ("skmm_steps", AdversarialSteps(None if own == "auto" else float(own))),
            ("skmm_adversaries", WatchAdversaries(self.patience, owner)),
        ]

    def check_trainer(self, trainer: Trainer) -> None:
        """Refuse parameters of the trainer that have no effect in adversarial training.

        Parameters
        ----------
        trainer : Trainer
            Trainer of the generator.
        """
        # Real images are compared with the conditions of other rows of the whole batch.
        trainer.refuse_accumulate("with method='gan'")
        useless = []
        if trainer.max_grad_norm is not None:  # None clips nothing, as this method does
            useless.append("max_grad_norm")
        if trainer.early_stopping is not False:
            useless.append("early_stopping")
        refuse_unused(trainer, useless, "with method='gan'")

    def generate(self, module: ImageGeneratorModule, noise: Tensor, condition: Tensor) -> Tensor:
        """Generate images from noise and conditions.

        Parameters
        ----------
        module : AdversarialModule
            Trained module.
        noise : Tensor of shape (n_rows, n_components)
            Makes images of the same condition differ.
        condition : Tensor of shape (n_rows, n_components)
            Fused modalities of each row.

        Returns
        -------
        images : Tensor of shape (n_rows, n_colors, image_size, image_size)
            Images in [-1, 1].
        """
        assert isinstance(module, AdversarialModule)
        return module.generate(noise, condition)


IMAGE_METHODS: dict[str, type[BaseMethod]] = {"flow_matching": FlowMatching, "gan": GAN}
ImageMethod: TypeAlias = Literal["flow_matching", "gan"] | BaseImageMethod


def resolve_method(method: str | BaseImageMethod) -> BaseImageMethod:
    """Return the method that a parameter names or is, with validated parameters."""
    chosen = IMAGE_METHODS[method]() if isinstance(method, str) else method
    assert isinstance(chosen, BaseImageMethod)
    return chosen.check()
