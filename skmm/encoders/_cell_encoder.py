"""Encoders that look at one cell at a time: text, pictures, anything a module takes."""

from abc import abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, ClassVar, Self

import numpy as np
import torch
from sklearn.utils import Tags, check_random_state
from torch import nn

from skmm._environment._device import n_decoding_threads, resolve_device, seeded, shared_threads
from skmm._frame._column import Column
from skmm.backbones import Encoded
from skmm.encoders._base import BaseEncoder, TokenSequence
from skmm.encoders._engines._base import Engine, Runtime
from skmm.encoders._engines._fine_tuned import make_tuned
from skmm.encoders._engines._prefetch import Progress
from skmm.encoders._engines._trained import TrainedEngine, train_backbone
from skmm.encoders._pass import CellPass, CellReader, Place, places_of

__all__ = [
    "CellEncoder",
    "SideBySide",
    "arrays_above",
    "inputs_above",
    "run_below",
]

# --- Encoders whose model is frozen below and trained above: the way of cells through both ---


def inputs_above(
    encoder: Any, columns: list[Column], places: list[Place]
) -> tuple[dict[str, torch.Tensor], list[Place]]:
    """Inputs of the part that is trained, from what is stored of the part below.

    Parameters
    ----------
    encoder : CellEncoder
        Whose engine has a part ``below``.
    columns : list of Column
        Where the cells stand.
    places : list of (column, row)
        Cells that are wanted.

    Returns
    -------
    tensors : dict of str to Tensor
        A row a cell; empty if there is none.
    kept : list of (column, row)
        Cells that are readable.
    """
    engine = encoder._engine
    arrays = dict(encoder._passed(columns, engine.below, sequence=True))
    kept = [place for place in places if place in arrays]
    if not kept:
        return {}, kept
    cells = encoder._read_all(columns, kept)[0] if engine.wants_cells else []
    return engine.backbone.stacked([arrays[place] for place in kept], cells), kept


def run_below(encoder: Any, cells: list[Any]) -> list[np.ndarray]:
    """Encode decoded cells by the frozen part, past the store: they are never seen again.

    Parameters
    ----------
    encoder : CellEncoder
        Whose engine has a part ``below``.
    cells : list
        Decoded cells.
    """
    engine, runtime = encoder._engine.below, Runtime.of(encoder)
    arrays: list[Any] = [None] * len(cells)
    for batch in engine.batches(cells, runtime):
        prepared = engine.prepare([cells[i] for i in batch], runtime)
        for i, array in zip(batch, engine.run(prepared, runtime, sequence=True), strict=True):
            arrays[i] = array
    return arrays


def arrays_above(
    encoder: Any,
    columns: list[Column],
    lower: Iterable[tuple[Place, np.ndarray]],
    *,
    sequence: bool,
) -> Iterator[tuple[Place, np.ndarray]]:
    """Yield (place, array) of what the part above makes of what the part below gave.

    Parameters
    ----------
    encoder : CellEncoder
        Whose engine has a part ``below``.
    columns : list of Column
        Where the cells stand.
    lower : iterable of ((column, row), ndarray)
        Results of the part below.
    sequence : bool
        Whether tokens are asked for.
    """
    engine, runtime = encoder._engine, Runtime.of(encoder)

    def results(batch: list[tuple[Place, np.ndarray]]) -> Iterator[tuple[Place, np.ndarray]]:
        places = [place for place, _ in batch]
        cells = encoder._read_all(columns, places)[0] if engine.wants_cells else []
        tensors = engine.backbone.stacked([array for _, array in batch], cells)
        yield from zip(places, engine.run(tensors, runtime, sequence=sequence), strict=True)

    batch: list[tuple[Place, np.ndarray]] = []
    for item in lower:
        batch.append(item)
        if len(batch) == runtime.batch_size:
            yield from results(batch)
            batch = []
    if batch:
        yield from results(batch)


# --- One network over several columns of a modality, in a joint training ---


