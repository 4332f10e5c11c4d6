"""Text to vectors."""

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import numpy as np
from sklearn.decomposition import TruncatedSVD
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.utils.validation import check_is_fitted

from skmm._constraints import (
    BATCH_SIZE,
    DEVICE,
    DTYPE,
    FINE_TUNE,
    LEARNING_RATE,
    ON_ERROR,
    POSITIVE_INT,
    RANDOM_STATE,
    STORE,
    VERBOSE,
    HasMethods,
    RandomState,
    StrOptions,
)
from skmm._frame._column import Column
from skmm.backbones import Backbone
from skmm.backbones._word_gru import Vocabulary, WordGRU, split_words
from skmm.encoders._cell_encoder import Augment, CellEncoder, Dtype, FineTune, ModelName, OnError
from skmm.encoders._engines._base import BackboneEngine, Engine, Runtime
from skmm.encoders._engines._pretrained import PretrainedEngine
from skmm.encoders._store._store import StoreLike
from skmm.readers._text import digest_text, read_text

__all__ = ["TextEncoder", "TfidfEngine"]


class TextEncoder(CellEncoder):
    """Encode text with a pretrained language model, a small network, or TF-IDF.

    Parameters
    ----------
    model : str or path, default="all-MiniLM-L6-v2"
        What reads the text:

        - a folder, the name of packaged weights (extra ``weights``) or a name on the
          Hugging Face hub (extra ``hub``), looked for in this order: any text model that
          ``transformers`` loads from safetensors. Frozen, unless ``fine_tune`` says otherwise.
        - ``"tfidf"``: TF-IDF and a truncated SVD, learned from the training texts. Needs
          no download.
        - ``"gru"``: a bidirectional GRU over a vocabulary of its own, trained from scratch:
          inside a joint fusion with its head, alone with ``y`` through a linear head that is
          then dropped, or without ``y`` by reconstructing which words are there.
    pooling : {"auto", "mean", "max", "cls", "pooler"}, default="auto"
        How a pretrained model's tokens become one vector; ``"auto"`` is what the model was
        published with, else the mean.
    normalize : {"auto"} or bool, default="auto"
        Whether a pretrained model's vectors are scaled to length one; ``"auto"`` as published.
    max_length : int, default=None
        Tokens after which a text is cut; None is the model's own limit.
    fine_tune : {"frozen", "last", "lora", "full"} or int, default="frozen"
        Which weights of a pretrained model are trained, inside a joint fusion with its head or
        alone with ``y`` through a linear head that is then dropped:

        - ``"frozen"``: none; texts are encoded once and their vectors stored;
        - ``"last"``, or a number: the last layer of its transformer, or so many. What lies
          below stays frozen, is encoded once and stored, so an epoch costs only the top;
        - ``"lora"``: low-rank adapters [1]_ beside the linear layers (extra ``lora``);
        - ``"full"``: all.

        Networks from scratch are always trained, and ``"tfidf"`` never is.
    lora_params : dict, default=None
        Parameters of ``peft.LoraConfig`` for ``"lora"``; rank 8, ``lora_alpha`` 16 and all
        linear layers of the transformer if not told.
    augment : callable, default=None
        Changes a text in training, as ``augment(cell, rng)`` with a numpy ``Generator``, anew
        in each epoch; ``cell`` is a ``str``, and so is what comes back. Prediction never sees
        it. A frozen model takes none.
    n_components : int, default=128
        Width of the vectors of ``"tfidf"`` and ``"gru"``. A pretrained model has its own.
    max_epochs : int, default=10
        Passes over the training texts when a network is trained alone.
    learning_rate : float, default=1e-3
        Step size when a network is trained alone. Pretrained weights take smaller steps: 5e-5
        for the last layers, 2e-5 for all, 2e-4 for adapters.
    batch_size : int, default=64
        Texts that go through the model at once, in order of length. Of texts beyond 64 tokens
        fewer: a batch has at most ``64 * batch_size`` tokens, padding included.
    on_error : {"raise", "missing"}, default="raise"
        What to do with an unreadable cell. A text has no such cells; an object that is no
        text is always an error.
    device : str, default="auto"
        Where the model runs: ``"auto"``, ``"cpu"``, ``"cuda"``, ``"cuda:1"``.
    dtype : {"auto", "float32", "bfloat16", "float16"}, default="auto"
        Precision of a pretrained model's matrix products (autocast); ``"auto"`` is bfloat16
        on a GPU that has it, else float32. The result is float32.
    compile : bool, default=False
        Whether ``torch.compile`` makes machine code of a pretrained model: some tens of
        seconds at the first batch, then often faster. Vectors may differ in the last digits,
        so they are kept apart.
    store : path, EmbeddingStore, False or None, default=None
        Where vectors of a pretrained model are kept; see :func:`skmm.set_config`.
    random_state : int, RandomState instance or None, default=None
        Seed of what is trained here.
    verbose : bool or int, default=0
        Whether to report progress.

    Attributes
    ----------
    n_outputs_ : int
        Width of the result.
    checkpoint_ : dict or None
        ``name``, ``source`` and ``digest`` of the pretrained weights. A pickle holds this
        instead of the weights, and other weights are refused.
    loss_curve_ : list of float
        Mean loss of every epoch, if a network was trained alone.
    n_features_in_ : int
        Number of columns seen in ``fit``.
    feature_names_in_ : ndarray of str
        Names of the columns seen in ``fit``, if it saw names.

    References
    ----------
    .. [1] Hu et al. (2022), "LoRA: low-rank adaptation of large language models", ICLR.

    Reimers and Gurevych (2019), "Sentence-BERT", EMNLP. Deerwester et al. (1990), "Indexing
    by latent semantic analysis", JASIS. Cho et al. (2014), "Learning phrase representations
    using RNN encoder-decoder", EMNLP.

    Examples
    --------
    >>> import pandas as pd
    >>> from skmm import TextEncoder
    >>> X = pd.DataFrame({"review": ["good shoes", "bad shoes", None]})

    A missing text is a fact, not an empty text: its row is NaN.

    >>> encoder = TextEncoder(model="tfidf", n_components=2, random_state=0)
    >>> encoder.set_output(transform="pandas").fit_transform(X).isna().sum(axis=1).tolist()
    [0, 0, 2]
    >>> encoder.get_feature_names_out()
    array(['review_0', 'review_1'], dtype=object)
    """

    modality: ClassVar[str] = "text"
    reads_ahead: ClassVar[bool] = True
    portion: ClassVar[int] = 16_384
    _parameter_constraints: ClassVar[dict[str, Any]] = {
        "model": [str, HasMethods("__fspath__")],
        "pooling": [StrOptions({"auto", "mean", "max", "cls", "pooler"})],
        "normalize": [StrOptions({"auto"}), "boolean"],
        "max_length": [*POSITIVE_INT, None],
        "fine_tune": FINE_TUNE,
        "lora_params": [dict, None],
        "augment": [callable, None],
        "n_components": POSITIVE_INT,
        "max_epochs": POSITIVE_INT,
        "learning_rate": LEARNING_RATE,
        "batch_size": BATCH_SIZE,
        "on_error": ON_ERROR,
        "device": DEVICE,
        "dtype": DTYPE,
        "compile": ["boolean"],
        "store": STORE,
        "random_state": RANDOM_STATE,
        "verbose": VERBOSE,
    }

    def __init__(
        self,
        model: ModelName = "all-MiniLM-L6-v2",
        *,
        pooling: Literal["auto", "mean", "max", "cls", "pooler"] = "auto",
        normalize: bool | Literal["auto"] = "auto",
        max_length: int | None = None,
        fine_tune: FineTune = "frozen",
        lora_params: dict[str, Any] | None = None,
        augment: Augment | None = None,
        n_components: int = 128,
        max_epochs: int = 10,
        learning_rate: float = 1e-3,
        batch_size: int = 64,
        on_error: OnError = "raise",
        device: str = "auto",
        dtype: Dtype = "auto",
        compile: bool = False,
        store: StoreLike = None,
        random_state: RandomState = None,
        verbose: bool | int = 0,
    ):
        self.model = model
        self.pooling = pooling
        self.normalize = normalize
        self.max_length = max_length
        self.fine_tune = fine_tune
        self.lora_params = lora_params
        self.augment = augment
        self.n_components = n_components
        self.max_epochs = max_epochs
        self.learning_rate = learning_rate
        self.batch_size = batch_size
        self.on_error = on_error
        self.device = device
        self.dtype = dtype
        self.compile = compile
        self.store = store
        self.random_state = random_state
        self.verbose = verbose

    @property
    def _is_from_scratch(self) -> bool:
        return self.model == "gru"

    @property
    def _is_pretrained(self) -> bool:
        return self.model not in ("gru", "tfidf")

    def _without_effect(self) -> dict[str, str]:
        idle = super()._without_effect()
        if self._is_pretrained:
            idle["n_components"] = "model"
        elif self.model == "tfidf":
            others = ("pooling", "normalize", "max_length", "dtype", "store")
            idle |= dict.fromkeys(others, "model")
        return idle

    def token_names(self, text: str) -> list[str]:
        """Return what each token of ``transform_sequence`` is: a word, or a piece of one.

        Parameters
        ----------
        text : str
            A cell.

        Returns
        -------
        names : list of str
            Pieces of words as the tokenizer of a checkpoint spells them, special ones included;
            words in lower case of ``"gru"``; the text itself of ``"tfidf"``.
        """
        check_is_fitted(self)
        text = read_text(text)
        if self.model == "tfidf":
            return [text]
        assert isinstance(self._engine, BackboneEngine)
        backbone: Any = self._engine.backbone_on(Runtime.of(self))
        if self.model == "gru":
            return split_words(text)[: backbone.max_length] or [""]
        if self._is_tuned:
            backbone = backbone.pretrained()
        tensors = backbone.collate([text])
        ids = tensors["input_ids"][0][tensors["attention_mask"][0].bool()]
        return list(backbone.tokenizer.tokenizer.convert_ids_to_tokens(ids.tolist()))

    def _make_engine(self, columns: list[Column]) -> Engine:
        if self.model != "tfidf":
            return PretrainedEngine(self, "text")
        texts, _ = self._training_cells(columns)
        return TfidfEngine(self.n_components, self._seed()).fit(texts)

    def _make_backbone(self, cells: Sequence[str]) -> Backbone:
        options: dict[str, Any] = {}
        if self.max_length is not None:
            options["max_length"] = self.max_length
        return WordGRU(Vocabulary().fit(cells), n_components=self.n_components, **options)

    def _n_readers(self, runtime: Runtime) -> int:
        # Texts are read already. A GPU need not wait until their ids are padded.
        return int(runtime.device.type == "cuda")

    def _read(self, cell: object) -> str:
        return read_text(cell)

    def _digest(self, cell: object) -> bytes:
        return digest_text(cell)


class TfidfEngine(Engine):
    """TF-IDF over words and word pairs, reduced by a truncated SVD: needs no download.

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

    def run(self, prepared: list[str], runtime: Runtime, *, sequence: bool) -> list[np.ndarray]:
        """Vectors of a batch of texts; as a sequence, each is its own single token."""
        vectors = np.zeros((len(prepared), self.n_outputs), dtype=np.float32)
        if self._words is not None:
            weights = self._words.transform(prepared)
            reduced = weights.toarray() if self._reduce is None else self._reduce.transform(weights)
            vectors[:, : reduced.shape[1]] = reduced
        return [vector[None] for vector in vectors] if sequence else list(vectors)
