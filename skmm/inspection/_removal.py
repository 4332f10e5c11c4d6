"""Ways to take modalities from a frame, for an estimator that is fitted with all of them."""

from typing import Any, Self

import numpy as np

from skmm._frame._column import n_rows
from skmm.inspection._cell_edits import remove_cells
from skmm.inspection._exchanged import exchange_cells
from skmm.inspection._modalities import fusions_of

__all__ = ["Removal"]


class Removal:
    """Takes modalities from a frame.

    Parameters
    ----------
    kind : {"missing", "permute"}
        Whether their cells are made missing, or cells of other rows stand in.
    columns : dict of str to list of int
        Positions of the columns of each modality.
    source : frame or None
        Rows whose cells stand in; None takes those of the frame itself.
    draws : ndarray of shape (n_draws, n_samples), int
        Which row stands in for each. One row stands in for all modalities that a row loses, so
        that what stands in belongs together.
    """

    def __init__(self, kind: str, columns: dict[str, list[int]], source: Any, draws: np.ndarray):
        self.kind = kind
        self.columns = columns
        self.source = source
        self.draws = draws

    @classmethod
    def choose(
        cls,
        kind: Any,
        estimator: Any,
        columns: dict[str, list[int]],
        X: Any,
        *,
        background: Any,
        n_repeats: int,
        random: np.random.RandomState,
        function: str,
    ) -> Self:
        """Check and complete what was asked for."""
        if kind not in ("auto", "missing", "permute"):
            raise ValueError(
                f"{function}: removal must be 'auto', 'missing' or 'permute', got {kind!r}."
            )
        fusions = fusions_of(estimator)
        refusing = [f for f in fusions if getattr(f, "all_missing", None) == "raise"]
        if kind == "missing" and refusing:
            raise ValueError(
                f"{function}: removal='missing' asks for rows that lack every modality, which"
                f" {type(refusing[0]).__name__} refuses. Set its all_missing='prior', or take"
                " removal='permute'."
            )
        if kind == "auto":
            able = [getattr(f, "all_missing", None) == "prior" for f in fusions]
            kind = "missing" if able and all(able) else "permute"
        if kind == "missing":
            return cls(kind, columns, None, np.zeros((1, n_rows(X)), dtype=int))
        n_source = n_rows(X if background is None else background)
        if n_source < 2 and background is None:
            raise ValueError(
                f"{function}: cells of other rows have to stand in, and X has one row. Give rows"
                " whose cells may stand in as background, such as X_train."
            )
        if background is not None:
            # As far as there are enough, every row of the background once.
            order = [random.permutation(n_source) for _ in range(n_repeats)]
            draws = np.stack([np.resize(o, n_rows(X)) for o in order])
        else:
            draws = np.stack([random.permutation(n_source) for _ in range(n_repeats)])
        return cls(kind, columns, background, draws)

    def __call__(self, X: Any, kept: np.ndarray) -> list[Any]:
        """Frames without some modalities: one for each draw.

        Parameters
        ----------
        X : frame
            All modalities.
        kept : ndarray of shape (n_modalities,), bool
            Which of them stay.

        Returns
        -------
        frames : list of frame
            Estimators are asked about each, and the mean of their answers is what counts.
        """
        lost = [p for own, k in zip(self.columns.values(), kept, strict=True) if not k for p in own]
        if not lost:
            return [X]
        if self.kind == "missing":
            return [remove_cells(X, lost, np.ones(n_rows(X), dtype=bool))]
        return [exchange_cells(X, lost, order, self.source) for order in self.draws]
