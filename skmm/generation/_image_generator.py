"""Images generated from cells of any modality, by networks that are trained."""

from collections.abc import Callable
from typing import Any, ClassVar, Literal, Self

import numpy as np
import torch
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted
from torch import nn

from skmm._compose._base import Modalities, Transformer
from skmm._compose._callbacks import TaskReporter, with_callbacks
from skmm._constraints import FRACTION, POSITIVE_INT, RandomState, StrOptions
from skmm._environment._device import seeded
from skmm._frame._column import n_rows
from skmm._frame._types import CellColumn, Frame
from skmm._training._inputs import JointInputs
from skmm._training._trainer import Trainer, TrainingDefaults, threads_for
from skmm.fusion import FusionStrategy, make_strategy
from skmm.generation._base import BaseGenerator, BaseMethod, chosen_rows
from skmm.generation._image_methods import (
    IMAGE_METHODS,
    BaseImageMethod,
    ImageMethod,
    ImageShape,
    resolve_method,
)
from skmm.generation._image_modules import ImageBatch, ImageGeneratorModule
from skmm.generation._image_scoring import ImageScoreMixin
from skmm.generation._image_targets import (
    ImageTarget,
    TargetImages,
    images_of_rows,
    to_user_images,
)
from skmm.metrics._scorers import Alignment

__all__ = ["ImageGenerator"]

_COLORS = {"L": 1, "RGB": 3, "RGBA": 4}
# Values that a GAN adds to each epoch of ``history_``.
_OF_GAN = ("discriminator_loss", "generator_loss", "spread")


