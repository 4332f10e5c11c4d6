"""Pictures of cells of any modality."""

from os import PathLike
from typing import Any, ClassVar

from torch import nn

from skmm._compose._base import BaseFusion
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
from skmm.generation._image_drawing import ImageDrawer
from skmm.nets import STRATEGIES

__all__ = ["ImageGenerator"]

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
        **BaseFusion._parameter_constraints,
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
