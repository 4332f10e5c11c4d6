"""Encoder of tables of numbers and categories."""

import datetime
import decimal
import enum
import math
import uuid
from typing import Any, ClassVar, Literal, Self, SupportsFloat, cast

import numpy as np
import pandas as pd
import torch
from numpy.typing import ArrayLike
from sklearn.utils import check_random_state

from skmm._constraints import (
    BATCH_SIZE,
    DEVICE,
    LEARNING_RATE,
    NON_NEGATIVE,
    POSITIVE_INT,
    RANDOM_STATE,
    VERBOSE,
    RandomState,
    StrOptions,
)
from skmm._environment._device import on_device, resolve_device, seeded
from skmm._frame._column import Column
from skmm._frame._types import CellColumn
from skmm.backbones import Encoded
from skmm.backbones._column_tokens import FeatureTokens
from skmm.encoders._base import BaseEncoder, TokenSequence
from skmm.encoders._engines._trained import LearningRate, train_backbone
from skmm.encoders._training_inputs import CellTensors, SideBySide, TrainingInputs
from skmm.exceptions import CellTypeError
from skmm.readers._text import as_float, read_text

__all__ = ["TableReader", "TabularEncoder"]


class TabularEncoder(BaseEncoder):
    """Encode columns of numbers, dates and categories together.

    Numbers, booleans, dates and durations are encoded as numbers (dates as days since 1970);
    texts and categories as categories. A missing number or category is marked as such; a row in
    which every column is missing has no table and becomes NaN.

    Parameters
    ----------
    model : {"onehot", "tokens"}, default="onehot"
        Model of the rows:

        - ``"onehot"``: standardized numbers, one-hot categories, and a missing indicator for
          each column with missing cells in training. No network is trained.
        - ``"tokens"``: one learned token per column and attention among them, trained from
          scratch: in a joint fusion together with its head, alone with ``y`` through a linear
          head that is then dropped, or without ``y`` by reconstructing the table.
    max_categories : int, default=50
        Number of the most frequent values of a category column that are distinguished; the
        others, and values that are not in training, count as one unknown value.
    n_components : int, default=32
        Width of the vectors of ``"tokens"``.
    max_epochs : int, default=20
        Passes over the training rows when ``"tokens"`` is trained alone.
    learning_rate : float or "auto", default="auto"
        Step size of Adam when ``"tokens"`` is trained alone. ``"auto"`` is 1e-3.
    batch_size : int, default=128
        Number of rows per batch of ``"tokens"``.
    warmup : float, default=0
        Epochs in which the step sizes grow linearly from zero, such as 1 or 0.5.
    early_stopping : bool, default=False
        Whether to hold out 10 % of the training rows when ``"tokens"`` is trained alone,
        stop after 10 epochs without a lower loss on them and keep the weights of the best epoch.
        With fewer than 40 rows nothing is held out.
    device : str, default="auto"
        Where ``"tokens"`` runs: ``"auto"``, ``"cpu"``, ``"cuda"``, ``"cuda:1"``.
    random_state : int, RandomState instance or None, default=None
        Seed of the training.
    verbose : bool or int, default=0
        Whether to report the progress of the training.

    Attributes
    ----------
    n_outputs_ : int
        Number of output features.
    history_ : list of dict
        One dict per epoch, with ``epoch`` from 1, ``train_loss`` and, if cells are held out,
        ``valid_loss``. Defined only if the encoder's own ``fit`` trained a network.
    n_features_in_ : int
        Number of columns seen in ``fit``.
    feature_names_in_ : ndarray of str
        Names of the columns seen in ``fit``, if ``X`` has names.

    References
    ----------
    Gorishniy et al. (2021), "Revisiting deep learning models for tabular data", NeurIPS, for
    ``"tokens"``.

    Examples
    --------
    >>> import pandas as pd
    >>> from skmm import TabularEncoder
    >>> X = pd.DataFrame({"age": [20, 40, None], "size": ["S", "L", "L"]})
    >>> TabularEncoder().set_output(transform="pandas").fit_transform(X)
       age  age_missing  size_L  size_S
    0 -1.0          0.0     0.0     1.0
    1  1.0          0.0     1.0     0.0
    2  0.0          1.0     1.0     0.0
    """

    modality: ClassVar[str] = "tabular"
    _network: FeatureTokens | None
    _parameter_constraints: ClassVar[dict[str, Any]] = {
        "model": [StrOptions({"onehot", "tokens"})],
        "max_categories": POSITIVE_INT,
        "n_components": POSITIVE_INT,
        "max_epochs": POSITIVE_INT,
        "learning_rate": LEARNING_RATE,
        "batch_size": BATCH_SIZE,
        "warmup": NON_NEGATIVE,
        "early_stopping": ["boolean"],
        "device": DEVICE,
        "random_state": RANDOM_STATE,
        "verbose": VERBOSE,
    }

    def __init__(
        self,
        model: Literal["onehot", "tokens"] = "onehot",
        *,
        max_categories: int = 50,
        n_components: int = 32,
        max_epochs: int = 20,
        learning_rate: LearningRate = "auto",
        batch_size: int = 128,
        warmup: float = 0,
        early_stopping: bool = False,
        device: str = "auto",
        random_state: RandomState = None,
        verbose: bool | int = 0,
    ):
        self.model = model
        self.max_categories = max_categories
        self.n_components = n_components
        self.max_epochs = max_epochs
        self.learning_rate = learning_rate
        self.batch_size = batch_size
        self.warmup = warmup
        self.early_stopping = early_stopping
        self.device = device
        self.random_state = random_state
        self.verbose = verbose

    @property
    def needs_training(self) -> bool:
        """Whether the model is a network that has to be trained with a head."""
        return self.model == "tokens"

    def _unused_parameters(self) -> dict[str, str]:
        # Not n_components: scikit-learn's checks set it on every estimator that has it.
        training = ("max_epochs", "learning_rate", "warmup", "early_stopping")
        return {} if self.needs_training else dict.fromkeys(training, "model")

    # --- the private verbs of BaseEncoder -------------------------------------------------

    def _fit_columns(self, columns: list[Column], y: np.ndarray | None) -> None:
        self._learn_table(columns)
        if not self.needs_training:
            return
        present = ~_absent(columns)
        if not present.any():
            raise ValueError(
                "TabularEncoder has no row to train on: every column is empty in every training"
                ' row. Drop the columns, or use model="onehot".'
            )
        seed = int(check_random_state(self.random_state).randint(2**31 - 1))
        with seeded(seed):
            self._network = self._make_backbone()
            self.history_ = train_backbone(
                self._network,
                {name: tensor[present] for name, tensor in self._tensors(columns).items()},
                None if y is None else y[present],
                max_epochs=self.max_epochs,
                learning_rate=self.learning_rate,
                batch_size=self.batch_size,
                warmup=self.warmup,
                early_stopping=self.early_stopping,
                device=resolve_device(self.device),
                owner=type(self).__name__,
                verbose=self.verbose,
            )

    def _encode_columns(self, columns: list[Column]) -> np.ndarray:
        if self._network is not None:
            features: np.ndarray = self._encoded(self._network, columns).pooled.numpy()
        else:
            features = np.concatenate(self._blocks(columns), axis=1, dtype=np.float32)
        features[_absent(columns)] = np.nan
        return features

    def _encode_sequence(self, columns: list[Column]) -> TokenSequence:
        missing = np.column_stack([column.missing for column in columns])
        if self._network is not None:
            encoded = self._encoded(self._network, columns)
            tokens, mask = encoded.tokens.numpy(), encoded.mask.numpy()
            return TokenSequence(np.where(mask[:, :, None], tokens, np.float32(0)), mask)
        blocks = self._blocks(columns)
        # A token is zero outside the block of its column, so that the tokens of a row add up to
        # its vector.
        tokens = np.zeros((len(missing), len(blocks), self.n_outputs_), dtype=np.float32)
        end = 0
        for j, block in enumerate(blocks):
            tokens[:, j, end : end + block.shape[1]] = block
            end += block.shape[1]
        # A missing cell is a token if its column has an indicator and the row has another cell.
        tokens[_absent(columns)] = 0
        return TokenSequence(tokens, ~missing | (tokens != 0).any(axis=2))

    def _output_names(self, names: list[str]) -> list[str]:
        if self._network is not None:  # each of its outputs depends on all columns
            digits = len(str(self.n_outputs_ - 1))
            return [f"table_{i:0{digits}d}" for i in range(self.n_outputs_)]
        out, categories = [], iter(self._table.categories)
        for name, is_number, marked in zip(names, self._table.is_number, self._marked, strict=True):
            out += [name] if is_number else [f"{name}_{category}" for category in next(categories)]
            if marked:
                out.append(f"{name}_missing")
        return out

    # --- training in a joint fusion -----------------------------------------------------------

    def start_training(self, X: CellColumn, y: ArrayLike | None = None) -> SideBySide:
        """Learn the columns and return the untrained network.

        Parameters
        ----------
        X : DataFrame of shape (n_samples, n_columns)
            Training rows.
        y : array-like of shape (n_samples,), default=None
            Target.

        Returns
        -------
        network : nn.Module
            It has a ``width``, and a ``step_size`` of None. Called with ``TrainingInputs``, it
            returns ``Encoded``: tokens, mask, pooled vector.
        """
        self._validate_params()
        self._learn_table(self._check_columns(X, reset=True))
        self._network = network = self._make_backbone()
        return SideBySide(network, n_columns=1)

    def training_tensors(self, X: CellColumn) -> TrainingInputs:
        """Return the inputs of the network, one row per row of ``X``.

        Parameters
        ----------
        X : DataFrame of shape (n_samples, n_columns)
            Rows.

        Returns
        -------
        inputs : TrainingInputs
            ``len(X)`` rows. ``inputs.present`` says which rows have any value,
            ``inputs.rows(index)`` takes some of them, ``inputs.to(device)`` moves them.
        """
        columns = self._check_columns(X, reset=False)
        present = torch.from_numpy(~_absent(columns))
        return TrainingInputs((CellTensors(present, self._tensors(columns)),))  # one row, one cell

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
        backbone = network.backbone
        assert isinstance(backbone, FeatureTokens)
        self._network = backbone.eval()
        return self

    # --- the table ------------------------------------------------------------------------

    def _learn_table(self, columns: list[Column]) -> None:
        self._network = None
        self._table = TableReader(self.max_categories).fit(columns)
        numbers = self._table.numbers(columns)
        missing = np.isnan(numbers)
        counts = np.maximum((~missing).sum(axis=0), 1)
        self._mean = np.where(missing, 0.0, numbers).sum(axis=0) / counts
        centered = np.where(missing, 0.0, numbers - self._mean)
        scale = np.sqrt((centered**2).sum(axis=0) / counts)
        # As in StandardScaler: a column that is constant up to rounding is only centered.
        tiny = 10 * np.finfo(np.float64).eps * np.maximum(np.abs(self._mean), 1.0)
        self._scale = np.where(scale > tiny, scale, 1.0)
        self._marked = [column.missing.any() for column in columns]
        if self.needs_training:
            self.n_outputs_ = self.n_components
        else:
            n_values = len(self._mean) + sum(len(c) for c in self._table.categories)
            self.n_outputs_ = n_values + sum(map(int, self._marked))

    def _standardized(self, columns: list[Column]) -> np.ndarray:
        values = (self._table.numbers(columns) - self._mean) / self._scale
        # Of a nearly constant training column, distant values would overflow float32.
        clipped: np.ndarray = np.clip(values, -_LARGEST, _LARGEST)
        return clipped

    def _blocks(self, columns: list[Column]) -> list[np.ndarray]:
        """Return one block of outputs per input column."""
        numbers, categories = self._standardized(columns), self._table.encoded(columns)
        blocks, number, category = [], 0, 0
        for is_number, marked, column in zip(
            self._table.is_number, self._marked, columns, strict=True
        ):
            if is_number:
                parts = [np.nan_to_num(numbers[:, number])]
                number += 1
            else:
                n_known = len(self._table.categories[category])
                parts = [categories[:, [category]] == np.arange(2, n_known + 2)]
                category += 1
            if marked:
                parts.append(column.missing)
            blocks.append(np.column_stack(parts).astype(np.float32))
        return blocks

    # --- the network ------------------------------------------------------------------------

    def _make_backbone(self) -> FeatureTokens:
        return FeatureTokens(
            len(self._mean),
            cardinalities=self._table.n_categories,
            n_components=self.n_components,
            n_heads=math.gcd(self.n_components, 4),
        )

    def _tensors(self, columns: list[Column]) -> dict[str, torch.Tensor]:
        return {
            "numbers": torch.from_numpy(self._standardized(columns).astype(np.float32)),
            "categories": torch.from_numpy(self._table.encoded(columns)),
        }

    def _encoded(self, network: FeatureTokens, columns: list[Column]) -> Encoded:
        network = on_device(network, resolve_device(self.device)).eval()
        device = next(network.parameters()).device  # the same one of several GPUs
        tensors = self._tensors(columns)
        parts = []
        with torch.inference_mode():
            for start in range(0, len(columns[0].values), 4096):
                batch = {k: t[start : start + 4096].to(device) for k, t in tensors.items()}
                parts.append([part.cpu() for part in network(**batch)])
        return Encoded(*(torch.cat(column) for column in zip(*parts, strict=True)))

    def __getstate__(self) -> dict[str, Any]:
        network = getattr(self, "_network", None)
        if network is not None:
            network.cpu()  # so that a machine without a GPU can load the pickle
        return super().__getstate__()


