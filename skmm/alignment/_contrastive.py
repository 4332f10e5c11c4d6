"""Alignment by contrastive learning: partners are pulled together, other rows pushed apart."""

from collections.abc import Mapping
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
    HasMethods,
    RandomState,
    StrOptions,
)
from skmm._environment._device import resolve_device, seeded
from skmm._frame._column import n_rows
from skmm._frame._types import Frame
from skmm._training._batches import Batch, ModalityInputs, Target, dataset_of
from skmm._training._inputs import JointInputs
from skmm._training._module import ModalityEncoders
from skmm._training._trainer import TrainedNetworkMixin, Trainer, TrainingDefaults, threads_for
from skmm.alignment._base import BaseAlignment, Cells
from skmm.alignment._contrastive_losses import (
    LOSS_SHORTHANDS,
    BaseAlignmentLoss,
    LossShorthand,
    loss_module,
)
from skmm.alignment._recall import encode_contents
from skmm.nets._contrastive import ContrastiveLoss, PairwiseContrast
from skmm.nets._layers import Perceptron

__all__ = ["AlignmentModule", "ContrastiveAlignment"]


class ContrastiveAlignment(TrainedNetworkMixin, BaseAlignment[ModalityInputs]):
    """Learn a common space by contrastive learning on paired modalities [1]_ [2]_.

    A network projects each modality into one space. There the modalities of one row, called
    partners, get a high cosine similarity, and modalities of different rows, called negatives, a
    low one. The features of frozen encoders, other transformers and passed-through columns are
    computed once and standardized, and the projections are trained on them. An encoder whose model
    is trained, from scratch (``"cnn"``, ``"gru"``, ...) or by its ``fine_tune``, is trained
    together with the projections.

    The loss is a sum over all pairs of modalities, in both directions. Each term covers the rows
    that have both modalities. Rows with equal content, such as a caption that occurs twice, are
    not negatives of each other. If ``y`` is given, all rows of one class are partners [3]_.

    Parameters
    ----------
    modalities : list of (name, transformer, columns) or "auto", default="auto"
        Two or more triples as in ``ColumnTransformer``. ``transformer`` is any scikit-learn
        transformer or pipeline, ``"drop"``, ``"passthrough"`` (numbers, or cells that are vectors
        of one length), or a modality such as ``"image"`` or ``"text"`` for its default encoder.
        ``"auto"`` infers the modalities from the training frame.
    n_components : int, default=128
        Number of dimensions of the common space.
    loss : {"infonce", "siglip", "triplet", "max_margin"}, loss or nn.Module, default="infonce"
        Loss of a pair of modalities:

        - ``"infonce"``: cross-entropy of finding the partner among the rows of the batch [1]_ [2]_;
        - ``"siglip"``: binary cross-entropy of each pair of rows, with a learned bias [4]_;
        - ``"triplet"``: squared distances to partners are smaller than to negatives by a margin
          [5]_;
        - ``"max_margin"``: cosine similarities with partners are larger than with negatives by a
          margin [6]_.

        A string stands for :class:`InfoNCE`, :class:`SigLIP`, :class:`Triplet` or
        :class:`MaxMargin` with default options. Pass such an object to set the temperature, the
        margin or the choice of negatives. An ``nn.Module`` with the signature of
        ``skmm.nets.ContrastiveLoss`` is copied and trained. Any object with a method
        ``build(batch_size)`` that returns such a module can be passed too.
    projection : {"linear", "mlp"}, default="linear"
        Network between the features and the common space: a linear map, or a perceptron with one
        hidden layer of ``2 * n_components`` units.
    dropout : float, default=0.2
        Fraction of the features, or of the hidden units of ``"mlp"``, that is zeroed in training.
    max_epochs : int, default=None
        Maximum number of passes over the training rows. None is that of ``trainer``, 100 by
        default.
    trainer : Trainer, default=None
        Options of the training: learning rates, batches, early stopping, callbacks. None is
        ``Trainer()``. ``set_params`` and searches reach its parameters by names such as
        ``trainer__learning_rate``, even if ``trainer`` is None. Negatives are rows of the same
        batch, so a larger ``batch_size`` gives more of them. ``accumulate`` does not, and a value
        above 1 raises ``ValueError``. Early stopping is off by default.
    all_missing : {"zeros", "raise"}, default="zeros"
        What a row without any modality gets: ``"zeros"`` gives a vector of zeros, ``"raise"``
        raises ``ModalityMissingError``.
    missing_columns : {"raise", "absent"}, default="raise"
        What happens if a column of the training frame is not in ``X``: ``"raise"`` raises
        ``ValueError``, ``"absent"`` treats the column as missing in every row.
    device : str, default="auto"
        Device of the projections: ``"auto"``, ``"cpu"``, ``"cuda"``, ``"cuda:1"``.
    random_state : int, RandomState instance or None, default=None
        Seed of the initial weights, the order of the rows, dropout and the held-out rows.
    verbose : bool or int, default=0
        Whether to print a line for each epoch.

    Attributes
    ----------
    modalities_ : list of (name, transformer, columns)
        The modalities used, with their fitted transformers; encoders that are trained with the
        projections are included.
    n_components_ : int
        Number of dimensions of the common space.
    temperature_ : float or None
        Temperature of the loss after training; None for a loss without one.
    module_ : nn.Module
        Trained network.
    net_ : skorch.NeuralNet
        The skorch net that trained ``module_``. It is not part of a pickle.
    history_ : list of dict
        One dict per epoch, with ``epoch`` from 1, ``train_loss`` and, if rows are held out,
        ``valid_loss``.
    n_iter_ : int
        Number of epochs trained.
    n_features_in_ : int
        Number of columns seen in ``fit``.
    feature_names_in_ : ndarray of str
        Names of the columns seen in ``fit``. Defined only if ``X`` has column names.

    See Also
    --------
    InfoNCE, SigLIP, Triplet, MaxMargin : Losses with their parameters.
    PretrainedAlignment : Space of a checkpoint such as CLIP, without training.

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
    >>> from skmm import ContrastiveAlignment, Trainer
    >>> from skmm.datasets import make_paired_views
    >>> X = make_paired_views(400, noise=0.1, random_state=0).data
    >>> alignment = ContrastiveAlignment(
    ...     [("left", "passthrough", ["view_0"]), ("right", "passthrough", ["view_1"])],
    ...     n_components=16, max_epochs=40, trainer=Trainer(learning_rate=3e-3), random_state=0,
    ... )
    >>> alignment = alignment.fit(X[:300])

    Among 100 new rows, the share that finds its partner first; by chance it is 0.01:

    >>> bool(alignment.score(X[300:]) > 0.2)
    True
    >>> alignment.transform_modality(X[["view_1"]], "right").shape
    (400, 16)
    """

    module_: "AlignmentModule"

    _parameter_constraints: ClassVar[dict[str, Any]] = {
        **BaseAlignment._parameter_constraints,
        **TrainedNetworkMixin._training_constraints,
        "n_components": POSITIVE_INT,
        "loss": [StrOptions(set(LOSS_SHORTHANDS)), HasMethods("build"), nn.Module],
        "projection": [StrOptions({"linear", "mlp"})],
        "dropout": FRACTION,
    }

    def __init__(
        self,
        modalities: Modalities = "auto",
        *,
        n_components: int = 128,
        loss: LossShorthand | BaseAlignmentLoss | nn.Module = "infonce",
        projection: Literal["linear", "mlp"] = "linear",
        dropout: float = 0.2,
        max_epochs: int | None = None,
        trainer: Trainer | None = None,
        all_missing: Literal["zeros", "raise"] = "zeros",
        missing_columns: Literal["raise", "absent"] = "raise",
        device: str = "auto",
        random_state: RandomState = None,
        verbose: bool | int = 0,
    ):
        self.modalities = modalities
        self.n_components = n_components
        self.loss = loss
        self.projection = projection
        self.dropout = dropout
        self.max_epochs = max_epochs
        self.trainer = trainer
        self.all_missing = all_missing
        self.missing_columns = missing_columns
        self.device = device
        self.random_state = random_state
        self.verbose = verbose

    @with_callbacks
    def fit(self, X: Frame, y: ArrayLike | None = None) -> Self:
        """Fit the transformers and train the projections.

        Encoders whose model is trained are trained with the projections.

        Parameters
        ----------
        X : DataFrame of shape (n_samples, n_columns)
            Samples, one in each row. A row may lack any of the modalities. Rows with fewer than
            two modalities are not used in training.
        y : array-like of shape (n_samples,), default=None
            Classes: all rows of one class are partners. A row whose class is missing has no
            partner but itself.

        Returns
        -------
        self : object
            The fitted alignment.
        """
        self._validate_params()
        trainer = self._checked_trainer()
        trainer.refuse_accumulate("with a loss that compares the rows of a batch")
        X = self._check_frame(X, reset=True)
        classes = _class_codes(X, y)
        labels = None if y is None else np.asarray(y)
        seed = self._draw_seed()
        target = PairTarget(self._loss(trainer, seed), classes)
        # Before torch is seeded: seeding locks out the other threads of the process.
        inputs = self._encode(X, labels, seed)
        with (
            seeded(seed),
            TaskReporter(self, X, y, self._n_epochs(trainer), "epoch") as reporter,
        ):
            batch = self._build(X, labels, inputs)
            self._train_on(trainer, X, batch, target, seed, reporter)
        self._set_modalities(X, inputs.blocks)
        temperature = getattr(self.net_.criterion_.loss, "temperature", None)
        if temperature is not None:  # the loss of a user may hold a tensor
            temperature = float(torch.as_tensor(temperature).detach())
        self.temperature_: float | None = temperature
        return self

    def _training_defaults(self) -> TrainingDefaults:
        return TrainingDefaults(batch_size=128, early_stopping=False)

    def _loss(self, trainer: Trainer, seed: int) -> nn.Module:
        """Build the loss of a pair of modalities, before any cell is encoded."""
        n_rows = trainer.rows_per_step(self._training_defaults())
        with seeded(seed):  # the loss of a user may draw weights
            return loss_module(self.loss, n_rows, type(self).__name__)

    def _encode(self, X: Frame, y: np.ndarray | None, seed: int) -> JointInputs:
        """Fit the frozen transformers, and leave out modalities that cannot be used."""
        inputs = JointInputs([Block(modality, seed) for modality in self._resolve(X)])
        self._refuse_single(inputs.blocks, usable=False)
        inputs.encode(X, y)
        inputs.blocks = self._keep_usable(inputs.blocks, inputs.flaws)
        self._refuse_single(inputs.blocks, usable=True)
        return inputs

    def _build(self, X: Frame, y: np.ndarray | None, inputs: JointInputs) -> Batch:
        """Build the networks of the trained encoders, and the projections of all modalities."""
        batch = inputs.build(X, y)
        present = batch.present()
        self._refuse_empty(present)
        self._refuse_unpaired(present)
        self._inputs = inputs
        self.module_ = AlignmentModule(
            ModalityEncoders(list(inputs.widths), inputs.networks),
            inputs.widths,
            self.n_components,
            projection=self.projection,
            dropout=self.dropout,
        )
        self.n_components_ = self.n_components
        self.history_ = []
        return batch

    def _train_on(
        self,
        trainer: Trainer,
        X: Frame,
        batch: Batch,
        target: "PairTarget",
        seed: int,
        reporter: TaskReporter,
    ) -> None:
        """Train on the rows that have two modalities, and keep the trained encoders."""
        device, encoded = resolve_device(self.device), target.encode(batch)
        partners, strata = target.tensor(encoded), target.strata(encoded)
        rows = np.flatnonzero(batch.present().sum(axis=1) >= 2)
        held_out = trainer.hold_out(
            rows, None if strata is None else strata[rows], self._training_defaults(), seed
        )
        rows = np.setdiff1d(rows, held_out)
        self._train(
            trainer,
            dataset_of(batch, partners, rows, device, self._inputs.renewal(X, rows, device)),
            target.criterion(),
            valid=dataset_of(batch, partners, held_out, device) if len(held_out) else None,
            reporter=reporter,
        )
        self._inputs.end_training(self.module_.encoders)

    # --- after fit --------------------------------------------------------------------------

    def _read(self, name: str, X: Frame) -> Cells[ModalityInputs]:
        own = self._inputs.batch(X, [name]).modalities[name]
        return Cells(own.rows(torch.nonzero(own.present).squeeze(1)), own.present.numpy())

    def _project(self, name: str, values: ModalityInputs) -> np.ndarray:
        device, step = self._placed(), self.module_.rows_at_once
        parts = []
        with threads_for(self.module_), torch.inference_mode():
            for start in range(0, len(values), step):
                own = values.rows(slice(start, start + step)).to(device)
                parts.append(self.module_.project(name, own).cpu().numpy())
        return np.concatenate(parts)


