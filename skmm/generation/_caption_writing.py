"""What a fitted caption generator does: writes, judges, scores."""

from typing import Any

import numpy as np
import torch
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from skmm._frame._column import n_rows
from skmm.generation._caption_training import BaseCaptions
from skmm.generation._decoding import beam, greedy, log_likelihood, nucleus
from skmm.generation._text_targets import texts_of_rows
from skmm.generation._tokenizer import TextTokenizer
from skmm.metrics import make_text_scorer
from skmm.nets import TokenLoss

__all__ = ["CaptionWriter"]


class CaptionWriter(BaseCaptions):
    """The methods of a caption generator beside ``fit``."""

    # Parameters of the generator, told to type checkers.
    decoding: str
    beam_size: int
    length_penalty: float
    top_p: float
    temperature: float
    scoring: Any

    def predict(self, X: Any) -> np.ndarray:
        """Write a text for each row.

        Parameters
        ----------
        X : DataFrame of shape (n_samples, n_columns)
            Cells; any row may lack any modality.

        Returns
        -------
        texts : ndarray of shape (n_samples,), object
            Texts; None for a row that lacks every modality.
        """
        self._validate_params()  # those of the decoding may have been set after fit
        if self.model is not None:
            return self._write_pretrained(X)
        check_is_fitted(self, "module_")
        found: dict[int, str] = {}
        longest = self.max_length or self.max_length_
        draws = None
        if self.decoding == "nucleus":
            # Of all rows at once: what a row gets does not depend on the batches.
            draws = check_random_state(self.random_state).random_sample((n_rows(X), longest))

        def write(rows: np.ndarray, memory: Tensor, mask: Tensor, prefix: Tensor | None) -> None:
            own = None if draws is None else draws[rows]
            ids = self._decode(memory, mask, prefix, longest, own)
            for row, text in zip(rows, ids.cpu().tolist(), strict=True):
                found[int(row)] = self._text_of(text)

        n = self._for_batches(X, write)
        texts = np.full(n, None, dtype=object)
        for row, text in found.items():
            texts[row] = text
        return texts

    def _decode(
        self,
        memory: Tensor,
        mask: Tensor,
        prefix: Tensor | None,
        longest: int,
        draws: np.ndarray | None,
    ) -> Tensor:
        options: dict[str, Any] = {"max_length": longest, "prefix": prefix}
        given = (self.module_.head, memory, mask)
        if draws is not None:
            options |= {"top_p": self.top_p, "temperature": self.temperature}
            return nucleus(*given, draws=draws, **options)
        if self.decoding == "beam":
            return beam(*given, size=self.beam_size, length_penalty=self.length_penalty, **options)
        return greedy(*given, **options)

    def _text_of(self, ids: list[int]) -> str:
        end = TextTokenizer.END
        return self._tokenizer.decode(ids[: ids.index(end)] if end in ids else ids)

    def predict_log_proba(self, X: Any, y: Any = None) -> np.ndarray:
        """Return how likely texts are for their rows.

        Parameters
        ----------
        X : DataFrame of shape (n_samples, n_columns)
            Cells; any row may lack any modality.
        y : array-like of shape (n_samples,), default=None
            A text for each row, of any length; None for those that ``predict`` writes. A token
            that no training text held counts as an unknown one.

        Returns
        -------
        log_likelihood : ndarray of shape (n_samples,), float64
            Sum of the log-probabilities of a text's tokens and of its end; NaN where the text is
            missing or the row lacks every modality.
        """
        if self.model is None:
            check_is_fitted(self, "module_")
        owner = f"{type(self).__name__}.predict_log_proba"
        given = self.predict(X) if y is None else y
        texts = texts_of_rows(given, n_rows(X), owner, several=False)
        if self.model is not None:
            return self._judge_pretrained(X, texts)
        result = np.full(len(texts), np.nan)

        def judge(rows: np.ndarray, memory: Tensor, mask: Tensor, prefix: Tensor | None) -> None:
            places = [place for place, row in enumerate(rows) if texts[row]]
            if not places:
                return
            ids, target = self._ids_of([texts[row][0] for row in rows[places]], None)
            own = torch.as_tensor(places, device=memory.device)
            read = torch.from_numpy(ids).to(memory.device)
            before = None if prefix is None else prefix[own]
            logits = self.module_.head(memory[own], mask[own], read, before)
            wanted = torch.from_numpy(target).to(memory.device)
            likely = log_likelihood(logits, wanted, TokenLoss.NOTHING)
            result[rows[places]] = likely.cpu().numpy()

        self._for_batches(X, judge)
        return result

    def score(self, X: Any, y: Any) -> float:
        """Return how near the texts that are written are to those given.

        Parameters
        ----------
        X : DataFrame of shape (n_samples, n_columns)
            Cells. A row that lacks every modality counts as one with an empty text.
        y : array-like of shape (n_samples,)
            Texts, or a list of several references in a cell. Rows without any are left out.

        Returns
        -------
        score : float
            By ``scoring``, higher is better: corpus BLEU, from 0 to 1.
        """
        if callable(self.scoring):
            return float(self.scoring(y, self.predict(X)))
        return make_text_scorer(self.scoring)(self, X, y)
