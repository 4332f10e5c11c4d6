"""Alignment by contrast: partners are drawn together, others pushed apart."""

import copy
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal, Self, cast

import numpy as np
import pandas as pd
import torch
from numpy.typing import ArrayLike
from sklearn.utils import check_consistent_length, column_or_1d
from torch import Tensor, nn
from torch.nn import functional

from skmm._compose._base import Modalities
from skmm._compose._block import Block
from skmm._compose._callbacks import TaskReporter, with_callbacks
from skmm._constraints import (
    FRACTION,
    POSITIVE_INT,
    RANDOM_STATE,
    VERBOSE,
    HasMethods,
    RandomState,
    StrOptions,
)
from skmm._environment._device import seeded
from skmm._frame._column import n_rows
from skmm._frame._types import Frame
from skmm._training._inputs import JointInputs
from skmm._training._module import SEPARATOR, modality_tensors
from skmm._training._net import Report
from skmm._training._trainer import TrainingMixin
from skmm.alignment._base import BaseAlignment, Cells
from skmm.alignment._contrastive_losses import (
    LOSS_SHORTHANDS,
    BaseAlignmentLoss,
    LossShorthand,
    loss_module,
)
from skmm.alignment._recall import content_codes
from skmm.nets import ContrastiveLoss, PairwiseContrast, Perceptron

__all__ = ["AlignmentModule", "ContrastiveAlignment"]

_STEP_SIZE = 1e-3
_TRAINING = {
    name: constraint
    for name, constraint in TrainingMixin._training_constraints.items()
    if name != "accumulate"
}


class _PairCode:
    """What a row is for the loss: content of each modality and class, (n_rows, n + 1)."""

    def tensor(self, target: np.ndarray) -> Tensor:
        """Target as the loss takes it."""
        return torch.from_numpy(target)

    def strata(self, target: np.ndarray) -> np.ndarray | None:
        """Classes, if any are known: a held-out part should hold them in the same shares."""
        return target[:, -1] if (target[:, -1] >= 0).any() else None


