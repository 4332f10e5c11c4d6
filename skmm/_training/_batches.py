"""Data of a training: the inputs of a network, and how rows are divided into batches.

All rows are tensors on the device before training starts and are cut into batches there; a
``DataLoader`` that collates sample by sample would cost about as much as the training.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields, replace
from typing import Protocol, Self, TypeAlias

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

__all__ = [
    "Batch",
    "BatchIterator",
    "EncoderInputs",
    "FeatureInputs",
    "ModalityInputs",
    "RowTensors",
    "Target",
    "TensorDataset",
    "dataset_of",
]

# Some rows: by a slice, or by a tensor of their places.
Places: TypeAlias = slice | Tensor


class HasRows(Protocol):
    """Anything whose tensors have the row as their first axis."""

    def rows(self, places: Places, /) -> Self:
        """Return some of the rows."""

    def to(self, device: torch.device, /) -> Self:
        """Return the same rows on a device."""

    def __len__(self) -> int: ...


class RowTensors:
    """Base of the dataclasses whose fields share the rows.

    A field is a tensor, something else that has rows, a dictionary of either, or None.
    """

    def rows(self, places: Places) -> Self:
        """Return some of the rows.

        Parameters
        ----------
        places : slice or Tensor of shape (n_chosen,), int64
            Which.
        """
        # Rows of a tensor copied whole take a fifth of the time that its general index takes.
        by_place = isinstance(places, Tensor)

        def of_tensor(tensor: Tensor) -> Tensor:
            return tensor.index_select(0, places) if by_place else tensor[places]  # type: ignore[arg-type]

        return self._mapped(of_tensor, lambda part: part.rows(places))

    def to(self, device: torch.device) -> Self:
        """Return the same rows on a device."""
        return self._mapped(lambda tensor: tensor.to(device), lambda part: part.to(device))

    def _mapped(
        self, of_tensor: Callable[[Tensor], Tensor], of_rows: Callable[[HasRows], HasRows]
    ) -> Self:
        def of_value(value: object) -> object:
            if isinstance(value, Tensor):
                return of_tensor(value)
            if isinstance(value, dict):
                return {name: of_value(part) for name, part in value.items()}
            return None if value is None else of_rows(value)  # type: ignore[arg-type]

        own = fields(self)  # type: ignore[arg-type]  # subclasses are dataclasses
        return replace(self, **{f.name: of_value(getattr(self, f.name)) for f in own})  # type: ignore[type-var]


@dataclass(frozen=True)
class FeatureInputs(RowTensors):
    """Ready features of one modality.

    Attributes
    ----------
    values : Tensor of shape (n_rows, n_features) or (n_rows, n_tokens, n_features), float32
        Standardized; values in rows without the modality have no meaning.
    present : BoolTensor of shape (n_rows,)
        Which rows have the modality.
    mask : BoolTensor of shape (n_rows, n_tokens) or None
        Which tokens exist; None where ``values`` has no tokens.
    """

    values: Tensor
    present: Tensor
    mask: Tensor | None = None

    def __len__(self) -> int:
        return len(self.present)


@dataclass(frozen=True)
class EncoderInputs(RowTensors):
    """Inputs of the encoder of one modality, which is trained with the network.

    Attributes
    ----------
    inputs : object
        As the encoder's ``training_tensors`` gave it and its network takes it.
    present : BoolTensor of shape (n_rows,)
        Which rows have the modality.
    """

    inputs: HasRows
    present: Tensor

    def __len__(self) -> int:
        return len(self.present)


ModalityInputs: TypeAlias = FeatureInputs | EncoderInputs


@dataclass(frozen=True)
class Batch(RowTensors):
    """Inputs of a network for some rows.

    Attributes
    ----------
    modalities : dict of str to FeatureInputs or EncoderInputs
        By name.
    sample_weight : Tensor of shape (n_rows,) or None
        Weights of the rows in the loss.
    """

    modalities: dict[str, ModalityInputs]
    sample_weight: Tensor | None = None

    def __len__(self) -> int:
        return len(next(iter(self.modalities.values())))

    def present(self) -> np.ndarray:
        """Return which modalities each row has, (n_rows, n_modalities) bool."""
        columns = [own.present for own in self.modalities.values()]
        return torch.stack(columns, dim=1).cpu().numpy()

    def with_modalities(self, changed: Mapping[str, ModalityInputs]) -> Self:
        """Return the same rows with other inputs of some modalities."""
        return replace(self, modalities={**self.modalities, **changed})


class TensorDataset(Dataset[tuple[Batch, Tensor]]):
    """All rows of a training; a batch is gathered at once.

    Parameters
    ----------
    batch : Batch
        Inputs of all rows.
    target : Tensor
        First axis ``n_rows``.
    renew : callable or None, default=None
        Returns other inputs of some modalities for the epoch that begins.
    """

    def __init__(
        self,
        batch: Batch,
        target: Tensor,
        renew: Callable[[], Mapping[str, ModalityInputs]] | None = None,
    ):
        self.batch = batch
        self.target = target
        self._renew = renew

    def begin_epoch(self) -> None:
        """Update the inputs that change from epoch to epoch."""
        if self._renew is not None:
            self.batch = self.batch.with_modalities(self._renew())

    def __len__(self) -> int:
        return len(self.target)

    def __getitem__(self, places: Places) -> tuple[Batch, Tensor]:
        by_place = isinstance(places, Tensor)
        target = self.target.index_select(0, places) if by_place else self.target[places]  # type: ignore[arg-type]
        return self.batch.rows(places), target


def dataset_of(
    batch: Batch,
    target: Tensor,
    rows: np.ndarray,
    device: torch.device,
    renew: Callable[[], Mapping[str, ModalityInputs]] | None = None,
) -> TensorDataset:
    """Move some rows to the device, to train on or to evaluate.

    Parameters
    ----------
    batch : Batch
        All rows.
    target : Tensor
        First axis: all rows.
    rows : ndarray of int
        Positions of these rows.
    device : torch.device
        Where the network is trained.
    renew : callable or None, default=None
        As :class:`TensorDataset` takes it.
    """
    places = torch.as_tensor(rows)
    return TensorDataset(batch.rows(places).to(device), target[places].to(device), renew)


class BatchIterator:
    """Replaces the ``DataLoader`` that skorch expects.

    Parameters
    ----------
    dataset : TensorDataset
        Data.
    batch_size : int
        Rows per batch.
    shuffle : bool, default=False
        Whether to sample a new order for every pass.
    **_ : object
        What skorch gives a ``DataLoader`` besides; not used.
    """

    def __init__(self, dataset: TensorDataset, batch_size: int, shuffle: bool = False, **_: object):
        self.dataset = dataset
        self.batch_size = batch_size
        self.shuffle = shuffle

    def __len__(self) -> int:
        return -(-len(self.dataset) // self.batch_size)

    def __iter__(self) -> Iterator[tuple[Batch, Tensor]]:
        n = len(self.dataset)
        if not self.shuffle:
            for start in range(0, n, self.batch_size):
                yield self.dataset[start : start + self.batch_size]
            return
        # Sampled on the CPU, so that the order is the same on every device.
        order = torch.randperm(n).to(self.dataset.target.device)
        for places in torch.split(order, self.batch_size):
            yield self.dataset[places]


# --- Targets ---


class Target(ABC):
    """Base of the targets: classes, labels, values, several tasks, texts, series, images.

    A target checks ``y`` and encodes it into an array with an entry for each row. It then has

    - ``tensor(encoded)``, what the loss takes;
    - ``criterion()``, the loss of each row;
    - ``strata(encoded)``, groups that a held-out part should contain in proportion.
    """

    @abstractmethod
    def tensor(self, encoded: np.ndarray) -> Tensor:
        """Return the target as the loss takes it, first axis ``n_rows``."""

    @abstractmethod
    def criterion(self) -> nn.Module:
        """Return the loss of each row."""

    def strata(self, encoded: np.ndarray) -> np.ndarray | None:
        """Return the group of each row, (n_rows,); None where rows fall into no groups."""
        return None
