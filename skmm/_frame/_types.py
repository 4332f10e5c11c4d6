"""Types of frames, columns and column keys, for type hints."""

from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeAlias

import numpy as np

__all__ = ["CellColumn", "ColumnKey", "DataFrameLike", "Frame", "SeriesLike"]


class DataFrameLike(Protocol):
    """The attributes of a pandas or polars DataFrame that skmm uses."""

    @property
    def columns(self) -> Any:
        """Names of the columns."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Number of rows and of columns."""

    def __getitem__(self, key: Any, /) -> Any: ...

    def __len__(self) -> int: ...


class SeriesLike(Protocol):
    """The attributes of a pandas or polars Series that skmm uses."""

    @property
    def name(self) -> Any:
        """Name of the column."""

    @property
    def dtype(self) -> Any:
        """Type of the cells."""

    def __getitem__(self, key: Any, /) -> Any: ...

    def __len__(self) -> int: ...


# A row is a sample, a cell is raw content.
Frame: TypeAlias = DataFrameLike | np.ndarray | Sequence[Sequence[object]]
# One column: a Series, an array, a list of cells, or a frame of one column.
CellColumn: TypeAlias = SeriesLike | Sequence[object] | Frame
# Selects columns, as in scikit-learn's ColumnTransformer; a callable receives the frame.
ColumnKey: TypeAlias = (
    str | int | slice | Sequence[str | int | bool] | np.ndarray | Callable[[Any], Any]
)
