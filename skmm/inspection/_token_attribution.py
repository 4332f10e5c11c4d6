"""Which words, patches or moments of a cell moved a prediction."""

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
_AT_ONCE = 256  # changed cells that are predicted together
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
    """Tell which words, patches or moments of a cell moved the prediction of its row.

    Parameters
    ----------
    estimator : estimator
        Fitted: a fusion, or any estimator that holds one or a ``ColumnTransformer``, such as a
        pipeline or a search.
    X : DataFrame of shape (n_samples, n_columns)
        Rows to look into; a few, for each takes many predictions. Arrays are taken too.
    modality : str
        A modality of the estimator that has one column, or the name of a column.
    method : {"occlusion", "gradient", "rollout"}, default="occlusion"
        - ``"occlusion"``: how much the prediction loses without the part [1]_, of any estimator: a
          word is taken out, a square of an image gets its mean color, so do frames of a video;
          a stretch of an audio clip is silenced, one of a series set to its mean.
        - ``"gradient"``: integrated gradients [2]_ of a joint fusion. Features of a frozen encoder
          (with ``granularity="sequence"`` of each of its tokens) are followed from their mean over
          the training rows; what goes into an encoder that is trained in the fusion, from gray
          pixels, silence, or embeddings of zero. The scores sum to ``prediction - base``.
        - ``"rollout"``: how much of each token flows to the fused vector by attention [3]_, in a
          joint fusion with ``granularity="sequence"`` and the strategy ``"attention"``,
          ``"bottleneck"`` or ``"cross_attention"``. It knows no target.
    target : object, default=None
        Class whose probability is explained, or the number of the output in regression with
        several. None is the class that is predicted for the row.
    kind : {"text", "image", "audio", "video", "timeseries"}, default=None
        What the cells are. None asks the encoder of the modality, or tells by the cells.
    n_parts : int, default=None
        Squares along the longer side of an image, 8 by default; stretches of a recording, video or
        series, 16 by default. Of ``"occlusion"`` alone; a text always has its words.
    sampling_rate : float, default=None
        Samples per second of audio clips and series that are arrays. None gives times in samples.
    n_steps : int, default=64
        Steps of the integral. Of ``"gradient"`` alone.

    Returns
    -------
    attributions : list of Bunch
        One for each row:

        - ``scores`` : ndarray of shape (n_tokens,), or (n_rows, n_columns) over an image, from
          its top left; above 0 what speaks for the prediction. Without any entry where the row
          does not have the modality;
        - ``tokens`` : list of str or of (start, end), words or times (in seconds where the rate is
          known, else in samples or frames); None for images;
        - ``prediction`` : float, what is explained: a probability, or a value; NaN with
          ``"rollout"``;
        - ``target`` : the class or output that it belongs to; None with ``"rollout"``;
        - ``base`` : float, the prediction at the start; with ``"gradient"`` alone;
        - ``method``, ``modality``, ``kind`` : str.

    Raises
    ------
    ValueError
        If the modality is not there, has several columns, or cells without parts, such as
        ready-made vectors.
    TypeError
        If the method needs a net that the estimator does not have.

    See Also
    --------
    modality_shapley : Shares of whole modalities.

    Notes
    -----
    A changed cell is a new cell: frozen encoders have to encode each once, and their store keeps
    it. An audio file is explained at 16000 samples a second, a video file by as many of its
    frames as there are parts.

    References
    ----------
    .. [1] Zeiler and Fergus (2014), "Visualizing and understanding convolutional networks", ECCV.
    .. [2] Sundararajan, Taly and Yan (2017), "Axiomatic attribution for deep networks", ICML.
    .. [3] Abnar and Zuidema (2020), "Quantifying attention flow in transformers", ACL.

    Examples
    --------
    Any estimator of a frame will do:

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
    """Position of the one column of a modality, or of the column of that name."""
    columns = columns_of_modality(estimator, X, modality, function=_NAME)
    if len(columns) > 1:
        names = column_names(X)
        known = f", one of {[names[p] for p in columns]}" if hasattr(X, "columns") else ""
        raise ValueError(
            f"{_NAME}: modality {modality!r} has {len(columns)} columns. Name the column to look"
            f" into{known}."
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
            f" {type(cell).__name__} that has no words, patches or moments. If it has, say so by"
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
    """Score the parts of each row by what the prediction loses without them."""
    jobs = [
        (row, cell)  # of each row the whole cell first
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
    """Predictions for rows with a cell exchanged, (n_jobs, n_outputs)."""
    answers = [] if jobs else [np.empty((0, 1))]
    for start in range(0, len(jobs), _AT_ONCE):
        rows, cells = zip(*jobs[start : start + _AT_ONCE], strict=True)
        frame = put_cells(take_rows(X, list(rows)), position, list(cells))
        answer = respond(estimator, frame, function=_NAME)
        if answer is None:
            raise TypeError(
                f"{_NAME}: the answers of {type(estimator).__name__} are no one table of numbers."
                " Explain an estimator of one task."
            )
        answers.append(answer)
    return np.concatenate(answers)


# --- What a net says about the tokens of a modality, with their names and places ---


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
    """Integrated gradients of each row, as ``token_attribution`` gives them."""
    part, rows, name = _part(estimator, X, modality, "token_gradients", "gradient")
    encoder, classes = transformer_of(part, name), response_classes(part)
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
    estimator: object,
    X: Frame,
    modality: str,
    column: Column,
    kinds: list[str],
    *,
    rate: float | None,
) -> list[dict[str, Any]]:
    """Attention to the tokens of each row, as ``token_attribution`` gives it."""
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
    scores: np.ndarray | None, cell: Any, kind: str, rate: float | None, encoder: object
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


def _words(text: str, n: int, encoder: object) -> list[str]:
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
