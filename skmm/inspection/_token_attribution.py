"""The influence of the words, patches or segments of a cell on a prediction."""

import os
import re
from math import isqrt
from numbers import Integral, Real
from typing import Any, Literal

import numpy as np
from sklearn.utils import Bunch

from skmm._constraints import Estimator
from skmm._frame._column import Column, column_names, columns_of, take_rows
from skmm._frame._types import Frame
from skmm.inspection._cell_edits import put_cells
from skmm.inspection._modalities import columns_of_modality, transformer_of
from skmm.inspection._parts import KINDS, Parts, kind_of_cell, parts_of
from skmm.inspection._validation import check_frame, place_of_target, respond, response_classes
from skmm.inspection._weights import part_that_can
from skmm.readers import read_audio

__all__ = [
    "gradient_scores",
    "rollout_scores",
    "token_attribution",
]


_NAME = "token_attribution"
_AT_ONCE = 256  # changed cells that are predicted in one call
_RATE = 16_000


def token_attribution(
    estimator: Estimator,
    X: Frame,
    modality: str,
    *,
    method: Literal["occlusion", "gradient", "rollout"] = "occlusion",
    target: object = None,
    kind: Literal["text", "image", "audio", "video", "timeseries"] | None = None,
    n_parts: int | None = None,
    sampling_rate: float | None = None,
    n_steps: int = 64,
) -> list[Bunch]:
    """Attribute predictions to the words, patches or segments of a cell.

    Parameters
    ----------
    estimator : estimator
        Fitted: a fusion, or any estimator that contains one or a ``ColumnTransformer``, such as a
        pipeline or a search.
    X : DataFrame of shape (n_samples, n_columns)
        Rows to explain. Each row requires many predictions. Arrays are accepted too.
    modality : str
        A modality of the estimator that has one column, or the name of a column.
    method : {"occlusion", "gradient", "rollout"}, default="occlusion"
        - ``"occlusion"``: decrease of the prediction when the part is removed [1]_, for any
          estimator. A word is left out; a square of an image, or a segment of a video, gets the
          mean color; a segment of audio is silenced; a segment of a series is set to its mean.
        - ``"gradient"``: integrated gradients [2]_ of a joint fusion. The baseline of the features
          of a frozen encoder (with ``granularity="sequence"`` those of each token) is their mean
          over the training rows. The baseline of the input of an encoder that is trained in the
          fusion is gray pixels, silence or zero embeddings. The scores sum to
          ``prediction - base``.
        - ``"rollout"``: attention rollout [3]_ from each token to the fused vector, in a joint
          fusion with ``granularity="sequence"`` and the strategy ``"attention"``,
          ``"bottleneck"`` or ``"cross_attention"``. It does not depend on ``target``.
    target : object, default=None
        Class whose probability is explained, or the number of the output in regression with
        several outputs. None explains the predicted class of each row.
    kind : {"text", "image", "audio", "video", "timeseries"}, default=None
        What the cells are. None uses the modality of the encoder, or infers it from the cells.
    n_parts : int, default=None
        Number of squares along the longer side of an image, 8 by default, or of segments of a
        recording, video or series, 16 by default. Used only with ``"occlusion"``; a text is
        always split into words.
    sampling_rate : float, default=None
        Samples per second of recordings and series that are arrays. None counts time in samples.
    n_steps : int, default=64
        Number of steps of the numerical integration. Used only with ``"gradient"``.

    Returns
    -------
    attributions : list of Bunch
        One for each row:

        - ``scores`` : ndarray of shape (n_tokens,), or (n_rows, n_columns) over an image, from
          its top left. Positive scores support the prediction. Empty if the modality is missing
          in the row;
        - ``tokens`` : list of str or of (start, end), the words or times (in seconds if the rate
          is known, else in samples or frames); None for images;
        - ``prediction`` : float, the explained probability or value; NaN with ``"rollout"``;
        - ``target`` : the explained class or number of the output; None with ``"rollout"``;
        - ``base`` : float, the prediction of the baseline; only with ``"gradient"``;
        - ``method``, ``modality``, ``kind`` : str, as used.

    Raises
    ------
    ValueError
        If the modality does not exist, has several columns, or has cells without parts, such as
        ready-made vectors.
    TypeError
        If the method requires a joint network and the estimator has none.

    See Also
    --------
    modality_shapley : Shares of whole modalities.

    Notes
    -----
    Each changed cell is a new cell: frozen encoders encode it once and keep it in their store. An
    audio file is explained at 16000 samples per second, a video file by ``n_parts`` of its frames.

    References
    ----------
    .. [1] Zeiler and Fergus (2014), "Visualizing and understanding convolutional networks", ECCV.
    .. [2] Sundararajan, Taly and Yan (2017), "Axiomatic attribution for deep networks", ICML.
    .. [3] Abnar and Zuidema (2020), "Quantifying attention flow in transformers", ACL.

    Examples
    --------
    Explain a scikit-learn pipeline:

    >>> import pandas as pd
    >>> from sklearn.compose import ColumnTransformer
    >>> from sklearn.feature_extraction.text import CountVectorizer
    >>> from sklearn.linear_model import LogisticRegression
    >>> from sklearn.pipeline import make_pipeline
    >>> from skmm.inspection import token_attribution
    >>> X = pd.DataFrame({"review": ["a fine coat", "a bad coat", "fine wool", "bad wool"] * 5})
    >>> model = make_pipeline(
    ...     ColumnTransformer([("review", CountVectorizer(), "review")]), LogisticRegression()
    ... ).fit(X, ["good", "poor", "good", "poor"] * 5)
    >>> (found,) = token_attribution(model, X[:1], "review")
    >>> found.tokens
    ['a', 'fine', 'coat']
    >>> str(found.target), found.tokens[found.scores.argmax()]
    ('good', 'fine')
    """
    check_frame(X, function=_NAME)
    _check_options(method, kind, n_parts, sampling_rate, n_steps)
    position = _column_of(estimator, X, modality)
    (column,) = columns_of(X, [position])
    kinds = [
        "" if gone else _kind(estimator, modality, column.values[row], row, kind)
        for row, gone in enumerate(column.missing)
    ]
    about = {"method": method, "modality": modality}
    if method == "occlusion":
        parts = [
            _parts(cell, own, n_parts, sampling_rate, modality, row) if own else None
            for row, (cell, own) in enumerate(zip(column.values, kinds, strict=True))
        ]
        found = _occlude(estimator, X, position, parts, target)
    elif method == "gradient":
        found = gradient_scores(
            estimator, X, modality, column, kinds,
            target=target, n_steps=int(n_steps), rate=sampling_rate,
        )  # fmt: skip
    else:
        found = rollout_scores(estimator, X, modality, column, kinds, rate=sampling_rate)
    return [Bunch(**one, kind=own, **about) for one, own in zip(found, kinds, strict=True)]


