"""Encoder of texts."""

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
    NON_NEGATIVE,
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
from skmm.encoders._cell_encoder import (
    Augment,
    CellEncoder,
    Dtype,
    FineTune,
    LearningRate,
    ModelName,
    OnError,
)
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
        Model of the text:

        - a folder, the name of packaged weights (extra ``weights``) or a name on the Hugging
          Face hub (extra ``hub``), looked up in this order: any text model that ``transformers``
          loads from safetensors. It is frozen unless ``fine_tune`` is set.
        - ``"tfidf"``: TF-IDF and a truncated SVD, learned from the training texts without a
          download.
        - ``"gru"``: a bidirectional GRU over the words of the training texts, trained from
          scratch: in a joint fusion together with its head, alone with ``y`` through a linear
          head that is then dropped, or without ``y`` by reconstructing which words occur.
    pooling : {"auto", "mean", "max", "cls", "pooler"}, default="auto"
        How the token vectors of a pretrained model are pooled to one vector; ``"auto"`` is the
        pooling that the model was published with, else the mean.
    normalize : {"auto"} or bool, default="auto"
        Whether to scale the vectors of a pretrained model to length one; ``"auto"`` follows the
        published model.
    max_length : int, default=None
        Longest text that the model reads, in tokens; a longer one is cut. None is the limit of
        the model.
    fine_tune : {"frozen", "last", "lora", "full"} or int, default="frozen"
        Which weights of a pretrained model are trained, either in a joint fusion together with
        its head, or alone with ``y`` through a linear head that is then dropped:

        - ``"frozen"``: none; texts are encoded once and their vectors stored;
        - ``"last"`` or an int: the last layer of its transformer, or that many last layers. The
          layers before them stay frozen. Their outputs are computed once and stored, so an epoch
          only runs the last layers;
        - ``"lora"``: low-rank adapters [1]_ of the linear layers (extra ``lora``);
        - ``"full"``: all.

        Networks from scratch are always trained, and ``"tfidf"`` never is.
    lora_params : dict, default=None
        Parameters of ``peft.LoraConfig`` for ``fine_tune="lora"``. By default the rank is 8,
        ``lora_alpha`` is 16, and all linear layers of the transformer have an adapter.
    augment : callable, default=None
        Function ``augment(cell, rng)`` that changes a text in each epoch of training: from a
        ``str`` and a numpy ``Generator`` to a ``str``. It is not applied in prediction. Only for
        models that are trained.
    n_components : int, default=128
        Width of the vectors of ``"tfidf"`` and ``"gru"``; that of a pretrained model is fixed.
    max_epochs : int, default=10
        Passes over the training texts when a network is trained alone.
    learning_rate : float or "auto", default="auto"
        Step size of Adam when a network is trained alone. ``"auto"`` is 1e-3 from scratch and for
        the linear head, and for pretrained weights 5e-5 (last layers), 2e-5 (all) or 2e-4
        (adapters). A number is used for all weights.
    batch_size : int, default=64
        Number of texts per batch. A batch of a frozen model has texts of similar length and at
        most ``64 * batch_size`` tokens, padding included, so it has fewer texts if they are
        longer than 64 tokens.
    warmup : float, default=0
        Epochs in which the step sizes grow linearly from zero, such as 1 or 0.5.
    early_stopping : bool, default=False
        Whether to hold out 10 % of the training texts when a network is trained alone,
        stop after 10 epochs without a lower loss on them and keep the weights of the best epoch.
        With fewer than 40 texts nothing is held out.
    on_error : {"raise", "missing"}, default="raise"
        What to do with an unreadable cell. It makes no difference for texts: every text is
        readable, and a cell of another type always raises ``CellTypeError``.
    device : str, default="auto"
        Where the model runs: ``"auto"``, ``"cpu"``, ``"cuda"``, ``"cuda:1"``.
    dtype : {"auto", "float32", "bfloat16", "float16"}, default="auto"
        Precision of a pretrained model's matrix products (autocast); ``"auto"`` is bfloat16
        on a GPU that has it, else float32. The result is float32.
    compile : bool, default=False
        Whether to compile a pretrained model with ``torch.compile``. The first batch then takes
        some tens of seconds, and later ones are often faster. Vectors may differ in the last
        digits, so they are stored separately.
    store : path, EmbeddingStore, False or None, default=None
        Where the vectors of a frozen model are stored: a folder, a store, False for nowhere, or
        None for the store of :func:`skmm.set_config`.
    random_state : int, RandomState instance or None, default=None
        Seed of the training and of the truncated SVD.
    verbose : bool or int, default=0
        Whether to report progress.

    Attributes
    ----------
    n_outputs_ : int
        Number of output features.
    checkpoint_ : dict or None
        ``name``, ``source`` and ``digest`` of the pretrained weights, None without such weights.
        A pickle holds this instead of the weights, and other weights are refused on loading.
    history_ : list of dict
        One dict per epoch, with ``epoch`` from 1, ``train_loss`` and, if cells are held out,
        ``valid_loss``. Defined only if the encoder's own ``fit`` trained a network.
    n_features_in_ : int
        Number of columns seen in ``fit``.
    feature_names_in_ : ndarray of str
        Names of the columns seen in ``fit``, if ``X`` has names.

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

    A missing text differs from an empty one: its row is NaN.

    >>> encoder = TextEncoder(model="tfidf", n_components=2, random_state=0)
    >>> encoder.set_output(transform="pandas").fit_transform(X).isna().sum(axis=1).tolist()
    [0, 0, 2]
    >>> encoder.get_feature_names_out()
    array(['review_0', 'review_1'], dtype=object)
    """

    modality: ClassVar[str] = "text"
    reads_chunks: ClassVar[bool] = True
    chunk_size: ClassVar[int] = 16_384
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
        "warmup": NON_NEGATIVE,
        "early_stopping": ["boolean"],
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
        learning_rate: LearningRate = "auto",
        batch_size: int = 64,
        warmup: float = 0,
        early_stopping: bool = False,
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
        self.warmup = warmup
        self.early_stopping = early_stopping
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

    def _unused_parameters(self) -> dict[str, str]:
        unused = super()._unused_parameters()
        if self._is_pretrained:
            unused["n_components"] = "model"
        elif self.model == "tfidf":
            others = ("pooling", "normalize", "max_length", "dtype", "store")
            unused |= dict.fromkeys(others, "model")
        return unused

    def token_names(self, text: str) -> list[str]:
        """Return the name of each token of ``transform_sequence``: a word, or a piece of one.

        Parameters
        ----------
        text : str
            A cell.

        Returns
        -------
        names : list of str
            The tokens of a checkpoint's tokenizer, special ones included; for ``"gru"`` the words
            in lower case; for ``"tfidf"`` the text itself.
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
        # Texts are already read. With a GPU, one thread pads the next batch meanwhile.
        return int(runtime.device.type == "cuda")

    def _read(self, cell: object) -> str:
        return read_text(cell)

    def _digest(self, cell: object) -> bytes:
        return digest_text(cell)


