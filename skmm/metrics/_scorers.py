"""Scorers of alignments, and of estimators that write texts or generate images."""

import inspect
from collections.abc import Callable, Iterable, Iterator
from itertools import permutations
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias, cast

import numpy as np
from numpy.typing import ArrayLike

from skmm.metrics._images import frechet_distance, paired_cosine
from skmm.metrics._retrieval import METRICS, check_params, measure
from skmm.metrics._text_metrics import chrf, cider, corpus_bleu, exact_match, rouge_l
from skmm.metrics._text_rows import is_missing

if TYPE_CHECKING:
    from skmm._frame._types import CellColumn

__all__ = [
    "Alignment",
    "ImageTransformer",
    "IMAGE_METRICS",
    "TEXT_METRICS",
    "TextMetric",
    "make_image_scorer",
    "make_retrieval_scorer",
    "make_text_scorer",
    "modality_names",
]


class Alignment(Protocol):
    """Estimator that maps modalities into one space, such as those of ``skmm.alignment``."""

    modalities_: Any  # list of (name, transformer, columns), set by fit

    def fit(self, X: Any, y: Any, /) -> Any:
        """Fit to rows."""

    def transform_modality(self, X: Any, modality: str, /) -> np.ndarray:
        """Return vectors of the cells of one modality."""


class Predictor(Protocol):
    """Estimator that predicts a text, an image or a value for each row."""

    def predict(self, X: Any, /) -> Any:
        """Return the predictions for rows."""


class ImageTransformer(Protocol):
    """Transformer of images, such as ``ImageEncoder``, fitted if it needs a fit."""

    def transform(self, X: Any, /) -> Any:
        """Return vectors of images."""


# Number of scores computed at once, so that the matrix of all pairs is never in memory.
_PART = 1 << 22


def make_retrieval_scorer(
    metric: str = "recall_at_k",
    *,
    source: str | None = None,
    target: str | None = None,
    relevance: Literal["row", "label"] = "row",
    **params: object,
) -> "RetrievalScorer":
    """Make a scorer of retrieval for ``cross_val_score`` and ``GridSearchCV``.

    The scorer computes the vectors of each modality by a fitted estimator, compares them by their
    cosine similarity and measures how well the scored rows retrieve each other across modalities.

    Parameters
    ----------
    metric : str, default="recall_at_k"
        Name of a metric of this module.
    source, target : str, default=None
        Modality of the queries and of the retrieved items. None is each modality in turn; if both
        are None the score is the mean over all ordered pairs.
    relevance : {"row", "label"}, default="row"
        Which items are relevant for a query: the same row, or every row with the same ``y``.
    **params : dict
        Parameters of the metric, such as ``k=10``.

    Returns
    -------
    scorer : callable
        ``scorer(estimator, X, y=None)`` returns a float, higher is better: ranks are taken
        negative. ``estimator`` is fitted and has ``modalities_`` and
        ``transform_modality(X, modality)``, as the estimators of ``skmm.alignment``.

    Raises
    ------
    ValueError
        If there is no such metric or value of ``relevance``.

    Notes
    -----
    Rows without the source are no queries and rows without the target are no items. A pair of
    modalities is left out of the mean if no query has a relevant item. Rows with equal vectors are
    tied, see :func:`recall_at_k`.

    Examples
    --------
    >>> import numpy as np
    >>> from skmm.metrics import make_retrieval_scorer
    >>> class Columns:  # a ready-made space
    ...     modalities_ = [("image", None, ["image"]), ("text", None, ["text"])]
    ...     def transform_modality(self, X, modality):
    ...         return np.stack(X[modality])
    >>> X = {"image": [[1, 0], [0, 1]], "text": [[2, 1], [1, 2]]}
    >>> make_retrieval_scorer("recall_at_k", k=1)(Columns(), X)
    1.0
    >>> make_retrieval_scorer("mean_rank", source="text", target="image")(Columns(), X)
    -1.0
    """
    if metric not in METRICS:
        raise ValueError(
            f"make_retrieval_scorer: metric must be one of {sorted(METRICS)}, got {metric!r}."
        )
    if relevance not in ("row", "label"):
        raise ValueError(
            f"make_retrieval_scorer: relevance must be 'row' or 'label', got {relevance!r}."
        )
    return RetrievalScorer(metric, source, target, relevance, check_params(metric, params))