class ContrastiveAlignment(TrainingMixin, BaseAlignment[dict[str, Tensor]]):
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
    loss : {"infonce", "siglip", "triplet", "max_margin"}, loss or nn.Module, default="infonce"
        What is made small:

        - ``"infonce"``: cross-entropy of finding the partner in the batch [1]_ [2]_;
        - ``"siglip"``: each pair on its own by a sigmoid, with a learned bias [4]_;
        - ``"triplet"``: squared distances, a margin apart [5]_;
        - ``"max_margin"``: cosine similarities, a margin apart [6]_.

        The strings stand for :class:`InfoNCE`, :class:`SigLIP`, :class:`Triplet` and
        :class:`MaxMargin` with their defaults; give such an object to set the temperature, the
        margin or the choice of negatives. Also a network of your own that is called as
        :class:`skmm.nets.ContrastiveLoss` is, of which a copy is trained; or any object whose
        ``build(batch_size)`` returns one.
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
        Temperature of the loss in the end; None for a loss without one.
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
    InfoNCE, SigLIP, Triplet, MaxMargin : Losses with their parameters.
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

    module_: "AlignmentModule"
    accumulate = 1  # a loss that compares rows has no parts to add up
    _code = _PairCode()

    _parameter_constraints: ClassVar[dict[str, Any]] = {
        **BaseAlignment._parameter_constraints,
        **_TRAINING,
        "n_components": POSITIVE_INT,
        "loss": [StrOptions(set(LOSS_SHORTHANDS)), HasMethods("build"), nn.Module],
        "projection": [StrOptions({"linear", "mlp"})],
        "dropout": FRACTION,
        "random_state": RANDOM_STATE,
        "verbose": VERBOSE,
    }

    def __init__(
        self,
        modalities: Modalities = "auto",
        *,
        n_components: int = 128,
        loss: LossShorthand | BaseAlignmentLoss | nn.Module = "infonce",
        projection: Literal["linear", "mlp"] = "linear",
        dropout: float = 0.2,
        max_epochs: int = 100,
        batch_size: int = 128,
        learning_rate: float | Literal["auto"] = "auto",
        encoder_learning_rate: float | Literal["auto"] = "auto",
        warmup: float = 0,
        weight_decay: float = 1e-2,
        max_grad_norm: float | None = None,
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        n_iter_no_change: int = 10,
        callbacks: Sequence[object] | None = None,
        all_missing: Literal["prior", "raise"] = "prior",
        missing_columns: Literal["raise", "absent"] = "raise",
        device: str = "auto",
        dtype: Literal["auto", "float32", "bfloat16"] = "auto",
        random_state: RandomState = None,
        verbose: bool | int = 0,
    ):
        self.modalities = modalities
        self.n_components = n_components
        self.loss = loss
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

    @with_callbacks
    def fit(self, X: Frame, y: ArrayLike | None = None) -> Self:
        """Fit the transformers and train the projections, and encoders that need training.

        Parameters
        ----------
        X : DataFrame of shape (n_samples, n_columns)
            Cells; any row may lack any modality. Rows with fewer than two are not learned from.
        y : array-like of shape (n_samples,), default=None
            Classes: rows of one class belong together too. A row whose class is missing belongs
            to itself alone.

        Returns
        -------
        self : object
            The fitted alignment.
        """
        self._validate_params()
        X = self._check_frame(X, reset=True)
        classes = _class_codes(X, y)
        seed = self._draw_seed()
        blocks = [Block(modality, seed) for modality in self._resolve(X)]
        self._refuse_single(blocks, usable=False)
        inputs = JointInputs(blocks)
        given = None if y is None else np.asarray(y)
        # Before torch is seeded, for that lets in one thread of the process at a time.
        inputs.fit_frozen(X, given)
        with seeded(seed), TaskReporter(self, X, y, self.max_epochs, "epoch") as reporter:
            tensors = self._start(X, given, inputs)
            present = inputs.present(tensors)
            target = self._target(tensors, present, classes)
            rows = np.flatnonzero(present.sum(axis=1) >= 2)
            held_out = self._hold_out(rows, target, seed)
            rows = np.setdiff1d(rows, held_out)
            self._new_net(
                [*copy.deepcopy(list(self.callbacks or [])), ("skmm_report", Report(reporter))],
                self._dataset(tensors, target, None, held_out) if len(held_out) else None,
                max_epochs=self.max_epochs,
            )
            self._train(self._dataset(tensors, target, None, rows, X))
        self._set_modalities(X, inputs.blocks)
        temperature = getattr(self.net_.criterion_.loss, "temperature", None)
        if temperature is not None:  # one of a user's loss may be a tensor
            temperature = float(torch.as_tensor(temperature).detach())
        self.temperature_: float | None = temperature
        return self

    def _start(self, X: Frame, y: np.ndarray | None, inputs: JointInputs) -> dict[str, Tensor]:
        """Start the networks that are trained, and build the projections above them."""
        tensors, networks = inputs.fit(X, y)
        inputs.blocks = self._keep_usable(inputs.blocks, inputs.flaws)
        self._refuse_single(inputs.blocks, usable=True)
        present = inputs.present(tensors)
        self._refuse_empty(present)
        self._refuse_unpaired(present)
        self._inputs = inputs
        self.module_ = AlignmentModule(
            {block.name: inputs.widths[block.name] for block in inputs.blocks},
            networks,
            self.n_components,
            projection=self.projection,
            dropout=self.dropout,
        )
        self.n_components_ = self.n_components
        self.history_ = []
        return tensors

    def _target(
        self, tensors: dict[str, Tensor], present: np.ndarray, classes: np.ndarray
    ) -> np.ndarray:
        """What each row holds of each modality, and its class, as codes (n_samples, n + 1)."""
        target = np.full((len(classes), present.shape[1] + 1), -1, dtype=np.int64)
        target[:, -1] = classes
        for m, block in enumerate(self._inputs.blocks):
            rows = torch.from_numpy(np.flatnonzero(present[:, m]))
            own = {n: t[rows] for n, t in modality_tensors(tensors, block.name).items()}
            target[present[:, m], m] = content_codes(own)
        return target

    def _criterion(self) -> nn.Module:
        own = loss_module(self.loss, self.batch_size, type(self).__name__)
        return PairwiseContrast(cast(ContrastiveLoss, own))  # or what is called like one

    def _step_size(self) -> float:
        return _STEP_SIZE if self.learning_rate == "auto" else float(self.learning_rate)

    # --- after fit --------------------------------------------------------------------------

    def _read(self, name: str, X: Frame) -> Cells[dict[str, Tensor]]:
        block = next(block for block in self._inputs.blocks if block.name == name)
        tensors = JointInputs([block]).tensors(X)
        present = tensors[f"{name}{SEPARATOR}present"]
        own = modality_tensors(tensors, name)
        return Cells({key: tensor[present] for key, tensor in own.items()}, present.numpy())

    def _project(self, name: str, values: dict[str, Tensor]) -> np.ndarray:
        device = self._placed()
        n, step = len(next(iter(values.values()))), self.module_.rows_at_once
        parts = []
        with self._threads(), torch.inference_mode():
            for start in range(0, n, step):
                batch = {k: t[start : start + step].to(device) for k, t in values.items()}
                parts.append(self.module_.project(name, **batch).cpu().numpy())
        return np.concatenate(parts)


