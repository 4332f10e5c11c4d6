"""Captions written by a pretrained checkpoint, without training."""

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from functools import partial
from numbers import Integral
from os import PathLike
from typing import Any, ClassVar, Literal, Self, TypeVar

import numpy as np
from sklearn.utils import Tags, check_random_state
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from skmm._compose._base import BaseMultimodalEstimator, Modalities, Modality
from skmm._compose._callbacks import CallbackSupportMixin, TaskReporter, with_callbacks
from skmm._constraints import (
    BATCH_SIZE,
    DEVICE,
    POSITIVE_INT,
    RANDOM_STATE,
    VERBOSE,
    Interval,
    RandomState,
    StrOptions,
)
from skmm._environment._device import resolve_device, resolve_dtype, shared_threads
from skmm._environment._progress import Progress
from skmm._frame._column import Column, column_names, columns_of, n_rows
from skmm._frame._types import CellColumn, Frame
from skmm.backbones._pretrained._captioner_loading import (
    Captioner,
    load_captioner,
    resolve_captioner,
)
from skmm.exceptions import CellTypeError, MediaDecodeError
from skmm.generation._base import BaseMethod, MethodsMixin
from skmm.generation._decoding import (
    DECODINGS,
    BaseDecoding,
    BeamSearch,
    Decoding,
    NucleusSampling,
    resolve_decoding,
)
from skmm.generation._text_targets import prefixes_of_rows, resolve_others, texts_of_rows
from skmm.metrics import make_text_scorer
from skmm.metrics._scorers import TEXT_METRICS, TextMetric
from skmm.readers._audio import load_audio
from skmm.readers._image import load_image
from skmm.readers._source import with_position

__all__ = ["PretrainedCaptionGenerator"]

_KINDS = ("image", "audio")
_Result = TypeVar("_Result")