class ImageGenerator(ImageScoreMixin, BaseGenerator):
    """Generate an image for each row, from text, categories, numbers or any encoded modality.

    A joint-fusion strategy fuses all modalities of a row into one vector. On this condition a
    small network, trained from scratch, turns noise into an image. Frozen encoders and other
    transformers run once, and their features are standardized; an encoder whose model is trained,
    from scratch (``"cnn"``, ``"gru"``, ...) or by its ``fine_tune``, is trained together with the
    generating network.

    Parameters
    ----------
    modalities : list of (name, transformer, columns) or "auto", default="auto"
        What the images are generated from, as in ``ColumnTransformer``. ``transformer`` is any
        scikit-learn transformer or pipeline, ``"drop"``, ``"passthrough"`` (numbers, or cells that
        are vectors of one length), or a modality such as ``"text"`` or ``"tabular"`` for its
        default encoder. ``"auto"`` infers the modalities from the training frame.
    method : {"flow_matching", "gan"} or object, default="flow_matching"
        How an image is generated: by integrating a learned velocity from noise to image, or in one
        step by a network trained against a discriminator. An object sets the options of the
        method: :class:`FlowMatching` or :class:`GAN`.
    image_size : int, default=32
        Height and width of the images in pixels, a multiple of 4. Training images are resized to
        it; their aspect ratio is not kept.
    mode : {"auto", "L", "RGB", "RGBA"}, default="auto"
        Gray, color, or color with opacity. ``"auto"`` is the simplest mode that represents all
        training images. Modes without opacity show the images over white.
    strategy : str, FusionStrategy, nn.Module or callable, default="concat"
        How the modalities are fused, as in :class:`~skmm.fusion.JointFusionClassifier`.
    granularity : {"pooled", "sequence"}, default="pooled"
        Whether one vector per modality is fused or its tokens: words, patches, frames, time steps.
    max_tokens : int, default=None
        Maximum number of tokens of a modality, evenly spaced, with ``granularity="sequence"``.
        None keeps all.
    n_components : int, default=128
        Length of the condition, and of the noise of :class:`GAN`.
    n_channels : int, default=32
        Number of channels of the finest layer of the networks; coarser layers have up to 4 times
        as many.
    dropout : float, default=0.1
        Fraction of the units of the fusion and of the U-Net that is zeroed in training. Lower than
        the 0.2 of the fusions, since each image gives one training signal per pixel.
    modality_dropout : float, default=0.0
        Probability that a row loses a modality in a training step. At least one of those that it
        has is kept.
    unconditional_fraction : float, default=0.1
        Fraction of the rows that lose their condition in a training step. The network so learns to
        generate without a condition, for rows without any modality and for the guidance.
    scoring : {"frechet", "alignment"} or callable, default="frechet"
        What ``score`` returns: the negative of :func:`~skmm.metrics.frechet_distance` between
        generated and real images, how well generated images agree with their rows in the space of
        ``alignment`` (:func:`~skmm.metrics.paired_cosine`), or the value of a scikit-learn scorer
        ``scorer(estimator, X, y)``.
    feature_encoder : transformer, default=None
        Encoder of images for ``scoring="frechet"``. An encoder that is not fitted is fitted on the
        images given to ``score``. None is ``ImageEncoder()``.
    alignment : estimator, default=None
        Fitted estimator of ``skmm.alignment`` for ``scoring="alignment"``, with a modality
        ``"image"`` and another one whose columns are in ``X``.
    max_epochs : int, default=None
        Maximum number of passes over the training images. None is that of ``trainer``, 100 by
        default.
    trainer : Trainer, default=None
        How the network is trained: learning rate, batches, early stopping, callbacks. None is
        ``Trainer()``. ``set_params`` and searches reach its parameters by names such as
        ``trainer__learning_rate``, even if ``trainer`` is None.
    all_missing : {"prior", "raise"}, default="prior"
        What to do with a row without any modality: ``"prior"`` generates an image without a
        condition, ``"raise"`` raises ``ModalityMissingError``.
    missing_columns : {"raise", "absent"}, default="raise"
        What happens if a column of the training frame is not in ``X``: ``"raise"`` raises
        ``ValueError``, ``"absent"`` treats the column as missing in every row.
    device : str, default="auto"
        Device of the network: ``"auto"``, ``"cpu"``, ``"cuda"``, ``"cuda:1"``.
    random_state : int, RandomState instance or None, default=None
        Seed of the initial weights, the order of the rows, the dropout, the held-out rows and the
        noise of ``predict``. An int gives the same images in each call.
    verbose : bool or int, default=0
        Whether to print one line per epoch.

    Attributes
    ----------
    modalities_ : list of (name, transformer, columns)
        The modalities used, with their fitted transformers; transformers that are trained with
        the network are included.
    mode_ : {"L", "RGB", "RGBA"}
        Mode of the generated images.
    module_ : nn.Module
        Trained network.
    net_ : skorch.NeuralNet
        The skorch net that trained ``module_``. It is not part of a pickle.
    history_ : list of dict
        One dict per epoch, with ``epoch`` from 1, ``train_loss`` and, if rows are held out,
        ``valid_loss``: the mean squared error of the velocity of a pixel, where noise has variance
        1 and images have variance 1/4. :class:`GAN` holds out no rows and adds
        ``discriminator_loss``, ``generator_loss``, whose sum is ``train_loss``, and ``spread``:
        the standard deviation of a pixel over the generated images, relative to real ones.
    n_iter_ : int
        Number of epochs trained.
    n_features_in_ : int
        Number of columns seen in ``fit``.
    feature_names_in_ : ndarray of str
        Names of the columns seen in ``fit``. Defined only if ``X`` has column names.

    See Also
    --------
    PretrainedImageGenerator : Generate images by a pretrained pipeline.
    skmm.metrics.make_image_scorer : Make a scorer for ``cross_val_score`` and ``GridSearchCV``.
    CaptionGenerator : Write texts for images.
    skmm.retrieval.CrossModalRetriever : Retrieve an existing image instead of generating one.

    Notes
    -----
    ``method``, ``scoring`` and the parameters of the score are read by ``predict`` and ``score``,
    so ``set_params`` changes them on a fitted generator without another training. A method of
    another class than that of ``fit`` requires another fit.

    Examples
    --------
    A bright bar on a dark background, on the left or on the right as the word says:

    >>> import numpy as np
    >>> import pandas as pd
    >>> from sklearn.preprocessing import OneHotEncoder
    >>> from skmm import ImageGenerator, Trainer
    >>> rng = np.random.default_rng(0)
    >>> X = pd.DataFrame({"side": rng.choice(["left", "right"], 96)})
    >>> y = rng.integers(0, 40, (96, 8, 8)).astype(np.uint8)
    >>> y[X["side"] == "left", :, 1:3] = 250
    >>> y[X["side"] == "right", :, 5:7] = 250
    >>> images = ImageGenerator(
    ...     [("side", OneHotEncoder(), ["side"])], image_size=8, n_channels=8, n_components=8,
    ...     max_epochs=30, trainer=Trainer(batch_size=16), random_state=0,
    ... ).fit(X, y)
    >>> left, right, any_side = images.predict(pd.DataFrame({"side": ["left", "right", None]}))
    >>> left.shape, left.dtype
    ((8, 8), dtype('uint8'))
    >>> bool(left[:, 1:3].mean() > left[:, 5:7].mean() + 100)
    True
    >>> bool(right[:, 5:7].mean() > right[:, 1:3].mean() + 100)
    True

    The options of the method are set without another training:

    >>> rough = images.set_params(method__n_steps=2, method__guidance_scale=1.0).predict(X[:4])
    >>> rough.shape
    (4, 8, 8)
    """

    module_: ImageGeneratorModule
    _target: ImageTarget
    _shorthands: ClassVar[dict[str, dict[str, type[BaseMethod]]]] = {"method": IMAGE_METHODS}

    _parameter_constraints: ClassVar[dict[str, Any]] = {
        **BaseGenerator._parameter_constraints,
        "method": [StrOptions(set(IMAGE_METHODS)), BaseImageMethod],
        "image_size": POSITIVE_INT,
        "mode": [StrOptions({"auto", "L", "RGB", "RGBA"})],
        "strategy": [str, FusionStrategy, nn.Module, callable],
        "n_components": POSITIVE_INT,
        "n_channels": POSITIVE_INT,
        "dropout": FRACTION,
        "modality_dropout": FRACTION,
        "unconditional_fraction": FRACTION,
        **ImageScoreMixin._scoring_constraints,
    }

    def __init__(
        self,
        modalities: Modalities = "auto",
        *,
        method: ImageMethod = "flow_matching",
        image_size: int = 32,
        mode: Literal["auto", "L", "RGB", "RGBA"] = "auto",
        strategy: str | FusionStrategy | nn.Module | Callable[..., nn.Module] = "concat",
        granularity: Literal["pooled", "sequence"] = "pooled",
        max_tokens: int | None = None,
        n_components: int = 128,
        n_channels: int = 32,
        dropout: float = 0.1,
        modality_dropout: float = 0.0,
        unconditional_fraction: float = 0.1,
        scoring: Literal["frechet", "alignment"] | Callable[..., float] = "frechet",
        feature_encoder: Transformer | None = None,
        alignment: Alignment | None = None,
        max_epochs: int | None = None,
        trainer: Trainer | None = None,
        all_missing: Literal["prior", "raise"] = "prior",
        missing_columns: Literal["raise", "absent"] = "raise",
        device: str = "auto",
        random_state: RandomState = None,
        verbose: bool | int = 0,
    ):
        self.modalities = modalities
        self.method = method
        self.image_size = image_size
        self.mode = mode
        self.strategy = strategy
        self.granularity = granularity
        self.max_tokens = max_tokens
        self.n_components = n_components
        self.n_channels = n_channels
        self.dropout = dropout
        self.modality_dropout = modality_dropout
        self.unconditional_fraction = unconditional_fraction
        self.scoring = scoring
        self.feature_encoder = feature_encoder
        self.alignment = alignment
        self.max_epochs = max_epochs
        self.trainer = trainer
        self.all_missing = all_missing
        self.missing_columns = missing_columns
        self.device = device
        self.random_state = random_state
        self.verbose = verbose

    @with_callbacks
    def fit(self, X: Frame, y: CellColumn) -> Self:
        """Fit the transformers and train the network, with the encoders that are trained.

        Parameters
        ----------
        X : DataFrame of shape (n_samples, n_columns)
            Cells. Any cell may be missing; rows without any modality train the network without a
            condition.
        y : array-like of shape (n_samples,), or an array of images along its first axis
            Images of any size: arrays, PIL images, paths or the bytes of files. Rows whose image
            is missing are used to fit the transformers, not to train the network.

        Returns
        -------
        self : object
            The fitted generator.
        """
        trainer, X, images = self._check(X, y)
        seed = self._draw_seed()
        # Encode before torch is seeded: only one thread of the process at a time may hold the seed.
        inputs = self._encode(X, seed)
        with (
            seeded(seed),
            TaskReporter(self, X, y, self._n_epochs(trainer), "epoch") as reporter,
        ):
            batch, places = self._build(X, images, inputs)
            callbacks = tuple(self._method.callbacks(type(self).__name__))
            self._train_on(trainer, X, batch, images.pixels, places, seed, reporter, callbacks)
        self.module_.finish()
        self.history_ = [
            {**known, **{name: epoch[name] for name in _OF_GAN if name in epoch}}
            for known, epoch in zip(self.history_, self.net_.history, strict=True)
        ]
        return self

    def _check(self, X: Frame, y: CellColumn) -> tuple[Trainer, Frame, TargetImages]:
        """Check everything before any cell is encoded: trainer, frame and images."""
        trainer = self._check_params()
        self._method = resolve_method(self.method)
        self._method.check_trainer(trainer)
        self._check_scoring()
        self._strategy = make_strategy(self.strategy)
        name = type(self).__name__
        if self.image_size % 4:
            raise ValueError(
                f"{name}: image_size must be a multiple of 4, got {self.image_size}. The networks"
                " halve it twice."
            )
        X = self._check_frame(X, reset=True)
        images = images_of_rows(y, n_rows(X), name, image_size=self.image_size, mode=self.mode)
        if not images.known.any():
            raise ValueError(
                f"{name} has nothing to learn from: y holds no image. Give rows that have one."
            )
        return trainer, X, images

    def _training_defaults(self) -> TrainingDefaults:
        return resolve_method(self.method).training_defaults()

    def _build(
        self, X: Frame, images: TargetImages, inputs: JointInputs
    ) -> tuple[ImageBatch, np.ndarray]:
        """Initialize the trained encoders and build the network.

        Returns a batch of the rows that have an image, and their positions in ``X``.
        """
        batch = inputs.build(X)
        self._refuse_empty(batch.present())
        self._target, self.mode_ = ImageTarget(), images.mode
        shape = ImageShape(
            n_colors=_COLORS[self.mode_],
            image_size=self.image_size,
            n_channels=self.n_channels,
            n_components=self.n_components,
        )
        # Properties of the fitted network, which later set_params do not change.
        self._size, self._noise_shape = self.image_size, self._method.noise_shape(shape)
        self._inputs = inputs
        self.module_ = self._method.make_module(
            shape,
            self._make_encoders(inputs),
            lambda: self._strategy.build(inputs.widths, self.n_components, dropout=self.dropout),
            dropout=self.dropout,
            unconditional_fraction=self.unconditional_fraction,
        )
        rows = np.flatnonzero(images.known)
        own = chosen_rows(batch, rows).modalities
        return ImageBatch(own, image=torch.from_numpy(images.pixels)), rows

    def predict(self, X: Frame) -> np.ndarray:
        """Generate an image for each row.

        Parameters
        ----------
        X : DataFrame of shape (n_samples, n_columns)
            Samples, one in each row. Any cell may be missing.

        Returns
        -------
        images : ndarray of shape (n_samples, image_size, image_size), uint8
            With a last axis of 3 or 4 channels if ``mode_`` is ``"RGB"`` or ``"RGBA"``. The noise
            of a row depends only on ``random_state`` and on the position of the row in ``X``.
        """
        check_is_fitted(self, "module_")
        self._validate_params()  # the method may have been set after fit
        method = resolve_method(self.method)
        method.check_module(self.module_, type(self).__name__)
        X = self._check_frame(X, reset=False)
        batch = ImageBatch(self._inputs.batch(X).modalities)
        self._refuse_empty(batch.present())
        device = self._placed()
        rng, parts = check_random_state(self.random_state), []
        for rows, part in self._parts(batch, np.arange(len(batch))):
            # One stream over all rows, so that the images do not depend on the batches.
            noise_values = rng.standard_normal((len(rows), *self._noise_shape))
            noise = torch.from_numpy(noise_values.astype(np.float32)).to(device)
            with threads_for(self.module_), torch.inference_mode():
                images = method.generate(self.module_, noise, self.module_.condition(part))
                pixels = ((images.float() + 1) * 127.5).round().clamp(0, 255)
            parts.append(pixels.byte().cpu().numpy())
        return to_user_images(np.concatenate(parts), self.mode_)