def _absent(columns: list[Column]) -> np.ndarray:
    absent: np.ndarray = np.all([column.missing for column in columns], axis=0)
    return absent


class TableReader:
    """Decide in ``fit`` which columns are numbers and which are categories, and read them.

    Parameters
    ----------
    max_categories : int
        Number of the most frequent values of a column that are distinguished; the others count
        as one unknown value.
    """

    def __init__(self, max_categories: int):
        self.max_categories = max_categories

    def fit(self, columns: list[Column]) -> Self:
        """Learn the kind of each column, and the categories."""
        self.is_number = [_is_number(column) for column in columns]
        self.categories: list[list[str]] = []
        for column, number in zip(columns, self.is_number, strict=True):
            if not number:
                texts = _categories(column)[~column.missing]
                # As objects: the string dtype of pandas cannot hold a lone surrogate.
                counts = pd.Series(texts, dtype=object).value_counts(sort=False)
                # By frequency, then by name, so that ties do not depend on the order of rows.
                ranked = sorted(counts.index, key=lambda c: (-counts[c], c))
                self.categories.append(sorted(ranked[: self.max_categories]))
        return self

    def numbers(self, columns: list[Column]) -> np.ndarray:
        """Return float64 (n_samples, n_numbers), NaN where missing."""
        chosen = [c for c, number in zip(columns, self.is_number, strict=True) if number]
        values = [_numbers(column) for column in chosen]
        return np.column_stack(values) if values else np.empty((len(columns[0].values), 0))

    def encoded(self, columns: list[Column]) -> np.ndarray:
        """Return int64 (n_samples, n_categories): 0 missing, 1 unknown or rare, then 2, 3, ..."""
        chosen = [c for c, number in zip(columns, self.is_number, strict=True) if not number]
        encoded = np.zeros((len(columns[0].values), len(chosen)), dtype=np.int64)
        for j, (column, categories) in enumerate(zip(chosen, self.categories, strict=True)):
            known = pd.Index(categories, dtype=object).get_indexer(
                pd.Index(_categories(column), dtype=object)
            )
            encoded[:, j] = np.where(column.missing, 0, np.where(known < 0, 1, known + 2))
        return encoded

    @property
    def n_categories(self) -> list[int]:
        """Number of known categories of each category column."""
        return [len(categories) for categories in self.categories]


