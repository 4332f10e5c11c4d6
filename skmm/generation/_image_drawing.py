"""What a fitted image generator does: draws, scores."""

from typing import Any

import numpy as np
import torch
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from skmm._compose._default_encoder import default_encoder
from skmm._frame._column import n_rows
from skmm.generation._flow_matching import FlowModule
from skmm.generation._image_targets import pictures_of_rows, shown
from skmm.generation._image_training import BaseImages
from skmm.metrics import make_picture_scorer

__all__ = ["ImageDrawer"]


class ImageDrawer(BaseImages):
    """The methods of an image generator beside ``fit``."""

    module_: Any
    # Parameters of the generator, told to type checkers.
    n_steps: int
    solver: str
    guidance_scale: float
    scoring: Any
    feature_encoder: Any
    alignment: Any
    random_state: Any

    def predict(self, X: Any) -> np.ndarray:
        """Draw a picture for each row.

        Parameters
        ----------
        X : DataFrame of shape (n_samples, n_columns)
            Cells; any row may lack any modality.

        Returns
        -------
        pictures : ndarray of shape (n_samples, image_size, image_size), uint8
            With a last axis of 3 or 4 channels if ``mode_`` is ``"RGB"`` or ``"RGBA"``. The noise
            of a row depends on ``random_state`` and on its place in ``X`` alone.
        """
        self._validate_params()  # those of the drawing may have been set after fit
        if self.model is not None:
            return self._draw_pretrained(X)
        check_is_fitted(self, "module_")
        self._check_guidance()
        X = self._check_frame(X, reset=False)
        device = self._placed()
        inputs = self._inputs.tensors(X)
        present = self._inputs.present(inputs)
        self._refuse_empty(present)
        rng, parts = check_random_state(self.random_state), []
        for rows, batch in self._batches(inputs, np.arange(len(present)), device):
            # One stream over all rows: what a row gets does not depend on the batches.
            noise = rng.standard_normal((len(rows), *self._noise_shape))
            parts.append(self._draw(batch, torch.from_numpy(noise.astype(np.float32)).to(device)))
        return shown(np.concatenate(parts), self.mode_)

    def _draw(self, batch: dict[str, Tensor], noise: Tensor) -> np.ndarray:
        options = {name: getattr(self, name) for name in ("n_steps", "solver", "guidance_scale")}
        with self._threads(), torch.inference_mode():
            drawn = self.module_.draw(noise, self.module_.condition(**batch), **options)
            pixels = ((drawn.float() + 1) * 127.5).round().clamp(0, 255)
        return pixels.byte().cpu().numpy()

    def _check_guidance(self) -> None:
        guided = isinstance(self.module_, FlowModule) and self.guidance_scale != 1
        if guided and not self.module_.unconditional_fraction:
            raise ValueError(
                f"{type(self).__name__}: guidance_scale={self.guidance_scale} needs a network that"
                " was fitted with an unconditional_fraction above 0. Set guidance_scale=1, or fit"
                " again."
            )

    def score(self, X: Any, y: Any) -> float:
        """Return how near the pictures that are drawn are to those given, or to what they show.

        Parameters
        ----------
        X : DataFrame of shape (n_samples, n_columns)
            Cells.
        y : array-like of shape (n_samples,)
            Pictures as for ``fit``. Rows without one are left out.

        Returns
        -------
        score : float
            By ``scoring``, higher is better.
        """
        check_is_fitted(self, "mode_")
        self._validate_params()
        if callable(self.scoring):
            return float(self.scoring(y, self.predict(X)))
        if self.scoring == "alignment":
            if self.alignment is None:
                raise ValueError(
                    f"{type(self).__name__}: scoring='alignment' needs alignment=, a fitted"
                    " estimator of skmm.alignment. Give one, or set scoring='frechet'."
                )
            return float(make_picture_scorer("alignment", alignment=self.alignment)(self, X, y))
        owner = f"{type(self).__name__}.score"
        real = pictures_of_rows(y, n_rows(X), owner, image_size=self._size, mode=self.mode_)
        # Of the size and the colours of those that are drawn: the rest they cannot have.
        cells = np.full(len(real.known), None, dtype=object)
        pictures = list(shown(real.pixels, self.mode_))
        for row, picture in zip(np.flatnonzero(real.known), pictures, strict=True):
            cells[row] = picture
        encoder = self._fitted_encoder(pictures)
        return float(make_picture_scorer("frechet", encoder=encoder)(self, X, cells))

    def _fitted_encoder(self, pictures: list[np.ndarray]) -> Any:
        """Encoder whose features are compared, fitted on real pictures if it is not yet."""
        encoder: Any = self.feature_encoder
        if encoder is None:
            encoder = default_encoder("image")
        try:
            check_is_fitted(encoder)
        except NotFittedError:
            encoder = clone(encoder).fit(pictures)
        return encoder
