"""Encoders that look at one cell at a time: text, pictures, anything a module takes."""

import hashlib
import warnings
from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, ClassVar, Self

import numpy as np
import torch
from sklearn.utils import check_random_state
from torch import nn

from skmm._column import Column
from skmm._device import resolve_device, seeded
from skmm.encoders._base import BaseEncoder, TokenSequence
from skmm.encoders._engine import Engine, Runtime
from skmm.encoders._pass import encode_once
from skmm.encoders._progress import Progress
from skmm.encoders._side_by_side import SideBySide
from skmm.encoders._store import resolve_store
from skmm.encoders._trained import TrainedEngine, train_backbone
from skmm.exceptions import CellTypeError, MediaDecodeError, ModalityWarning
from skmm.readers import with_position

__all__ = ["CellEncoder", "places_of"]

Place = tuple[int, int]  # (column, row)


class CellEncoder(BaseEncoder):
    """Base of encoders whose unit is the cell.

    Several columns are encoded by the one model, side by side. A frozen model's vectors
    go through the store; a network that is trained here is new at every fit, so they do not.
    """

    modality: ClassVar[str]
    # Text is read at once, to sort it by length; media are read batch by batch.
    reads_ahead: ClassVar[bool] = False

    # --- written by a subclass -----------------------------------------------------------

    @abstractmethod
    def _make_engine(self, columns: list[Column], y: Any) -> Engine:
        """Build the engine of a frozen model, or one fitted without torch."""

    @abstractmethod
    def _make_backbone(self, cells: Sequence[Any]) -> Any:
        """Build an untrained network, from decoded training cells."""

    @abstractmethod
    def _read(self, cell: Any) -> Any:
        """Decode a cell."""

    @abstractmethod
    def _digest(self, cell: Any) -> bytes:
        """Digest of a cell's content."""

    def _read_with_digest(self, cell: Any) -> tuple[bytes, Any]:
        """Decode a cell and say which content was decoded."""
        return self._digest(cell), self._read(cell)

    @property
    @abstractmethod
    def needs_training(self) -> bool:
        """Whether the model is a network that has to be trained with a head."""

    # --- the private verbs of BaseEncoder -------------------------------------------------

    def _fit_columns(self, columns: list[Column], y: Any) -> None:
        if self.needs_training:
            with seeded(self._seed()):
                cells, rows = self._training_cells(columns)
                backbone = self._make_backbone(cells)
                target = None if y is None else np.asarray(y)[rows]
                self.loss_curve_ = train_backbone(
                    backbone,
                    backbone.collate(cells),
                    target,
                    max_epochs=self.max_epochs,
                    learning_rate=self.learning_rate,
                    batch_size=self.batch_size,
                    device=resolve_device(self.device),
                )
            self._engine: Engine = TrainedEngine(backbone)
        else:
            self._engine = self._make_engine(columns, y)
        self.n_outputs_ = self._engine.n_outputs * len(columns)
        self.checkpoint_ = getattr(self._engine, "identity", None)

    def _encode_columns(self, columns: list[Column]) -> np.ndarray:
        width, n = self._engine.n_outputs, len(columns[0].values)
        features = np.full((n, width * len(columns)), np.nan, dtype=np.float32)
        for (column, row), vector in self._arrays(columns, sequence=False):
            features[row, column * width : (column + 1) * width] = vector
        return features

    def _encode_sequence(self, columns: list[Column]) -> TokenSequence:
        width, n = self._engine.n_outputs, len(columns[0].values)
        arrays = dict(self._arrays(columns, sequence=True))
        parts = []
        for c in range(len(columns)):
            longest = max((len(a) for (column, _), a in arrays.items() if column == c), default=1)
            tokens = np.zeros((n, longest, width), dtype=np.float32)
            mask = np.zeros((n, longest), dtype=bool)
            for (column, row), array in arrays.items():
                if column == c:
                    tokens[row, : len(array)] = array
                    mask[row, : len(array)] = True
            parts.append((tokens, mask))
        return TokenSequence(*(np.concatenate(part, axis=1) for part in zip(*parts, strict=True)))

    def _output_names(self, names: list[str]) -> list[str]:
        width = self._engine.n_outputs
        digits = len(str(width - 1))
        return [f"{name}_{i:0{digits}d}" for name in names for i in range(width)]

    # --- trained under somebody else's head -------------------------------------------------

    def start_training(self, X: Any, y: Any = None) -> nn.Module:
        """Fit all but the weights and return the untrained network.

        A joint fusion calls this on an encoder that ``needs_training``, then trains the
        network on the tensors of :meth:`training_tensors` and hands it back to
        :meth:`end_training`. Weights are drawn from torch's current generator.

        Parameters
        ----------
        X : DataFrame of shape (n_samples, n_columns)
            Training cells.
        y : array-like of shape (n_samples,), default=None
            Target.

        Returns
        -------
        network : nn.Module
            With a ``width``, from tensors to ``Encoded`` (tokens, mask, pooled vector).
        """
        self._validate_params()
        columns = self._check_columns(X, reset=True)
        cells, _ = self._training_cells(columns)
        backbone = self._make_backbone(cells)
        self._engine = TrainedEngine(backbone)
        self.n_outputs_ = self._engine.n_outputs * len(columns)
        self.checkpoint_ = None
        return SideBySide(backbone, len(columns))

    def training_tensors(self, X: Any) -> dict[str, torch.Tensor]:
        """Return the network's inputs, a row a row of ``X``.

        Parameters
        ----------
        X : DataFrame of shape (n_samples, n_columns)
            Cells; absent ones become zeros that the network is told to ignore.

        Returns
        -------
        tensors : dict of str to Tensor
            First axis ``n_samples``.
        """
        columns = self._check_columns(X, reset=False)
        tensors: dict[str, torch.Tensor] = {}
        for c, column in enumerate(columns):
            cells, kept = self._read_all(columns, [p for p in places_of(columns) if p[0] == c])
            rows = torch.as_tensor([row for _, row in kept], dtype=torch.int64)
            present = torch.zeros(len(column.values), dtype=torch.bool)
            present[rows] = True
            tensors[f"{c}/present"] = present
            # A column without a cell has no tensors: nothing of it enters the network.
            collated = self._engine.backbone.collate(cells) if cells else {}  # type: ignore[attr-defined]
            for name, values in collated.items():
                full = values.new_zeros((len(column.values), *values.shape[1:]))
                full[rows] = values
                tensors[f"{c}/{name}"] = full
        return tensors

    def end_training(self, network: nn.Module) -> Self:
        """Take the trained network back: the encoder is then a fitted transformer.

        Parameters
        ----------
        network : nn.Module
            What :meth:`start_training` gave, trained.

        Returns
        -------
        self : object
            The fitted encoder.
        """
        backbone: Any = network.backbone
        self._engine = TrainedEngine(backbone.eval())
        return self

    # --- cells ----------------------------------------------------------------------------

    def _arrays(
        self, columns: list[Column], *, sequence: bool, counted: bool = True
    ) -> Iterator[tuple[Place, np.ndarray]]:
        """Yield (place, array) of every cell that is there and readable.

        ``counted=False`` leaves the look-up out of the store's counters of what users ask.
        """
        runtime = Runtime.of(self)
        self._engine.follow(self)
        fingerprint = self._engine.fingerprint(runtime)
        if fingerprint is None:
            yield from self._unstored_arrays(columns, runtime, sequence=sequence)
            return
        places, distinct, unreadable = self._distinct(columns)
        base = hashlib.blake2b(f"{fingerprint}|sequence={sequence}".encode(), digest_size=16)
        keys = []
        for digest in distinct:
            key = base.copy()
            key.update(digest)
            keys.append(key.digest())
        cells: Sequence[Any] = []
        if self.reads_ahead:
            cells = [self._try(columns, place, self._read) for place in distinct.values()]
        read = partial(self._read_as_digested, columns, list(distinct.items()))

        def encode(indices: list[int]) -> list[np.ndarray | None]:
            decoded = [cells[i] for i in indices] if cells else [read(i) for i in indices]
            readable = [cell for cell in decoded if cell is not None]
            if not readable:
                return [None] * len(indices)
            encoded = iter(self._engine.encode(readable, runtime, sequence=sequence))
            return [None if cell is None else next(encoded) for cell in decoded]

        with Progress(type(self).__name__, self.verbose) as progress:
            arrays = encode_once(
                resolve_store(self.store),
                keys,
                lambda indices: self._engine.batches(cells, indices, runtime),
                encode,
                n_rows=len(places) if counted else None,
                report=progress,
            )
        of_digest = dict(zip(distinct, arrays, strict=True))
        unreadable += [place for place, digest in places if of_digest[digest] is None]
        self._warn_of(columns, unreadable)
        for place, digest in places:
            array = of_digest[digest]
            if array is not None:
                yield place, array

    def _distinct(
        self, columns: list[Column]
    ) -> tuple[list[tuple[Place, bytes]], dict[bytes, Place], list[Place]]:
        """Digests of the cells, where each distinct content stands first, what has none."""
        places: list[tuple[Place, bytes]] = []
        distinct: dict[bytes, Place] = {}
        unreadable = []
        for place in places_of(columns):
            digest = self._try(columns, place, self._digest)
            if digest is None:
                unreadable.append(place)
                continue
            distinct.setdefault(digest, place)
            places.append((place, digest))
        return places, distinct, unreadable

    def _unstored_arrays(
        self, columns: list[Column], runtime: Runtime, *, sequence: bool
    ) -> Iterator[tuple[Place, np.ndarray]]:
        places = places_of(columns)
        unreadable: list[Place] = []
        for start in range(0, len(places), runtime.batch_size):
            batch = places[start : start + runtime.batch_size]
            cells, kept = self._read_all(columns, batch, unreadable)
            if cells:
                arrays = self._engine.encode(cells, runtime, sequence=sequence)
                yield from zip(kept, arrays, strict=True)
        self._warn_of(columns, unreadable)

    def _training_cells(self, columns: list[Column]) -> tuple[list[Any], np.ndarray]:
        """Decoded training cells of all columns, and the row of each."""
        cells, kept = self._read_all(columns, places_of(columns))
        if not cells:
            names = ", ".join(repr(column.name) for column in columns)
            raise ValueError(
                f"{type(self).__name__} has no cell to train on: column {names} is empty in every"
                " training row. Drop the column, or use a pretrained model."
            )
        return cells, np.array([row for _, row in kept])

    def _read_all(
        self, columns: list[Column], places: list[Place], unreadable: list[Place] | None = None
    ) -> tuple[list[Any], list[Place]]:
        """Decode cells; those that cannot be are warned of, or added to ``unreadable``."""
        read = [(place, self._try(columns, place, self._read)) for place in places]
        failed = [place for place, cell in read if cell is None]
        if unreadable is None:
            self._warn_of(columns, failed)
        else:
            unreadable += failed
        kept = [(place, cell) for place, cell in read if cell is not None]
        return [cell for _, cell in kept], [place for place, _ in kept]

    def _read_as_digested(
        self, columns: list[Column], distinct: list[tuple[bytes, Place]], index: int
    ) -> Any:
        """Decode a cell, None if unreadable; what is decoded must be what was looked up."""
        expected, place = distinct[index]
        read = self._try(columns, place, self._read_with_digest)
        if read is None:
            return None
        digest, decoded = read
        if digest != expected:
            raise self._located(columns, place, MediaDecodeError("changed while being encoded"))
        return decoded

    def _try(self, columns: list[Column], place: Place, verb: Callable[[Any], Any]) -> Any:
        """Apply a reader to a cell; None if it is unreadable and that is to be survived."""
        try:
            return verb(columns[place[0]].values[place[1]])
        except CellTypeError as error:
            raise self._located(columns, place, error) from error
        except MediaDecodeError as error:
            if self.on_error == "missing":
                return None
            raise self._located(columns, place, error) from error

    def _located(
        self, columns: list[Column], place: Place, error: CellTypeError | MediaDecodeError
    ) -> Exception:
        """Return the error with column and row in front, and the way out behind."""
        column = columns[place[0]]
        told = with_position(error, column=column.name, row=column.labels[place[1]])
        told.args = (f"{type(self).__name__}: {told}",)
        if isinstance(error, MediaDecodeError):
            told.args = (f'{told} Use on_error="missing" to count such cells as absent.',)
        return told

    def _warn_of(self, columns: list[Column], unreadable: list[Place]) -> None:
        if unreadable:
            shown = ", ".join(
                f"row {columns[c].labels[r]!r} of {columns[c].name!r}"
                for c, r in sorted(unreadable)[:5]
            )
            cells = "cell" if len(unreadable) == 1 else "cells"
            warnings.warn(
                f"{type(self).__name__} counts {len(unreadable)} unreadable {cells} as absent:"
                f" {shown}{', ...' if len(unreadable) > 5 else ''}.",
                ModalityWarning,
                stacklevel=2,
            )

    def _seed(self) -> int:
        return int(check_random_state(self.random_state).randint(2**31 - 1))


def places_of(columns: list[Column]) -> list[Place]:
    """Places of the cells that are not missing."""
    return [
        (c, int(row)) for c, column in enumerate(columns) for row in np.flatnonzero(~column.missing)
    ]
