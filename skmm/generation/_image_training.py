"""How an image generator is trained."""

from contextlib import AbstractContextManager
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor, nn

from skmm._compose._callbacks import TaskReporter, with_callbacks
from skmm._environment._device import resolve_dtype, seeded, shared_threads
from skmm._frame._column import n_rows
from skmm._training._inputs import JointInputs
from skmm._training._net import TensorDataset
from skmm.generation._base import BaseGenerator
from skmm.generation._flow_matching import FlowModule
from skmm.generation._gan import AdversarialModule, WatchGame, set_players
from skmm.generation._image_modules import PICTURE, KeepAverage, PictureModule
from skmm.generation._image_targets import TargetPictures, pictures_of_rows
from skmm.generation._pretrained_images import PretrainedImages
from skmm.nets import (
    GivenLoss,
    PictureDiscriminator,
    PictureGenerator,
    PictureUNet,
    make_fusion,
)

__all__ = ["BaseImages"]

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
                PictureGenerator(n_colors, size, width, width, **channels),
                judge=PictureDiscriminator(n_colors, size, width, **channels),
                judge_fusion=self._make_fusion(widths),
                **options,
            )
        head = PictureUNet(n_colors, size, width, dropout=self.dropout, **channels)
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
