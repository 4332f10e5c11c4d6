"""Encoder around any torch module."""

import copy
import json
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Literal

import numpy as np
from torch import nn

from skmm._constraints import (
    BATCH_SIZE,
    DEVICE,
    DTYPE,
    LEARNING_RATE,
    NON_NEGATIVE,
    ON_ERROR,
    POSITIVE_INT,
    RANDOM_STATE,
    STORE,
    VERBOSE,
    RandomState,
    StrOptions,
)
from skmm._environment._device import on_device
from skmm._frame._column import Column
from skmm.backbones._user_module import ModuleBackbone, stack_cells
from skmm.encoders._cell_encoder import CellEncoder, Dtype, LearningRate, OnError
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
        positional arguments, a mapping as keyword arguments) and returns ``(n, n_outputs)``,
        ``(n, n_tokens, n_outputs)``, ``(n, n_outputs, height, width)`` or ``(tokens, mask)``.
    read : callable, default=None
        Function from a cell to the input of ``collate``, e.g. one that opens a path. None uses
        numbers, strings and arrays unchanged.
    collate : callable, default=None
        Function from a list of read cells to tensors. None stacks them as float32.
    fine_tune : {"frozen", "full"}, default="frozen"
        Which weights of the module are trained:

        - ``"frozen"``: none; every cell is encoded once and its vector stored;
        - ``"full"``: all weights of a copy of the module: in a joint fusion with its head, alone
          with ``y`` through a linear head that is then dropped, or without ``y`` by
          reconstructing the input.
    max_epochs : int, default=10
        Passes over the training cells when the module is trained alone.
    learning_rate : float or "auto", default="auto"
        Step size of Adam when the module is trained alone. ``"auto"`` is 1e-3.
    batch_size : int, default=64
        Number of cells per batch.
    warmup : float, default=0
        Epochs in which the step sizes grow linearly from zero, such as 1 or 0.5.
    early_stopping : bool, default=False
        Whether to hold out 10 % of the training cells when the module is trained alone,
        stop after 10 epochs without a lower loss on them and keep the weights of the best epoch.
        With fewer than 40 cells nothing is held out.
    on_error : {"raise", "missing"}, default="raise"
        What to do with a cell for which ``read`` raises ``MediaDecodeError``: raise the error
        with row and column, or warn and count the cell as absent.
    device : str, default="auto"
        Where the module runs: ``"auto"``, ``"cpu"``, ``"cuda"``, ``"cuda:1"``.
    dtype : {"auto", "float32", "bfloat16", "float16"}, default="float32"
        Precision of a frozen module. The result is float32.
    store : path, EmbeddingStore, False or None, default=None
        Where the vectors of a frozen module are stored: a folder, a store, False for nowhere, or
        None for the store of :func:`skmm.set_config`.
    random_state : int, RandomState instance or None, default=None
        Seed of the training.
    verbose : bool or int, default=0
        Whether to report progress.

    Attributes
    ----------
    n_outputs_ : int
        Number of output features.
    checkpoint_ : None
        The weights are those of the module, not of a checkpoint.
    history_ : list of dict
        One dict per epoch, with ``epoch`` from 1, ``train_loss`` and, if cells are held out,
        ``valid_loss``. Defined only if the encoder's own ``fit`` trained a network.
    n_features_in_ : int
        Number of columns seen in ``fit``.
    feature_names_in_ : ndarray of str
        Names of the columns seen in ``fit``, if ``X`` has names.

    Notes
    -----
    Stored vectors are looked up by the weights, buffers, attributes and code of the module, by the
    code of ``collate``, and by the functions and global values that this code uses. Installed
    packages count by their versions. Vectors of a module with hooks, or with code that cannot be
    inspected, are not stored.

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
        "fine_tune": [StrOptions({"frozen", "full"})],
        "max_epochs": POSITIVE_INT,
        "learning_rate": LEARNING_RATE,
        "batch_size": BATCH_SIZE,
        "warmup": NON_NEGATIVE,
        "early_stopping": ["boolean"],
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
        fine_tune: Literal["frozen", "full"] = "frozen",
        max_epochs: int = 10,
        learning_rate: LearningRate = "auto",
        batch_size: int = 64,
        warmup: float = 0,
        early_stopping: bool = False,
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
        self.fine_tune = fine_tune
        self.max_epochs = max_epochs
        self.learning_rate = learning_rate
        self.batch_size = batch_size
        self.warmup = warmup
        self.early_stopping = early_stopping
        self.on_error = on_error
        self.device = device
        self.dtype = dtype
        self.store = store
        self.random_state = random_state
        self.verbose = verbose

    @property
    def _is_from_scratch(self) -> bool:
        return self.fine_tune == "full"

    def _unused_parameters(self) -> dict[str, str]:
        unused: tuple[str, ...] = ("dtype", "store")
        if not self.needs_training:
            unused = ("max_epochs", "learning_rate", "warmup", "early_stopping")
        return dict.fromkeys(unused, "fine_tune")

    def _make_engine(self, columns: list[Column]) -> Engine:
        engine = _ModuleEngine(self._copy(), self._collate)
        reader = self._reader(columns)
        place = next((p for p in places_of(columns) if reader.read(p) is not None), None)
        if place is None:
            raise ValueError(
                "ModuleEncoder cannot determine the width of the module: every training row is"
                " empty. Drop the column."
            )
        # Only a forward pass shows the width. The vector is stored, so that the cell is not
        # encoded again.
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
        # Neither training nor a move to another device may change the parameter.
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
                    "A str cannot be stacked. Give read= a function that turns it into an array,"
                    " or collate= one that takes a list of str."
                )
            return cell
        array = np.asarray(cell)
        if array.dtype.kind not in "biuf":
            raise CellTypeError(
                f"Got a cell of type {type(cell).__name__}. Give read= a function that turns it"
                " into an array."
            )
        return array

    def _n_readers(self, runtime: Runtime) -> int:
        # The user's function may not be thread-safe; arrays need no reading.
        return int(self.read is not None or runtime.device.type == "cuda")

    def _digest(self, cell: object) -> bytes:
        # Of the decoded cell: only ``read`` can tell what a path refers to.
        return digest_decoded(self._read(cell))


class _ModuleEngine(BackboneEngine):
    """Engine of a frozen module.

    Parameters
    ----------
    backbone : ModuleBackbone
        Wraps the module.
    collate : callable
        Function from a list of read cells to tensors.
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
