"""Texts of cells of any modality: captions, by a decoder that is trained."""

from collections.abc import Callable
from numbers import Integral
from typing import Any, ClassVar, Literal, Self

import numpy as np
import torch
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from skmm._compose._base import Modalities, Modality
from skmm._compose._callbacks import TaskReporter, with_callbacks
from skmm._constraints import (
    FRACTION,
    POSITIVE_INT,
    Interval,
    RandomState,
    StrOptions,
    refuse_unused,
)
from skmm._environment._device import seeded
from skmm._frame._column import n_rows
from skmm._frame._types import CellColumn, Frame
from skmm._training._inputs import JointInputs
from skmm._training._trainer import Trainer, TrainingDefaults, threads_for
from skmm.generation._base import BaseGenerator, BaseMethod, chosen_rows
from skmm.generation._decoding import (
    DECODINGS,
    BaseDecoding,
    Decoding,
    log_likelihood,
    resolve_decoding,
)
from skmm.generation._memory_modules import CaptionBatch, CaptionGeneratorModule
from skmm.generation._text_targets import (
    TextTarget,
    prefix_ids,
    prefixes_of_rows,
    resolve_others,
    texts_of_rows,
)
from skmm.metrics import make_text_scorer
from skmm.metrics._scorers import TEXT_METRICS, TextMetric
from skmm.nets import GRUDecoder, TextDecoder, TokenLoss, TokenMemory, TransformerDecoder

__all__ = ["CaptionGenerator"]


