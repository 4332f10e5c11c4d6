"""The score of the image generators."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np
from sklearn.base import BaseEstimator, clone
from sklearn.exceptions import NotFittedError
from sklearn.utils.validation import check_is_fitted

from skmm._compose._base import Transformer
from skmm._compose._default_encoder import default_encoder
from skmm._constraints import HasMethods, StrOptions, refuse_unused
from skmm._frame._column import n_rows
from skmm._frame._types import CellColumn, Frame
from skmm.generation._image_targets import images_of_rows, to_user_images
from skmm.metrics import make_image_scorer
from skmm.metrics._scorers import Alignment

__all__ = ["ImageScoreMixin"]


class ImageScoreMixin(BaseEstimator, ABC):
    """Mixin with the score of an image generator.

    A subclass sets ``mode_`` and ``_size`` in ``fit``, and calls ``_check_scoring`` there.
    """

    scoring: str | Callable[..., float]
    feature_encoder: Transformer | None
    alignment: Alignment | None
    mode_: str
    _size: int

    _scoring_constraints: ClassVar[dict[str, Any]] = {
        "scoring": [StrOptions({"frechet", "alignment"}), callable],
        "feature_encoder": [HasMethods(["fit", "transform"]), None],
        "alignment": [HasMethods("transform_modality"), None],
    }

    @abstractmethod
    def predict(self, X: Frame) -> np.ndarray:
        """Return an image for each row."""

    def _check_scoring(self) -> None:
        """Refuse parameters without effect on the score."""
        if self.scoring != "frechet":
            refuse_unused(self, ["feature_encoder"], f"with scoring={self.scoring!r}")
        if self.scoring != "alignment":
            refuse_unused(self, ["alignment"], f"with scoring={self.scoring!r}")

    def score(self, X: Frame, y: CellColumn) -> float:
        """Score the generated images against those given, or against what they should show.

        Parameters
        ----------
        X : DataFrame of shape (n_samples, n_columns)
            Cells.
        y : array-like of shape (n_samples,)
            Images, as in ``fit``. Named scores leave out rows without one.

        Returns
        -------
        score : float
            What ``scoring`` names, or what the scorer ``scoring`` returns. Higher is better.
        """
        check_is_fitted(self, "mode_")
        self._validate_params()
        self._check_scoring()
        if callable(self.scoring):
            return float(self.scoring(self, X, y))
        if self.scoring == "alignment":
            if self.alignment is None:
                raise ValueError(
                    f"{type(self).__name__}: scoring='alignment' needs alignment=, a fitted"
                    " estimator of skmm.alignment. Give one, or set scoring='frechet'."
                )
            return float(make_image_scorer("alignment", alignment=self.alignment)(self, X, y))
        owner = f"{type(self).__name__}.score"
        real = images_of_rows(y, n_rows(X), owner, image_size=self._size, mode=self.mode_)
        # Compare at the size and in the mode of the generated images.
        cells = np.full(len(real.known), None, dtype=object)
        images = list(to_user_images(real.pixels, self.mode_))
        for row, image in zip(np.flatnonzero(real.known), images, strict=True):
            cells[row] = image
        encoder = _fitted_encoder(self.feature_encoder, images)
        return float(make_image_scorer("frechet", encoder=encoder)(self, X, cells))


def _fitted_encoder(encoder: Transformer | None, images: list[np.ndarray]) -> Transformer:
    """Return a fitted encoder; one that is not fitted is fitted on the real images."""
    if encoder is None:
        encoder = default_encoder("image")
    try:
        check_is_fitted(encoder)
    except NotFittedError:
        encoder = clone(encoder).fit(images)
    return encoder
