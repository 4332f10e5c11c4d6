"""Encoder of images."""

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
from skmm._frame._types import CellColumn
from skmm.backbones import Backbone
from skmm.backbones._frames import FrameEncoder
from skmm.backbones._image_cnn import ImageCNN, resized
from skmm.backbones._user_module import ImageModule
from skmm.encoders._cell_encoder import (
    Augment,
    CellEncoder,
    Dtype,
    FineTune,
    LearningRate,
    ModelName,
    OnError,
)
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
    or color ``(height, width, 3 or 4)``, uint8, uint16, or float in [0, 1]. Transparent images
    are put on a white background, the EXIF orientation is applied, and 16 bits are scaled to 8.

    A cell may also be a list of images, such as all photos of a house. Its vector is the mean
    of their vectors; as a sequence it has one token for each image. If any cell seen in ``fit``
    is a list, a single image counts as a list of one.

    Parameters
    ----------
    model : str, path or nn.Module, default="efficientnet-lite0"
        Model of the image:

        - a folder, the name of packaged weights (extra ``weights``) or a name on the Hugging
          Face hub (extra ``hub``), looked up in this order: any vision model that
          ``transformers`` loads from safetensors. It is frozen unless ``fine_tune`` is set.
        - ``"cnn"``: a small residual network, trained from scratch: in a joint fusion together
          with its head, alone with ``y`` through a linear head that is then dropped, or without
          ``y`` by reconstructing a thumbnail of the image.
        - an ``nn.Module``, trained like ``"cnn"``: from float images
          ``(n, 3, image_size, image_size)`` in [0, 1] to ``(n, n_outputs)``,
          ``(n, n_tokens, n_outputs)`` or ``(n, n_outputs, height, width)``.
    pooling : {"auto", "mean", "max", "cls", "pooler"}, default="auto"
        How the patch vectors of a pretrained model are pooled to one vector; ``"auto"`` depends
        on the kind of model.
    normalize : {"auto"} or bool, default="auto"
        Whether to scale the vectors of a pretrained model to length one; ``"auto"`` follows the
        published model.
    draft : bool, default=False
        Whether to decode JPEG files at 1/2, 1/4 or 1/8 of their size, as long as that is not
        smaller than the input of the model. This is faster and changes the pixels slightly, so
        these vectors are stored separately.
    fine_tune : {"frozen", "last", "lora", "full"} or int, default="frozen"
        Which weights of a pretrained model are trained, either in a joint fusion together with
        its head, or alone with ``y`` through a linear head that is then dropped:

        - ``"frozen"``: none; images are encoded once and their vectors stored;
        - ``"last"`` or an int: the last block of its transformer or stage of its convolutions,
          or that many. The blocks before them stay frozen. Their outputs are computed once and
          stored, so an epoch only runs the last blocks;
        - ``"lora"``: low-rank adapters [1]_ of the linear layers (extra ``lora``);
        - ``"full"``: all.

        Networks from scratch are always trained.
    lora_params : dict, default=None
        Parameters of ``peft.LoraConfig`` for ``fine_tune="lora"``. By default the rank is 8,
        ``lora_alpha`` is 16, and all linear layers of the transformer have an adapter.
    augment : callable, default=None
        Function ``augment(cell, rng)`` that changes an image in each epoch of training: from a
        uint8 array (height, width, 3) and a numpy ``Generator`` to such an array. It is not
        applied in prediction. Only for models that are trained.
    image_size : int, default=64
        Height and width in pixels to which images are resized for a network from scratch; that
        of a pretrained model is fixed.
    n_components : int, default=128
        Width of the vectors of ``"cnn"``.
    max_epochs : int, default=10
        Passes over the training images when a network is trained alone.
    learning_rate : float or "auto", default="auto"
        Step size of Adam when a network is trained alone. ``"auto"`` is 1e-3 from scratch and for
        the linear head, and for pretrained weights 5e-5 (last blocks), 2e-5 (all) or 2e-4
        (adapters). A number is used for all weights.
    batch_size : int, default=32
        Number of images per batch.
    warmup : float, default=0
        Epochs in which the step sizes grow linearly from zero, such as 1 or 0.5.
    early_stopping : bool, default=False
        Whether to hold out 10 % of the training images when a network is trained alone,
        stop after 10 epochs without a lower loss on them and keep the weights of the best epoch.
        With fewer than 40 images nothing is held out.
    on_error : {"raise", "missing"}, default="raise"
        What to do with an unreadable image: raise ``MediaDecodeError`` with its row and
        column, or warn and count it as absent.
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
        Seed of the training.
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

    Tan and Le (2019), "EfficientNet", ICML, in its Lite variant. He et al. (2016), "Deep
    residual learning for image recognition", CVPR, for ``"cnn"``.

    Examples
    --------
    >>> import numpy as np
    >>> import pandas as pd
    >>> from skmm import ImageEncoder
    >>> dark, bright = np.zeros((8, 8), np.uint8), np.full((8, 8), 255, np.uint8)
    >>> X = pd.DataFrame({"photo": [dark, bright, dark, bright, None]})

    Train a network from scratch to distinguish the two; the row of the missing photo is NaN.

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
        learning_rate: LearningRate = "auto",
        batch_size: int = 32,
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
        self.draft = draft
        self.fine_tune = fine_tune
        self.lora_params = lora_params
        self.augment = augment
        self.image_size = image_size
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
        return isinstance(self.model, nn.Module) or self.model == "cnn"

    def _unused_parameters(self) -> dict[str, str]:
        unused = super()._unused_parameters()
        if self.model != "cnn":
            unused["n_components"] = "model"
        if self._is_pretrained:
            unused["image_size"] = "model"
        return unused

    def _make_engine(self, columns: list[Column]) -> Engine:
        engine = PretrainedEngine(self, "image")
        self._image_side: int | None = engine.description["image_size"]
        return PartsEngine(engine, owner=type(self).__name__) if self._takes_lists else engine

    def _untrained_engine(self, columns: list[Column]) -> TrainedEngine:
        if self._is_tuned and self._takes_lists:
            raise ValueError(
                f"{type(self).__name__}: fine_tune={self.fine_tune!r} needs single images, and a"
                " cell is a list of images. Use fine_tune='frozen', or one image per cell."
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
                "Cannot read a list of images, since all cells in fit were single images. Fit on"
                " a column in which a cell is a list, such as a list of one image."
            )
        digest, images = load_image_list(cast(Sequence[Any], cell), draft=draft)
        return digest, resized(images, self.image_size) if self._is_from_scratch else images

    def _reading(self) -> dict[str, Any]:
        return {"draft": self._draft_size()}

    def _draft_size(self) -> int | None:
        """Return the smallest side in pixels of a decoded image; None decodes it in full."""
        if not self.draft:
            return None
        return self.image_size if self._is_from_scratch else self._image_side
