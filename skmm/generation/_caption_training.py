"""How a caption generator is trained, and what it gives afterwards."""

from collections.abc import Callable
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor, nn

from skmm._compose._callbacks import TaskReporter, with_callbacks
from skmm._environment._device import seeded
from skmm._frame._column import n_rows, take_rows
from skmm._training._inputs import JointInputs
from skmm.fusion._modalities import Modality
from skmm.generation._base import BaseGenerator
from skmm.generation._caption_module import PREFIX, TEXT, CaptionModule
from skmm.generation._prefix import prefix_ids, prefixes_of_rows, resolve_others
from skmm.generation._pretrained_captions import PretrainedCaptions
from skmm.generation._text_targets import padded_ids, texts_of_rows
from skmm.generation._tokenizer import TextTokenizer
from skmm.nets import GRUDecoder, TextDecoder, TokenLoss, TransformerDecoder

__all__ = ["BaseCaptions"]


class _IdsCode:
    """What a text is for the loss: the ids that should be written, (n_texts, n_steps)."""

    def tensor(self, target: np.ndarray) -> Tensor:
        """Target as the loss takes it."""
        return torch.from_numpy(target)

    def strata(self, target: np.ndarray) -> None:
        """Texts fall into no classes."""


class BaseCaptions(PretrainedCaptions, BaseGenerator):
    """Training of the decoder, with the trainer of the joint fusions."""

    module_: CaptionModule
    _code = _IdsCode()

    # Parameters of the generator, told to type checkers.
    prefix: str | int | None
    decoder: str
    tokenizer: str
    max_vocabulary: int
    max_length: int | None
    n_components: int
    n_heads: int
    n_layers: int
    label_smoothing: float
    max_epochs: int

    @with_callbacks
    def fit(self, X: Any, y: Any = None) -> Self:
        """Fit the transformers and train the decoder, and encoders that need training.

        With ``model`` nothing is trained: the column and the checkpoint are looked for, and the
        weights are loaded when they are needed.

        Parameters
        ----------
        X : DataFrame of shape (n_samples, n_columns)
            Cells; any row may lack any modality. One that lacks all, and its prefix, is not
            learned from.
        y : array-like of shape (n_samples,)
            Texts, or a list of several texts in a cell, each of which is learned. A row whose
            text is missing is not learned from, but its cells are seen by the transformers. With
            ``model`` None will do.

        Returns
        -------
        self : object
            The fitted generator.
        """
        self._validate_params()
        if self.model is not None:
            return self._fit_pretrained(X, y)
        self.checkpoint_ = None
        X = self._check_frame(X, reset=True)
        texts = texts_of_rows(y, n_rows(X), type(self).__name__, several=True)
        prefixes = self._prefixes(X)
        inputs, seed = self._frozen_inputs(X)
        with seeded(seed), TaskReporter(self, X, y, self.max_epochs, "epoch") as reporter:
            tensors, rows = self._start(X, texts, prefixes, inputs)
            held_out = self._hold_out(rows, np.zeros(len(texts)), seed)
            # All texts of a row are on one side.
            pairs = [(row, text) for row in rows for text in texts[row]]
            of_pair = np.array([row for row, _ in pairs])
            ids, target = self._ids_of([text for _, text in pairs], self.max_length)
            lengths = (target != TokenLoss.NOTHING).sum(axis=1)
            self._mean_length = float(lengths.mean())
            self.max_length_ = target.shape[1]
            if not np.array_equal(of_pair, np.arange(len(texts))):  # else no copy is needed
                chosen = torch.from_numpy(of_pair)
                tensors = {name: tensor[chosen] for name, tensor in tensors.items()}
            tensors[TEXT] = torch.from_numpy(ids)
            is_held = np.isin(of_pair, held_out)
            valid = self._dataset(tensors, target, None, np.flatnonzero(is_held))
            self._new_net(
                self._all_callbacks(reporter),
                valid if len(held_out) else None,
                max_epochs=self.max_epochs,
            )
            own = take_rows(X, of_pair) if inputs.augments else None
            self._train(self._dataset(tensors, target, None, np.flatnonzero(~is_held), own))
        return self

    def _resolve(self, X: Any, *, predictors: bool = False) -> list[Modality]:
        if self.prefix is None or not isinstance(self.modalities, str):
            return super()._resolve(X, predictors=predictors)
        return resolve_others(X, self.prefix, type(self).__name__, super()._resolve)

    def _prefixes(self, X: Any) -> list[str | None]:
        """Prefix of each row, None where it is missing; nothing at all if no column has them."""
        if self.prefix is None:
            return []
        return prefixes_of_rows(X, self.prefix, type(self).__name__)

    def _start(
        self,
        X: Any,
        texts: list[list[str]],
        prefixes: list[str | None],
        inputs: JointInputs,
    ) -> tuple[dict[str, Tensor], np.ndarray]:
        """Start the networks that are trained, learn the tokens, and build the decoder.

        Returns tensors of all rows, and the rows to learn from.
        """
        tensors, networks = self._all_inputs(X, inputs)
        present = _with_prefix(inputs.present(tensors), prefixes)
        self._refuse_empty(present)
        rows = self._rows_to_learn(texts, present)
        self._inputs = inputs
        read = [prefixes[row] or "" for row in rows] if prefixes else []
        self._tokenizer = TextTokenizer(self.tokenizer, self.max_vocabulary)
        self._tokenizer.fit([*(text for row in rows for text in texts[row]), *read])
        if prefixes:
            tensors[PREFIX] = torch.from_numpy(prefix_ids(prefixes, self._tokenizer))
        self.vocabulary_ = list(self._tokenizer.tokens_)
        decoder = self._make_decoder(len(self._tokenizer))
        self.module_ = self._memory_of(CaptionModule, inputs, networks, decoder)
        self.history_ = []
        return tensors, rows

    def _make_decoder(self, n_tokens: int) -> TextDecoder:
        options: dict[str, Any] = {"dropout": self.dropout, "n_layers": self.n_layers}
        if self.decoder == "gru":
            return GRUDecoder(n_tokens, self.n_components, **options)
        return TransformerDecoder(n_tokens, self.n_components, n_heads=self.n_heads, **options)

    def _rows_to_learn(self, texts: list[list[str]], present: np.ndarray) -> np.ndarray:
        written = np.array([len(row) > 0 for row in texts])
        rows = np.flatnonzero(written & present.any(axis=1))
        if not len(rows):
            raise ValueError(
                f"{type(self).__name__} has nothing to learn from: none of n_samples={len(texts)}"
                " rows has both a text and a modality. Give rows that have."
            )
        return rows

    def _ids_of(self, texts: list[str], longest: int | None) -> tuple[np.ndarray, np.ndarray]:
        """What the decoder reads of texts, and what it should write."""
        ids = [self._tokenizer.encode(text) for text in texts]
        return padded_ids(ids, len(self._tokenizer), TokenLoss.NOTHING, longest)

    def _criterion(self) -> nn.Module:
        return TokenLoss(self._mean_length, label_smoothing=self.label_smoothing)

    # --- after fit --------------------------------------------------------------------------

    def _for_batches(
        self, X: Any, use: Callable[[np.ndarray, Tensor, Tensor, Tensor | None], None]
    ) -> int:
        """Call ``use(rows, memory, mask, prefix)`` for rows that have something; n_samples."""
        X = self._check_frame(X, reset=False)
        device = self._placed()
        inputs = self._inputs.tensors(X)
        prefixes = self._prefixes(X)
        if prefixes:
            inputs[PREFIX] = torch.from_numpy(prefix_ids(prefixes, self._tokenizer))
        present = _with_prefix(self._inputs.present(inputs), prefixes)
        self._refuse_empty(present)
        rows = np.flatnonzero(present.any(axis=1))
        for some, batch in self._batches(inputs, rows, device):
            with self._threads(), torch.inference_mode():
                use(some, *self.module_.remember(**batch))
        return len(present)


def _with_prefix(present: np.ndarray, prefixes: list[str | None]) -> np.ndarray:
    """What each row has, (n_samples, n_modalities), and whether it has a prefix, if any may."""
    if not prefixes:
        return present
    return np.column_stack([present, [prefix is not None for prefix in prefixes]])