def _check_options(
    method: object, kind: object, n_parts: object, rate: object, n_steps: object
) -> None:
    if method not in ("occlusion", "gradient", "rollout"):
        raise ValueError(
            f"{_NAME}: method must be 'occlusion', 'gradient' or 'rollout', got {method!r}."
        )
    if kind is not None and kind not in KINDS:
        raise ValueError(f"{_NAME}: kind must be one of {list(KINDS)} or None, got {kind!r}.")
    for name, value in (("n_parts", n_parts), ("n_steps", n_steps)):
        if value is None and name == "n_parts":
            continue
        if not isinstance(value, Integral) or isinstance(value, bool) or value < 1:
            raise ValueError(f"{_NAME}: {name} must be an int of at least 1, got {value!r}.")
    if rate is not None and not (isinstance(rate, Real) and float(rate) > 0):
        raise ValueError(f"{_NAME}: sampling_rate must be above 0 or None, got {rate!r}.")


def _column_of(estimator: Estimator, X: Frame, modality: str) -> int:
    """Return the position of the one column of a modality, or of the column of that name."""
    columns = columns_of_modality(estimator, X, modality, function=_NAME)
    if len(columns) > 1:
        names = column_names(X)
        known = f", one of {[names[p] for p in columns]}" if hasattr(X, "columns") else ""
        raise ValueError(
            f"{_NAME}: modality {modality!r} has {len(columns)} columns. Name the column to"
            f" explain{known}."
        )
    return columns[0]


def _kind(estimator: object, modality: str, cell: object, row: int, kind: str | None) -> str:
    if kind is not None:
        return kind
    transformer = transformer_of(estimator, modality)
    own = getattr(transformer, "modality", None)
    if own in KINDS:
        return str(own)
    by_cell = kind_of_cell(cell)
    ready = (
        isinstance(transformer, str) and by_cell == "timeseries"
    )  # a vector that is passed through
    if by_cell is None or ready:
        raise ValueError(
            f"{_NAME}: the cell of modality {modality!r} in row {row} (by position) is a"
            f" {type(cell).__name__} without words, patches or segments. If it has such parts, set"
            " kind; modality_shapley explains whole modalities."
        )
    return by_cell


def _parts(
    cell: object, kind: str, n_parts: int | None, rate: float | None, modality: str, row: int
) -> Parts:
    try:
        return parts_of(cell, kind, n_parts, rate)
    except Exception as error:
        error.add_note(f"In {_NAME}: modality {modality!r}, row {row} (by position), as {kind}.")
        raise


