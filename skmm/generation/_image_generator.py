"""Pictures of cells of any modality."""

from contextlib import AbstractContextManager
from os import PathLike
from typing import Any, ClassVar, Self

import numpy as np
import torch
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted
from torch import Tensor, nn

from skmm._compose._base import BaseMultimodalEstimator
from skmm._compose._callbacks import TaskReporter, with_callbacks
from skmm._compose._default_encoder import default_encoder
from skmm._constraints import (
    FRACTION,
    LEARNING_RATE,
    NON_NEGATIVE,
    POSITIVE_INT,
    RANDOM_STATE,
    VERBOSE,
    HasMethods,
    StrOptions,
)
from skmm._environment._device import resolve_dtype, seeded, shared_threads
from skmm._frame._column import n_rows
from skmm._training._inputs import JointInputs
from skmm._training._net import TensorDataset
from skmm.generation._base import BaseGenerator
from skmm.generation._image_modules import (
    PICTURE,
    AdversarialModule,
    FlowModule,
    KeepAverage,
    PictureModule,
    WatchGame,
    set_players,
)
from skmm.generation._image_targets import TargetPictures, pictures_of_rows, shown
from skmm.generation._pretrained_images import PretrainedImages
from skmm.metrics import make_picture_scorer
from skmm.nets import (
    STRATEGIES,
    GANImageGenerator,
    GivenLoss,
    ImageDiscriminator,
    ImageUNet,
    make_fusion,
)

__all__ = [
    "BaseImages",
    "ImageDrawer",
    "ImageGenerator",
]

# --- How an image generator is trained ---

_COLORS = {"L": 1, "RGB": 3, "RGBA": 4}
_STEP_SIZES = {"flow_matching": 1e-3, "gan": 3e-4}
_FASTER = 4.0  # the discriminator than the generator
_LOSSES = ("train_loss", "valid_loss", "discriminator_loss", "generator_loss", "spread")


class _NoCode:
    """The target of the trainer: nothing, for the pictures are among the inputs."""

    def tensor(self, target: np.ndarray) -> Tensor:
        """Target as the loss takes it."""
        return torch.from_numpy(target)

    def strata(self, target: np.ndarray) -> None:
        """Pictures fall into no classes."""