def _is_number(column: Column) -> bool:
    present = column.values[~column.missing]
    return all(isinstance(cell, _NUMBERS) for cell in present)


_MOMENTS = (np.datetime64, datetime.date)  # datetime and pd.Timestamp are dates
_SPANS = (np.timedelta64, datetime.timedelta)
_NUMBERS = (int, float, decimal.Decimal, np.number, np.bool_, *_MOMENTS, *_SPANS)
# Types whose text is the same in every process; that of other objects may contain an address.
_NAMES = (str, complex, datetime.time, enum.Enum, pd.Interval, pd.Period, uuid.UUID)
_DAY = pd.Timedelta(days=1)
_LARGEST = float(np.finfo(np.float32).max)


def _numbers(column: Column) -> np.ndarray:
    """Return a column as float64; dates as days since 1970, durations as days."""
    present = ~column.missing
    values = np.full(len(column.values), np.nan)
    cells = column.values[present]
    if len(cells) and isinstance(cells[0], _MOMENTS):
        moments = pd.to_datetime(pd.Series(list(cells)), utc=True)
        values[present] = ((moments - pd.Timestamp(0, tz="UTC")) / _DAY).to_numpy()
    elif len(cells) and isinstance(cells[0], _SPANS):
        values[present] = (pd.to_timedelta(pd.Series(list(cells))) / _DAY).to_numpy()
    else:
        try:
            values[present] = _floats(cells)
        except (TypeError, ValueError) as error:
            row = next(int(i) for i in np.flatnonzero(present) if not _is_float(column.values[i]))
            raise ValueError(
                f"TabularEncoder, column {column.name!r}, row {column.labels[row]!r}: got"
                f" {column.values[row]!r} in a column that held numbers in fit. Convert the"
                " column to numbers, or to str before fit."
            ) from error
    beyond = np.abs(values) > _LARGEST  # False for NaN
    if beyond.any():
        row = int(np.flatnonzero(beyond)[0])
        what = "infinity" if np.isinf(values[row]) else f"{values[row]:g}, beyond float32"
        raise ValueError(
            f"TabularEncoder, column {column.name!r}, row {column.labels[row]!r}: got {what}."
            " Replace it by a number or by NaN."
        )
    return values


def _floats(cells: np.ndarray) -> np.ndarray:
    try:
        return cells.astype(np.float64)
    except OverflowError:  # of an int beyond float64
        return np.array([as_float(cell) for cell in cells])


def _is_float(cell: object) -> bool:
    try:
        as_float(cast(SupportsFloat, cell))
    except (TypeError, ValueError):
        return False
    return True


def _categories(column: Column) -> np.ndarray:
    """Return categories by their text, so that 1, 1.0 and "1" are the same category."""
    texts = np.full(len(column.values), "", dtype=object)
    for row in np.flatnonzero(~column.missing):
        cell = column.values[row]
        if isinstance(cell, (str, int, float, np.number, np.bool_)):
            texts[row] = read_text(cell)
        elif isinstance(cell, (*_NAMES, *_NUMBERS)):
            texts[row] = str(cell)
        else:
            raise CellTypeError(
                f"TabularEncoder, column {column.name!r}, row {column.labels[row]!r}: argument"
                f" must be a string or a number, got {type(cell).__name__}."
                " Use the encoder of its modality for this column."
            )
    return texts
