"""Encoders that look at one cell at a time: text, pictures, anything a module takes."""

from abc import abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, ClassVar, Self

import numpy as np
import torch
from sklearn.utils import check_random_state
from torch import nn

from skmm._column import Column
from skmm._device import n_decoding_threads, resolve_device, seeded, shared_threads
from skmm.encoders._base import BaseEncoder, TokenSequence
from skmm.encoders._cell_pass import CellPass
from skmm.encoders._engine import Engine, Runtime
from skmm.encoders._progress import Progress
from skmm.encoders._reading import CellReader, Place, places_of
from skmm.encoders._side_by_side import SideBySide
from skmm.encoders._trained import TrainedEngine, train_backbone

__all__ = ["CellEncoder"]

_PIECE = 1 << 16  # rows


class CellEncoder(BaseEncoder):
    """Base of encoders whose unit is the cell.

    Several columns are encoded by the one model, side by side. A frozen model's vectors
    go through the store; a network that is trained here is new at every fit, so they do not.
    """

    modality: ClassVar[str]
    # Text is read at once, to sort it by length; media are read batch by batch.
    reads_ahead: ClassVar[bool] = False
    # Cells that are looked up together. Sorting by length wants many, memory wants few.
    portion: ClassVar[int] = 1024

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

    def _reading(self) -> dict[str, Any]:
        """Return the parameters that change what a cell is decoded to, as JSON types."""
        return {}

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
                    owner=type(self).__name__,
                    verbose=self.verbose,
                )
            self._engine: Engine = TrainedEngine(backbone)
        else:
            self._engine = self._make_engine(columns, y)
        self.n_outputs_ = self._engine.n_outputs * len(columns)
        self.checkpoint_ = getattr(self._engine, "identity", None)

    def _encode_columns(self, columns: list[Column]) -> np.ndarray:
        n = len(columns[0].values)
        features = np.empty((n, self.n_outputs_), dtype=np.float32)
        self._encode_into(columns, features)
        return features

    def _encode_into(self, columns: list[Column], out: np.ndarray) -> None:
        # In pieces: filling a file on disk at once would hold all of it in memory.
        for start in range(0, len(out), _PIECE):
            out[start : start + _PIECE] = np.nan
        width = self._engine.n_outputs
        for (column, row), vector in self._arrays(columns, sequence=False):
            out[row, column * width : (column + 1) * width] = vector

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
            places = [(c, int(row)) for row in np.flatnonzero(~column.missing)]
            cells, kept = self._read_all(columns, places)
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
        reader = CellReader(self, columns)
        work = CellPass(self, reader, runtime, sequence=sequence)
        n_cells = sum(int((~column.missing).sum()) for column in columns)
        with (
            Progress(type(self).__name__, n_cells, self.verbose) as progress,
            shared_threads() as adjust,
        ):
            for places, array in work.answers(counted=counted, before_batch=adjust):
                progress.advance(len(places))
                if array is None:
                    reader.unreadable += places
                    continue
                for place in places:
                    yield place, array
        reader.warn()

    def _n_readers(self, runtime: Runtime) -> int:
        """How many threads read cells ahead of the model."""
        return n_decoding_threads()

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
        self, columns: list[Column], places: Iterable[Place]
    ) -> tuple[list[Any], list[Place]]:
        """Decode cells; those that cannot be are warned of and left out."""
        reader = CellReader(self, columns)
        cells, kept = [], []
        for place in places:
            cell = reader.read(place)
            if cell is None:
                reader.unreadable.append(place)
            else:
                cells.append(cell)
                kept.append(place)
        reader.warn()
        return cells, kept

    def _seed(self) -> int:
        return int(check_random_state(self.random_state).randint(2**31 - 1))