class SideBySide(nn.Module):
    """Runs one backbone over each column and puts their tokens one after the other.

    Parameters
    ----------
    backbone : Backbone
        Shared by the columns.
    n_columns : int
        How many.

    Attributes
    ----------
    step_size : float or None
        Step size of an optimizer that suits the weights; None leaves it to the trainer.
    """

    def __init__(self, backbone: Any, n_columns: int):
        super().__init__()
        self.backbone = backbone
        self.n_columns = n_columns
        self.width = backbone.width
        self.step_size: float | None = getattr(backbone, "step_size", None)

    def forward(self, **tensors: torch.Tensor) -> Any:
        """Encode ``{"<column>/<name>": tensor}``; an absent cell's tokens are masked.

        ``pooled`` is the mean over the columns that are present.
        """
        presents, encoded = [], []
        for c in range(self.n_columns):
            own = {
                name.partition("/")[2]: tensor
                for name, tensor in tensors.items()
                if name.startswith(f"{c}/")
            }
            presents.append(own.pop("present"))
            encoded.append(self._encode(own, presents[-1]))
        present = torch.stack(presents, dim=1).to(encoded[0].pooled.dtype)  # (B, n_columns)
        pooled = torch.stack([e.pooled for e in encoded], dim=1)
        return Encoded(
            tokens=torch.cat([e.tokens for e in encoded], dim=1),
            mask=torch.cat([e.mask for e in encoded], dim=1),
            pooled=pooled.sum(1) / present.sum(1, keepdim=True).clamp(min=1.0),
        )

    def _encode(self, tensors: dict[str, torch.Tensor], present: torch.Tensor) -> Encoded:
        """Encode the cells that are there, zeros in place of the others.

        What stands in an absent cell's tensors never enters the network: a module of the
        user's may make NaN of it, or mix the rows of a batch.
        """
        if present.all():
            return self.backbone(**tensors)
        n, rows = len(present), present.nonzero().squeeze(1)
        if not len(rows):
            nothing = torch.zeros(n, 1, self.width, device=present.device)
            mask = torch.zeros(n, 1, dtype=torch.bool, device=present.device)
            return Encoded(nothing, mask, nothing[:, 0])
        part = self.backbone(**{name: tensor[rows] for name, tensor in tensors.items()})
        return Encoded(*(_scattered(values, rows, n) for values in part))


def _scattered(values: torch.Tensor, rows: torch.Tensor, n: int) -> torch.Tensor:
    return values.new_zeros(n, *values.shape[1:]).index_copy(0, rows, values)


_PIECE = 1 << 16  # rows


