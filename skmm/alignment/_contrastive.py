"""Alignment by contrast: partners are drawn together, others pushed apart."""

from typing import Any, ClassVar

from skmm._constraints import (
    FRACTION,
    POSITIVE_INT,
    POSITIVE_REAL,
    RANDOM_STATE,
    VERBOSE,
    StrOptions,
)
from skmm.alignment._base import BaseAlignment
from skmm.alignment._contrastive_training import BaseContrastive
from skmm.nets import CONTRASTIVE_LOSSES

__all__ = ["ContrastiveAlignment"]

_TRAINING = {
    name: constraint
    for name, constraint in BaseContrastive._training_constraints.items()
    if name != "accumulate"
}


class ContrastiveAlignment(BaseContrastive):
    """Bring modalities into one space in which partners lie together [1]_ [2]_.

    Features of frozen encoders, tables and passed-through columns are standardised, and a small
    projection of each modality is trained on them; encoded once. An encoder whose model is
    trained, from scratch (``"cnn"``, ``"gru"``, ...) or by its ``fine_tune``, is trained with the
    projections. The loss is the sum over all pairs of modalities, each over the rows that have
    both, in both directions. Rows that hold the same content (a caption that is there twice) are
    no negatives of each other. With ``y`` rows of one class belong together as well [3]_.

    Parameters
    ----------
    modalities : list of (name, transformer, columns) or "auto", default="auto"
        As in ``ColumnTransformer``, two or more. ``transformer`` is any scikit-learn transformer
        or pipeline, ``"drop"``, ``"passthrough"`` (numbers, or cells that are vectors of one
        length), or a modality such as ``"image"`` or ``"text"`` for its default encoder.
        ``"auto"`` infers the modalities from the training frame.
    n_components : int, default=128
        Length of the vectors.
    loss : {"infonce", "siglip", "triplet", "max_margin"}, default="infonce"
        What is made small:

        - ``"infonce"``: cross-entropy of finding the partner in the batch [1]_ [2]_;
        - ``"siglip"``: each pair on its own by a sigmoid, with a learned bias [4]_;
        - ``"triplet"``: squared distances, ``margin`` apart [5]_;
        - ``"max_margin"``: cosine similarities, ``margin`` apart [6]_.
    negatives : {"all", "hard", "semi_hard"}, default="all"
        Against which rows of the batch a pair is held: all of them; the hardest, that is the one
        most similar to the asking side (``"triplet"``, ``"max_margin"``), or all weighted by how
        similar they are [7]_ (``"infonce"``, ``"siglip"``); or those less similar than the
        partner [5]_, of which the hinge losses take the most similar.
    temperature : float, default=0.1
        Of ``"infonce"`` and ``"siglip"``, where it begins: similarities are divided by it.
    learn_temperature : bool, default=True
        Whether it is learned with the projections; else it stays.
    margin : float, default=0.2
        Of ``"triplet"`` and ``"max_margin"``.
    projection : {"linear", "mlp"}, default="linear"
        A linear map of the features, or one with a hidden layer of ``2 * n_components`` units.
    dropout : float, default=0.2
        Share of the features, with ``"mlp"`` of the hidden units, that is zeroed in training.
    max_epochs : int, default=100
        Most passes over the training rows.
    batch_size : int, default=128
        Rows per step. They are each other's negatives, so more of them say more.
    learning_rate : float or "auto", default="auto"
        Step size of AdamW; ``"auto"`` is 1e-3.
    encoder_learning_rate : float or "auto", default="auto"
        Step size of the encoders that are trained with the projections. ``"auto"`` is, for
        pretrained ones, 5e-5 for the last blocks, 2e-5 for all and 2e-4 for adapters; from
        scratch that of the projections.
    warmup : float, default=0
        Epochs in which all step sizes grow evenly from nothing, such as 1 or 0.5.
    weight_decay : float, default=1e-2
        Decoupled weight decay of AdamW.
    max_grad_norm : float, default=None
        Norm to which the gradient of a step is shortened where it is longer; None leaves it.
    early_stopping : bool, default=False
        Whether to hold out a part of the training rows, stop when its loss no longer falls,
        and go back to the best epoch. With fewer than 40 rows nothing is held out. The loss is a
        strict judge: partners are often found better still after it has begun to rise.
    validation_fraction : float, default=0.1
        Share of the rows held out.
    n_iter_no_change : int, default=10
        Epochs without a better loss after which training stops.
    callbacks : list of skorch callbacks, default=None
        Added to the training; copies are used.
    all_missing : {"prior", "raise"}, default="prior"
        A row that lacks every modality gets zeros, or ``ModalityMissingError`` is raised.
    missing_columns : {"raise", "absent"}, default="raise"
        What to do with a frame that lacks a column of the training frame: raise, or count it as
        absent in every row.
    device : str, default="auto"
        Where the projections are trained: ``"auto"``, ``"cpu"``, ``"cuda"``, ``"cuda:1"``.
    dtype : {"auto", "float32", "bfloat16"}, default="auto"
        Precision of matrix products in training (autocast). ``"auto"`` is bfloat16 on a GPU that
        has it where an encoder is trained, else float32.
    random_state : int, RandomState instance or None, default=None
        Seed of weights, order, dropout and the held-out part.
    verbose : bool or int, default=0
        Whether to print a line an epoch.

    Attributes
    ----------
    modalities_ : list of str
        Names of the modalities, in order.
    transformers_ : list of (name, transformer, columns)
        Fitted transformers, those trained with the projections included.
    n_components_ : int
        Length of the vectors.
    temperature_ : float or None
        Temperature in the end; None for a loss without one.
    module_ : nn.Module
        Trained network.
    net_ : skorch.NeuralNet
        What trained it; not in a pickle.
    history_ : list of dict
        ``train_loss`` and ``valid_loss`` of every epoch.
    n_iter_ : int
        Number of epochs.
    n_features_in_ : int
        Number of columns seen in ``fit``.
    feature_names_in_ : ndarray of str
        Names of the columns seen in ``fit``, if it saw names.

    See Also
    --------
    PretrainedAlignment : A checkpoint that was trained so on millions of pairs.

    References
    ----------
    .. [1] van den Oord, Li, Vinyals (2018), "Representation learning with contrastive predictive
       coding", arXiv:1807.03748.
    .. [2] Radford et al. (2021), "Learning transferable visual models from natural language
       supervision", ICML.
    .. [3] Khosla et al. (2020), "Supervised contrastive learning", NeurIPS.
    .. [4] Zhai, Mustafa, Kolesnikov, Beyer (2023), "Sigmoid loss for language image
       pre-training", ICCV.
    .. [5] Schroff, Kalenichenko, Philbin (2015), "FaceNet: a unified embedding for face
       recognition and clustering", CVPR.
    .. [6] Faghri, Fleet, Kiros, Fidler (2018), "VSE++: improving visual-semantic embeddings with
       hard negatives", BMVC.
    .. [7] Robinson, Chuang, Sra, Jegelka (2021), "Contrastive learning with hard negative
       samples", ICLR.

    Examples
    --------
    >>> from skmm import ContrastiveAlignment
    >>> from skmm.datasets import make_paired_views
    >>> X = make_paired_views(400, noise=0.1, random_state=0).data
    >>> alignment = ContrastiveAlignment(
    ...     [("left", "passthrough", ["view_0"]), ("right", "passthrough", ["view_1"])],
    ...     n_components=16, max_epochs=40, learning_rate=3e-3, random_state=0,
    ... )
    >>> alignment = alignment.fit(X[:300])

    Of a hundred new rows, where chance is 0.01:

    >>> bool(alignment.score(X[300:]) > 0.2)
    True
    >>> alignment.transform_modality(X[["view_1"]], "right").shape
    (400, 16)
    """

    _parameter_constraints: ClassVar[dict[str, Any]] = {
        **BaseAlignment._parameter_constraints,
        **_TRAINING,
        "n_components": POSITIVE_INT,
        "loss": [StrOptions(set(CONTRASTIVE_LOSSES))],
        "negatives": [StrOptions({"all", "hard", "semi_hard"})],
        "temperature": POSITIVE_REAL,
        "learn_temperature": ["boolean"],
        "margin": POSITIVE_REAL,
        "projection": [StrOptions({"linear", "mlp"})],
        "dropout": FRACTION,
        "random_state": RANDOM_STATE,
        "verbose": VERBOSE,
    }

    def __init__(
        self,
        modalities: Any = "auto",
        *,
        n_components: int = 128,
        loss: str = "infonce",
        negatives: str = "all",
        temperature: float = 0.1,
        learn_temperature: bool = True,
        margin: float = 0.2,
        projection: str = "linear",
        dropout: float = 0.2,
        max_epochs: int = 100,
        batch_size: int = 128,
        learning_rate: float | str = "auto",
        encoder_learning_rate: float | str = "auto",
        warmup: float = 0,
        weight_decay: float = 1e-2,
        max_grad_norm: float | None = None,
        early_stopping: bool = False,
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
        self.n_components = n_components
        self.loss = loss
        self.negatives = negatives
        self.temperature = temperature
        self.learn_temperature = learn_temperature
        self.margin = margin
        self.projection = projection
        self.dropout = dropout
        self.max_epochs = max_epochs
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.encoder_learning_rate = encoder_learning_rate
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
