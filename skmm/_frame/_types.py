"""What a user may hand over as a frame or as one column, for type hints."""

from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeAlias

import numpy as np

__all__ = ["CellColumn", "ColumnKey", "DataFrameLike", "Frame", "SeriesLike"]


class DataFrameLike(Protocol):
    """A pandas or polars DataFrame, as far as skmm asks."""

    @property
    def columns(self) -> Any:
        """Names of the columns."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Number of rows and of columns."""

    def __getitem__(self, key: Any, /) -> Any: ...

    def __len__(self) -> int: ...


class SeriesLike(Protocol):
    """A pandas or polars Series, as far as skmm asks."""

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
# One column: a Series, an array or a list of cells; a frame of one column will do.
CellColumn: TypeAlias = SeriesLike | Sequence[object] | Frame
# What names columns of a frame, as in scikit-learn's ColumnTransformer; a callable gets the frame.
ColumnKey: TypeAlias = (
    str | int | slice | Sequence[str | int | bool] | np.ndarray | Callable[[Any], Any]
)