def _class_codes(X: Frame, y: ArrayLike | None) -> np.ndarray:
    """Number of each row's class, -1 where it is not known, (n_samples,)."""
    if y is None:
        return np.full(n_rows(X), -1, dtype=np.int64)
    labels: np.ndarray = column_or_1d(y, warn=True)
    check_consistent_length(X, labels)
    return pd.factorize(labels)[0].astype(np.int64)


class AlignmentModule(nn.Module):
    """From tensors of all modalities to unit vectors in one space.

    Parameters
    ----------
    widths : mapping of str to int
        Length of the features of each modality.
    encoders : mapping of str to nn.Module
        Networks that are trained here, by modality; the others come as features.
    n_components : int
        Length of the vectors.
    projection : {"linear", "mlp"}
        What is between features and vectors.
    dropout : float
        Share of the features, or of the hidden units, that is zeroed in training.
    """

    rows_at_once = 4096

    def __init__(
        self,
        widths: Mapping[str, int],
        encoders: Mapping[str, nn.Module],
        n_components: int,
        *,
        projection: str,
        dropout: float,
    ):
        super().__init__()
        self.modalities = list(widths)
        self.n_components = n_components
        self.encoder_names = list(encoders)
        # Lists, for a name may hold a dot, which nn.ModuleDict refuses.
        self.encoders = nn.ModuleList(encoders.values())
        make = _mlp if projection == "mlp" else _linear
        self.projections = nn.ModuleList(
            make(width, n_components, dropout) for width in widths.values()
        )

    def project(self, name: str, **own: Tensor) -> Tensor:
        """Return unit vectors (n_rows, n_components) of one modality.

        Parameters
        ----------
        name : str
            Modality.
        **own : Tensor
            ``values`` (n_rows, n_features), or the tensors of its encoder.
        """
        if name in self.encoder_names:
            values = self.encoder_of(name)(**own).pooled
        else:
            values = own["values"]
        projected = self.projections[self.modalities.index(name)](values)
        return functional.normalize(projected.float(), dim=1)

    def forward(self, **inputs: Tensor) -> Tensor:
        """Return unit vectors, (n_rows, n_modalities, n_components)."""
        return torch.stack(
            [self.project(name, **modality_tensors(inputs, name)) for name in self.modalities],
            dim=1,
        )

    def encoder_of(self, name: str) -> Any:
        """Return the trained network of a modality."""
        return self.encoders[self.encoder_names.index(name)]


def _linear(width: int, n_components: int, dropout: float) -> nn.Module:
    return nn.Sequential(nn.Dropout(dropout), nn.Linear(width, n_components))


def _mlp(width: int, n_components: int, dropout: float) -> nn.Module:
    return Perceptron(width, n_components, hidden_sizes=(2 * n_components,), dropout=dropout)
