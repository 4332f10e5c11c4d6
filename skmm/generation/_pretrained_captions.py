"""Captions by a pretrained checkpoint that writes: nothing is trained."""

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from sklearn.exceptions import NotFittedError
from sklearn.utils import check_random_state
from torch import Tensor

from skmm._compose._base import Modality
from skmm._compose._callbacks import TaskReporter
from skmm._environment._device import resolve_device, resolve_dtype, shared_threads
from skmm._frame._column import Column, column_names, columns_of, n_rows
from skmm.backbones._pretrained._captioner_loading import (
    Captioner,
    load_captioner,
    resolve_captioner,
)
from skmm.exceptions import CellTypeError, MediaDecodeError
from skmm.generation._decoding import drawn
from skmm.generation._text_targets import texts_of_rows
from skmm.readers import load_audio, load_image, with_position

__all__ = ["PretrainedCaptions"]

_KINDS = ("image", "audio")
# What training from scratch leaves behind.
_TRAINED = ("module_", "net_", "vocabulary_", "max_length_", "history_", "n_iter_")


@dataclass
class _Job:
    """One cell to be looked at."""

    row: int
    key: Hashable
    cell: np.ndarray
    prompt: str
    text: str = ""


class _Draws:
    """What decides each token of each row, whatever the batches: uniform on [0, 1)."""

    def __init__(self, n: int, random_state: Any):
        self.n = n
        self.random = check_random_state(random_state)
        self.steps: list[np.ndarray] = []

    def of(self, step: int, rows: list[int]) -> np.ndarray:
        while len(self.steps) <= step:
            self.steps.append(self.random.random_sample(self.n))
        return self.steps[step][rows]