def _occlude(
    estimator: object, X: Frame, position: int, parts: list[Parts | None], target: object
) -> list[dict[str, Any]]:
    """Score the parts of each row by the decrease of the prediction without them."""
    jobs = [
        (row, cell)  # the whole cell of each row comes first
        for row, own in enumerate(parts)
        if own is not None
        for cell in (own.whole, *own.without)
    ]
    classes = response_classes(estimator)
    answers = _answers(estimator, X, position, jobs)
    if classes is not None and len(classes) == 2 and answers.shape[1] == 1:
        answers = np.column_stack([-answers, answers])  # margins
    found: list[dict[str, Any]] = []
    start = 0
    for own in parts:
        if own is None:
            nothing = {"scores": np.empty(0), "tokens": [], "prediction": np.nan, "target": None}
            found.append(nothing)
            continue
        of_row = answers[start : start + 1 + len(own.without)]
        start += len(of_row)
        place = place_of_target(target, classes, of_row[0], function=_NAME)
        found.append(
            {
                "scores": (of_row[0, place] - of_row[1:, place]).reshape(own.shape),
                "tokens": own.tokens,
                "prediction": float(of_row[0, place]),
                "target": place if classes is None else classes[place],
            }
        )
    return found


def _answers(estimator: object, X: Frame, position: int, jobs: list[tuple[int, Any]]) -> np.ndarray:
    """Predict rows with one cell replaced, (n_jobs, n_outputs)."""
    answers = [] if jobs else [np.empty((0, 1))]
    for start in range(0, len(jobs), _AT_ONCE):
        rows, cells = zip(*jobs[start : start + _AT_ONCE], strict=True)
        frame = put_cells(take_rows(X, list(rows)), position, list(cells))
        answer = respond(estimator, frame, function=_NAME)
        if answer is None:
            raise TypeError(
                f"{_NAME}: the predictions of {type(estimator).__name__} are not one table of"
                " numbers. Explain an estimator of one task."
            )
        answers.append(answer)
    return np.concatenate(answers)


# --- Scores of the tokens of a modality in a joint network, with their names and times ---


def gradient_scores(
    estimator: object,
    X: Frame,
    modality: str,
    column: Column,
    kinds: list[str],
    *,
    target: object,
    n_steps: int,
    rate: float | None,
) -> list[dict[str, Any]]:
    """Compute integrated gradients of each row, as in ``token_attribution``."""
    part, rows, name = _part(estimator, X, modality, "token_gradients", "gradient")
    encoder, classes = transformer_of(part, name), response_classes(part)
    number = target
    if target is not None and classes is not None:
        number = place_of_target(target, classes, np.empty(len(classes)), function=_NAME)
    elif target is None and classes is None and np.ndim(part.predict(rows)) > 1:
        raise ValueError(f"{_NAME}: there are several outputs. Set target to one, from 0.")
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
    estimator: object,
    X: Frame,
    modality: str,
    column: Column,
    kinds: list[str],
    *,
    rate: float | None,
) -> list[dict[str, Any]]:
    """Compute attention rollout of each row, as in ``token_attribution``."""
    part, rows, name = _part(estimator, X, modality, "token_weights", "rollout")
    encoder = transformer_of(part, name)
    return [
        _named(own if kind else None, cell, kind, rate, encoder)
        | {"prediction": np.nan, "target": None}
        for own, cell, kind in zip(
            part.token_weights(rows, name), column.values, kinds, strict=True
        )
    ]


def _part(
    estimator: object, X: Frame, modality: str, method: str, option: str
) -> tuple[Any, Any, str]:
    """Return the fitted fusion, its input, and its name of the modality."""
    part, rows = part_that_can(method, estimator, X)
    if part is None:
        raise TypeError(
            f"{_NAME}: {type(estimator).__name__} has no joint network, which method={option!r}"
            " requires. Use method='occlusion', which works for any estimator."
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
    scores: np.ndarray | None, cell: Any, kind: str, rate: float | None, encoder: object
) -> dict[str, Any]:
    """Return scores with the names or times of their tokens."""
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
    """Arrange the scores of patches in a square grid, without a token of the whole image."""
    for first in (0, 1):
        side = isqrt(len(scores) - first)
        if scores.ndim == 1 and side * side == len(scores) - first:
            return scores[first:].reshape(side, side)
    return scores if scores.ndim == 2 else scores[None]


def _words(text: str, n: int, encoder: object) -> list[str]:
    """Name ``n`` tokens of a text by the encoder, or by its words if their number is ``n``."""
    ways = [[text]]
    if hasattr(encoder, "token_names"):
        ways.append(encoder.token_names(text))
    ways += [text.split(), re.findall(r"\w+|[^\w\s]", text)]
    return next((own for own in ways if len(own) == n), [f"token {i}" for i in range(n)])


def _length(cell: Any, kind: str, rate: float | None) -> float | None:
    """Return the length of a cell in seconds, or in samples if the rate is unknown."""
    if kind == "video":
        return None
    if isinstance(cell, str | os.PathLike | bytes | bytearray | memoryview):
        return sum(len(window) for window in read_audio(cell, rate=_RATE)) / _RATE
    return len(cell) / (rate or 1)
