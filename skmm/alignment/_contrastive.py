"""Alignment by contrast: partners are drawn together, others pushed apart."""

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
    refuse_unused,
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
from skmm.alignment._recall import content_codes
from skmm.nets import ContrastiveLoss, PairwiseContrast, Perceptron

__all__ = ["AlignmentModule", "ContrastiveAlignment"]


class ContrastiveAlignment(TrainedNetworkMixin, BaseAlignment[ModalityInputs]):
    """Bring modalities into one space in which partners lie together [1]_ [2]_.

    Features of frozen encoders, tables and passed-through columns are standardized, and a small
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
        ``skmm.nets.ContrastiveLoss`` is, of which a copy is trained; or any object whose
        ``build(batch_size)`` returns one.
    projection : {"linear", "mlp"}, default="linear"
        A linear map of the features, or one with a hidden layer of ``2 * n_components`` units.
    dropout : float, default=0.2
        Share of the features, with ``"mlp"`` of the hidden units, that is zeroed in training.
    max_epochs : int, default=None
        Most passes over the training rows; None is the trainer's, 100.
    trainer : Trainer, default=None
        How the network is trained: step sizes, batches, early stopping, callbacks. None is
        ``Trainer()``; its parameters are searched as ``trainer__learning_rate``. Rows of a step
        are each other's negatives, so a larger ``batch_size`` says more; ``accumulate`` has no
        effect and is refused.
    all_missing : {"zeros", "raise"}, default="zeros"
        What a row without any modality gets: ``"zeros"`` gives a vector of zeros, ``"raise"``
        raises ``ModalityMissingError``.
    missing_columns : {"raise", "absent"}, default="raise"
        What to do with a frame that lacks a column of the training frame: raise, or count it as
        absent in every row.
    device : str, default="auto"
        Where the projections are trained: ``"auto"``, ``"cpu"``, ``"cuda"``, ``"cuda:1"``.
    random_state : int, RandomState instance or None, default=None
        Seed of weights, order, dropout and the held-out part.
    verbose : bool or int, default=0
        Whether to print a line an epoch.

    Attributes
    ----------
    modalities_ : list of (name, transformer, columns)
        The modalities used, with their fitted transformers; encoders that are trained with the
        projections are included.
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
    >>> from skmm import ContrastiveAlignment, Trainer
    >>> from skmm.datasets import make_paired_views
    >>> X = make_paired_views(400, noise=0.1, random_state=0).data
    >>> alignment = ContrastiveAlignment(
    ...     [("left", "passthrough", ["view_0"]), ("right", "passthrough", ["view_1"])],
    ...     n_components=16, max_epochs=40, trainer=Trainer(learning_rate=3e-3), random_state=0,
    ... )
    >>> alignment = alignment.fit(X[:300])

    Of a hundred new rows, where chance is 0.01:

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
        trainer = self._checked_trainer()
        refuse_unused(trainer, ["accumulate"], "with a loss that compares the rows of a step")
        X = self._check_frame(X, reset=True)
        classes = _class_codes(X, y)
        labels = None if y is None else np.asarray(y)
        seed = self._draw_seed()
        target = PairTarget(self._loss(trainer, seed), classes)
        # Before torch is seeded, for that lets in one thread of the process at a time.
        inputs = self._encode(X, labels, seed)
        with (
            seeded(seed),
            TaskReporter(self, X, y, self._n_epochs(trainer), "epoch") as reporter,
        ):
            batch = self._build(X, labels, inputs)
            self._train_on(trainer, X, batch, target, seed, reporter)
        self._set_modalities(X, inputs.blocks)
        temperature = getattr(self.net_.criterion_.loss, "temperature", None)
        if temperature is not None:  # one of a user's loss may be a tensor
            temperature = float(torch.as_tensor(temperature).detach())
        self.temperature_: float | None = temperature
        return self

    def _training_defaults(self) -> TrainingDefaults:
        return TrainingDefaults(batch_size=128, early_stopping=False)

    def _loss(self, trainer: Trainer, seed: int) -> nn.Module:
        """Build the loss of one pair of modalities; one that cannot be built is found early."""
        n_rows = trainer.rows_per_step(self._training_defaults())
        with seeded(seed):  # one of the user's may draw weights
            return loss_module(self.loss, n_rows, type(self).__name__)

    def _encode(self, X: Frame, y: np.ndarray | None, seed: int) -> JointInputs:
        """Fit what is frozen, and leave out what cannot be used."""
        inputs = JointInputs([Block(modality, seed) for modality in self._resolve(X)])
        self._refuse_single(inputs.blocks, usable=False)
        inputs.encode(X, y)
        inputs.blocks = self._keep_usable(inputs.blocks, inputs.flaws)
        self._refuse_single(inputs.blocks, usable=True)
        return inputs

    def _build(self, X: Frame, y: np.ndarray | None, inputs: JointInputs) -> Batch:
        """Start the encoders that are trained, and build the projections over all."""
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
        """Train on the rows that have two modalities, and take over what was learned."""
        device, encoded = resolve_device(self.device), target.encode(batch)
        goal, strata = target.tensor(encoded), target.strata(encoded)
        rows = np.flatnonzero(batch.present().sum(axis=1) >= 2)
        held_out = trainer.hold_out(
            rows, None if strata is None else strata[rows], self._training_defaults(), seed
        )
        rows = np.setdiff1d(rows, held_out)
        self._train(
            trainer,
            dataset_of(batch, goal, rows, device, self._inputs.renewal(X, rows, device)),
            target.criterion(),
            valid=dataset_of(batch, goal, held_out, device) if len(held_out) else None,
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
    """Which rows belong together: by what they hold of each modality, and by their classes.

    Parameters
    ----------
    loss : nn.Module
        Of one pair of modalities, called as ``skmm.nets.ContrastiveLoss`` is.
    classes : ndarray of shape (n_rows,), int64
        Number of each row's class, -1 where it is not known.
    """

    def __init__(self, loss: nn.Module, classes: np.ndarray):
        self.loss = loss
        self.classes = classes

    def encode(self, batch: Batch) -> np.ndarray:
        """Return the content of each modality and the class, as numbers, (n_rows, n + 1)."""
        inputs = batch.modalities.values()
        encoded = np.full((len(batch), len(inputs) + 1), -1, dtype=np.int64)
        encoded[:, -1] = self.classes
        for column, own in enumerate(inputs):
            rows = torch.nonzero(own.present).squeeze(1)
            encoded[rows.numpy(), column] = content_codes(own.rows(rows))
        return encoded

    def tensor(self, encoded: np.ndarray) -> Tensor:
        """Return the target as the loss takes it."""
        return torch.from_numpy(encoded)

    def criterion(self) -> nn.Module:
        """Return the loss of each row, over all pairs of modalities."""
        return PairwiseContrast(cast(ContrastiveLoss, self.loss))  # or what is called like one

    def strata(self, encoded: np.ndarray) -> np.ndarray | None:
        """Return the classes, if any are known: held-out rows should have their share of each."""
        return self.classes if (self.classes >= 0).any() else None


def _class_codes(X: Frame, y: ArrayLike | None) -> np.ndarray:
    """Number of each row's class, -1 where it is not known, (n_samples,)."""
    if y is None:
        return np.full(n_rows(X), -1, dtype=np.int64)
    labels: np.ndarray = column_or_1d(y, warn=True)
    check_consistent_length(X, labels)
    return pd.factorize(labels)[0].astype(np.int64)


class AlignmentModule(nn.Module):
    """From a batch to unit vectors in one space, one for each modality.

    Parameters
    ----------
    encoders : ModalityEncoders
        From the batch to features.
    widths : mapping of str to int
        Length of the features of each modality.
    n_components : int
        Length of the vectors.
    projection : {"linear", "mlp"}
        What is between features and vectors.
    dropout : float
        Share of the features, or of the hidden units, that is zeroed in training.
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
        # A list, for a name may hold a dot, which nn.ModuleDict refuses.
        self.projections = nn.ModuleList(
            make(widths[name], n_components, dropout) for name in encoders.modalities
        )

    @property
    def rows_at_once(self) -> int:
        """How many rows go through together where nothing is learned."""
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