class PretrainedCaptions:
    """What a caption generator does if it has a ``model``."""

    # Parameters and methods of the generator, told to type checkers.
    modalities: Any
    model: Any = None
    prompt: str | None = None
    prefix: Any
    decoding: str
    beam_size: int
    length_penalty: float
    top_p: float
    temperature: float
    max_length: int | None
    batch_size: int
    device: str
    dtype: str
    random_state: Any
    checkpoint_: Any
    _check_frame: Any
    _validate_params: Any
    _prefixes: Any
    _refuse_empty: Any
    _resolve: Any

    def _fit_pretrained(self, X: Any, y: Any) -> Self:
        """Find the column of cells and the checkpoint that looks at them."""
        owner = type(self).__name__
        X = self._check_frame(X, reset=True)
        if y is not None:
            texts_of_rows(y, n_rows(X), owner, several=True)
        with TaskReporter(self, X, y, 1, "checkpoint") as reporter, reporter.task():
            kind = self._asked_kind()
            checkpoint, kind = resolve_captioner(self.model, modality=kind, needed_by=owner)
            modality = self._looked_at(X, kind)
        names = column_names(X)
        self._place = names.index(column_names(X, modality.columns)[0])
        for name in _TRAINED:
            vars(self).pop(name, None)
        self.checkpoint_ = {**checkpoint.identity(), "modality": kind}
        self.modalities_ = [(modality.name, kind, modality.columns)]
        return self

    def _asked_kind(self) -> str | None:
        """What the triples say that the cells are; None if that is inferred."""
        if isinstance(self.modalities, str):
            return None
        try:
            middles = [middle for _, middle, _ in self.modalities]
        except (TypeError, ValueError):  # not triples: told when they are resolved
            return None
        own = [middle for middle in middles if not (isinstance(middle, str) and middle == "drop")]
        for middle in own:
            if not (isinstance(middle, str) and middle in _KINDS):
                raise ValueError(
                    f"{type(self).__name__}: with model= the checkpoint reads the raw cells, so the"
                    f" transformer of a modality must be 'image' or 'audio', got {middle!r}. Name"
                    " what the cells are, or train a decoder from scratch with model=None."
                )
        return own[0] if own else None

    def _looked_at(self, X: Any, kind: str) -> Modality:
        """Return the one triple with the one column that the checkpoint reads."""
        owner = type(self).__name__
        resolved = self._resolve(X)
        found = [own for own in resolved if getattr(own.middle, "modality", None) == kind]
        others = [] if isinstance(self.modalities, str) else resolved
        columns = [name for own in found for name in column_names(X, own.columns)]
        if len(columns) != 1 or len(others) > 1:
            named = ", ".join(map(repr, columns or column_names(X)))
            raise ValueError(
                f"{owner}: model={str(self.model)!r} writes from one column of {kind} cells, got"
                f" {max(len(columns), len(others))} ({named}). Give one triple, such as"
                f" [({kind!r}, {kind!r}, ['column'])]."
            )
        return found[0]

    def _refuse_unfitted(self) -> None:
        if getattr(self, "checkpoint_", None) is None:
            raise NotFittedError(
                f"This {type(self).__name__} instance is not fitted yet with model="
                f"{str(self.model)!r}. Call 'fit' with appropriate arguments before using this"
                " estimator."
            )

    def _writer(self) -> Captioner:
        """Load the checkpoint of ``fit``, or find it loaded."""
        owner = type(self).__name__
        known = self.checkpoint_
        checkpoint, kind = resolve_captioner(
            self.model, modality=known["modality"], needed_by=owner
        )
        checkpoint.refuse_others(known["digest"])
        device = resolve_device(self.device)
        return load_captioner(
            checkpoint, kind, device=device, dtype=resolve_dtype(self.dtype, device)
        )

    def _write_pretrained(self, X: Any) -> np.ndarray:
        """Texts of the rows, None for one without a cell."""
        self._refuse_unfitted()
        options: dict[str, Any] = {"max_length": self.max_length, "num_beams": 1}
        if self.decoding == "beam":
            options |= {"num_beams": self.beam_size, "length_penalty": self.length_penalty}
        draws = _Draws(n_rows(X), self.random_state) if self.decoding == "nucleus" else None

        def write(writer: Captioner, jobs: list[_Job]) -> list[str]:
            choose = None if draws is None else self._chooser(draws, [job.row for job in jobs])
            cells, prompts = [job.cell for job in jobs], [job.prompt for job in jobs]
            return writer.write(cells, prompts, choose=choose, **options)

        texts = np.full(n_rows(X), None, dtype=object)
        for row, text in self._for_jobs(X, None, write, alike=draws is None).items():
            texts[row] = text
        return texts

    def _chooser(self, draws: _Draws, rows: list[int]) -> Callable[[int, Tensor], Tensor]:
        def choose(step: int, logits: Tensor) -> Tensor:
            return drawn(
                logits, draws.of(step, rows), top_p=self.top_p, temperature=self.temperature
            )

        return choose

    def _judge_pretrained(self, X: Any, texts: list[list[str]]) -> np.ndarray:
        """Log-likelihoods of a text for each row, NaN where there is none or no cell."""
        self._validate_params()  # the prompt may have been set after fit
        self._refuse_unfitted()

        def judge(writer: Captioner, jobs: list[_Job]) -> list[float]:
            cells, prompts = [job.cell for job in jobs], [job.prompt for job in jobs]
            likely = writer.likelihoods(cells, prompts, [job.text for job in jobs])
            if np.isnan(likely).any():
                row = jobs[int(np.flatnonzero(np.isnan(likely))[0])].row
                raise ValueError(
                    f"{type(self).__name__}.predict_log_proba: the text of row {row} (by position)"
                    f" and what stands before it are more than the {writer.positions} tokens that"
                    f" {str(self.model)!r} can read. Shorten them."
                )
            return likely.tolist()

        result = np.full(len(texts), np.nan)
        for row, value in self._for_jobs(X, texts, judge, alike=True).items():
            result[row] = value
        return result

    def _for_jobs(
        self,
        X: Any,
        texts: list[list[str]] | None,
        do: Callable[[Captioner, list[_Job]], list[Any]],
        *,
        alike: bool,
    ) -> dict[int, Any]:
        """Call ``do`` for batches of cells, and give what it returns by row.

        With ``alike`` rows of the same content are done once.
        """
        X = self._check_frame(X, reset=False)
        (column,) = columns_of(X, [self._place])
        self._refuse_empty(~column.missing[:, None])
        rows = np.flatnonzero(~column.missing)
        if texts is not None:
            rows = np.array([row for row in rows if texts[row]], dtype=int)
        if not len(rows):
            return {}
        writer, prompts = self._writer(), self._prompts(X)
        keys: dict[int, Hashable] = {}
        results: dict[Hashable, Any] = {}
        waiting: dict[int, list[_Job]] = {}

        def flush(jobs: list[_Job]) -> None:
            own = do(writer, jobs)
            results.update(zip((job.key for job in jobs), own, strict=True))

        with shared_threads():
            for row in map(int, rows):
                digest, cell = self._cell(column, row, writer)
                text = texts[row][0] if texts is not None else ""
                keys[row] = (digest, prompts[row], text) if alike else row
                if keys[row] in results:
                    continue
                results[keys[row]] = None  # from now on it is waited for
                job = _Job(row, keys[row], cell, prompts[row], text)
                # Prompts of one length need no padding, which not every model can do.
                batch = waiting.setdefault(len(writer.inputs.before(job.prompt)), [])
                batch.append(job)
                if len(batch) == self.batch_size:
                    flush(batch)
                    batch.clear()
            for batch in waiting.values():
                if batch:
                    flush(batch)
        return {row: results[key] for row, key in keys.items()}

    def _prompts(self, X: Any) -> list[str]:
        """What stands in front of each row's text."""
        prompt, prefixes = self.prompt or "", self._prefixes(X)
        if not prefixes:
            return [prompt] * n_rows(X)
        own = [prefix or "" for prefix in prefixes]
        if "{}" in prompt:
            return [prompt.replace("{}", prefix) for prefix in own]
        return [f"{prompt} {prefix}".strip() for prefix in own]

    def _cell(self, column: Column, row: int, writer: Captioner) -> tuple[bytes, np.ndarray]:
        """Digest and content of a cell, decoded as the checkpoint takes it."""
        owner, cell = type(self).__name__, column.values[row]
        longest = writer.inputs.longest
        try:
            if self.checkpoint_["modality"] == "image":
                return load_image(cell)
            rate = writer.inputs.rate or 16_000
            digest, windows = load_audio(cell, rate=rate, window=longest)
            parts = [part for _, part in zip(range(2), windows, strict=False)]
        except (CellTypeError, MediaDecodeError) as error:
            told = with_position(error, column=column.name, row=column.labels[row])
            told.args = (f"{owner}: {told}",)
            raise told from error
        if len(parts) > 1:
            raise ValueError(
                f"{owner}: column {column.name!r}, row {column.labels[row]!r}: the sound lasts"
                f" longer than the {longest:g} seconds that {str(self.model)!r} hears. Cut it, and"
                " give each part a row."
            )
        return digest, parts[0]