class BaseImages(PretrainedImages, BaseGenerator):
    """Training of the networks that draw, with the trainer of the joint fusions."""

    module_: PictureModule
    _code = _NoCode()

    # Parameters of the generator, told to type checkers.
    method: str
    strategy: Any
    image_size: int
    mode: str
    n_components: int
    n_channels: int
    unconditional_fraction: float
    ema_decay: float
    max_epochs: int
    discriminator_learning_rate: float | str
    _size: int
    _noise_shape: tuple[int, ...]

    @with_callbacks
    def fit(self, X: Any, y: Any = None) -> Self:
        """Fit the transformers and train the network that draws, and encoders that need training.

        With ``model`` nothing is trained: the column of texts and the pipeline are looked for, and
        the pictures of ``y`` tell no more than their colours.

        Parameters
        ----------
        X : DataFrame of shape (n_samples, n_columns)
            Cells; any row may lack any modality. One that lacks all teaches what pictures look
            like without a condition.
        y : array-like of shape (n_samples,), or an array of pictures along its first axis
            Pictures: arrays, PIL images, paths or the bytes of files, of any size. A row whose
            picture is missing is not learned from, but its cells are seen by the transformers.
            With ``model`` None will do.

        Returns
        -------
        self : object
            The fitted generator.
        """
        self._validate_params()
        if self.model is not None:
            return self._fit_pretrained(X, y)
        self.checkpoint_ = None
        if self.image_size % 4:
            raise ValueError(
                f"{type(self).__name__}: image_size must be a multiple of 4, got"
                f" {self.image_size}. Networks halve it."
            )
        X = self._check_frame(X, reset=True)
        pictures = pictures_of_rows(
            y, n_rows(X), type(self).__name__, image_size=self.image_size, mode=self.mode
        )
        inputs, seed = self._frozen_inputs(X)
        with seeded(seed), TaskReporter(self, X, y, self.max_epochs, "epoch") as reporter:
            tensors, rows = self._start(X, pictures, inputs)
            held_out = self._hold_out(rows, rows, seed)
            if self.method == "gan":
                held_out = rows[:0]  # the losses of a game do not tell how good the pictures are
            train, valid = (
                self._pictures_of(tensors, pictures, own, X)
                for own in (np.setdiff1d(rows, held_out), held_out)
            )
            self.module_.measure(train.inputs[PICTURE])
            self._new_net(
                self._all_callbacks(reporter, *self._own_callbacks()),
                valid if len(held_out) else None,
                max_epochs=self.max_epochs,
            )
            self._train(train)
        return self

    def _start(
        self, X: Any, pictures: TargetPictures, inputs: JointInputs
    ) -> tuple[dict[str, Tensor], np.ndarray]:
        """Start the networks that are trained, and build the one that draws.

        Returns tensors of all rows, and the rows to learn from.
        """
        tensors, networks = self._all_inputs(X, inputs)
        self._refuse_empty(inputs.present(tensors))
        rows = np.flatnonzero(pictures.known)
        if not len(rows):
            raise ValueError(
                f"{type(self).__name__} has nothing to learn from: y holds no picture. Give rows"
                " that have one."
            )
        self._inputs, self.mode_ = inputs, pictures.mode
        widths = {block.name: inputs.widths[block.name] for block in inputs.blocks}
        self.module_ = self._make_module(widths, networks)
        self.history_ = []
        return tensors, rows

    def _make_module(self, widths: dict[str, int], networks: dict[str, nn.Module]) -> PictureModule:
        n_colors, width = _COLORS[self.mode_], self.n_components
        is_game = self.method == "gan"
        options: dict[str, Any] = {
            "modality_dropout": self.modality_dropout,
            "unconditional_fraction": self.unconditional_fraction,
            "ema_decay": self.ema_decay,
            "granularity": self.granularity,
            "max_tokens": self.max_tokens,
        }
        size, channels = self.image_size, {"n_channels": self.n_channels}
        # Of the fitted network, whatever the parameters are set to later.
        self._size, self._noise_shape = size, (width,) if is_game else (n_colors, size, size)
        own = (widths, networks, self._make_fusion(widths), width)
        if is_game:
            return AdversarialModule(
                *own,
                GANImageGenerator(n_colors, size, width, width, **channels),
                judge=ImageDiscriminator(n_colors, size, width, **channels),
                judge_fusion=self._make_fusion(widths),
                **options,
            )
        head = ImageUNet(n_colors, size, width, dropout=self.dropout, **channels)
        return FlowModule(*own, head, **options)

    def _make_fusion(self, widths: dict[str, int]) -> nn.Module:
        return make_fusion(self.strategy, widths, self.n_components, dropout=self.dropout)

    def _pictures_of(
        self, tensors: dict[str, Tensor], pictures: TargetPictures, rows: np.ndarray, X: Any
    ) -> TensorDataset:
        """Some rows with their pictures, for the trainer."""
        n = len(pictures.known)
        places = np.cumsum(pictures.known)[rows] - 1
        train = self._dataset(tensors, np.zeros(n, dtype=np.float32), None, rows, X)
        own = torch.from_numpy(pictures.pixels[places])
        train.inputs[PICTURE] = own.to(train.target.device)
        return train

    def _own_callbacks(self) -> list[tuple[str, Any]]:
        own: list[tuple[str, Any]] = [("skmm_average", KeepAverage())]
        if self.method == "gan":
            own.append(("skmm_game", WatchGame(self.n_iter_no_change, type(self).__name__)))
        return own

    def _new_net(
        self, callbacks: list[Any], valid: TensorDataset | None, *, max_epochs: int
    ) -> None:
        super()._new_net(callbacks, valid, max_epochs=max_epochs)
        if self.method == "gan":
            rate = self.discriminator_learning_rate
            set_players(self.net_, _FASTER * self._step_size() if rate == "auto" else float(rate))

    def _train(self, train: TensorDataset) -> None:
        super()._train(train)
        self.module_.finish()
        self.history_ = [
            {name: epoch[name] for name in _LOSSES if name in epoch} for epoch in self.net_.history
        ]

    def _criterion(self) -> nn.Module:
        return GivenLoss()

    def _step_size(self) -> float:
        if self.learning_rate == "auto":
            return _STEP_SIZES[self.method]
        return float(self.learning_rate)

    def _is_half(self, device: torch.device) -> bool:
        if self.dtype == "auto":
            return resolve_dtype("auto", device) == torch.bfloat16
        return self.dtype == "bfloat16"

    def _threads(self) -> AbstractContextManager[Any]:
        """All threads there are: convolutions gain by them, other than small dense layers."""
        return shared_threads()