class RetrievalScorer:
    """Scorer of :func:`make_retrieval_scorer`; a class, so that it can be pickled."""

    def __init__(
        self,
        metric: str,
        source: str | None,
        target: str | None,
        relevance: str,
        params: dict[str, Any],
    ):
        self.metric = metric
        self.source = source
        self.target = target
        self.relevance = relevance
        self.params = params

    def __repr__(self) -> str:
        given = {"source": self.source, "target": self.target, **self.params}
        shown = "".join(f", {k}={v!r}" for k, v in given.items() if v is not None)
        label = ", relevance='label'" if self.relevance == "label" else ""
        return f"make_retrieval_scorer({self.metric!r}{shown}{label})"

    def __call__(self, estimator: Alignment, X: "CellColumn", y: ArrayLike | None = None) -> float:
        """Score a fitted estimator on rows."""
        if self.relevance == "label" and y is None:
            raise ValueError(f"{self!r} needs y. Give it, or set relevance='row'.")
        pairs = self._pairs(modality_names(estimator))
        vectors = {
            name: _Vectors(estimator.transform_modality(X, name))
            for name in dict.fromkeys(name for pair in pairs for name in pair)
        }
        labels = np.asarray(y) if self.relevance == "label" else None
        values = [
            measure(self.metric, _parts(vectors[source], vectors[target], labels), self.params)
            for source, target in pairs
        ]
        known = [value for value in values if value == value]
        if not known:
            raise ValueError(
                f"{self!r}: no row has two modalities between which something could be found."
                " Give rows with at least two."
            )
        mean = float(np.mean(known))
        return mean if METRICS[self.metric].greater_is_better else -mean

    def _pairs(self, names: list[str]) -> list[tuple[str, str]]:
        for name in (self.source, self.target):
            if name is not None and name not in names:
                raise ValueError(f"{self!r}: no modality is named {name!r}. There are {names}.")
        if self.source is not None and self.source == self.target:
            return [(self.source, self.target)]
        pairs = [
            (source, target)
            for source, target in permutations(names, 2)
            if self.source in (None, source) and self.target in (None, target)
        ]
        if not pairs:
            raise ValueError(f"{self!r} needs two modalities, and the estimator has {names}.")
        return pairs


def modality_names(estimator: object) -> list[str]:
    """Return the names of the modalities of a fitted alignment."""
    if not hasattr(estimator, "transform_modality"):
        raise TypeError(
            f"{type(estimator).__name__} has no transform_modality. Give an estimator that maps"
            " modalities into one space, such as those of skmm.alignment."
        )
    triples = cast(Any, estimator).modalities_
    for triple in triples:
        if not isinstance(triple, list | tuple) or len(triple) != 3:
            raise TypeError(
                f"{type(estimator).__name__}.modalities_ must be a list of (name, transformer,"
                f" columns), got {triple!r} in it."
            )
    return [name for name, _, _ in triples]


class _Vectors:
    """Vectors of unit length, of which equal ones are stored once, so that they are tied."""

    def __init__(self, values: ArrayLike):
        values = np.asarray(values, dtype=np.float64)
        self.missing = np.isnan(values).any(axis=1)
        lengths = np.linalg.norm(values, axis=1, keepdims=True)
        units = np.where(self.missing[:, None], 0.0, values / np.where(lengths > 0, lengths, 1.0))
        self.distinct, inverse = np.unique(units, axis=0, return_inverse=True)
        self.position = inverse.ravel()


def _parts(
    source: _Vectors, target: _Vectors, labels: np.ndarray | None
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield scores and relevance of parts of the queries against all items."""
    n = len(source.position)
    step = max(1, _PART // n)
    for begin in range(0, n, step):
        rows = np.arange(begin, min(begin + step, n))
        near = source.distinct[source.position[rows]] @ target.distinct.T
        scores = near[:, target.position]
        scores[source.missing[rows]] = np.nan
        scores[:, target.missing] = np.nan
        yield scores, rows if labels is None else labels[rows, None] == labels[None, :]


# --- Scorers of estimators that write texts ---

TextMetric: TypeAlias = Literal["corpus_bleu", "chrf", "rouge_l", "exact_match", "cider"]
TEXT_METRICS: dict[str, Callable[..., float]] = {
    "chrf": chrf,
    "cider": cider,
    "corpus_bleu": corpus_bleu,
    "exact_match": exact_match,
    "rouge_l": rouge_l,
}


def make_text_scorer(
    metric: TextMetric = "corpus_bleu",
    **params: object,
) -> "TextScorer":
    """Make a scorer of written texts for ``cross_val_score`` and ``GridSearchCV``.

    The scorer compares the texts that a fitted estimator predicts with those in ``y``.

    Parameters
    ----------
    metric : {"corpus_bleu", "chrf", "rouge_l", "exact_match", "cider"}, default="corpus_bleu"
        Name of a metric of this module.
    **params : dict
        Parameters of the metric, such as ``lowercase=True``.

    Returns
    -------
    scorer : callable
        ``scorer(estimator, X, y)`` returns a float, higher is better.

    Raises
    ------
    ValueError
        If there is no such metric.
    TypeError
        If the metric has no such parameter.

    Examples
    --------
    >>> from skmm.metrics import make_text_scorer
    >>> class Parrot:
    ...     def predict(self, X):
    ...         return [cell.lower() for cell in X]
    >>> scorer = make_text_scorer("exact_match", ignore="case")
    >>> scorer(Parrot(), ["A red circle", "A dot"], ["a red circle", "two dots"])
    0.5
    """
    if metric not in TEXT_METRICS:
        raise ValueError(
            f"make_text_scorer: metric must be one of {sorted(TEXT_METRICS)}, got {metric!r}."
        )
    known = [
        name for name in inspect.signature(TEXT_METRICS[metric]).parameters if name[:2] != "y_"
    ]
    unknown = sorted(set(params) - set(known))
    if unknown:
        raise TypeError(f"{metric} has no parameter {unknown[0]!r}: it takes {sorted(known)}.")
    return TextScorer(metric, params)


class TextScorer:
    """Scorer of :func:`make_text_scorer`; a class, so that it can be pickled."""

    def __init__(self, metric: str, params: dict[str, Any]):
        self.metric = metric
        self.params = params

    def __repr__(self) -> str:
        shown = "".join(f", {name}={value!r}" for name, value in self.params.items())
        return f"make_text_scorer({self.metric!r}{shown})"

    def __call__(self, estimator: Predictor, X: "CellColumn", y: "CellColumn") -> float:
        """Score a fitted estimator on rows."""
        return TEXT_METRICS[self.metric](y, estimator.predict(X), **self.params)


# --- Scorers of estimators that generate images ---

IMAGE_METRICS = ("alignment", "frechet")


def make_image_scorer(
    metric: Literal["frechet", "alignment"] = "frechet",
    *,
    encoder: ImageTransformer | None = None,
    alignment: Alignment | None = None,
    image: str = "image",
    source: str | None = None,
) -> "ImageScorer":
    """Make a scorer of generated images for ``cross_val_score`` and ``GridSearchCV``.

    The scorer compares the images that a fitted estimator predicts with those in ``y``, or
    measures how well they agree with their rows.

    Parameters
    ----------
    metric : {"frechet", "alignment"}, default="frechet"
        The negative of :func:`frechet_distance` to the images in ``y``, or :func:`paired_cosine`
        with another modality of the row.
    encoder : transformer, default=None
        Encoder of images for ``"frechet"``, such as ``ImageEncoder()``, fitted if it needs a fit.
        None compares pixels, which requires images in ``y`` of the generated size.
    alignment : estimator, default=None
        Fitted estimator with ``transform_modality`` for ``"alignment"``, such as those of
        ``skmm.alignment``.
    image : str, default="image"
        Modality of images of ``alignment``.
    source : str, default=None
        Modality of ``alignment`` that the images should agree with, whose columns are in ``X``.
        None is the other one of two.

    Returns
    -------
    scorer : callable
        ``scorer(estimator, X, y)`` returns a float, higher is better. ``"alignment"`` does not use
        ``y``. ``"frechet"`` leaves out rows whose cell in ``y`` is missing.

    Raises
    ------
    ValueError
        If there is no such metric or modality, or if ``alignment`` is required and not given.
    TypeError
        If ``encoder`` has no ``transform`` or ``alignment`` no ``transform_modality``.

    Examples
    --------
    >>> import numpy as np
    >>> from skmm.metrics import make_image_scorer
    >>> class Gray:  # a gray image, as bright as the row says
    ...     def predict(self, X):
    ...         return np.stack([np.full((2, 2), value, dtype=np.uint8) for value in X])
    >>> real = np.stack([np.full((2, 2), value, dtype=np.uint8) for value in (0, 51, 102)])
    >>> make_image_scorer()(Gray(), [51, 102, 153], real)  # each of 4 pixels brighter by 0.2
    -0.16
    """
    if metric not in IMAGE_METRICS:
        raise ValueError(
            f"make_image_scorer: metric must be one of {sorted(IMAGE_METRICS)}, got {metric!r}."
        )
    if encoder is not None and not hasattr(encoder, "transform"):
        raise TypeError(
            f"make_image_scorer: encoder must have transform, and {type(encoder).__name__} has"
            " none. Give a transformer of images such as ImageEncoder()."
        )
    if metric == "alignment":
        if alignment is None:
            raise ValueError(
                "make_image_scorer: metric='alignment' needs alignment=, a fitted estimator of"
                " skmm.alignment or one like it."
            )
        source = _source(modality_names(alignment), image, source)
    return ImageScorer(metric, encoder, alignment, image, source)


def _source(names: list[str], image: str, source: str | None) -> str:
    """Return the modality that images should agree with."""
    for name in (image, source):
        if name is not None and name not in names:
            raise ValueError(
                f"make_image_scorer: the alignment has no modality {name!r}. There are {names}."
            )
    others = [name for name in names if name != image] if source is None else [source]
    if len(others) != 1:
        raise ValueError(
            f"make_image_scorer: the alignment has the modalities {names}. Name the one that"
            " images should agree with by source=."
        )
    return others[0]


class ImageScorer:
    """Scorer of :func:`make_image_scorer`; a class, so that it can be pickled."""

    def __init__(
        self,
        metric: str,
        encoder: ImageTransformer | None,
        alignment: Alignment | None,
        image: str,
        source: str | None,
    ):
        self.metric = metric
        self.encoder = encoder
        self.alignment = alignment
        self.image = image
        self.source = source

    def __repr__(self) -> str:
        name = "alignment" if self.metric == "alignment" else "encoder"
        given = {name: getattr(self, name)}
        shown = "".join(f", {name}={value!r}" for name, value in given.items() if value is not None)
        return f"make_image_scorer({self.metric!r}{shown})"

    def __call__(
        self, estimator: Predictor, X: "CellColumn", y: "CellColumn | None" = None
    ) -> float:
        """Score a fitted estimator on rows."""
        if self.metric == "alignment":
            alignment, source = cast(Alignment, self.alignment), cast(str, self.source)
            wanted = alignment.transform_modality(X, source)
            images = alignment.transform_modality(list(estimator.predict(X)), self.image)
            return paired_cosine(wanted, images)
        if y is None:
            raise ValueError(f"{self!r} compares with real images and got no y. Give it.")
        cells, made = list(cast(Iterable[object], y)), estimator.predict(X)
        if len(cells) != len(made):
            raise ValueError(f"{self!r}: y has {len(cells)} rows and X has {len(made)}.")
        known = [i for i, cell in enumerate(cells) if not is_missing(cell)]
        real, made = [cells[i] for i in known], [made[i] for i in known]
        return -frechet_distance(self._features(real, X), self._features(made, X))

    def _features(self, images: list[Any], X: "CellColumn") -> np.ndarray:
        """Return the vectors of images, (n, n_features)."""
        if self.encoder is None:
            return self._pixels(images)
        names = getattr(self.encoder, "feature_names_in_", None)
        if names is not None and hasattr(X, "columns"):
            # An encoder that was fitted on a frame selects its column by name.
            container: Any = type(X)
            return np.asarray(self.encoder.transform(container({names[0]: images})))
        return np.asarray(self.encoder.transform(images))

    def _pixels(self, images: list[Any]) -> np.ndarray:
        shapes = {np.shape(cell) for cell in images}
        if len(shapes) > 1 or any(len(shape) < 2 for shape in shapes):
            raise ValueError(
                f"{self!r} without encoder= compares pixels, and the images are no arrays of one"
                " size. Give an encoder of images such as ImageEncoder()."
            )
        return np.stack([np.asarray(cell) for cell in images]).reshape(len(images), -1) / 255
