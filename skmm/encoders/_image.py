"""Images to vectors."""

import copy
from collections.abc import Sequence
from typing import Any, ClassVar, Literal, cast

from torch import nn

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
from skmm._frame._types import CellColumn
from skmm.backbones import Backbone
from skmm.backbones._frames import FrameEncoder
from skmm.backbones._image_cnn import ImageCNN, resized
from skmm.backbones._user_module import ImageModule
from skmm.encoders._cell_encoder import Augment, CellEncoder, Dtype, FineTune, ModelName, OnError
from skmm.encoders._engines._base import Engine
from skmm.encoders._engines._fine_tuned import TunedEngine
from skmm.encoders._engines._parts import PartsEngine
from skmm.encoders._engines._pretrained import PretrainedEngine
from skmm.encoders._engines._trained import TrainedEngine
from skmm.encoders._store._store import StoreLike
from skmm.exceptions import CellTypeError
from skmm.readers._image import (
    digest_image,
    digest_image_list,
    is_image_list,
    load_image,
    load_image_list,
    read_image,
)

__all__ = ["ImageEncoder"]


class ImageEncoder(CellEncoder):
    """Encode images with a pretrained vision model or a small network.

    A cell is a path, the bytes of a file, a PIL image, or an array: gray ``(height, width)``
    or color ``(height, width, 3 or 4)``, uint8, uint16, or float in [0, 1]. Transparency is
    laid over white, the camera's rotation is applied, 16 bits are scaled to 8.

    A cell may also be a list of images, such as all photos of a house. Its vector is the mean
    of theirs; as a sequence it has one token for each image. Where any cell seen in ``fit`` is
    a list, a cell that holds a single image counts as a list of one.

    Parameters
    ----------
    model : str, path or nn.Module, default="efficientnet-lite0"
        What looks at the image:

        - a folder, the name of packaged weights (extra ``weights``) or a name on the
          Hugging Face hub (extra ``hub``), looked for in this order: any vision model that
          ``transformers`` loads from safetensors. Frozen, unless ``fine_tune`` says otherwise.
        - ``"cnn"``: a small residual network, trained from scratch: inside a joint fusion
          with its head, alone with ``y`` through a linear head that is then dropped, or
          without ``y`` by reconstructing the image in small.
        - an ``nn.Module``, trained like ``"cnn"``: from float images
          ``(n, 3, image_size, image_size)`` in [0, 1] to ``(n, width)``,
          ``(n, n_tokens, width)`` or ``(n, width, height, width)``.
    pooling : {"auto", "mean", "max", "cls", "pooler"}, default="auto"
        How a pretrained model's patches become one vector; ``"auto"`` is what suits the
        kind of model.
    normalize : {"auto"} or bool, default="auto"
        Whether a pretrained model's vectors are scaled to length one; ``"auto"`` as published.
    draft : bool, default=False
        Whether JPEG files are decoded at 1/2, 1/4 or 1/8 of their size, if that is no smaller
        than what the model looks at. Faster, with slightly other pixels, so these vectors are
        kept apart.
    fine_tune : {"frozen", "last", "lora", "full"} or int, default="frozen"
        Which weights of a pretrained model are trained, inside a joint fusion with its head or
        alone with ``y`` through a linear head that is then dropped:

        - ``"frozen"``: none; images are encoded once and their vectors stored;
        - ``"last"``, or a number: the last block of its transformer, or stage of its
          convolutions, or so many. What lies below stays frozen, is encoded once and stored,
          so an epoch costs only the top;
        - ``"lora"``: low-rank adapters [1]_ beside the linear layers (extra ``lora``);
        - ``"full"``: all.

        Networks from scratch are always trained.
    lora_params : dict, default=None
        Parameters of ``peft.LoraConfig`` for ``"lora"``; rank 8, ``lora_alpha`` 16 and all
        linear layers of the transformer if not told.
    augment : callable, default=None
        Changes an image in training, as ``augment(cell, rng)`` with a numpy ``Generator``,
        anew in each epoch; ``cell`` is an array (height, width, 3), uint8, and so is what comes
        back. Prediction never sees it. A frozen model takes none.
    image_size : int, default=64
        Height and width in pixels to which images are brought for a network that is trained
        here. A pretrained model has its own.
    n_components : int, default=128
        Width of the vectors of ``"cnn"``.
    max_epochs : int, default=10
        Passes over the training images when a network is trained alone.
    learning_rate : float, default=1e-3
        Step size when a network is trained alone. Pretrained weights take smaller steps: 5e-5
        for the last blocks, 2e-5 for all, 2e-4 for adapters.
    batch_size : int, default=32
        Images that go through the model at once.
    on_error : {"raise", "missing"}, default="raise"
        What to do with an unreadable image: raise ``MediaDecodeError`` with its row and
        column, or warn and count it as absent.
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

    Tan and Le (2019), "EfficientNet", ICML, in its Lite variant. He et al. (2016), "Deep
    residual learning for image recognition", CVPR, for ``"cnn"``.

    Examples
    --------
    >>> import numpy as np
    >>> import pandas as pd
    >>> from skmm import ImageEncoder
    >>> dark, bright = np.zeros((8, 8), np.uint8), np.full((8, 8), 255, np.uint8)
    >>> X = pd.DataFrame({"photo": [dark, bright, dark, bright, None]})

    A network from scratch, trained to tell the two apart; the missing photo stays missing.

    >>> encoder = ImageEncoder(
    ...     model="cnn", image_size=16, n_components=8, max_epochs=2, random_state=0
    ... )
    >>> features = encoder.fit_transform(X, [0, 1, 0, 1, 1])
    >>> features.shape
    (5, 8)
    >>> np.isnan(features).any(axis=1).tolist()
    [False, False, False, False, True]
    """

    modality: ClassVar[str] = "image"
    takes_numbers: ClassVar[bool] = False
    _parameter_constraints: ClassVar[dict[str, Any]] = {
        "model": [str, HasMethods("__fspath__"), nn.Module],
        "pooling": [StrOptions({"auto", "mean", "max", "cls", "pooler"})],
        "normalize": [StrOptions({"auto"}), "boolean"],
        "draft": ["boolean"],
        "fine_tune": FINE_TUNE,
        "lora_params": [dict, None],
        "augment": [callable, None],
        "image_size": POSITIVE_INT,
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
        model: ModelName | nn.Module = "efficientnet-lite0",
        *,
        pooling: Literal["auto", "mean", "max", "cls", "pooler"] = "auto",
        normalize: bool | Literal["auto"] = "auto",
        draft: bool = False,
        fine_tune: FineTune = "frozen",
        lora_params: dict[str, Any] | None = None,
        augment: Augment | None = None,
        image_size: int = 64,
        n_components: int = 128,
        max_epochs: int = 10,
        learning_rate: float = 1e-3,
        batch_size: int = 32,
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
        self.draft = draft
        self.fine_tune = fine_tune
        self.lora_params = lora_params
        self.augment = augment
        self.image_size = image_size
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
        return isinstance(self.model, nn.Module) or self.model == "cnn"

    def _without_effect(self) -> dict[str, str]:
        idle = super()._without_effect()
        if self.model != "cnn":
            idle["n_components"] = "model"
        if self._is_pretrained:
            idle["image_size"] = "model"
        return idle

    def _make_engine(self, columns: list[Column]) -> Engine:
        engine = PretrainedEngine(self, "image")
        self._image_side: int | None = engine.description["image_size"]
        return PartsEngine(engine, owner=type(self).__name__) if self._takes_lists else engine

    def _untrained_engine(self, columns: list[Column]) -> TrainedEngine:
        if self._is_tuned and self._takes_lists:
            raise ValueError(
                f"{type(self).__name__}: fine_tune={self.fine_tune!r} is for single images, and"
                " a cell holds a list of them. Use fine_tune='frozen', or one image a cell."
            )
        engine = super()._untrained_engine(columns)
        if isinstance(engine, TunedEngine):
            self._image_side = engine.description["image_size"]
        return engine

    def _make_backbone(self, cells: Sequence[Any]) -> Backbone:
        network: Any = ImageCNN(image_size=self.image_size, n_components=self.n_components)
        if isinstance(self.model, nn.Module):
            # A copy: training must not touch the parameter.
            network = ImageModule(copy.deepcopy(self.model), image_size=self.image_size)
            network.measure(cells[0][0] if self._takes_lists else cells[0])
        return FrameEncoder(network) if self._takes_lists else network

    def _check_columns(self, X: CellColumn, *, reset: bool) -> list[Column]:
        columns = super()._check_columns(X, reset=reset)
        if reset:
            self._takes_lists = any(
                is_image_list(cell) for column in columns for cell in column.values[~column.missing]
            )
        return columns

    def _read(self, cell: object) -> Any:
        if self._takes_lists or is_image_list(cell):
            return self._read_with_digest(cell)[1]
        return read_image(cell, draft=self._draft_size())

    def _digest(self, cell: object) -> bytes:
        return (
            digest_image_list(cast(Sequence[Any], cell))
            if is_image_list(cell)
            else digest_image(cell)
        )

    def _read_with_digest(self, cell: object) -> tuple[bytes, Any]:
        draft = self._draft_size()
        if not is_image_list(cell):
            digest, image = load_image(cell, draft=draft)
            return digest, [image] if self._takes_lists else image
        if not self._takes_lists:
            raise CellTypeError(
                "Cannot read a list of images after fit has seen single ones alone. Fit on a"
                " column in which a cell is a list, if only of one image."
            )
        digest, images = load_image_list(cast(Sequence[Any], cell), draft=draft)
        return digest, resized(images, self.image_size) if self._is_from_scratch else images

    def _reading(self) -> dict[str, Any]:
        return {"draft": self._draft_size()}

    def _draft_size(self) -> int | None:
        """Side in pixels that a decoded image must have at least; None decodes in full."""
        if not self.draft:
            return None
        return self.image_size if self._is_from_scratch else self._image_side