# --- What a fitted image generator does: draws, scores ---


class ImageDrawer(BaseImages):
    """The methods of an image generator beside ``fit``."""

    module_: Any
    # Parameters of the generator, told to type checkers.
    n_steps: int
    solver: str
    guidance_scale: float
    scoring: Any
    feature_encoder: Any
    alignment: Any
    random_state: Any

    def predict(self, X: Any) -> np.ndarray:
        """Draw a picture for each row.

        Parameters
        ----------
        X : DataFrame of shape (n_samples, n_columns)
            Cells; any row may lack any modality.

        Returns
        -------
        pictures : ndarray of shape (n_samples, image_size, image_size), uint8
            With a last axis of 3 or 4 channels if ``mode_`` is ``"RGB"`` or ``"RGBA"``. The noise
            of a row depends on ``random_state`` and on its place in ``X`` alone.
        """
        self._validate_params()  # those of the drawing may have been set after fit
        if self.model is not None:
            return self._draw_pretrained(X)
        check_is_fitted(self, "module_")
        self._check_guidance()
        X = self._check_frame(X, reset=False)
        device = self._placed()
        inputs = self._inputs.tensors(X)
        present = self._inputs.present(inputs)
        self._refuse_empty(present)
        rng, parts = check_random_state(self.random_state), []
        for rows, batch in self._batches(inputs, np.arange(len(present)), device):
            # One stream over all rows: what a row gets does not depend on the batches.
            noise = rng.standard_normal((len(rows), *self._noise_shape))
            parts.append(self._draw(batch, torch.from_numpy(noise.astype(np.float32)).to(device)))
        return shown(np.concatenate(parts), self.mode_)

    def _draw(self, batch: dict[str, Tensor], noise: Tensor) -> np.ndarray:
        options = {name: getattr(self, name) for name in ("n_steps", "solver", "guidance_scale")}
        with self._threads(), torch.inference_mode():
            drawn = self.module_.draw(noise, self.module_.condition(**batch), **options)
            pixels = ((drawn.float() + 1) * 127.5).round().clamp(0, 255)
        return pixels.byte().cpu().numpy()

    def _check_guidance(self) -> None:
        guided = isinstance(self.module_, FlowModule) and self.guidance_scale != 1
        if guided and not self.module_.unconditional_fraction:
            raise ValueError(
                f"{type(self).__name__}: guidance_scale={self.guidance_scale} needs a network that"
                " was fitted with an unconditional_fraction above 0. Set guidance_scale=1, or fit"
                " again."
            )

    def score(self, X: Any, y: Any) -> float:
        """Return how near the pictures that are drawn are to those given, or to what they show.

        Parameters
        ----------
        X : DataFrame of shape (n_samples, n_columns)
            Cells.
        y : array-like of shape (n_samples,)
            Pictures as for ``fit``. Rows without one are left out.

        Returns
        -------
        score : float
            By ``scoring``, higher is better.
        """
        check_is_fitted(self, "mode_")
        self._validate_params()
        if callable(self.scoring):
            return float(self.scoring(y, self.predict(X)))
        if self.scoring == "alignment":
            if self.alignment is None:
                raise ValueError(
                    f"{type(self).__name__}: scoring='alignment' needs alignment=, a fitted"
                    " estimator of skmm.alignment. Give one, or set scoring='frechet'."
                )
            return float(make_picture_scorer("alignment", alignment=self.alignment)(self, X, y))
        owner = f"{type(self).__name__}.score"
        real = pictures_of_rows(y, n_rows(X), owner, image_size=self._size, mode=self.mode_)
        # Of the size and the colours of those that are drawn: the rest they cannot have.
        cells = np.full(len(real.known), None, dtype=object)
        pictures = list(shown(real.pixels, self.mode_))
        for row, picture in zip(np.flatnonzero(real.known), pictures, strict=True):
            cells[row] = picture
        encoder = self._fitted_encoder(pictures)
        return float(make_picture_scorer("frechet", encoder=encoder)(self, X, cells))

    def _fitted_encoder(self, pictures: list[np.ndarray]) -> Any:
        """Encoder whose features are compared, fitted on real pictures if it is not yet."""
        encoder: Any = self.feature_encoder
        if encoder is None:
            encoder = default_encoder("image")
        try:
            check_is_fitted(encoder)
        except NotFittedError:
            encoder = clone(encoder).fit(pictures)
        return encoder


