"""Images by a pretrained pipeline of diffusers: nothing is trained."""

from collections.abc import Callable
from os import PathLike
from typing import Any, ClassVar, Literal, Self

import numpy as np
from sklearn.utils import Tags, check_random_state
from sklearn.utils.validation import check_is_fitted

from skmm._compose._base import BaseMultimodalEstimator, Modalities, Modality, Transformer
from skmm._compose._callbacks import CallbackSupportMixin, TaskReporter, with_callbacks
from skmm._constraints import (
    BATCH_SIZE,
    DEVICE,
    NON_NEGATIVE,
    POSITIVE_INT,
    RANDOM_STATE,
    RandomState,
    StrOptions,
)
from skmm._environment._device import resolve_device, resolve_dtype, shared_threads
from skmm._frame._column import Column, column_names, columns_of, n_rows
from skmm._frame._types import CellColumn, Frame
from skmm.backbones._pretrained._diffusion import DiffusionPipeline, load_pipeline, resolve_pipeline
from skmm.exceptions import CellTypeError
from skmm.generation._image_scoring import ImageScoreMixin
from skmm.generation._image_targets import images_of_rows, to_user_images
from skmm.metrics._scorers import Alignment
from skmm.readers import read_text, with_position

__all__ = ["PretrainedImageGenerator"]