class CellEncoder(BaseEncoder):
    """Base of encoders whose unit is the cell.

    Several columns are encoded by the one model, side by side. A frozen model's vectors
    go through the store; a network that is trained here is new at every fit, so they do not.
    """

    modality: ClassVar[str]
    # Text is read at once, to sort it by length; media are read batch by batch.
    reads_ahead: ClassVar[bool] = False
    # A number is no picture: scikit-learn's matrices are not input of encoders of media.
    takes_numbers: ClassVar[bool] = True
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
    def needs_training(self) -> bool:
        """Whether the model is a network that has to be trained with a head."""
        return self._is_from_scratch or self._is_tuned

    @property
    def _is_from_scratch(self) -> bool:
        """Whether the model is a network that knows nothing before it is trained."""
        return False

    # --- the private verbs of BaseEncoder -------------------------------------------------

    def _fit_columns(self, columns: list[Column], y: Any) -> None:
        if self.needs_training:
            with seeded(self._seed()):
                self._train_alone(columns, y)
        else:
            self._engine: Any = self._make_engine(columns, y)
        self.n_outputs_ = self._engine.n_outputs * len(columns)
        self.checkpoint_ = getattr(self._engine, "identity", None)

    def _train_alone(self, columns: list[Column], y: Any) -> None:
        if self._is_tuned:
            self._engine = self._untrained_engine(columns)
            tensors, kept = self._inputs_of(columns, list(places_of(columns)))
            if not kept:
                raise self._nothing_to_train_on(columns)
        else:
            cells, kept = self._training_cells(columns)
            self._engine = TrainedEngine(self._make_backbone(cells))
            tensors = self._engine.backbone.collate(cells)
            del cells

        def renew(seed: int) -> dict[str, torch.Tensor]:
            return self._inputs_of(columns, kept, seed=(seed,))[0]

        self.loss_curve_ = train_backbone(
            self._engine.backbone,
            tensors,
            None if y is None else np.asarray(y)[[row for _, row in kept]],
            max_epochs=self.max_epochs,
            learning_rate=self.learning_rate,
            batch_size=self.batch_size,
            device=resolve_device(self.device),
            owner=type(self).__name__,
            verbose=self.verbose,
            renew=renew if self.augments else None,
        )

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
        self._engine = self._untrained_engine(columns)
        self.n_outputs_ = self._engine.n_outputs * len(columns)
        self.checkpoint_ = getattr(self._engine, "identity", None)
        return SideBySide(self._engine.backbone, len(columns))

    def training_tensors(self, X: Any, seed: int | None = None) -> dict[str, torch.Tensor]:
        """Return the network's inputs, a row a row of ``X``.

        Parameters
        ----------
        X : DataFrame of shape (n_samples, n_columns)
            Cells; absent ones become zeros that the network is told to ignore.
        seed : int or None, default=None
            If given, ``augment`` changes each cell, in a way that the seed determines. Asked
            for in each epoch of an encoder that ``augments``; None leaves cells as they are.

        Returns
        -------
        tensors : dict of str to Tensor
            First axis ``n_samples``.
        """
        columns = self._check_columns(X, reset=False)
        tensors: dict[str, torch.Tensor] = {}
        for c, column in enumerate(columns):
            self._engine.follow(self)
            # One column at a time: its tensors are padded to its own longest cell.
            collated, kept = self._inputs_of(
                [column], list(places_of([column])), seed=None if seed is None else (seed, c)
            )
            rows = torch.as_tensor([row for _, row in kept], dtype=torch.int64)
            present = torch.zeros(len(column.values), dtype=torch.bool)
            present[rows] = True
            tensors[f"{c}/present"] = present
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
        self._engine.backbone = backbone.eval()
        return self

    @property
    def _is_tuned(self) -> bool:
        """Whether weights of a checkpoint are trained on, as ``fine_tune`` says."""
        return getattr(self, "fine_tune", "frozen") != "frozen" and not self._is_from_scratch

    @property
    def augments(self) -> bool:
        """Whether cells change from epoch to epoch of a training."""
        return getattr(self, "augment", None) is not None and self.needs_training

    def _untrained_engine(self, columns: list[Column]) -> Any:
        """Build what is going to be trained, from the training cells or from a checkpoint."""
        if self._is_tuned:
            return make_tuned(self, self.modality, resolve_device(self.device))
        return TrainedEngine(self._make_backbone(self._training_cells(columns)[0]))

    def _inputs_of(
        self, columns: list[Column], places: list[Place], *, seed: tuple[int, ...] | None = None
    ) -> tuple[dict[str, torch.Tensor], list[Place]]:
        """Inputs of the network for the cells at these places, and the places that are readable.

        A column without a cell has none: nothing of it enters the network.
        """
        engine = self._engine
        if engine.below is not None and seed is None:
            return inputs_above(self, columns, places)
        cells, kept = self._read_all(columns, places, seed=seed)
        if not cells:
            return {}, kept
        if engine.below is not None:
            return engine.backbone.stacked(run_below(self, cells), cells), kept
        return engine.backbone.collate(cells), kept

    # --- cells ----------------------------------------------------------------------------

    def _arrays(
        self, columns: list[Column], *, sequence: bool, counted: bool = True
    ) -> Iterator[tuple[Place, np.ndarray]]:
        """Yield (place, array) of every cell that is there and readable.

        ``counted=False`` leaves the look-up out of the store's counters of what users ask.
        """
        self._engine.follow(self)
        below = self._engine.below
        if below is None:
            yield from self._passed(columns, self._engine, sequence=sequence, counted=counted)
        else:
            lower = self._passed(columns, below, sequence=True, counted=counted)
            yield from arrays_above(self, columns, lower, sequence=sequence)

    def _passed(
        self, columns: list[Column], engine: Engine, *, sequence: bool, counted: bool = True
    ) -> Iterator[tuple[Place, np.ndarray]]:
        """Yield (place, array) of what an engine, or the store, gives for the cells."""
        runtime = Runtime.of(self)
        reader = CellReader(self, columns)
        work = CellPass(self, reader, runtime, sequence=sequence, engine=engine)
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

    def _training_cells(self, columns: list[Column]) -> tuple[list[Any], list[Place]]:
        """Decoded training cells of all columns, and the place of each."""
        cells, kept = self._read_all(columns, places_of(columns))
        if not cells:
            raise self._nothing_to_train_on(columns)
        return cells, kept

    def _nothing_to_train_on(self, columns: list[Column]) -> ValueError:
        names = ", ".join(repr(column.name) for column in columns)
        return ValueError(
            f"{type(self).__name__} has no cell to train on: column {names} is empty in every"
            " training row. Drop the column, or use a pretrained model."
        )

    def _read_all(
        self,
        columns: list[Column],
        places: Iterable[Place],
        *,
        seed: tuple[int, ...] | None = None,
    ) -> tuple[list[Any], list[Place]]:
        """Decode cells; those that cannot be are warned of and left out.

        With a seed, ``augment`` changes them.
        """
        reader = CellReader(self, columns)
        cells, kept = [], []
        for place in places:
            cell = reader.read(place)
            if cell is None:
                reader.unreadable.append(place)
            else:
                cells.append(cell if seed is None else self._augmented(cell, (*seed, *place)))
                kept.append(place)
        reader.warn()
        return cells, kept

    def _augmented(self, cell: Any, seed: tuple[int, ...]) -> Any:
        # A generator for each cell: what happens to one does not depend on the others.
        rng = np.random.default_rng(seed)
        if isinstance(cell, list):  # of pictures
            return [self.augment(part, rng) for part in cell]
        return self.augment(cell, rng)

    def _seed(self) -> int:
        return int(check_random_state(self.random_state).randint(2**31 - 1))

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = self.takes_numbers
        return tags
