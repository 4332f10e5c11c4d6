"""Pictures by a pretrained pipeline of diffusers: nothing is trained."""

from typing import Any, Self

import numpy as np
from sklearn.exceptions import NotFittedError
from sklearn.utils import check_random_state

from skmm._compose._base import Modality
from skmm._compose._callbacks import TaskReporter
from skmm._environment._device import resolve_device, resolve_dtype, shared_threads
from skmm._frame._column import Column, column_names, columns_of, n_rows
from skmm.backbones._pretrained._diffusion import DiffusionPipeline, load_pipeline, resolve_pipeline
from skmm.exceptions import CellTypeError
from skmm.generation._image_targets import pictures_of_rows, shown
from skmm.readers import read_text, with_position

__all__ = ["PretrainedImages"]

# What training from scratch leaves behind.
_TRAINED = ("module_", "net_", "history_", "n_iter_", "_inputs", "_noise_shape")


class PretrainedImages:
    """What an image generator does if it has a ``model``."""

    # Parameters and methods of the generator, told to type checkers.
    modalities: Any
    model: Any = None
    prompt: str | None = None
    mode: str
    image_size: int
    n_steps: int
    guidance_scale: float
    batch_size: int
    device: str
    dtype: str
    random_state: Any
    checkpoint_: Any
    _size: int
    _check_frame: Any
    _refuse_empty: Any
    _resolve: Any

    def _fit_pretrained(self, X: Any, y: Any) -> Self:
        """Find the column of texts and the pipeline that draws from them."""
        owner = type(self).__name__
        X = self._check_frame(X, reset=True)
        mode = "RGB" if self.mode == "auto" else self.mode
        if y is not None:
            options: dict[str, Any] = {"image_size": self.image_size, "mode": self.mode}
            mode = pictures_of_rows(y, n_rows(X), owner, **options).mode
        if self.mode == "RGBA":
            raise ValueError(
                f"{owner}: model={str(self.model)!r} draws no opacity, so mode must be 'auto', 'L'"
                " or 'RGB', got 'RGBA'."
            )
        with TaskReporter(self, X, y, 1, "checkpoint") as reporter, reporter.task():
            modality = self._drawn_from(X)
            checkpoint = resolve_pipeline(self.model, needed_by=owner)
        self._place = column_names(X).index(column_names(X, modality.columns)[0])
        for name in _TRAINED:
            vars(self).pop(name, None)
        self.checkpoint_ = checkpoint.identity()
        self.modalities_ = [(modality.name, "text", modality.columns)]
        self.mode_ = "RGB" if mode == "RGBA" else mode
        self._size = self.image_size
        return self

    def _drawn_from(self, X: Any) -> Modality:
        """Return the one triple with the one column that the pipeline draws from."""
        resolved = self._resolve(X)
        if not isinstance(self.modalities, str):
            for _, middle, _ in self.modalities:
                if not (isinstance(middle, str) and middle in ("text", "drop")):
                    raise ValueError(
                        f"{type(self).__name__}: with model= the pipeline reads the raw texts, so"
                        f" the transformer of the modality must be 'text', got {middle!r}. Say"
                        " 'text', or train a network from scratch with model=None."
                    )
        found = [own for own in resolved if getattr(own.middle, "modality", None) == "text"]
        columns = [name for own in found for name in column_names(X, own.columns)]
        if len(columns) != 1:
            named = ", ".join(map(repr, columns or column_names(X)))
            raise ValueError(
                f"{type(self).__name__}: model={str(self.model)!r} draws from one column of texts,"
                f" got {len(columns)} ({named}). Give one triple, such as"
                " [('text', 'text', ['column'])]."
            )
        return found[0]

    def _painter(self) -> DiffusionPipeline:
        """Load the pipeline of ``fit``, or find it loaded."""
        owner, known = type(self).__name__, self.checkpoint_
        checkpoint = resolve_pipeline(self.model, needed_by=owner)
        checkpoint.refuse_others(known["digest"])
        device = resolve_device(self.device)
        return load_pipeline(checkpoint, device=device, dtype=resolve_dtype(self.dtype, device))

    def _draw_pretrained(self, X: Any) -> np.ndarray:
        """Pictures of the rows; of one without a text, by the empty prompt."""
        if getattr(self, "checkpoint_", None) is None:
            raise NotFittedError(
                f"This {type(self).__name__} instance is not fitted yet with model="
                f"{str(self.model)!r}. Call 'fit' with appropriate arguments before using this"
                " estimator."
            )
        X = self._check_frame(X, reset=False)
        (column,) = columns_of(X, [self._place])
        self._refuse_empty(~column.missing[:, None])
        texts = [self._text(column, row) for row in range(len(column.values))]
        # Of each row by its place alone, whatever the batches.
        seeds = check_random_state(self.random_state).randint(2**31 - 1, size=len(texts))
        painter, options = self._painter(), {"guidance_scale": self.guidance_scale}
        parts = []
        with shared_threads():
            for start in range(0, len(texts), self.batch_size):
                rows = slice(start, start + self.batch_size)
                drawn = painter.draw(texts[rows], seeds[rows], n_steps=self.n_steps, **options)
                # The size and the colours that were asked for, as of the pictures of a target.
                given: dict[str, Any] = {"image_size": self._size, "mode": self.mode_}
                owner = type(self).__name__
                parts.append(pictures_of_rows(drawn, len(drawn), owner, **given).pixels)
        return shown(np.concatenate(parts), self.mode_)

    def _text(self, column: Column, row: int) -> str:
        """Prompt of a row."""
        if column.missing[row]:
            return ""
        try:
            text = read_text(column.values[row])
        except CellTypeError as error:
            told = with_position(error, column=column.name, row=column.labels[row])
            raise told from error
        return text if self.prompt is None else self.prompt.replace("{}", text)
