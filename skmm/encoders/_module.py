"""Any torch module as an encoder."""

import copy
import json
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import numpy as np
from torch import nn

from skmm._constraints import (
    BATCH_SIZE,
    DEVICE,
    DTYPE,
    LEARNING_RATE,
    ON_ERROR,
    POSITIVE_INT,
    RANDOM_STATE,
    STORE,
    VERBOSE,
    RandomState,
)
from skmm._environment._device import on_device
from skmm._frame._column import Column
from skmm.backbones._user_module import ModuleBackbone, stack_cells
from skmm.encoders._cell_encoder import CellEncoder, Dtype, OnError
from skmm.encoders._engines._base import BackboneEngine, Engine, Runtime
from skmm.encoders._pass import places_of
from skmm.encoders._store._fingerprint import code_digest, digest_decoded, module_digest
from skmm.encoders._store._store import StoreLike
from skmm.exceptions import CellTypeError

__all__ = ["ModuleEncoder"]


class ModuleEncoder(CellEncoder):
    """Encode cells with a torch module of your own.

    Parameters
    ----------
    module : nn.Module
        Takes the tensor that ``collate`` makes of a batch of cells (several tensors as
        positional arguments, a mapping as keyword arguments) and returns ``(n, width)``,
        ``(n, n_tokens, width)``, ``(n, width, height, width)`` or ``(tokens, mask)``.
    read : callable, default=None
        From a cell to what ``collate`` takes, e.g. a function that opens a path. None takes
        numbers, strings and arrays as they are.
    collate : callable, default=None
        From a list of read cells to tensors. None stacks them as float32.
    trainable : bool, default=False
        False: the module is frozen and its vectors are kept in the store. True: a copy of it
        is trained, inside a joint fusion with its head, alone with ``y`` through a linear
        head that is then dropped, or without ``y`` by reconstructing its input.
    max_epochs : int, default=10
        Passes over the training cells when trained alone.
    learning_rate : float, default=1e-3
        Step size when trained alone.
    batch_size : int, default=64
        Cells that go through the module at once.
    on_error : {"raise", "missing"}, default="raise"
        What to do with a cell for which ``read`` raises ``MediaDecodeError``: raise it with
        row and column, or warn and count the cell as absent.
    device : str, default="auto"
        Where the module runs: ``"auto"``, ``"cpu"``, ``"cuda"``, ``"cuda:1"``.
    dtype : {"auto", "float32", "bfloat16", "float16"}, default="float32"
        Precision of a frozen module. The result is float32.
    store : path, EmbeddingStore, False or None, default=None
        Where vectors of a frozen module are kept; see :func:`skmm.set_config`.
    random_state : int, RandomState instance or None, default=None
        Seed of the training.
    verbose : bool or int, default=0
        Whether to report progress.

    Attributes
    ----------
    n_outputs_ : int
        Width of the result.
    checkpoint_ : None
        Weights are in the module, not in a checkpoint.
    loss_curve_ : list of float
        Mean loss of every epoch, if trained alone.
    n_features_in_ : int
        Number of columns seen in ``fit``.
    feature_names_in_ : ndarray of str
        Names of the columns seen in ``fit``, if it saw names.

    Notes
    -----
    Stored vectors belong to the module's weights, buffers, attributes and code, and to the
    code of ``collate``. A function elsewhere that this code calls is not looked at: use
    another store after changing one. A module with hooks is not stored at all.

    Examples
    --------
    >>> import numpy as np
    >>> import pandas as pd
    >>> import torch
    >>> from skmm import ModuleEncoder
    >>> X = pd.DataFrame({"spectrum": [np.ones(4), np.zeros(4), None]})
    >>> module = torch.nn.Linear(4, 2)
    >>> features = ModuleEncoder(module).fit_transform(X)
    >>> features.shape, np.isnan(features[2]).all()
    ((3, 2), np.True_)
    """

    modality: ClassVar[str] = "module"
    _parameter_constraints: ClassVar[dict[str, Any]] = {
        "module": [nn.Module],
        "read": [callable, None],
        "collate": [callable, None],
        "trainable": ["boolean"],
        "max_epochs": POSITIVE_INT,
        "learning_rate": LEARNING_RATE,
        "batch_size": BATCH_SIZE,
        "on_error": ON_ERROR,
        "device": DEVICE,
        "dtype": DTYPE,
        "store": STORE,
        "random_state": RANDOM_STATE,
        "verbose": VERBOSE,
    }

    def __init__(
        self,
        module: nn.Module,
        *,
        read: Callable[[Any], Any] | None = None,
        collate: Callable[[list[Any]], Any] | None = None,
        trainable: bool = False,
        max_epochs: int = 10,
        learning_rate: float = 1e-3,
        batch_size: int = 64,
        on_error: OnError = "raise",
        device: str = "auto",
        dtype: Dtype = "float32",
        store: StoreLike = None,
        random_state: RandomState = None,
        verbose: bool | int = 0,
    ):
        self.module = module
        self.read = read
        self.collate = collate
        self.trainable = trainable
        self.max_epochs = max_epochs
        self.learning_rate = learning_rate
        self.batch_size = batch_size
        self.on_error = on_error
        self.device = device
        self.dtype = dtype
        self.store = store
        self.random_state = random_state
        self.verbose = verbose

    @property
    def needs_training(self) -> bool:
        """Whether the module is trained with a head."""
        return self.trainable

    def _without_effect(self) -> dict[str, str]:
        idle = ("dtype", "store") if self.trainable else ("max_epochs", "learning_rate")
        return dict.fromkeys(idle, "trainable")

    def _make_engine(self, columns: list[Column]) -> Engine:
        engine = _ModuleEngine(self._copy(), self._collate)
        reader = self._reader(columns)
        place = next((p for p in places_of(columns) if reader.read(p) is not None), None)
        if place is None:
            raise ValueError(
                "ModuleEncoder has no cell to learn the module's width from: every training row"
                " is empty. Drop the column."
            )
        # Only a forward pass can tell the width. The cell goes through the store, so that it
        # is not encoded again.
        self._engine = engine
        column, row = columns[place[0]], slice(place[1], place[1] + 1)
        cell = Column(column.name, column.values[row], column.missing[row], column.labels[row])
        for _, vector in self._arrays([cell], sequence=False, counted=False):
            engine.n_outputs = len(vector)
        return engine

    def _make_backbone(self, cells: Sequence[Any]) -> ModuleBackbone:
        backbone = self._copy()
        backbone.measure(cells[0])
        return backbone

    def _copy(self) -> ModuleBackbone:
        # Neither training nor a move to another device may touch the parameter.
        return ModuleBackbone(copy.deepcopy(self.module), collate=self._collate)

    @property
    def _collate(self) -> Callable[[list[Any]], Any]:
        return self.collate or stack_cells

    def _read(self, cell: object) -> Any:
        if self.read is not None:
            return self.read(cell)
        if isinstance(cell, str):
            if self.collate is None:
                raise CellTypeError(
                    "a str cannot be stacked. Give read= a function that turns it into an array,"
                    " or collate= one that takes a list of str."
                )
            return cell
        array = np.asarray(cell)
        if array.dtype.kind not in "biuf":
            raise CellTypeError(
                f"got a cell of type {type(cell).__name__}. Give read= a function that turns it"
                " into an array."
            )
        return array

    def _n_readers(self, runtime: Runtime) -> int:
        # The user's function is not ours to call from several threads; arrays need no reading.
        return int(self.read is not None or runtime.device.type == "cuda")

    def _digest(self, cell: object) -> bytes:
        # Of what was read, not of the cell: only ``read`` knows what a path stands for.
        return digest_decoded(self._read(cell))


class _ModuleEngine(BackboneEngine):
    """A frozen module.

    Parameters
    ----------
    backbone : ModuleBackbone
        Around the module.
    collate : callable
        What it puts cells together with.
    """

    def __init__(self, backbone: ModuleBackbone, collate: Callable[[list[Any]], Any]):
        self.backbone = backbone.eval()
        self.collate = collate

    def fingerprint(self, runtime: Runtime) -> str | None:
        weights = module_digest(self.backbone.module)
        collate = code_digest(self.collate)
        if weights is None or collate is None:
            return None
        return json.dumps(
            {"format": 2, "module": weights, "collate": collate, "dtype": str(runtime.dtype)}
        )

    def backbone_on(self, runtime: Runtime) -> Any:
        return on_device(self.backbone, runtime.device)

    def __getstate__(self) -> dict[str, Any]:
        self.backbone.cpu()
        return self.__dict__
