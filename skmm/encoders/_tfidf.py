"""Engine that downloads nothing: TF-IDF of words and latent semantic analysis."""

from typing import Any

import numpy as np
from sklearn.decomposition import TruncatedSVD
from sklearn.feature_extraction.text import TfidfVectorizer

from skmm.encoders._engines._base import Engine, Runtime

__all__ = ["TfidfEngine"]


class TfidfEngine(Engine):
    """TF-IDF over words and word pairs, reduced by a truncated SVD.

    Parameters
    ----------
    n_components : int
        Width of the result. Fewer than that are learned where the training texts span less;
        the rest is zero, so that the width never depends on the fold.
    seed : int
        Of the randomized SVD.
    """

    def __init__(self, n_components: int, seed: int):
        self.n_outputs = n_components
        self.seed = seed

    def fit(self, texts: list[str]) -> "TfidfEngine":
        """Learn words, weights and components."""
        # One-letter words count: a text may be a grade or a size.
        self._words = TfidfVectorizer(
            sublinear_tf=True, ngram_range=(1, 2), token_pattern=r"(?u)\b\w+\b", max_features=50_000
        )
        try:
            weights = self._words.fit_transform(texts)
        except ValueError:  # no word at all, e.g. every text is empty
            self._words = None
            return self
        rank = min(self.n_outputs, weights.shape[1], weights.shape[0])
        self._reduce = None
        if rank < weights.shape[1]:
            # Of texts that are all alike the share of explained variance, not used, is 0 / 0.
            with np.errstate(invalid="ignore"):
                self._reduce = TruncatedSVD(rank, random_state=self.seed).fit(weights)
        return self

    def run(self, prepared: Any, runtime: Runtime, *, sequence: bool) -> list[np.ndarray]:
        """Vectors of a batch of texts; as a sequence, each is its own single token."""
        vectors = np.zeros((len(prepared), self.n_outputs), dtype=np.float32)
        if self._words is not None:
            weights = self._words.transform(prepared)
            reduced = weights.toarray() if self._reduce is None else self._reduce.transform(weights)
            vectors[:, : reduced.shape[1]] = reduced
        return [vector[None] for vector in vectors] if sequence else list(vectors)