class PairTarget(Target):
    """Which rows are partners: those of equal content or of one class.

    Parameters
    ----------
    loss : nn.Module
        Loss of a pair of modalities, with the signature of ``skmm.nets.ContrastiveLoss``.
    classes : ndarray of shape (n_rows,), int64
        Index of each row's class, -1 if it is missing.
    """

    def __init__(self, loss: nn.Module, classes: np.ndarray):
        self.loss = loss
        self.classes = classes

    def encode(self, batch: Batch) -> np.ndarray:
        """Return the content of each modality and the class as ints, (n_rows, n + 1)."""
        inputs = batch.modalities.values()
        encoded = np.full((len(batch), len(inputs) + 1), -1, dtype=np.int64)
        encoded[:, -1] = self.classes
        for column, own in enumerate(inputs):
            rows = torch.nonzero(own.present).squeeze(1)
            encoded[rows.numpy(), column] = encode_contents(own.rows(rows))
        return encoded

    def tensor(self, encoded: np.ndarray) -> Tensor:
        """Return the encoded target as a tensor, as the criterion takes it."""
        return torch.from_numpy(encoded)

    def criterion(self) -> nn.Module:
        """Return the loss of each row, over all pairs of modalities."""
        # The loss of a user may be any module of the same signature.
        return PairwiseContrast(cast(ContrastiveLoss, self.loss))

    def strata(self, encoded: np.ndarray) -> np.ndarray | None:
        """Return the classes to stratify held-out rows by, None if no class is known."""
        return self.classes if (self.classes >= 0).any() else None


