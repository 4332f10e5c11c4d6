"""Encoders whose model is frozen below and trained above: the way of cells through both."""

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import torch

from skmm._frame._column import Column
from skmm.encoders._engines._base import Runtime
from skmm.encoders._reading import Place

__all__ = ["arrays_above", "inputs_above", "run_below"]


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
