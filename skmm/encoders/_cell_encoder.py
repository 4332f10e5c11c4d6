"""Base class of encoders of single cells: texts, images, recordings and others."""

import os
from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, ClassVar, Literal, Self, TypeAlias, TypeVar

import numpy as np
import torch
from numpy.typing import ArrayLike
from sklearn.utils import Tags, check_random_state
from torch import nn

from skmm._constraints import RandomState
from skmm._environment._device import n_decoding_threads, resolve_device, seeded, shared_threads
from skmm._environment._progress import Progress
from skmm._frame._column import Column
from skmm._frame._types import CellColumn
from skmm.backbones import Backbone
from skmm.encoders._base import BaseEncoder, TokenSequence
from skmm.encoders._engines._base import Engine, Runtime
from skmm.encoders._engines._fine_tuned import TunedEngine, make_tuned
from skmm.encoders._engines._trained import LearningRate, TrainedEngine, train_backbone
from skmm.encoders._pass import CellPass, CellReader, Place, places_of
from skmm.encoders._store._store import StoreLike
from skmm.encoders._training_inputs import CellTensors, SideBySide, TrainingInputs

__all__ = [
    "Augment",
    "CellEncoder",
    "Dtype",
    "FineTune",
    "LearningRate",
    "ModelName",
    "OnError",
]

# Types of parameters.
ModelName: TypeAlias = str | os.PathLike[str]
FineTune: TypeAlias = int | Literal["frozen", "last", "lora", "full"]
Augment: TypeAlias = Callable[[Any, np.random.Generator], Any]
Dtype: TypeAlias = Literal["auto", "float32", "bfloat16", "float16"]
OnError: TypeAlias = Literal["raise", "missing"]

Tensors = dict[str, torch.Tensor]
Item = TypeVar("Item")

# Parameters of checkpoints, and of frozen models, whose vectors are stored.
_OF_CHECKPOINTS = ("pooling", "normalize", "fine_tune", "lora_params")
_OF_FROZEN = ("dtype", "store")
_CHUNK = 1 << 16  # rows