class CaptionGenerator(BaseGenerator):
    """Write a text for each row, from images, audio clips, videos, series or anything encoded.

    Features of frozen encoders, tables and passed-through columns are standardized and encoded
    once; an encoder whose model is trained, from scratch (``"cnn"``, ``"gru"``, ...) or by its
    ``fine_tune``, is trained with the decoder. The decoder learns to give each token of the
    training texts from what is before it [1]_ and what it sees of the row, by attention over the
    vectors or tokens of all modalities [2]_. Its tokens are learned from the training texts.

    Parameters
    ----------
    modalities : list of (name, transformer, columns) or "auto", default="auto"
        What the texts are written from, as in ``ColumnTransformer``. ``transformer`` is any
        scikit-learn transformer or pipeline, ``"drop"``, ``"passthrough"`` (numbers, or cells that
        are vectors of one length), or a modality such as ``"image"`` or ``"audio"`` for its
        default encoder. ``"auto"`` infers the modalities from the training frame.
    prefix : str or int, default=None
        Column, by name or position, whose text stands in front of what is written: a question, a
        language, the first words. The decoder reads its tokens, is not taught to write them, and
        goes on behind them. ``"auto"`` leaves that column out of the modalities. A missing prefix
        is an empty one; tokens that no training text or prefix held are left out of it.
    decoder : {"transformer", "gru"}, default="transformer"
        A transformer [3]_, or a recurrent network whose outputs attend to the row [4]_.
    tokenizer : {"word", "bpe", "character"}, default="word"
        What a token is: a word or sign, a part of a word found by byte-pair encoding [5]_, or a
        character. Only ``"word"`` meets unknown ones in texts of the same letters. Case and signs
        are kept.
    max_vocabulary : int, default=8000
        Most tokens, the most frequent ones.
    granularity : {"pooled", "sequence"}, default="pooled"
        Whether the decoder sees one vector of a modality or its tokens: patches, words, frames,
        steps in time.
    max_tokens : int, default=None
        Of ``"sequence"``: most tokens of a modality that are seen, evenly spaced; None for all.
    n_components : int, default=128
        Width of the decoder, for ``"transformer"`` a multiple of ``n_heads``.
    n_heads : int, default=4
        Attention heads of ``"transformer"``; ``"gru"`` has none.
    n_layers : int, default=2
        Layers of the decoder.
    dropout : float, default=0.1
        Share of units that is zeroed in training.
    modality_dropout : float, default=0.0
        Probability that a row loses a modality, or its prefix, in training; one of all that it
        has always stays.
    label_smoothing : float, default=0.0
        Share of each target that is spread over all tokens in training.
    decoding : {"greedy", "beam", "nucleus"} or object, default="greedy"
        How ``predict`` chooses: the likeliest token each time, the likeliest text among those
        that a beam search finds, or tokens drawn among the likeliest. An object sets more of it:
        :class:`GreedySearch`, :class:`BeamSearch` or :class:`NucleusSampling`.
    max_length : int, default=None
        Most tokens of a text: longer ones are cut, in ``fit`` and in ``predict``. None is the
        length of the longest training text.
    scoring : str or callable, default="corpus_bleu"
        What ``score`` measures: a name that :func:`~skmm.metrics.make_text_scorer` takes, or a
        function of ``(y_true, y_pred)``.
    max_epochs : int, default=None
        Most passes over the training texts; None is the trainer's, 100.
    trainer : Trainer, default=None
        How the network is trained: step sizes, batches, early stopping, callbacks. None is
        ``Trainer()``; its parameters are searched as ``trainer__learning_rate``.
    all_missing : {"prior", "raise"}, default="prior"
        A row that lacks every modality, and has no prefix, gets None, a missing text, or
        ``ModalityMissingError`` is raised.
    missing_columns : {"raise", "absent"}, default="raise"
        What to do with a frame that lacks a column of the training frame: raise, or count it as
        absent in every row.
    device : str, default="auto"
        Where the decoder is trained: ``"auto"``, ``"cpu"``, ``"cuda"``, ``"cuda:1"``.
    random_state : int, RandomState instance or None, default=None
        Seed of weights, order, dropout, the held-out part, and of what :class:`NucleusSampling`
        draws.
    verbose : bool or int, default=0
        Whether to print a line an epoch.

    Attributes
    ----------
    modalities_ : list of (name, transformer, columns)
        Fitted transformers, those trained with the decoder included.
    vocabulary_ : list of str
        Tokens that can be written; a word's begins with the space before it.
    max_length_ : int
        Tokens of the longest training text, that of its end included.
    module_ : nn.Module
        Trained network.
    net_ : skorch.NeuralNet
        What trained it; not in a pickle.
    history_ : list of dict
        ``train_loss`` and ``valid_loss`` of every epoch: nats a token.
    n_iter_ : int
        Number of epochs.
    n_features_in_ : int
        Number of columns seen in ``fit``.
    feature_names_in_ : ndarray of str
        Names of the columns seen in ``fit``, if it saw names.

    See Also
    --------
    PretrainedCaptionGenerator : Takes a checkpoint that writes already.
    skmm.metrics.corpus_bleu : What ``score`` gives.
    skmm.retrieval.CrossModalRetriever : Finds a text that is there instead of writing one.

    Notes
    -----
    ``decoding``, ``max_length`` and ``scoring`` are read when they are used: after ``set_params`` a
    fitted generator writes another way, without training again.

    References
    ----------
    .. [1] Vinyals, Toshev, Bengio, Erhan (2015), "Show and tell: a neural image caption
       generator", CVPR.
    .. [2] Xu et al. (2015), "Show, attend and tell: neural image caption generation with visual
       attention", ICML.
    .. [3] Vaswani et al. (2017), "Attention is all you need", NeurIPS.
    .. [4] Luong, Pham, Manning (2015), "Effective approaches to attention-based neural machine
       translation", EMNLP.
    .. [5] Sennrich, Haddow, Birch (2016), "Neural machine translation of rare words with subword
       units", ACL.

    Examples
    --------
    Vectors that say a color and a size, and sentences about them:

    >>> import numpy as np
    >>> import pandas as pd
    >>> from skmm import CaptionGenerator, Trainer
    >>> rng = np.random.default_rng(0)
    >>> color, size = rng.integers(0, 3, 200), rng.integers(0, 2, 200)
    >>> seen = np.column_stack([np.eye(3)[color], size]) + 0.1 * rng.standard_normal((200, 4))
    >>> words = np.array(["red", "green", "blue"])[color], np.array(["small", "large"])[size]
    >>> y = [f"One {s} {c} thing." for c, s in zip(*words)]
    >>> X = pd.DataFrame({"camera": list(seen)})
    >>> captions = CaptionGenerator(
    ...     [("seen", "passthrough", ["camera"])], n_components=32, max_epochs=20,
    ...     trainer=Trainer(learning_rate=3e-3), scoring="exact_match", random_state=0,
    ... ).fit(X[:150], y[:150])
    >>> captions.predict(pd.DataFrame({"camera": [[0.0, 0.9, 0.1, 1.0], None]}))
    array(['One large green thing.', None], dtype=object)
    >>> captions.score(X[150:], y[150:])
    1.0

    How likely two texts are for a row:

    >>> likely, unlikely = captions.score_samples(X[:1].iloc[[0, 0]], [y[0], "One thing."])
    >>> bool(likely > unlikely)
    True

    A search over the decoding alone fits nothing again: each candidate is a copy that shares the
    trained network, and ``FrozenEstimator`` leaves it as it is.

    >>> from copy import copy
    >>> from sklearn.frozen import FrozenEstimator
    >>> from sklearn.model_selection import GridSearchCV, ParameterGrid
    >>> from sklearn.pipeline import Pipeline
    >>> grid = ParameterGrid({"decoding": ["beam"], "decoding__beam_size": [2, 4]})
    >>> ways = [FrozenEstimator(copy(captions).set_params(**way)) for way in grid]
    >>> search = GridSearchCV(Pipeline([("captions", ways[0])]), {"captions": ways}, cv=2)
    >>> float(search.fit(X[150:], y[150:]).best_score_)
    1.0
    """

    module_: CaptionGeneratorModule
    _target: TextTarget
    _shorthands: ClassVar[dict[str, dict[str, type[BaseMethod]]]] = {"decoding": DECODINGS}

    _parameter_constraints: ClassVar[dict[str, Any]] = {
        **BaseGenerator._parameter_constraints,
        "prefix": [str, Interval(Integral, 0, None, closed="left"), None],
        "decoder": [StrOptions({"transformer", "gru"})],
        "tokenizer": [StrOptions({"word", "bpe", "character"})],
        "max_vocabulary": POSITIVE_INT,
        "n_components": POSITIVE_INT,
        "n_heads": POSITIVE_INT,
        "n_layers": POSITIVE_INT,
        "dropout": FRACTION,
        "modality_dropout": FRACTION,
        "label_smoothing": FRACTION,
        "decoding": [StrOptions(set(DECODINGS)), BaseDecoding],
        "max_length": [*POSITIVE_INT, None],
        "scoring": [StrOptions(set(TEXT_METRICS)), callable],
    }

    def __init__(
        self,
        modalities: Modalities = "auto",
        *,
        prefix: str | int | None = None,
        decoder: Literal["transformer", "gru"] = "transformer",
        tokenizer: Literal["word", "bpe", "character"] = "word",
        max_vocabulary: int = 8000,
        granularity: Literal["pooled", "sequence"] = "pooled",
        max_tokens: int | None = None,
        n_components: int = 128,
        n_heads: int = 4,
        n_layers: int = 2,
        dropout: float = 0.1,
        modality_dropout: float = 0.0,
        label_smoothing: float = 0.0,
        decoding: Decoding = "greedy",
        max_length: int | None = None,
        scoring: TextMetric | Callable[..., float] = "corpus_bleu",
        max_epochs: int | None = None,
        trainer: Trainer | None = None,
        all_missing: Literal["prior", "raise"] = "prior",
        missing_columns: Literal["raise", "absent"] = "raise",
        device: str = "auto",
        random_state: RandomState = None,
        verbose: bool | int = 0,
    ):
        self.modalities = modalities
        self.prefix = prefix
        self.decoder = decoder
        self.tokenizer = tokenizer
        self.max_vocabulary = max_vocabulary
        self.granularity = granularity
        self.max_tokens = max_tokens
        self.n_components = n_components
        self.n_heads = n_heads
        self.n_layers = n_layers
        self.dropout = dropout
        self.modality_dropout = modality_dropout
        self.label_smoothing = label_smoothing
        self.decoding = decoding
        self.max_length = max_length
        self.scoring = scoring
        self.max_epochs = max_epochs
        self.trainer = trainer
        self.all_missing = all_missing
        self.missing_columns = missing_columns
        self.device = device
        self.random_state = random_state
        self.verbose = verbose

    @with_callbacks
    def fit(self, X: Frame, y: CellColumn) -> Self:
        """Fit the transformers and train the decoder, and encoders that need training.

        Parameters
        ----------
        X : DataFrame of shape (n_samples, n_columns)
            Cells; any row may lack any modality. One that lacks all, and its prefix, is not
            learned from.
        y : array-like of shape (n_samples,)
            Texts, or a list of several texts in a cell, each of which is learned. A row whose
            text is missing is not learned from, but its cells are seen by the transformers.

        Returns
        -------
        self : object
            The fitted generator.
        """
        trainer, X, texts, prefixes = self._check(X, y)
        seed = self._draw_seed()
        # Before torch is seeded, for that lets in one thread of the process at a time.
        inputs = self._encode(X, seed)
        with (
            seeded(seed),
            TaskReporter(self, X, y, self._n_epochs(trainer), "epoch") as reporter,
        ):
            batch, written, places = self._build(X, texts, prefixes, inputs)
            self._train_on(trainer, X, batch, written, places, seed, reporter)
        return self

    def _check(
        self, X: Frame, y: CellColumn
    ) -> tuple[Trainer, Frame, list[list[str]], list[str | None]]:
        """Check everything before any cell is encoded: trainer, frame, texts and prefixes."""
        trainer = self._check_params()
        if self.decoder == "gru":
            refuse_unused(self, ["n_heads"], "with decoder='gru'")
        resolve_decoding(self.decoding)
        X = self._check_frame(X, reset=True)
        texts = texts_of_rows(y, n_rows(X), type(self).__name__, several=True)
        return trainer, X, texts, self._prefixes(X)

    def _training_defaults(self) -> TrainingDefaults:
        return TrainingDefaults(batch_size=64, max_grad_norm=1.0)

    def _resolve(self, X: Frame, *, predictors: bool = False) -> list[Modality]:
        if self.prefix is None or not isinstance(self.modalities, str):
            return super()._resolve(X, predictors=predictors)
        return resolve_others(X, self.prefix, type(self).__name__, super()._resolve)

    def _prefixes(self, X: Frame) -> list[str | None]:
        """Prefix of each row, None where it is missing; nothing at all if no column has them."""
        if self.prefix is None:
            return []
        return prefixes_of_rows(X, self.prefix, type(self).__name__)

    def _build(
        self,
        X: Frame,
        texts: list[list[str]],
        prefixes: list[str | None],
        inputs: JointInputs,
    ) -> tuple[CaptionBatch, np.ndarray, np.ndarray]:
        """Start the encoders that are trained, learn the tokens, and build the network.

        Returns a row for each text, what is to be written there, and from which row of ``X`` it
        comes.
        """
        batch = inputs.build(X)
        present = _with_prefix(batch.present(), prefixes)
        self._refuse_empty(present)
        rows = self._rows_to_learn(texts, present)
        places = np.array([row for row in rows for _ in texts[row]])
        self._target = TextTarget(
            self.tokenizer, self.max_vocabulary, label_smoothing=self.label_smoothing
        )
        read, written = self._target.learn(
            [text for row in rows for text in texts[row]],
            [prefixes[row] or "" for row in rows] if prefixes else [],
            self.max_length,
        )
        self.vocabulary_ = list(self._target.tokenizer.tokens_)
        self.max_length_ = self._target.longest
        decoder = self._make_decoder(len(self._target.tokenizer))
        memory = TokenMemory(inputs.widths, decoder.width, dropout=self.dropout)
        self._inputs = inputs
        self.module_ = CaptionGeneratorModule(self._make_encoders(inputs), memory, decoder)
        before = [prefixes[place] for place in places] if prefixes else []
        own = chosen_rows(batch, places).modalities
        known = CaptionBatch(own, text=torch.from_numpy(read), prefix=self._prefix_ids(before))
        return known, written, places

    def _rows_to_learn(self, texts: list[list[str]], present: np.ndarray) -> np.ndarray:
        has_text = np.array([len(row) > 0 for row in texts])
        rows = np.flatnonzero(has_text & present.any(axis=1))
        if not len(rows):
            raise ValueError(
                f"{type(self).__name__} has nothing to learn from: none of n_samples={len(texts)}"
                " rows has both a text and a modality. Give rows that have."
            )
        return rows

    def _make_decoder(self, n_tokens: int) -> TextDecoder:
        width, layers, dropout = self.n_components, self.n_layers, self.dropout
        if self.decoder == "gru":
            return GRUDecoder(n_tokens, width, dropout=dropout, n_layers=layers)
        return TransformerDecoder(
            n_tokens, width, dropout=dropout, n_heads=self.n_heads, n_layers=layers
        )

    def _prefix_ids(self, prefixes: list[str | None]) -> Tensor | None:
        if not prefixes:
            return None
        return torch.from_numpy(prefix_ids(prefixes, self._target.tokenizer))

    def predict(self, X: Frame) -> np.ndarray:
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
        check_is_fitted(self, "module_")
        self._validate_params()  # those of the decoding may have been set after fit
        decoding, longest = resolve_decoding(self.decoding), self.max_length or self.max_length_
        draws = None
        if decoding.is_random:
            # Of all rows at once: what a row gets does not depend on the batches.
            draws = check_random_state(self.random_state).random_sample((n_rows(X), longest))
        found: dict[int, str] = {}

        def write(rows: np.ndarray, memory: Tensor, mask: Tensor, prefix: Tensor | None) -> None:
            ids = decoding.decode(
                self.module_.decoder,
                memory,
                mask,
                max_length=longest,
                prefix=prefix,
                draws=None if draws is None else draws[rows],
            )
            for row, text in zip(rows, ids.cpu().tolist(), strict=True):
                found[int(row)] = self._target.decode(text)

        n = self._for_batches(X, write)
        texts = np.full(n, None, dtype=object)
        for row, text in found.items():
            texts[row] = text
        return texts

    def _for_batches(
        self, X: Frame, use: Callable[[np.ndarray, Tensor, Tensor, Tensor | None], None]
    ) -> int:
        """Call ``use(rows, memory, mask, prefix)`` for rows that have something; n_samples."""
        X = self._check_frame(X, reset=False)
        prefixes = self._prefixes(X)
        modalities = self._inputs.batch(X).modalities
        batch = CaptionBatch(modalities, prefix=self._prefix_ids(prefixes))
        present = _with_prefix(batch.present(), prefixes)
        self._refuse_empty(present)
        rows = np.flatnonzero(present.any(axis=1))
        for some, part in self._parts(batch, rows):
            with threads_for(self.module_), torch.inference_mode():
                use(some, *self.module_.remember_behind(part))
        return len(present)

    def score_samples(self, X: Frame, y: CellColumn) -> np.ndarray:
        """Compute the log-likelihood of a text for each row.

        Parameters
        ----------
        X : DataFrame of shape (n_samples, n_columns)
            Cells; any row may lack any modality.
        y : array-like of shape (n_samples,)
            A text for each row, of any length. A token that occurs in no training text counts as
            the unknown token.

        Returns
        -------
        log_likelihood : ndarray of shape (n_samples,), float64
            Sum of the log-probabilities of a text's tokens and of its end; NaN where the text is
            missing or the row lacks every modality.
        """
        check_is_fitted(self, "module_")
        owner = f"{type(self).__name__}.score_samples"
        texts = texts_of_rows(y, n_rows(X), owner, several=False)
        result = np.full(len(texts), np.nan)

        def measure(rows: np.ndarray, memory: Tensor, mask: Tensor, prefix: Tensor | None) -> None:
            places = [place for place, row in enumerate(rows) if texts[row]]
            if not places:
                return
            ids, target = self._target.encode([texts[row][0] for row in rows[places]])
            own = torch.as_tensor(places, device=memory.device)
            read = torch.from_numpy(ids).to(memory.device)
            before = None if prefix is None else prefix[own]
            logits = self.module_.decoder(memory[own], mask[own], read, before)
            wanted = torch.from_numpy(target).to(memory.device)
            likely = log_likelihood(logits, wanted, TokenLoss.NOTHING)
            result[rows[places]] = likely.cpu().numpy()

        self._for_batches(X, measure)
        return result

    def score(self, X: Frame, y: CellColumn) -> float:
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


def _with_prefix(present: np.ndarray, prefixes: list[str | None]) -> np.ndarray:
    """What each row has, (n_samples, n_modalities), and whether it has a prefix, if any may."""
    if not prefixes:
        return present
    return np.column_stack([present, [prefix is not None for prefix in prefixes]])