_TRAINING = {
    name: constraint
    for name, constraint in ImageDrawer._training_constraints.items()
    if name != "accumulate"
}


class ImageGenerator(ImageDrawer):
    """Draw a picture for each row, from a text, a category, numbers or anything encoded.

    Features of frozen encoders, tables and passed-through columns are standardised and encoded
    once; an encoder whose model is trained, from scratch (``"cnn"``, ``"gru"``, ...) or by its
    ``fine_tune``, is trained with the network that draws. A joint-fusion strategy makes one vector
    of all modalities of a row: the condition under which a small network, trained from scratch,
    turns noise into a picture.

    Parameters
    ----------
    modalities : list of (name, transformer, columns) or "auto", default="auto"
        What the pictures are drawn from, as in ``ColumnTransformer``. ``transformer`` is any
        scikit-learn transformer or pipeline, ``"drop"``, ``"passthrough"`` (numbers, or cells that
        are vectors of one length), or a modality such as ``"text"`` or ``"tabular"`` for its
        default encoder. ``"auto"`` infers the modalities from the training frame.
    method : {"flow_matching", "gan"}, default="flow_matching"
        How a picture is drawn:

        - ``"flow_matching"``: in some steps from noise along the velocity that a U-Net gives,
          trained by plain regression [1]_, [2]_. Better pictures, and trained without surprises.
        - ``"gan"``: in one go, by a generator that a discriminator teaches: the projection
          discriminator [3]_ with hinge loss, spectral normalisation [4]_, two step sizes [5]_ and,
          among what it is to refuse, real pictures under the condition of another row [6]_.
    model : str or path, default=None
        Folder or hub name of a pretrained pipeline of ``diffusers`` that draws from a text, such as
        Stable Diffusion: safetensors only, never code of its own. ``fit`` then trains nothing, and
        ``modalities`` is one triple such as ``("text", "text", ["column"])``. Its pictures are
        brought to ``image_size``. None trains a network.
    prompt : str, default=None
        With ``model``: what it is told, ``"a photo of {}"``, with the text in place of the braces;
        None for the text alone.
    image_size : int, default=32
        Height and width of the pictures in pixels, a multiple of 4. Training pictures are brought
        to it, whatever their proportions.
    mode : {"auto", "L", "RGB", "RGBA"}, default="auto"
        Grey, colour, or colour with opacity; ``"auto"`` is the least that holds all training
        pictures. Where it drops the opacity, white shows through.
    strategy : str, callable or nn.Module, default="concat"
        How the modalities are fused, as in :class:`~skmm.fusion.JointFusionClassifier`.
    granularity : {"pooled", "sequence"}, default="pooled"
        Whether vectors or tokens of the modalities are fused.
    max_tokens : int, default=None
        Most tokens of a modality that are fused, evenly spaced; None for all.
    n_components : int, default=128
        Length of the condition, and of the noise of ``"gan"``.
    n_channels : int, default=32
        Width of the networks' finest layer; coarser ones have up to 4 times as many channels.
    dropout : float, default=0.1
        Share of units that is zeroed in training, of the fusion and of the U-Net.
    modality_dropout : float, default=0.0
        Probability that a row loses a modality in training; one always stays.
    unconditional_fraction : float, default=0.1
        Share of the rows that lose all modalities in training. So the network learns to draw
        without a condition, for rows that lack them and for the guidance.
    n_steps : int, default=16
        Of ``"flow_matching"``: steps from noise to picture. More follow the way more closely.
    solver : {"euler", "heun"}, default="euler"
        Of ``"flow_matching"``: what makes a step, of first order, or of second order at twice the
        cost.
    guidance_scale : float, default=2.0
        Of ``"flow_matching"``: how far the velocity is pushed from that without condition to that
        with it and beyond [7]_. 1 draws from what was learned; more draws pictures that show their
        condition more clearly and vary less.
    ema_decay : float, default=0.995
        Decay, for each step, of the moving average of the weights, by which pictures are drawn.
    scoring : {"frechet", "alignment"} or callable, default="frechet"
        What ``score`` measures: the negative of :func:`~skmm.metrics.frechet_distance` between
        drawn and real pictures, whether drawn pictures agree with their rows in the space of
        ``alignment`` (:func:`~skmm.metrics.paired_cosine`), or a function of
        ``(y_true, y_pred)``.
    feature_encoder : transformer, default=None
        Gives the features of pictures for ``"frechet"``. One that is not fitted is fitted on the
        pictures given to ``score``. None is ``ImageEncoder()``.
    alignment : estimator, default=None
        Of ``"alignment"``: fitted, of ``skmm.alignment``, with a modality ``"image"`` and
        another one whose columns are in ``X``.
    max_epochs : int, default=100
        Most passes over the training pictures.
    batch_size : int, default=64
        Pictures per step.
    learning_rate : float or "auto", default="auto"
        Step size of AdamW; ``"auto"`` is 1e-3 for ``"flow_matching"`` and 3e-4 for ``"gan"``.
    encoder_learning_rate : float or "auto", default="auto"
        Step size of the encoders that are trained with the network. ``"auto"`` is, for pretrained
        ones, 5e-5 for the last blocks, 2e-5 for all and 2e-4 for adapters; from scratch that of
        the network.
    discriminator_learning_rate : float or "auto", default="auto"
        Of ``"gan"``: step size of the discriminator; ``"auto"`` is 4 times the generator's.
    warmup : float, default=0
        Epochs in which all step sizes grow evenly from nothing, such as 1 or 0.5.
    weight_decay : float, default=0.0
        Decoupled weight decay of AdamW.
    max_grad_norm : float, default=1.0
        Norm to which the gradient of a step is shortened where it is longer; None leaves it. Of
        ``"flow_matching"``.
    early_stopping : bool, default=True
        Of ``"flow_matching"``: whether to hold out a part of the training rows, stop when the
        error of their velocities no longer falls, and go back to the best epoch. With fewer than
        40 rows nothing is held out. A game has no such measure and goes on to the last epoch.
    validation_fraction : float, default=0.1
        Share of the rows held out.
    n_iter_no_change : int, default=10
        Epochs without a smaller error after which training stops. Of ``"gan"``: epochs in which
        one player must have lost for the game to be given up.
    callbacks : list of skorch callbacks, default=None
        Added to the training; copies are used.
    all_missing : {"prior", "raise"}, default="prior"
        A row that lacks every modality gets a picture that is drawn without condition, or
        ``ModalityMissingError`` is raised.
    missing_columns : {"raise", "absent"}, default="raise"
        What to do with a frame that lacks a column of the training frame: raise, or count it as
        absent in every row.
    device : str, default="auto"
        Where the network is trained and draws: ``"auto"``, ``"cpu"``, ``"cuda"``, ``"cuda:1"``.
    dtype : {"auto", "float32", "bfloat16"}, default="auto"
        Precision of matrix products in training (autocast). ``"auto"`` is bfloat16 on a GPU that
        has it, else float32.
    random_state : int, RandomState instance or None, default=None
        Seed of weights, order, dropout, the held-out part, and of the noise of ``predict``: the
        same int, the same pictures.
    verbose : bool or int, default=0
        Whether to print a line an epoch.

    Attributes
    ----------
    modalities_ : list of (name, transformer, columns)
        Fitted transformers, those trained with the network included.
    mode_ : {"L", "RGB", "RGBA"}
        What pictures are drawn.
    module_ : nn.Module
        Trained network. Neither it nor anything else about training is there with ``model``.
    checkpoint_ : dict or None
        With ``model``: name, source and sha256 of the pretrained pipeline.
    net_ : skorch.NeuralNet
        What trained it; not in a pickle.
    history_ : list of dict
        For every epoch ``train_loss`` and, of held-out rows, ``valid_loss``: the squared error of
        the velocity, of pictures with variance 1/4. Of ``"gan"``: ``discriminator_loss``,
        ``generator_loss``, their sum ``train_loss``, and ``spread``, how much drawn pictures vary,
        as a share of real ones.
    n_iter_ : int
        Number of epochs.
    n_features_in_ : int
        Number of columns seen in ``fit``.
    feature_names_in_ : ndarray of str
        Names of the columns seen in ``fit``, if it saw names.

    See Also
    --------
    skmm.metrics.make_picture_scorer : For ``cross_val_score`` and ``GridSearchCV``.
    CaptionGenerator : The way back, from pictures to texts.
    skmm.retrieval.CrossModalRetriever : Finds a picture that is there instead of drawing one.

    Notes
    -----
    The parameters from ``n_steps`` to ``guidance_scale``, and those of the score, are read when
    they are used: after ``set_params`` a fitted generator draws another way, without training
    again.

    With ``model`` these have a meaning: ``modalities``, ``prompt``, ``image_size``, ``mode``,
    ``n_steps``, ``guidance_scale``, those of the score, ``batch_size``, ``all_missing``,
    ``missing_columns``, ``device``, ``dtype`` and ``random_state``. A pipeline's own documentation
    tells its usual ``guidance_scale``, often 7.5, and ``n_steps``. A row without a text is drawn
    from the empty prompt. A pickle holds the name and the digest of the pipeline, no weights.

    A GAN whose loss is no number, whose pictures are all alike, or whose discriminator is never
    wrong raises ``ConvergenceError``.

    References
    ----------
    .. [1] Lipman, Chen, Ben-Hamu, Nickel, Le (2023), "Flow matching for generative modeling",
       ICLR.
    .. [2] Liu, Gong, Liu (2023), "Flow straight and fast: learning to generate and transfer data
       with rectified flow", ICLR.
    .. [3] Miyato, Koyama (2018), "cGANs with projection discriminator", ICLR.
    .. [4] Miyato, Kataoka, Koyama, Yoshida (2018), "Spectral normalization for generative
       adversarial networks", ICLR.
    .. [5] Heusel, Ramsauer, Unterthiner, Nessler, Hochreiter (2017), "GANs trained by a two
       time-scale update rule converge to a local Nash equilibrium", NeurIPS.
    .. [6] Reed, Akata, Yan, Logeswaran, Schiele, Lee (2016), "Generative adversarial text to image
       synthesis", ICML.
    .. [7] Ho, Salimans (2022), "Classifier-free diffusion guidance", arXiv:2207.12598.

    Examples
    --------
    A bright bar on a dark ground, at the left or at the right as the word says:

    >>> import numpy as np
    >>> import pandas as pd
    >>> from sklearn.preprocessing import OneHotEncoder
    >>> from skmm import ImageGenerator
    >>> rng = np.random.default_rng(0)
    >>> X = pd.DataFrame({"side": rng.choice(["left", "right"], 96)})
    >>> y = rng.integers(0, 40, (96, 8, 8)).astype(np.uint8)
    >>> y[X["side"] == "left", :, 1:3] = 250
    >>> y[X["side"] == "right", :, 5:7] = 250
    >>> images = ImageGenerator(
    ...     [("side", OneHotEncoder(), ["side"])], image_size=8, n_channels=8, n_components=8,
    ...     batch_size=16, max_epochs=30, random_state=0,
    ... ).fit(X, y)
    >>> left, right, any_side = images.predict(pd.DataFrame({"side": ["left", "right", None]}))
    >>> left.shape, left.dtype
    ((8, 8), dtype('uint8'))
    >>> bool(left[:, 1:3].mean() > left[:, 5:7].mean() + 100)
    True
    >>> bool(right[:, 5:7].mean() > right[:, 1:3].mean() + 100)
    True

    How it draws is set without training again:

    >>> rough = images.set_params(n_steps=2, guidance_scale=1.0).predict(X[:4])
    >>> rough.shape
    (4, 8, 8)
    """

    _parameter_constraints: ClassVar[dict[str, Any]] = {
        **BaseMultimodalEstimator._parameter_constraints,
        **_TRAINING,
        "method": [StrOptions({"flow_matching", "gan"})],
        "model": [str, PathLike, None],
        "prompt": [str, None],
        "image_size": POSITIVE_INT,
        "mode": [StrOptions({"auto", "L", "RGB", "RGBA"})],
        "strategy": [StrOptions(set(STRATEGIES)), nn.Module, callable],
        "granularity": [StrOptions({"pooled", "sequence"})],
        "max_tokens": [*POSITIVE_INT, None],
        "n_components": POSITIVE_INT,
        "n_channels": POSITIVE_INT,
        "dropout": FRACTION,
        "modality_dropout": FRACTION,
        "unconditional_fraction": FRACTION,
        "n_steps": POSITIVE_INT,
        "solver": [StrOptions({"euler", "heun"})],
        "guidance_scale": NON_NEGATIVE,
        "ema_decay": FRACTION,
        "scoring": [StrOptions({"frechet", "alignment"}), callable],
        "feature_encoder": [HasMethods(["fit", "transform"]), None],
        "alignment": [HasMethods("transform_modality"), None],
        "discriminator_learning_rate": [*LEARNING_RATE, StrOptions({"auto"})],
        "random_state": RANDOM_STATE,
        "verbose": VERBOSE,
    }

    def __init__(
        self,
        modalities: Any = "auto",
        *,
        method: str = "flow_matching",
        model: Any = None,
        prompt: str | None = None,
        image_size: int = 32,
        mode: str = "auto",
        strategy: Any = "concat",
        granularity: str = "pooled",
        max_tokens: int | None = None,
        n_components: int = 128,
        n_channels: int = 32,
        dropout: float = 0.1,
        modality_dropout: float = 0.0,
        unconditional_fraction: float = 0.1,
        n_steps: int = 16,
        solver: str = "euler",
        guidance_scale: float = 2.0,
        ema_decay: float = 0.995,
        scoring: Any = "frechet",
        feature_encoder: Any = None,
        alignment: Any = None,
        max_epochs: int = 100,
        batch_size: int = 64,
        learning_rate: float | str = "auto",
        encoder_learning_rate: float | str = "auto",
        discriminator_learning_rate: float | str = "auto",
        warmup: float = 0,
        weight_decay: float = 0.0,
        max_grad_norm: float | None = 1.0,
        early_stopping: bool = True,
        validation_fraction: float = 0.1,
        n_iter_no_change: int = 10,
        callbacks: Any = None,
        all_missing: str = "prior",
        missing_columns: str = "raise",
        device: str = "auto",
        dtype: str = "auto",
        random_state: Any = None,
        verbose: Any = 0,
    ):
        self.modalities = modalities
        self.method = method
        self.model = model
        self.prompt = prompt
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
        self.n_steps = n_steps
        self.solver = solver
        self.guidance_scale = guidance_scale
        self.ema_decay = ema_decay
        self.scoring = scoring
        self.feature_encoder = feature_encoder
        self.alignment = alignment
        self.max_epochs = max_epochs
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.encoder_learning_rate = encoder_learning_rate
        self.discriminator_learning_rate = discriminator_learning_rate
        self.warmup = warmup
        self.weight_decay = weight_decay
        self.max_grad_norm = max_grad_norm
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.n_iter_no_change = n_iter_no_change
        self.callbacks = callbacks
        self.all_missing = all_missing
        self.missing_columns = missing_columns
        self.device = device
        self.dtype = dtype
        self.random_state = random_state
        self.verbose = verbose
