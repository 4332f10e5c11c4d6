"""Captions: texts written from cells of any modality, by a decoder that is trained."""

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
from skmm.nets._layers import TokenMemory
from skmm.nets._text_decoders import GRUDecoder, TextDecoder, TokenLoss, TransformerDecoder

__all__ = ["CaptionGenerator"]


class CaptionGenerator(BaseGenerator):
    """Write a text for each row, from images, audio, videos, series or any encoded modality.

    The decoder is trained to predict each token of the training texts from the tokens before it
    [1]_, with attention over the vectors or tokens of all modalities of the row [2]_. Its
    vocabulary is learned from the training texts. Frozen encoders and other transformers run once,
    and their features are standardized; an encoder whose model is trained, from scratch
    (``"cnn"``, ``"gru"``, ...) or by its ``fine_tune``, is trained together with the decoder.

    Parameters
    ----------
    modalities : list of (name, transformer, columns) or "auto", default="auto"
        What the texts are written from, as in ``ColumnTransformer``. ``transformer`` is any
        scikit-learn transformer or pipeline, ``"drop"``, ``"passthrough"`` (numbers, or cells that
        are vectors of one length), or a modality such as ``"image"`` or ``"audio"`` for its
        default encoder. ``"auto"`` infers the modalities from the training frame.
    prefix_column : str or int, default=None
        Name or position of a column of texts that precede the written text: a question, a
        language, the first words. The decoder reads the tokens of the prefix and continues them;
        no loss is computed on them. ``modalities="auto"`` leaves this column out. A missing prefix
        counts as an empty one. Tokens that occur in no training text or prefix are left out.
    decoder : {"transformer", "gru"}, default="transformer"
        Network that writes: a transformer [3]_, or a recurrent network whose outputs attend to the
        row [4]_.
    tokenizer : {"word", "bpe", "character"}, default="word"
        What a token is: a word or punctuation mark, a part of a word found by byte-pair encoding
        [5]_, or a character. Case and punctuation are kept. Only ``"word"`` has unknown tokens in
        texts whose characters are all known.
    max_vocabulary : int, default=8000
        Maximum number of tokens in the vocabulary. The most frequent ones are kept.
    granularity : {"pooled", "sequence"}, default="pooled"
        Whether the decoder attends to one vector per modality or to its tokens: patches, words,
        frames, time steps.
    max_tokens : int, default=None
        Maximum number of tokens of a modality, evenly spaced, with ``granularity="sequence"``.
        None keeps all.
    n_components : int, default=128
        Width of the decoder; a multiple of ``n_heads`` with ``decoder="transformer"``.
    n_heads : int, default=4
        Number of attention heads with ``decoder="transformer"``.
    n_layers : int, default=2
        Number of layers of the decoder.
    dropout : float, default=0.1
        Fraction of the units that is zeroed in training. Lower than the 0.2 of the fusions, since
        each text gives one training signal per token.
    modality_dropout : float, default=0.0
        Probability that a row loses a modality, or its prefix, in a training step. At least one of
        those that it has is kept.
    label_smoothing : float, default=0.0
        Fraction of each target that is spread evenly over all tokens in training.
    decoding : {"greedy", "beam", "nucleus"} or object, default="greedy"
        How ``predict`` chooses the tokens: the most likely one at each step, the most likely text
        that a beam search finds, or by sampling among the most likely ones. An object sets the
        options of the method: :class:`GreedySearch`, :class:`BeamSearch` or
        :class:`NucleusSampling`.
    max_length : int, default=None
        Maximum length of a text in tokens, the end token included. Longer texts are cut, in
        ``fit`` and in ``predict``. None is the length of the longest training text.
    scoring : str or callable, default="corpus_bleu"
        What ``score`` returns: the metric of a name that :func:`~skmm.metrics.make_text_scorer`
        takes, or the value of a scikit-learn scorer ``scorer(estimator, X, y)``.
    max_epochs : int, default=None
        Maximum number of passes over the training texts. None is that of ``trainer``, 100 by
        default.
    trainer : Trainer, default=None
        How the network is trained: learning rate, batches, early stopping, callbacks. None is
        ``Trainer()``. ``set_params`` and searches reach its parameters by names such as
        ``trainer__learning_rate``, even if ``trainer`` is None.
    all_missing : {"none", "raise"}, default="none"
        What to do with a row without any modality and without a prefix: ``"none"`` predicts None,
        a missing text, ``"raise"`` raises ``ModalityMissingError``.
    missing_columns : {"raise", "absent"}, default="raise"
        What happens if a column of the training frame is not in ``X``: ``"raise"`` raises
        ``ValueError``, ``"absent"`` treats the column as missing in every row.
    device : str, default="auto"
        Where the decoder is trained: ``"auto"``, ``"cpu"``, ``"cuda"``, ``"cuda:1"``.
    random_state : int, RandomState instance or None, default=None
        Seed of the initial weights, the order of the rows, the dropout, the held-out rows and of
        :class:`NucleusSampling`.
    verbose : bool or int, default=0
        Whether to print one line per epoch.

    Attributes
    ----------
    modalities_ : list of (name, transformer, columns)
        The modalities used, with their fitted transformers; transformers that are trained with
        the decoder are included.
    vocabulary_ : list of str
        Tokens that can be written. The token of a word begins with the space before it.
    max_length_ : int
        Length of the longest training text in tokens, the end token included, after texts are cut
        to ``max_length``. It limits ``predict`` if ``max_length`` is None.
    module_ : nn.Module
        Trained network.
    net_ : skorch.NeuralNet
        The skorch net that trained ``module_``. It is not part of a pickle.
    history_ : list of dict
        One dict per epoch, with ``epoch`` from 1, ``train_loss`` and, if rows are held out,
        ``valid_loss``: the mean cross-entropy of a token, in nats.
    n_iter_ : int
        Number of epochs trained.
    n_features_in_ : int
        Number of columns seen in ``fit``.
    feature_names_in_ : ndarray of str
        Names of the columns seen in ``fit``. Defined only if ``X`` has column names.

    See Also
    --------
    PretrainedCaptionGenerator : Write texts by a pretrained checkpoint.
    skmm.metrics.corpus_bleu : The default metric of ``score``.
    skmm.retrieval.CrossModalRetriever : Retrieve an existing text instead of writing one.

    Notes
    -----
    ``decoding``, ``max_length`` and ``scoring`` are read by ``predict`` and ``score``, so
    ``set_params`` changes them on a fitted generator without another training.

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
    Vectors that encode a color and a size, and sentences about them:

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

    The log-likelihood of two texts for the same row:

    >>> likely, unlikely = captions.score_samples(X[:1].iloc[[0, 0]], [y[0], "One thing."])
    >>> bool(likely > unlikely)
    True

    Search over the decoding without another training: each candidate is a copy that shares the
    trained network, and ``FrozenEstimator`` keeps it fitted.

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
        "prefix_column": [str, Interval(Integral, 0, None, closed="left"), None],
        "all_missing": [StrOptions({"none", "raise"})],
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
        prefix_column: str | int | None = None,
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
        all_missing: Literal["none", "raise"] = "none",
        missing_columns: Literal["raise", "absent"] = "raise",
        device: str = "auto",
        random_state: RandomState = None,
        verbose: bool | int = 0,
    ):
        self.modalities = modalities
        self.prefix_column = prefix_column
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
        """Fit the transformers and train the decoder, with the encoders that are trained.

        Parameters
        ----------
        X : DataFrame of shape (n_samples, n_columns)
            Cells. Any cell may be missing; rows without any modality and prefix are not used to
            train the decoder.
        y : array-like of shape (n_samples,)
            Texts, or a list of several texts in a cell, each of which is a training text. Rows
            whose text is missing are used to fit the transformers, not to train the decoder.

        Returns
        -------
        self : object
            The fitted generator.
        """
        trainer, X, texts, prefixes = self._check(X, y)
        seed = self._draw_seed()
        # Encode before torch is seeded: only one thread of the process at a time may hold the seed.
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
        if self.prefix_column is None or not isinstance(self.modalities, str):
            return super()._resolve(X, predictors=predictors)
        return resolve_others(X, self.prefix_column, type(self).__name__, super()._resolve)

    def _prefixes(self, X: Frame) -> list[str | None]:
        """Return the prefix of each row, None where it is missing; empty without the column."""
        if self.prefix_column is None:
            return []
        return prefixes_of_rows(X, self.prefix_column, type(self).__name__)

    def _build(
        self,
        X: Frame,
        texts: list[list[str]],
        prefixes: list[str | None],
        inputs: JointInputs,
    ) -> tuple[CaptionBatch, np.ndarray, np.ndarray]:
        """Initialize the trained encoders, learn the vocabulary and build the network.

        Returns a batch with one row per text, the target tokens, and the row of ``X`` that each
        text belongs to.
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
                " rows has both a text and a modality. Give rows that have both."
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
            Samples, one in each row. Any cell may be missing.

        Returns
        -------
        texts : ndarray of shape (n_samples,), object
            Texts; None for a row without any modality and without a prefix.
        """
        check_is_fitted(self, "module_")
        self._validate_params()  # those of the decoding may have been set after fit
        decoding, longest = resolve_decoding(self.decoding), self.max_length or self.max_length_
        draws = None
        if decoding.is_random:
            # Draw for all rows at once, so that the texts do not depend on the batches.
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
        """Call ``use(rows, memory, mask, prefix)`` for batches of non-empty rows.

        Returns the number of all rows.
        """
        X = self._check_frame(X, reset=False)
        prefixes = self._prefixes(X)
        modalities = self._inputs.batch(X).modalities
        batch = CaptionBatch(modalities, prefix=self._prefix_ids(prefixes))
        present = _with_prefix(batch.present(), prefixes)
        self._refuse_empty(present)
        rows = np.flatnonzero(present.any(axis=1))
        for some, part in self._parts(batch, rows):
            with threads_for(self.module_), torch.inference_mode():
                use(some, *self.module_.memory_and_prefix(part))
        return len(present)

    def score_samples(self, X: Frame, y: CellColumn) -> np.ndarray:
        """Compute the log-likelihood of a text for each row.

        Parameters
        ----------
        X : DataFrame of shape (n_samples, n_columns)
            Samples, one in each row. Any cell may be missing.
        y : array-like of shape (n_samples,)
            A text for each row, of any length. A token that occurs in no training text counts as
            the unknown token.

        Returns
        -------
        log_likelihood : ndarray of shape (n_samples,), float64
            Sum of the log-probabilities of the tokens of the text and of its end; NaN where the
            text is missing or the row has no modality and no prefix.
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
        """Score the texts that ``predict`` writes against those given.

        Parameters
        ----------
        X : DataFrame of shape (n_samples, n_columns)
            Cells. A metric counts the text of a row without any modality and prefix as empty.
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


def _with_prefix(present: np.ndarray, prefixes: list[str | None]) -> np.ndarray:
    """Append whether each row has a prefix to ``present``, (n_samples, n_modalities)."""
    if not prefixes:
        return present
    return np.column_stack([present, [prefix is not None for prefix in prefixes]])