class CellEncoder(BaseEncoder):
    """Base of encoders that encode single cells.

    Several columns are encoded by one model, and their vectors are concatenated. The vectors of
    a frozen model are stored; those of a trained network are not, because every fit trains
    another one.

    A model whose last blocks are fine-tuned has two parts: a frozen trunk, whose outputs are
    stored, and a head, which is trained on them.
    """

    modality: ClassVar[str]
    # Texts of a chunk are read at once, to sort them by length; media are read batch by batch.
    reads_chunks: ClassVar[bool] = False
    # Whether scikit-learn's matrices of numbers are valid input: a number is not an image.
    takes_numbers: ClassVar[bool] = True
    # Cells that are looked up together: many help sorting by length, few save memory.
    chunk_size: ClassVar[int] = 1024

    # Parameters of every such encoder; a class attribute where there is no choice.
    batch_size: int
    on_error: str
    device: str
    dtype: str
    store: StoreLike = False
    random_state: RandomState
    verbose: bool | int
    max_epochs: int
    learning_rate: LearningRate
    warmup: float
    early_stopping: bool
    # Parameters of encoders that also take a checkpoint.
    model: ModelName | nn.Module
    pooling: str
    normalize: bool | Literal["auto"]
    fine_tune: FineTune
    lora_params: dict[str, Any] | None
    augment: Augment | None

    _engine: Engine

    # --- implemented by a subclass ---------------------------------------------------------

    @abstractmethod
    def _make_engine(self, columns: list[Column]) -> Engine:
        """Build the engine of a frozen model, or of one that is fitted without torch."""

    @abstractmethod
    def _make_backbone(self, cells: Sequence[Any]) -> Backbone:
        """Build an untrained network from decoded training cells."""

    @abstractmethod
    def _read(self, cell: object) -> Any:
        """Decode a cell."""

    @abstractmethod
    def _digest(self, cell: object) -> bytes:
        """Return the digest of a cell's content."""

    def _read_with_digest(self, cell: object) -> tuple[bytes, Any]:
        """Return the digest of a cell's content and the decoded cell."""
        return self._digest(cell), self._read(cell)

    def _reading(self) -> dict[str, Any]:
        """Return the parameters that change what a cell is decoded to, as JSON types."""
        return {}

    def _n_readers(self, runtime: Runtime) -> int:
        """Return the number of threads that prefetch cells."""
        return n_decoding_threads()

    # --- kind of model ----------------------------------------------------------------------

    @property
    def needs_training(self) -> bool:
        """Whether the model is a network that is trained together with a head."""
        return self._is_from_scratch or self._is_tuned

    @property
    def augments(self) -> bool:
        """Whether ``augment`` changes the cells in each epoch of training."""
        return getattr(self, "augment", None) is not None and self.needs_training

    @property
    def _is_from_scratch(self) -> bool:
        """Whether all weights are trained, without a checkpoint."""
        return False

    @property
    def _is_pretrained(self) -> bool:
        """Whether the model is a checkpoint."""
        return hasattr(self, "lora_params") and not self._is_from_scratch

    @property
    def _is_tuned(self) -> bool:
        """Whether weights of a checkpoint are fine-tuned."""
        return self._is_pretrained and self.fine_tune != "frozen"

    def _unused_parameters(self) -> dict[str, str]:
        training = ("max_epochs", "learning_rate", "warmup", "early_stopping", "augment")
        if not hasattr(self, "lora_params"):  # an encoder that never takes a checkpoint
            return {} if self._is_from_scratch else dict.fromkeys(training, "model")
        if self._is_from_scratch:
            return dict.fromkeys((*_OF_CHECKPOINTS, *_OF_FROZEN, "compile"), "model")
        if not self._is_pretrained:
            return dict.fromkeys(("fine_tune", "lora_params", "compile", *training), "model")
        unused = {} if self.fine_tune == "lora" else {"lora_params": "fine_tune"}
        if not self._is_tuned:
            return unused | dict.fromkeys(training, "fine_tune")
        unused["compile"] = "fine_tune"
        if self.fine_tune in ("lora", "full"):  # there is no frozen trunk
            unused |= dict.fromkeys(_OF_FROZEN, "fine_tune")
        return unused

    # --- implementation of BaseEncoder ------------------------------------------------------

    def _fit_columns(self, columns: list[Column], y: np.ndarray | None) -> None:
        if self.needs_training:
            with seeded(self._seed()):
                self._train_alone(columns, y)
        else:
            self._engine = self._make_engine(columns)
        self.n_outputs_ = self._engine.n_outputs * len(columns)
        self.checkpoint_ = self._engine.identity

    def _train_alone(self, columns: list[Column], y: np.ndarray | None) -> None:
        if self._is_tuned:
            self._engine = engine = self._untrained_engine(columns)
            tensors, kept = self._inputs_of(columns, list(places_of(columns)))
            if not kept:
                raise self._nothing_to_train_on(columns)
        else:
            cells, kept = self._training_cells(columns)
            self._engine = engine = TrainedEngine(self._make_backbone(cells))
            tensors = engine.backbone.collate(cells)
            del cells

        def renew(seed: int) -> Tensors:
            return self._inputs_of(columns, kept, seed=(seed,))[0]

        self.history_ = train_backbone(
            engine.backbone,
            tensors,
            None if y is None else y[[row for _, row in kept]],
            max_epochs=self.max_epochs,
            learning_rate=self.learning_rate,
            batch_size=self.batch_size,
            warmup=self.warmup,
            early_stopping=self.early_stopping,
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
        # In chunks, because filling a mapped file at once would hold all of it in memory.
        for start in range(0, len(out), _CHUNK):
            out[start : start + _CHUNK] = np.nan
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

    # --- training in a joint fusion -----------------------------------------------------------

    def start_training(self, X: CellColumn, y: ArrayLike | None = None) -> SideBySide:
        """Fit everything but the weights and return the untrained network.

        A joint fusion calls this on an encoder that ``needs_training``, trains the network on
        rows of :meth:`training_tensors` and passes it to :meth:`end_training`. Weights are
        sampled from torch's current generator.

        Parameters
        ----------
        X : DataFrame of shape (n_samples, n_columns)
            Training cells.
        y : array-like of shape (n_samples,), default=None
            Target.

        Returns
        -------
        network : nn.Module
            It has a ``width``, and a ``step_size``: that of its pretrained weights, or None.
            Called with ``TrainingInputs``, it returns ``Encoded``: tokens, mask, pooled vector.
        """
        self._validate_params()
        columns = self._check_columns(X, reset=True)
        self._engine = engine = self._untrained_engine(columns)
        self.n_outputs_ = engine.n_outputs * len(columns)
        self.checkpoint_ = engine.identity
        return SideBySide(engine.backbone, len(columns))

    def training_tensors(self, X: CellColumn, seed: int | None = None) -> TrainingInputs:
        """Return the inputs of the network, one row per row of ``X``.

        Parameters
        ----------
        X : DataFrame of shape (n_samples, n_columns)
            Cells; absent ones become zeros, which the network ignores.
        seed : int or None, default=None
            Seed of ``augment``, which changes each cell. Another one is given in each epoch of
            an encoder that ``augments``. None leaves the cells unchanged.

        Returns
        -------
        inputs : TrainingInputs
            ``len(X)`` rows. ``inputs.present`` says which rows have a readable cell,
            ``inputs.rows(index)`` takes some of them, ``inputs.to(device)`` moves them.
        """
        parts = []
        for c, column in enumerate(self._check_columns(X, reset=False)):
            self._engine.follow(self)
            # One column at a time: its tensors are padded to its own longest cell.
            collated, kept = self._inputs_of(
                [column], list(places_of([column])), seed=None if seed is None else (seed, c)
            )
            n, rows = len(column.values), torch.tensor([r for _, r in kept], dtype=torch.int64)
            present = torch.zeros(n, dtype=torch.bool)
            present[rows] = True
            inputs = {}
            for name, values in collated.items():
                inputs[name] = values.new_zeros((n, *values.shape[1:]))
                inputs[name][rows] = values
            parts.append(CellTensors(present, inputs))
        return TrainingInputs(tuple(parts))

    def end_training(self, network: SideBySide) -> Self:
        """Finish the fit with the trained network.

        Parameters
        ----------
        network : nn.Module
            The network that :meth:`start_training` returned, trained.

        Returns
        -------
        self : object
            The fitted encoder.
        """
        assert isinstance(self._engine, TrainedEngine)
        self._engine.backbone = network.backbone.eval()
        return self

    def _untrained_engine(self, columns: list[Column]) -> TrainedEngine:
        """Build the network to train, from the training cells or from a checkpoint."""
        if self._is_tuned:
            return make_tuned(self, self.modality, resolve_device(self.device))
        return TrainedEngine(self._make_backbone(self._training_cells(columns)[0]))

    def _inputs_of(
        self, columns: list[Column], places: list[Place], *, seed: tuple[int, ...] | None = None
    ) -> tuple[Tensors, list[Place]]:
        """Return the inputs of the network for the cells at some places, and the readable places.

        With a seed, ``augment`` changes the cells. A column without a cell has no inputs.
        """
        engine = self._engine
        assert isinstance(engine, TrainedEngine)
        head = engine if isinstance(engine, TunedEngine) and engine.trunk is not None else None
        if head is not None and seed is None:
            return self._stored_inputs_of(head, columns, places)
        cells, kept = self._read_all(columns, places, seed=seed)
        if not cells:
            return {}, kept
        if head is not None:
            return head.head_inputs(self._through_trunk(head, cells), cells), kept
        return engine.backbone.collate(cells), kept

    def _stored_inputs_of(
        self, head: TunedEngine, columns: list[Column], places: list[Place]
    ) -> tuple[Tensors, list[Place]]:
        """Return the inputs of the head, from the stored or computed outputs of the trunk."""
        assert head.trunk is not None
        arrays = dict(self._passed(columns, head.trunk, sequence=True))
        kept = [place for place in places if place in arrays]
        if not kept:
            return {}, kept
        cells = self._read_all(columns, kept)[0] if head.needs_cells else []
        return head.head_inputs([arrays[place] for place in kept], cells), kept

    def _through_trunk(self, head: TunedEngine, cells: list[Any]) -> list[np.ndarray]:
        """Encode decoded cells by the trunk, without the store: augmented cells never recur."""
        trunk, runtime = head.trunk, Runtime.of(self)
        assert trunk is not None
        arrays: list[np.ndarray] = [np.empty(0)] * len(cells)
        for batch in trunk.batches(cells, runtime):
            prepared = trunk.prepare([cells[i] for i in batch], runtime)
            for i, array in zip(batch, trunk.run(prepared, runtime, sequence=True), strict=True):
                arrays[i] = array
        return arrays

    # --- cells to arrays --------------------------------------------------------------------

    def _arrays(
        self, columns: list[Column], *, sequence: bool, counted: bool = True
    ) -> Iterator[tuple[Place, np.ndarray]]:
        """Yield (place, array) of every readable cell.

        ``counted=False`` excludes the look-up from the counters of the store.
        """
        engine = self._engine
        engine.follow(self)
        if isinstance(engine, TunedEngine) and engine.trunk is not None:
            arrays = self._passed(columns, engine.trunk, sequence=True, counted=counted)
            yield from self._through_head(engine, columns, arrays, sequence=sequence)
        else:
            yield from self._passed(columns, engine, sequence=sequence, counted=counted)

    def _passed(
        self, columns: list[Column], engine: Engine, *, sequence: bool, counted: bool = True
    ) -> Iterator[tuple[Place, np.ndarray]]:
        """Yield (place, array) of the stored or computed outputs of an engine."""
        runtime = Runtime.of(self)
        reader = self._reader(columns)
        work = CellPass(
            engine,
            reader,
            runtime,
            sequence=sequence,
            store=self.store,
            reading=self._reading(),
            chunk_size=self.chunk_size,
            reads_chunks=self.reads_chunks,
            n_readers=lambda: self._n_readers(runtime),
        )
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

    def _through_head(
        self,
        head: TunedEngine,
        columns: list[Column],
        arrays: Iterable[tuple[Place, np.ndarray]],
        *,
        sequence: bool,
    ) -> Iterator[tuple[Place, np.ndarray]]:
        """Yield (place, array) of the outputs of the head, from those of the trunk."""
        runtime = Runtime.of(self)
        for batch in _in_batches(arrays, runtime.batch_size):
            places = [place for place, _ in batch]
            cells = self._read_all(columns, places)[0] if head.needs_cells else []
            tensors = head.head_inputs([array for _, array in batch], cells)
            yield from zip(places, head.run(tensors, runtime, sequence=sequence), strict=True)

    # --- reading ----------------------------------------------------------------------------

    def _reader(self, columns: list[Column]) -> CellReader:
        return CellReader(
            columns,
            read=self._read,
            digest=self._digest,
            read_with_digest=self._read_with_digest,
            owner=type(self).__name__,
            on_error=self.on_error,
        )

    def _training_cells(self, columns: list[Column]) -> tuple[list[Any], list[Place]]:
        """Return the decoded training cells of all columns, and the place of each."""
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
        """Return decoded cells and their places; warn about unreadable ones and omit them.

        With a seed, ``augment`` changes the cells.
        """
        reader = self._reader(columns)
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
        # One generator per cell, so that its augmentation does not depend on the other cells.
        assert self.augment is not None
        rng = np.random.default_rng(seed)
        if isinstance(cell, list):  # of images
            return [self.augment(part, rng) for part in cell]
        return self.augment(cell, rng)

    def _seed(self) -> int:
        return int(check_random_state(self.random_state).randint(2**31 - 1))

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = self.takes_numbers
        return tags


def _in_batches(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    batch: list[Item] = []
    for item in items:
        batch.append(item)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch
