"""Scorers of estimators that make pictures."""

from typing import Any

import numpy as np

from skmm.metrics._agreement import paired_cosine
from skmm.metrics._images import frechet_distance
from skmm.metrics._scorers import modality_names
from skmm.metrics._texts import is_missing

__all__ = ["PICTURE_METRICS", "make_picture_scorer"]

PICTURE_METRICS = ("alignment", "frechet")


def make_picture_scorer(
    metric: str = "frechet",
    *,
    encoder: Any = None,
    alignment: Any = None,
    picture: str = "image",
    source: str | None = None,
) -> "PictureScorer":
    """Make a scorer for ``cross_val_score`` and ``GridSearchCV`` of generated pictures.

    It asks a fitted estimator for the picture of each row, and measures how far these are from
    the pictures in ``y``, or how well they agree with what the row says.

    Parameters
    ----------
    metric : {"frechet", "alignment"}, default="frechet"
        :func:`frechet_distance` to the pictures in ``y``, or :func:`paired_cosine` with the rest
        of the row.
    encoder : transformer, default=None
        Of ``"frechet"``: gives vectors of pictures, e.g. ``ImageEncoder()``; fitted, where it has
        to be. None compares pixels, which needs pictures in ``y`` of the size that is generated.
    alignment : estimator, default=None
        Of ``"alignment"``: fitted, with ``transform_modality``, as those of ``skmm.alignment``.
    picture : str, default="image"
        Of ``"alignment"``: its modality of pictures.
    source : str, default=None
        Of ``"alignment"``: its modality that the pictures are to agree with, whose columns are in
        ``X``. None is the other one of two.

    Returns
    -------
    scorer : callable
        ``scorer(estimator, X, y)`` gives a float, higher is better: the distance is taken
        negative. ``"alignment"`` does not look at ``y``. Rows whose cell in ``y`` is missing do
        not count for ``"frechet"``.

    Raises
    ------
    ValueError
        If there is no such metric or modality, or what the metric needs is not given.
    TypeError
        If ``encoder`` is no transformer or ``alignment`` maps no modalities.

    Examples
    --------
    >>> import numpy as np
    >>> from skmm.metrics import make_picture_scorer
    >>> class Painter:  # a grey picture, as bright as the row says
    ...     def predict(self, X):
    ...         return np.stack([np.full((2, 2), value, dtype=np.uint8) for value in X])
    >>> real = np.stack([np.full((2, 2), value, dtype=np.uint8) for value in (0, 51, 102)])
    >>> make_picture_scorer()(Painter(), [51, 102, 153], real)  # each of 4 pixels brighter by 0.2
    -0.16
    """
    if metric not in PICTURE_METRICS:
        raise ValueError(
            f"make_picture_scorer: metric must be one of {sorted(PICTURE_METRICS)}, got {metric!r}."
        )
    if encoder is not None and not hasattr(encoder, "transform"):
        raise TypeError(
            f"make_picture_scorer: encoder must have transform, and {type(encoder).__name__} has"
            " none. Give a transformer of pictures such as ImageEncoder()."
        )
    if metric == "alignment":
        if alignment is None:
            raise ValueError(
                "make_picture_scorer: metric='alignment' needs alignment=, a fitted estimator of"
                " skmm.alignment or one like it."
            )
        source = _source(modality_names(alignment), picture, source)
    return PictureScorer(metric, encoder, alignment, picture, source)


def _source(names: list[str], picture: str, source: str | None) -> str:
    """Modality that pictures are to agree with."""
    for name in (picture, source):
        if name is not None and name not in names:
            raise ValueError(
                f"make_picture_scorer: the alignment has no modality {name!r}. There are {names}."
            )
    others = [name for name in names if name != picture] if source is None else [source]
    if len(others) != 1:
        raise ValueError(
            f"make_picture_scorer: the alignment has the modalities {names}, so say which of them"
            " pictures are to agree with by source=."
        )
    return others[0]


class PictureScorer:
    """What :func:`make_picture_scorer` makes: a class, so that workers can be sent one."""

    def __init__(self, metric: str, encoder: Any, alignment: Any, picture: str, source: str | None):
        self.metric = metric
        self.encoder = encoder
        self.alignment = alignment
        self.picture = picture
        self.source = source

    def __repr__(self) -> str:
        given = {"alignment": self.alignment} if self.metric == "alignment" else {}
        given |= {"encoder": self.encoder} if self.metric == "frechet" else {}
        shown = "".join(f", {name}={value!r}" for name, value in given.items() if value is not None)
        return f"make_picture_scorer({self.metric!r}{shown})"

    def __call__(self, estimator: Any, X: Any, y: Any = None) -> float:
        """Score a fitted estimator on rows."""
        if self.metric == "alignment":
            wanted = self.alignment.transform_modality(X, self.source)
            made = self.alignment.transform_modality(list(estimator.predict(X)), self.picture)
            return paired_cosine(wanted, made)
        if y is None:
            raise ValueError(f"{self!r} compares with real pictures and got no y. Give it.")
        cells, made = list(y), estimator.predict(X)
        if len(cells) != len(made):
            raise ValueError(f"{self!r}: y has {len(cells)} rows and X has {len(made)}.")
        known = [i for i, cell in enumerate(cells) if not is_missing(cell)]
        real, made = [cells[i] for i in known], [made[i] for i in known]
        return -frechet_distance(self._features(real, X), self._features(made, X))

    def _features(self, pictures: list[Any], X: Any) -> np.ndarray:
        """Vectors (n, n_features) of pictures."""
        if self.encoder is None:
            return self._pixels(pictures)
        names = getattr(self.encoder, "feature_names_in_", None)
        if names is not None and hasattr(X, "columns"):
            # An encoder that was fitted on a frame asks for its column by name.
            return np.asarray(self.encoder.transform(type(X)({names[0]: pictures})))
        return np.asarray(self.encoder.transform(pictures))

    def _pixels(self, pictures: list[Any]) -> np.ndarray:
        shapes = {np.shape(cell) for cell in pictures}
        if len(shapes) > 1 or any(len(shape) < 2 for shape in shapes):
            raise ValueError(
                f"{self!r} without encoder= compares pixels, and the pictures are no arrays of one"
                " size. Give an encoder of pictures such as ImageEncoder()."
            )
        return np.stack([np.asarray(cell) for cell in pictures]).reshape(len(pictures), -1) / 255
