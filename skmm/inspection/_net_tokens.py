"""What a net says about the tokens of a modality, with their names and places."""

import os
import re
from math import isqrt
from typing import Any

import numpy as np

from skmm._frame._column import Column, column_names
from skmm.inspection._modalities import middle_of
from skmm.inspection._response import place_of_target, response_classes
from skmm.inspection._weights import part_that_can
from skmm.readers import read_audio

__all__ = ["gradient_scores", "rollout_scores"]

_NAME = "token_attribution"
_RATE = 16_000


def gradient_scores(
    estimator: Any,
    X: Any,
    modality: str,
    column: Column,
    kinds: list[str],
    *,
    target: Any,
    n_steps: int,
    rate: float | None,
) -> list[dict[str, Any]]:
    """Integrated gradients of each row, as ``token_attribution`` gives them."""
    part, rows, name = _part(estimator, X, modality, "token_gradients", "gradient")
    encoder, classes = middle_of(part, name), response_classes(part)
    number = target
    if target is not None and classes is not None:
        number = place_of_target(target, classes, np.empty(len(classes)), function=_NAME)
    elif target is None and classes is None and np.ndim(part.predict(rows)) > 1:
        raise ValueError(f"{_NAME}: there are several outputs. Say by target which one, from 0.")
    found = []
    all_rows = part.token_gradients(rows, name, target=number, n_steps=n_steps)
    for own, cell, kind in zip(all_rows, column.values, kinds, strict=True):
        one = _named(None if own is None else own.scores, cell, kind, rate, encoder)
        one |= {"prediction": np.nan, "base": np.nan, "target": None}
        if own is not None:
            label = own.target if classes is None else classes[own.target]
            one |= {"prediction": own.prediction, "base": own.base, "target": label}
        found.append(one)
    return found


def rollout_scores(
    estimator: Any, X: Any, modality: str, column: Column, kinds: list[str], *, rate: float | None
) -> list[dict[str, Any]]:
    """Attention to the tokens of each row, as ``token_attribution`` gives it."""
    part, rows, name = _part(estimator, X, modality, "token_weights", "rollout")
    encoder = middle_of(part, name)
    return [
        _named(own if kind else None, cell, kind, rate, encoder)
        | {"prediction": np.nan, "target": None}
        for own, cell, kind in zip(
            part.token_weights(rows, name), column.values, kinds, strict=True
        )
    ]


def _part(estimator: Any, X: Any, modality: str, method: str, option: str) -> tuple[Any, Any, str]:
    """Fitted fusion, what it sees of the frame, and the name that it has for the modality."""
    part, rows = part_that_can(method, estimator, X)
    if part is None:
        raise TypeError(
            f"{_NAME}: {type(estimator).__name__} has no joint net, which method={option!r} needs."
            " Take method='occlusion', which any estimator takes."
        )
    for name, *_ in part.modalities_:
        if modality == name:
            return part, rows, name
    for name, _, columns in part.modalities_:  # the name of a column
        if modality in column_names(rows, columns):
            return part, rows, name
    raise ValueError(
        f"{_NAME}: {type(part).__name__} was fitted without modality {modality!r}. It has"
        f" {[name for name, *_ in part.modalities_]}."
    )


def _named(
    scores: np.ndarray | None, cell: Any, kind: str, rate: float | None, encoder: Any
) -> dict[str, Any]:
    """Scores with what they belong to."""
    if scores is None or not scores.size:
        return {"scores": np.empty(0), "tokens": []}
    if kind == "image":
        return {"scores": _on_a_grid(scores), "tokens": None}
    if kind == "text":
        return {"scores": scores, "tokens": _words(str(cell), len(scores), encoder)}
    n, length = len(scores), _length(cell, kind, rate)
    if length is None:
        return {"scores": scores, "tokens": [(float(i), float(i + 1)) for i in range(n)]}
    # A series is padded to the longest of its frame.
    n_own = len(cell) if kind == "timeseries" and n >= len(cell) else n
    edges = np.linspace(0, length, n_own + 1)
    tokens = [(float(a), float(b)) for a, b in zip(edges[:-1], edges[1:], strict=True)]
    return {"scores": scores[:n_own], "tokens": tokens}


def _on_a_grid(scores: np.ndarray) -> np.ndarray:
    """Patches in rows, as models of squares have them; a token for the whole is left out."""
    for first in (0, 1):
        side = isqrt(len(scores) - first)
        if scores.ndim == 1 and side * side == len(scores) - first:
            return scores[first:].reshape(side, side)
    return scores if scores.ndim == 2 else scores[None]


def _words(text: str, n: int, encoder: Any) -> list[str]:
    """Names of ``n`` tokens of a text: the encoder's, or words if there are as many."""
    ways = [[text]]
    if hasattr(encoder, "token_names"):
        ways.append(encoder.token_names(text))
    ways += [text.split(), re.findall(r"\w+|[^\w\s]", text)]
    return next((own for own in ways if len(own) == n), [f"token {i}" for i in range(n)])


def _length(cell: Any, kind: str, rate: float | None) -> float | None:
    """Length of a cell in seconds, or in samples where the rate is not known."""
    if kind == "video":
        return None
    if isinstance(cell, str | os.PathLike | bytes | bytearray | memoryview):
        return sum(len(window) for window in read_audio(cell, rate=_RATE)) / _RATE
    return len(cell) / (rate or 1)