class PretrainedImageGenerator(ImageScoreMixin, CallbackSupportMixin, BaseMultimodalEstimator):
    """Generate an image for each row from its text, by a pretrained pipeline as it is.

    A pipeline of ``diffusers`` from texts to images, such as Stable Diffusion [1]_. Nothing is
    trained: ``fit`` looks for the column of texts and for the files, and the weights are loaded at
    first use, once per process.

    Parameters
    ----------
    model : str or path
        Folder or hub name of the pipeline: safetensors only, never code of its own.
    modalities : list of (name, transformer, columns) or "auto", default="auto"
        One triple with one column, whose ``transformer`` is ``"text"``. ``"auto"`` takes the one
        column of texts of the training frame.
    prompt : str, default=None
        What the pipeline is given, ``"a photo of {}"``, with the text in place of the braces; None
        for the text alone.
    image_size : int, default=512
        Height and width in pixels to which images are brought, best those of the pipeline.
    mode : {"auto", "L", "RGB"}, default="auto"
        Gray or color; ``"auto"`` is gray where the images given to ``fit`` are, else color.
    n_steps : int, default=50
        Steps from noise to image.
    guidance_scale : float, default=7.5
        How strictly the text is followed.
    scoring : {"frechet", "alignment"} or callable, default="frechet"
        What ``score`` measures: the negative of :func:`~skmm.metrics.frechet_distance` between
        generated and real images, whether generated images agree with their rows in the space of
        ``alignment`` (:func:`~skmm.metrics.paired_cosine`), or a function of ``(y_true, y_pred)``.
    feature_encoder : transformer, default=None
        Of ``"frechet"``: gives the features of images. One that is not fitted is fitted on the
        images given to ``score``. None is ``ImageEncoder()``.
    alignment : estimator, default=None
        Of ``"alignment"``: fitted, of ``skmm.alignment``, with a modality ``"image"`` and another
        one whose columns are in ``X``.
    batch_size : int, default=8
        Images at once.
    all_missing : {"prior", "raise"}, default="prior"
        A row without a text gets an image of the empty prompt, or ``ModalityMissingError`` is
        raised.
    missing_columns : {"raise", "absent"}, default="raise"
        What to do with a frame that lacks a column of the training frame: raise, or count it as
        absent in every row.
    device : str, default="auto"
        Where the pipeline runs: ``"auto"``, ``"cpu"``, ``"cuda"``, ``"cuda:1"``.
    dtype : {"auto", "float32", "bfloat16"}, default="auto"
        Precision of the weights; ``"auto"`` is bfloat16 on a GPU that has it, else float32.
    random_state : int, RandomState instance or None, default=None
        Seed of the noise of ``predict``: the same int, the same images.

    Attributes
    ----------
    modalities_ : list of (name, transformer, columns)
        The one triple that is read.
    mode_ : {"L", "RGB"}
        What is generated.
    checkpoint_ : dict
        Name, source and sha256 of the pipeline.
    n_features_in_ : int
        Number of columns seen in ``fit``.
    feature_names_in_ : ndarray of str
        Names of the columns seen in ``fit``, if it saw names.

    See Also
    --------
    ImageGenerator : Trains a network on images of your own, from any modality.

    Notes
    -----
    ``prompt``, ``n_steps``, ``guidance_scale`` and what belongs to the score are read when they
    are used, so a search over them costs no more than generating. A pickle holds the name and the
    digest of the pipeline, no weights, and refuses other weights.

    References
    ----------
    .. [1] Rombach, Blattmann, Lorenz, Esser, Ommer (2022), "High-resolution image synthesis with
       latent diffusion models", CVPR.

    Examples
    --------
    >>> from skmm import PretrainedImageGenerator
    >>> images = PretrainedImageGenerator(
    ...     "stable-diffusion-v1-5/stable-diffusion-v1-5", [("text", "text", ["caption"])],
    ...     prompt="a photo of {}", random_state=0,
    ... )
    >>> images.fit(X).predict(X)  # doctest: +SKIP
    """

    _parameter_constraints: ClassVar[dict[str, Any]] = {
        **BaseMultimodalEstimator._parameter_constraints,
        **ImageScoreMixin._scoring_constraints,
        "model": [str, PathLike],
        "prompt": [str, None],
        "image_size": POSITIVE_INT,
        "mode": [StrOptions({"auto", "L", "RGB"})],
        "n_steps": POSITIVE_INT,
        "guidance_scale": NON_NEGATIVE,
        "batch_size": BATCH_SIZE,
        "device": DEVICE,
        "dtype": [StrOptions({"auto", "float32", "bfloat16"})],
        "random_state": RANDOM_STATE,
    }

    def __init__(
        self,
        model: str | PathLike[str],
        modalities: Modalities = "auto",
        *,
        prompt: str | None = None,
        image_size: int = 512,
        mode: Literal["auto", "L", "RGB"] = "auto",
        n_steps: int = 50,
        guidance_scale: float = 7.5,
        scoring: Literal["frechet", "alignment"] | Callable[..., float] = "frechet",
        feature_encoder: Transformer | None = None,
        alignment: Alignment | None = None,
        batch_size: int = 8,
        all_missing: Literal["prior", "raise"] = "prior",
        missing_columns: Literal["raise", "absent"] = "raise",
        device: str = "auto",
        dtype: Literal["auto", "float32", "bfloat16"] = "auto",
        random_state: RandomState = None,
    ):
        self.model = model
        self.modalities = modalities
        self.prompt = prompt
        self.image_size = image_size
        self.mode = mode
        self.n_steps = n_steps
        self.guidance_scale = guidance_scale
        self.scoring = scoring
        self.feature_encoder = feature_encoder
        self.alignment = alignment
        self.batch_size = batch_size
        self.all_missing = all_missing
        self.missing_columns = missing_columns
        self.device = device
        self.dtype = dtype
        self.random_state = random_state

    @with_callbacks
    def fit(self, X: Frame, y: CellColumn | None = None) -> Self:
        """Find the column of texts and the pipeline; nothing is trained.

        Parameters
        ----------
        X : DataFrame of shape (n_samples, n_columns)
            Cells; any row may lack its text.
        y : array-like of shape (n_samples,), default=None
            Images, of which only their colors are used, for ``mode="auto"``.

        Returns
        -------
        self : object
            The fitted generator.
        """
        self._validate_params()
        self._check_scoring()
        owner = type(self).__name__
        X = self._check_frame(X, reset=True)
        mode: str = "RGB" if self.mode == "auto" else self.mode
        if y is not None:
            known = images_of_rows(y, n_rows(X), owner, image_size=self.image_size, mode=self.mode)
            mode = "RGB" if known.mode == "RGBA" else known.mode  # no pipeline gives opacity
        with TaskReporter(self, X, y, 1, "checkpoint") as reporter, reporter.task():
            modality = self._text_modality(X)
            checkpoint = resolve_pipeline(self.model, needed_by=owner)
        self._place = column_names(X).index(column_names(X, modality.columns)[0])
        self.checkpoint_ = checkpoint.identity()
        self.modalities_ = [(modality.name, "text", modality.columns)]
        self.mode_ = mode
        self._size = self.image_size
        return self

    def _text_modality(self, X: Frame) -> Modality:
        """Return the one triple with the one column of texts."""
        resolved = self._resolve(X)
        if not isinstance(self.modalities, str):
            for _, middle, _ in self.modalities:
                if not (isinstance(middle, str) and middle in ("text", "drop")):
                    raise ValueError(
                        f"{type(self).__name__}: the pipeline reads the raw texts, so the"
                        f" transformer of the modality must be 'text', got {middle!r}. Say 'text',"
                        " or train a network with ImageGenerator."
                    )
        found = [own for own in resolved if getattr(own.middle, "modality", None) == "text"]
        columns = [name for own in found for name in column_names(X, own.columns)]
        if len(columns) != 1:
            named = ", ".join(map(repr, columns or column_names(X)))
            raise ValueError(
                f"{type(self).__name__}: model={str(self.model)!r} generates from one column of"
                f" texts, got {len(columns)} ({named}). Give one triple, such as"
                " [('text', 'text', ['column'])]."
            )
        return found[0]

    def predict(self, X: Frame) -> np.ndarray:
        """Generate an image for each row.

        Parameters
        ----------
        X : DataFrame of shape (n_samples, n_columns)
            Cells; any row may lack its text, and gets an image of the empty prompt.

        Returns
        -------
        images : ndarray of shape (n_samples, image_size, image_size), uint8
            With a last axis of 3 channels if ``mode_`` is ``"RGB"``. The noise of a row depends on
            ``random_state`` and on its place in ``X`` alone.
        """
        check_is_fitted(self, "checkpoint_")
        self._validate_params()
        X = self._check_frame(X, reset=False)
        (column,) = columns_of(X, [self._place])
        self._refuse_empty(~column.missing[:, None])
        texts = [self._text(column, row) for row in range(len(column.values))]
        # Of each row by its place alone, whatever the batches.
        drawn = check_random_state(self.random_state).randint(2**31 - 1, size=len(texts))
        seeds: list[int] = drawn.tolist()
        pipeline, parts = self._load(), []
        with shared_threads():
            for start in range(0, len(texts), self.batch_size):
                rows = slice(start, start + self.batch_size)
                images = pipeline.generate(
                    texts[rows],
                    seeds[rows],
                    n_steps=self.n_steps,
                    guidance_scale=self.guidance_scale,
                )
                # The size and the colors that were asked for, as of the images of a target.
                own = images_of_rows(
                    images,
                    len(images),
                    type(self).__name__,
                    image_size=self._size,
                    mode=self.mode_,
                )
                parts.append(own.pixels)
        return to_user_images(np.concatenate(parts), self.mode_)

    def _load(self) -> DiffusionPipeline:
        """Load the pipeline of ``fit``, or find it loaded."""
        checkpoint = resolve_pipeline(self.model, needed_by=type(self).__name__)
        checkpoint.refuse_others(self.checkpoint_["digest"])
        device = resolve_device(self.device)
        return load_pipeline(checkpoint, device=device, dtype=resolve_dtype(self.dtype, device))

    def _text(self, column: Column, row: int) -> str:
        """Prompt of a row."""
        if column.missing[row]:
            return ""
        try:
            text = read_text(column.values[row])
        except CellTypeError as error:
            located = with_position(error, column=column.name, row=column.labels[row])
            raise located from error
        return text if self.prompt is None else self.prompt.replace("{}", text)

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = False  # it reads a column of texts, which no check has
        return tags