def _class_codes(X: Frame, y: ArrayLike | None) -> np.ndarray:
    """Return the index of each row's class, -1 if it is missing, (n_samples,)."""
    if y is None:
        return np.full(n_rows(X), -1, dtype=np.int64)
    labels: np.ndarray = column_or_1d(y, warn=True)
    check_consistent_length(X, labels)
    return pd.factorize(labels)[0].astype(np.int64)


class AlignmentModule(nn.Module):
    """Network from a batch to unit vectors of each modality in one space.

    Parameters
    ----------
    encoders : ModalityEncoders
        Network from the batch to features.
    widths : mapping of str to int
        Number of features of each modality.
    n_components : int
        Number of dimensions of the space.
    projection : {"linear", "mlp"}
        Network between the features and the vectors.
    dropout : float
        Fraction of the features, or of the hidden units, that is zeroed in training.
    """

    def __init__(
        self,
        encoders: ModalityEncoders,
        widths: Mapping[str, int],
        n_components: int,
        *,
        projection: str,
        dropout: float,
    ):
        super().__init__()
        self.encoders = encoders
        make = _mlp if projection == "mlp" else _linear
        # A list, since nn.ModuleDict refuses names with a dot.
        self.projections = nn.ModuleList(
            make(widths[name], n_components, dropout) for name in encoders.modalities
        )

    @property
    def rows_at_once(self) -> int:
        """Number of rows that are projected together after training."""
        return self.encoders.rows_at_once

    def forward(self, batch: Batch) -> Tensor:
        """Return unit vectors, (n_rows, n_modalities, n_components)."""
        names = self.encoders.modalities
        return torch.stack([self.project(name, batch.modalities[name]) for name in names], dim=1)

    def project(self, name: str, own: ModalityInputs) -> Tensor:
        """Return unit vectors of one modality, (n_rows, n_components)."""
        features, _ = self.encoders.encode(name, own)
        projected = self.projections[self.encoders.modalities.index(name)](features)
        return functional.normalize(projected.float(), dim=1)


def _linear(width: int, n_components: int, dropout: float) -> nn.Module:
    return nn.Sequential(nn.Dropout(dropout), nn.Linear(width, n_components))


def _mlp(width: int, n_components: int, dropout: float) -> nn.Module:
    return Perceptron(width, n_components, hidden_sizes=(2 * n_components,), dropout=dropout)