class PretrainedCaptionGenerator(MethodsMixin, CallbackSupportMixin, BaseMultimodalEstimator):
    """Write a text for each row by a pretrained checkpoint, without training.

    The checkpoint reads images (BLIP [1]_, GIT [2]_, a vision-encoder-decoder such as ViT-GPT2,
    LLaVA, ...) or speech (Whisper [3]_). ``fit`` only resolves the column and the files of the
    checkpoint; the weights are loaded at first use, once per process.

    Parameters
    ----------
    model : str or path
        Folder or hub name of a checkpoint of ``transformers``. Its weights must be safetensors, and
        code that it ships is never run. It reads the raw cells of one column.
    modalities : list of (name, transformer, columns) or "auto", default="auto"
        One triple with one column, whose ``transformer`` is ``"image"`` or ``"audio"``. ``"auto"``
        infers it from the training frame.
    prompt : str, default=None
        Text that precedes the written text, such as ``"a photo of"``, or a question to a model
        that answers. It is not part of the text that is returned.
    prompt_column : str or int, default=None
        Name or position of a column of texts. The text of a row replaces ``{}`` in the prompt, or
        follows the prompt if it has no ``{}``. ``modalities="auto"`` leaves this column out. A
        missing text counts as an empty one.
    decoding : {"greedy", "beam", "nucleus"} or object, default="greedy"
        How ``predict`` chooses the tokens: the most likely one at each step, the most likely text
        that a beam search finds, or by sampling among the most likely ones. An object sets the
        options of the method: :class:`GreedySearch`, :class:`BeamSearch` or
        :class:`NucleusSampling`.
    max_length : int, default=None
        Maximum length of a written text in tokens. Longer texts are cut. None is that of the
        checkpoint's ``generation_config.json``, or 20 if it has none.
    scoring : str or callable, default="corpus_bleu"
        What ``score`` returns: the metric of a name that :func:`~skmm.metrics.make_text_scorer`
        takes, or the value of a scikit-learn scorer ``scorer(estimator, X, y)``.
    batch_size : int, default=64
        Number of cells per batch.
    all_missing : {"none", "raise"}, default="none"
        What to do with a row whose cell is missing: ``"none"`` predicts None, a missing text,
        ``"raise"`` raises ``ModalityMissingError``.
    missing_columns : {"raise", "absent"}, default="raise"
        What happens if a column of the training frame is not in ``X``: ``"raise"`` raises
        ``ValueError``, ``"absent"`` treats the column as missing in every row.
    device : str, default="auto"
        Device of the model: ``"auto"``, ``"cpu"``, ``"cuda"``, ``"cuda:1"``.
    dtype : {"auto", "float32", "bfloat16"}, default="auto"
        Precision of the weights; ``"auto"`` is bfloat16 on a GPU that has it, else float32.
    random_state : int, RandomState instance or None, default=None
        Seed of :class:`NucleusSampling`.
    verbose : bool or int, default=0
        Whether ``predict``, ``score`` and ``score_samples`` report the rows done, the speed and
        the time left, on standard error.

    Attributes
    ----------
    modalities_ : list of (name, transformer, columns)
        The one triple that is read.
    checkpoint_ : dict
        Name, source and sha256 of the checkpoint, and the modality that it reads.
    n_features_in_ : int
        Number of columns seen in ``fit``.
    feature_names_in_ : ndarray of str
        Names of the columns seen in ``fit``. Defined only if ``X`` has column names.

    See Also
    --------
    CaptionGenerator : Train a decoder on your own texts.

    Notes
    -----
    All parameters except ``modalities`` and ``prompt_column`` are read by ``predict``, so a search
    over them costs no more than the predictions. The other settings of the checkpoint's
    ``generation_config.json``, such as suppressed tokens or a repetition penalty, apply to
    ``predict`` and not to ``score_samples``. A pickle holds the name and the digest of the files,
    no weights, and refuses other weights.

    References
    ----------
    .. [1] Li, Li, Xiong, Hoi (2022), "BLIP: bootstrapping language-image pre-training for unified
       vision-language understanding and generation", ICML.
    .. [2] Wang et al. (2022), "GIT: a generative image-to-text transformer for vision and
       language", TMLR.
    .. [3] Radford et al. (2023), "Robust speech recognition via large-scale weak supervision",
       ICML.

    Examples
    --------
    >>> from skmm import PretrainedCaptionGenerator
    >>> captions = PretrainedCaptionGenerator(
    ...     "Salesforce/blip-image-captioning-base", [("photo", "image", ["photo"])],
    ...     prompt="a photo of",
    ... )
    >>> captions.fit(X).predict(X)  # doctest: +SKIP
    >>> captions.score_samples(X, ["a dog", "a cat"])  # doctest: +SKIP
    """

    _parameter_constraints: ClassVar[dict[str, Any]] = {
        **BaseMultimodalEstimator._parameter_constraints,
        "all_missing": [StrOptions({"none", "raise"})],
        "model": [str, PathLike],
        "prompt": [str, None],
        "prompt_column": [str, Interval(Integral, 0, None, closed="left"), None],
        "decoding": [StrOptions(set(DECODINGS)), BaseDecoding],
        "max_length": [*POSITIVE_INT, None],
        "scoring": [StrOptions(set(TEXT_METRICS)), callable],
        "batch_size": BATCH_SIZE,
        "device": DEVICE,
        "dtype": [StrOptions({"auto", "float32", "bfloat16"})],
        "random_state": RANDOM_STATE,
        "verbose": VERBOSE,
    }
    _shorthands: ClassVar[dict[str, dict[str, type[BaseMethod]]]] = {"decoding": DECODINGS}

    def __init__(
        self,
        model: str | PathLike[str],
        modalities: Modalities = "auto",
        *,
        prompt: str | None = None,
        prompt_column: str | int | None = None,
        decoding: Decoding = "greedy",
        max_length: int | None = None,
        scoring: TextMetric | Callable[..., float] = "corpus_bleu",
        batch_size: int = 64,
        all_missing: Literal["none", "raise"] = "none",
        missing_columns: Literal["raise", "absent"] = "raise",
        device: str = "auto",
        dtype: Literal["auto", "float32", "bfloat16"] = "auto",
        random_state: RandomState = None,
        verbose: bool | int = 0,
    ):
        self.model = model
        self.modalities = modalities
        self.prompt = prompt
        self.prompt_column = prompt_column
        self.decoding = decoding
        self.max_length = max_length
        self.scoring = scoring
        self.batch_size = batch_size
        self.all_missing = all_missing
        self.missing_columns = missing_columns
        self.device = device
        self.dtype = dtype
        self.random_state = random_state
        self.verbose = verbose

    @with_callbacks
    def fit(self, X: Frame, y: CellColumn | None = None) -> Self:
        """Find the checkpoint and the column that it reads; train nothing.

        A checkpoint of the hub is downloaded if it is not in the local cache. Its weights are
        loaded by the first call of ``predict`` or ``score_samples``.

        Parameters
        ----------
        X : DataFrame of shape (n_samples, n_columns)
            Samples, one in each row. Any cell may be missing.
        y : array-like of shape (n_samples,), default=None
            Texts, or lists of texts. Only their types and their number are checked.

        Returns
        -------
        self : object
            The fitted generator.

        Raises
        ------
        CheckpointError
            If there is no such checkpoint, or it does not write texts from the modality.
        ValueError
            If not exactly one column of ``X`` has the modality that the checkpoint reads.
        """
        self._validate_params()
        resolve_decoding(self.decoding)
        owner = type(self).__name__
        X = self._check_frame(X, reset=True)
        if y is not None:
            texts_of_rows(y, n_rows(X), owner, several=True)
        with TaskReporter(self, X, y, 1, "checkpoint") as reporter, reporter.task():
            kind = self._declared_kind()
            checkpoint, kind = resolve_captioner(self.model, modality=kind, needed_by=owner)
            modality = self._read_modality(X, kind)
        self._place = column_names(X).index(column_names(X, modality.columns)[0])
        self.checkpoint_ = {**checkpoint.identity(), "modality": kind}
        self.modalities_ = [(modality.name, kind, modality.columns)]
        return self

    def _declared_kind(self) -> str | None:
        """Return the modality that the triples name; None if it is inferred."""
        if isinstance(self.modalities, str):
            return None
        try:
            transformers = [transformer for _, transformer, _ in self.modalities]
        except (TypeError, ValueError):  # not triples: refused when they are resolved
            return None
        kinds = []
        for transformer in transformers:
            if isinstance(transformer, str) and transformer == "drop":
                continue
            if not (isinstance(transformer, str) and transformer in _KINDS):
                raise ValueError(
                    f"{type(self).__name__}: the checkpoint reads the raw cells, so the transformer"
                    f" of a modality must be 'image' or 'audio', got {transformer!r}."
                    " Name the modality of the cells, or train a decoder with CaptionGenerator."
                )
            kinds.append(transformer)
        return kinds[0] if kinds else None

    def _resolve(self, X: Frame, *, predictors: bool = False) -> list[Modality]:
        if self.prompt_column is None or not isinstance(self.modalities, str):
            return super()._resolve(X, predictors=predictors)
        return resolve_others(X, self.prompt_column, type(self).__name__, super()._resolve)

    def _read_modality(self, X: Frame, kind: str) -> Modality:
        """Return the one triple with the one column that the checkpoint reads."""
        resolved = self._resolve(X)
        found = [own for own in resolved if getattr(own.transformer, "modality", None) == kind]
        others = [] if isinstance(self.modalities, str) else resolved
        columns = [name for own in found for name in column_names(X, own.columns)]
        if len(columns) != 1 or len(others) > 1:
            named = ", ".join(map(repr, columns or column_names(X)))
            raise ValueError(
                f"{type(self).__name__}: model={str(self.model)!r} writes from one column of"
                f" {kind} cells, got {max(len(columns), len(others))} ({named}). Give one triple,"
                f" such as [({kind!r}, {kind!r}, ['column'])]."
            )
        return found[0]

    def predict(self, X: Frame) -> np.ndarray:
        """Write a text for each row.

        Parameters
        ----------
        X : DataFrame of shape (n_samples, n_columns)
            Samples, one in each row. Any cell may be missing.

        Returns
        -------
        texts : ndarray of shape (n_samples,), object
            Texts; None for a row whose cell is missing.
        """
        check_is_fitted(self, "checkpoint_")
        self._validate_params()
        decoding = resolve_decoding(self.decoding)
        options: dict[str, Any] = {"max_length": self.max_length, "num_beams": 1}
        if isinstance(decoding, BeamSearch):
            options["num_beams"] = decoding.beam_size
            options["length_penalty"] = decoding.length_penalty
        draws = _UniformDraws(n_rows(X), self.random_state)

        def write(captioner: Captioner, requests: list[_Request]) -> list[str]:
            choose = None
            if isinstance(decoding, NucleusSampling):
                choose = partial(_sample, decoding, draws, [request.row for request in requests])
            cells, prompts = _cells_and_prompts(requests)
            return captioner.generate(cells, prompts, choose=choose, **options)

        texts = np.full(n_rows(X), None, dtype=object)
        found = self._for_requests(X, None, write, share=not decoding.is_random)
        for row, text in found.items():
            texts[row] = text
        return texts

    def score_samples(self, X: Frame, y: CellColumn) -> np.ndarray:
        """Compute the log-likelihood of a text for each row.

        Parameters
        ----------
        X : DataFrame of shape (n_samples, n_columns)
            Samples, one in each row. Any cell may be missing.
        y : array-like of shape (n_samples,)
            A text for each row.

        Returns
        -------
        log_likelihood : ndarray of shape (n_samples,), float64
            Log-likelihood under the model of the text and its end, given the cell and the prompt;
            NaN where the text or the cell is missing.
        """
        check_is_fitted(self, "checkpoint_")
        self._validate_params()
        owner = f"{type(self).__name__}.score_samples"
        texts = texts_of_rows(y, n_rows(X), owner, several=False)

        def measure(captioner: Captioner, requests: list[_Request]) -> list[float]:
            cells, prompts = _cells_and_prompts(requests)
            wanted = [request.text for request in requests]
            likely = captioner.likelihoods(cells, prompts, wanted)
            if np.isnan(likely).any():
                row = requests[int(np.flatnonzero(np.isnan(likely))[0])].row
                raise ValueError(
                    f"{owner}: the text of row {row} (by position) and the tokens before it are"
                    f" more than the {captioner.positions} tokens that {str(self.model)!r} can"
                    " read. Shorten them."
                )
            return [float(value) for value in likely]

        result = np.full(len(texts), np.nan)
        for row, value in self._for_requests(X, texts, measure, share=True).items():
            result[row] = value
        return result

    def score(self, X: Frame, y: CellColumn) -> float:
        """Score the texts that ``predict`` writes against those given.

        Parameters
        ----------
        X : DataFrame of shape (n_samples, n_columns)
            Cells. A metric counts the text of a row whose cell is missing as empty.
        y : array-like of shape (n_samples,)
            Texts, or a list of several references in a cell. A metric leaves out rows without any.

        Returns
        -------
        score : float
            The metric that ``scoring`` names, by default corpus BLEU from 0 to 1, or what the
            scorer ``scoring`` returns. Higher is better.
        """
        if callable(self.scoring):
            return float(self.scoring(self, X, y))
        return make_text_scorer(self.scoring)(self, X, y)

    # --- Batches of cells for the checkpoint ---

    def _for_requests(
        self,
        X: Frame,
        texts: list[list[str]] | None,
        use: Callable[[Captioner, list["_Request"]], list[_Result]],
        *,
        share: bool,
    ) -> dict[int, _Result]:
        """Call ``use`` on batches of requests and return its results by row.

        With ``share``, rows with the same cell, prompt and text are one request.
        """
        X = self._check_frame(X, reset=False)
        (column,) = columns_of(X, [self._place])
        self._refuse_empty(~column.missing[:, None])
        rows = np.flatnonzero(~column.missing)
        if texts is not None:
            rows = np.array([row for row in rows if texts[row]], dtype=int)
        if not len(rows):
            return {}
        captioner, prompts = self._load(), self._prompts(X)
        keys: dict[int, Hashable] = {}
        requested: set[Hashable] = set()
        results: dict[Hashable, _Result] = {}
        waiting: dict[int, list[_Request]] = {}

        def flush(requests: list[_Request]) -> None:
            found = use(captioner, requests)
            results.update(zip((request.key for request in requests), found, strict=True))
            progress.advance(len(requests))

        with (
            shared_threads(),
            Progress(type(self).__name__, len(rows), self.verbose) as progress,
        ):
            for row in map(int, rows):
                digest, cell = self._cell(column, row, captioner)
                text = texts[row][0] if texts is not None else ""
                keys[row] = (digest, prompts[row], text) if share else row
                if keys[row] in requested:
                    progress.advance(1)
                    continue
                requested.add(keys[row])
                request = _Request(row, keys[row], cell, prompts[row], text)
                # Prompts of the same length need no padding, which some models do not support.
                batch = waiting.setdefault(len(captioner.inputs.prompt_ids(request.prompt)), [])
                batch.append(request)
                if len(batch) == self.batch_size:
                    flush(batch)
                    batch.clear()
            for batch in waiting.values():
                if batch:
                    flush(batch)
        return {row: results[key] for row, key in keys.items()}

    def _load(self) -> Captioner:
        """Return the checkpoint of ``fit``, loaded once per process."""
        owner, known = type(self).__name__, self.checkpoint_
        checkpoint, kind = resolve_captioner(
            self.model, modality=known["modality"], needed_by=owner
        )
        checkpoint.refuse_others(known["digest"])
        device = resolve_device(self.device)
        return load_captioner(
            checkpoint, kind, device=device, dtype=resolve_dtype(self.dtype, device)
        )

    def _prompts(self, X: Frame) -> list[str]:
        """Return the prompt of each row."""
        prompt = self.prompt or ""
        if self.prompt_column is None:
            return [prompt] * n_rows(X)
        given = prefixes_of_rows(X, self.prompt_column, type(self).__name__)
        own = [text or "" for text in given]
        if "{}" in prompt:
            return [prompt.replace("{}", text) for text in own]
        return [f"{prompt} {text}".strip() for text in own]

    def _cell(self, column: Column, row: int, captioner: Captioner) -> tuple[bytes, np.ndarray]:
        """Return the digest and the decoded content of a cell."""
        owner, cell = type(self).__name__, column.values[row]
        longest = captioner.inputs.longest
        try:
            if self.checkpoint_["modality"] == "image":
                return load_image(cell)
            rate = captioner.inputs.rate or 16_000
            digest, windows = load_audio(cell, rate=rate, window=longest)
            parts = [part for _, part in zip(range(2), windows, strict=False)]
        except (CellTypeError, MediaDecodeError) as error:
            located = with_position(error, column=column.name, row=column.labels[row])
            located.args = (f"{owner}: {located}",)
            raise located from error
        if len(parts) > 1:
            raise ValueError(
                f"{owner}: column {column.name!r}, row {column.labels[row]!r}: the audio lasts"
                f" longer than the {longest:g} seconds that {str(self.model)!r} reads. Cut it, and"
                " give each part a row."
            )
        return digest, parts[0]

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = False  # it reads a column of cells, which no check has
        return tags


@dataclass
class _Request:
    """One cell for the checkpoint, with its prompt and the text to score."""

    row: int
    key: Hashable
    cell: np.ndarray
    prompt: str
    text: str = ""


def _cells_and_prompts(requests: list[_Request]) -> tuple[list[np.ndarray], list[str]]:
    return [request.cell for request in requests], [request.prompt for request in requests]


class _UniformDraws:
    """Random numbers, uniform on [0, 1), that do not depend on the batches."""

    def __init__(self, n: int, random_state: RandomState):
        self.n = n
        self.random_state = random_state
        self.steps: list[np.ndarray] = []

    def at(self, step: int, rows: list[int]) -> np.ndarray:
        """Return the numbers of a step for some rows."""
        if not self.steps:  # leave the random state alone if no number is requested
            self.random = check_random_state(self.random_state)
        while len(self.steps) <= step:
            self.steps.append(self.random.random_sample(self.n))
        return self.steps[step][rows]


def _sample(
    decoding: NucleusSampling, draws: _UniformDraws, rows: list[int], step: int, logits: Tensor
) -> Tensor:
    """Sample the token of a step for each row."""
    return decoding.sample(logits, draws.at(step, rows))