class TfidfEngine(Engine):
    """TF-IDF over words and word pairs, reduced by a truncated SVD.

    Parameters
    ----------
    n_components : int
        Width of the vectors. Where the training texts span fewer dimensions, the remaining
        ones are zero, so that the width does not depend on the fold.
    seed : int
        Seed of the randomized SVD.
    """

    def __init__(self, n_components: int, seed: int):
        self.n_outputs = n_components
        self.seed = seed

    def fit(self, texts: list[str]) -> "TfidfEngine":
        """Learn the words, their weights and the components."""
        # One-letter words count: a text may be a grade or a size.
        self._words = TfidfVectorizer(
            sublinear_tf=True, ngram_range=(1, 2), token_pattern=r"(?u)\b\w+\b", max_features=50_000
        )
        try:
            weights = self._words.fit_transform(texts)
        except ValueError:  # there is no word, e.g. every text is empty
            self._words = None
            return self
        rank = min(self.n_outputs, weights.shape[1], weights.shape[0])
        self._reduce = None
        if rank < weights.shape[1]:
            # If all texts are equal, the explained variance ratio (unused) is 0 / 0.
            with np.errstate(invalid="ignore"):
                self._reduce = TruncatedSVD(rank, random_state=self.seed).fit(weights)
        return self

    def run(self, prepared: list[str], runtime: Runtime, *, sequence: bool) -> list[np.ndarray]:
        """Encode a batch of texts; as a sequence, each vector is a single token."""
        vectors = np.zeros((len(prepared), self.n_outputs), dtype=np.float32)
        if self._words is not None:
            weights = self._words.transform(prepared)
            reduced = weights.toarray() if self._reduce is None else self._reduce.transform(weights)
            vectors[:, : reduced.shape[1]] = reduced
        return [vector[None] for vector in vectors] if sequence else list(vectors)
