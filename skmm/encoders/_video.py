"""Encoder of videos."""

import copy
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar, Literal

import numpy as np
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
    POSITIVE_REAL,
    RANDOM_STATE,
    STORE,
    VERBOSE,
    HasMethods,
    RandomState,
    StrOptions,
)
from skmm._environment._device import resolve_device
from skmm._frame._column import Column
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
from skmm.encoders._engines._fine_tuned import make_tuned, over_frames
from skmm.encoders._engines._parts import PartsEngine
from skmm.encoders._engines._pretrained import PretrainedEngine
from skmm.encoders._engines._trained import TrainedEngine
from skmm.encoders._store._fingerprint import package_version
from skmm.encoders._store._store import StoreLike
from skmm.readers._video import digest_video, load_video, read_video

__all__ = ["VideoEncoder"]

# To be raised with every change of the code that changes which frames are taken, or their pixels.
_FORMAT = 1


class VideoEncoder(CellEncoder):
    """Encode videos with a pretrained image or video model or a small network.

    A cell is a path or the bytes of a video file in any format that FFmpeg reads (extra
    ``video``), an array of frames ``(n_frames, height, width, 1 or 3 or 4)``, uint8, uint16 or
    float in [0, 1], or a list of images as :class:`ImageEncoder` takes them. A still image is a
    video of one frame; a stack of slices is a video of gray frames. The audio track of the same
    file is another modality: pass its column to an :class:`AudioEncoder` too.

    A file is decoded from its start, one frame at a time, and only sampled frames are kept: a
    long film takes no more memory than a short clip.

    Parameters
    ----------
    model : str, path or nn.Module, default="efficientnet-lite0"
        Model of the video:

        - a vision model as :class:`ImageEncoder` takes it (folder, packaged weights, name on the
          hub): it encodes single frames, whose vectors are pooled.
        - a video model that ``transformers`` loads from safetensors (VideoMAE, TimeSformer), by
          folder or name: it encodes clips with the number of frames that it was trained on. Like
          the vision model it is frozen unless ``fine_tune`` is set.
        - ``"cnn"``: a small residual network over frames and a pooling over time, trained from
          scratch: in a joint fusion together with its head, alone with ``y`` through a linear
          head that is then dropped, or without ``y`` by reconstructing thumbnails of the first,
          the middle and the last frame.
        - an ``nn.Module`` that replaces the network of ``"cnn"`` and is trained like it: from
          float images ``(n, 3, image_size, image_size)`` in [0, 1] to ``(n, n_outputs)``,
          ``(n, n_tokens, n_outputs)`` or ``(n, n_outputs, height, width)``.
    sampling : {"uniform", "rate", "keyframes"}, default="uniform"
        Which frames are encoded: the middle frames of ``n_frames`` equal parts of the video;
        ``frame_rate`` frames per second; or the key frames of the file. Arrays and lists have no
        timestamps and no key frames, so they need ``"uniform"``.
    n_frames : int, default=8
        Number of frames for ``"uniform"``; a shorter video has all of its frames encoded. A
        video model has a fixed number, which cannot be changed, and repeats frames of a shorter
        video.
    frame_rate : float, default=None
        Frames per second for ``"rate"``. A video model encodes the frames of ``"rate"`` or
        ``"keyframes"`` clip by clip, and the vectors of the clips are pooled.
    temporal_pooling : {"mean", "max", "gru", "attention"}, default="mean"
        How the vectors of frames, or of clips, are pooled to one. ``"mean"`` and ``"max"``
        ignore the order of frames. ``"gru"`` and ``"attention"`` use it; they are trained from
        scratch, so they need ``"cnn"`` or a module.
    pooling : {"auto", "mean", "max", "cls", "pooler"}, default="auto"
        How the patch vectors of a pretrained model are pooled to one vector; ``"auto"`` depends
        on the kind of model.
    normalize : {"auto"} or bool, default="auto"
        Whether to scale the vectors of a pretrained model, of a frame or a clip, to length one;
        ``"auto"`` follows the published model.
    fine_tune : {"frozen", "last", "lora", "full"} or int, default="frozen"
        Which weights of a pretrained model are trained, either in a joint fusion together with
        its head, or alone with ``y`` through a linear head that is then dropped:

        - ``"frozen"``: none; videos are encoded once and their vectors stored;
        - ``"last"`` or an int: the last block of its transformer or stage of its convolutions,
          or that many. The blocks before them stay frozen. Their outputs are computed once for
          each frame or clip and stored, so an epoch only runs the last blocks;
        - ``"lora"``: low-rank adapters [1]_ of the linear layers (extra ``lora``);
        - ``"full"``: all.

        A video model is trained on one clip of each video, with ``sampling="uniform"``.
        Networks from scratch are always trained.
    lora_params : dict, default=None
        Parameters of ``peft.LoraConfig`` for ``fine_tune="lora"``. By default the rank is 8,
        ``lora_alpha`` is 16, and all linear layers of the transformer have an adapter.
    augment : callable, default=None
        Function ``augment(cell, rng)`` that changes a video in each epoch of training: from the
        list of sampled frames, uint8 arrays (height, width, 3), and a numpy ``Generator`` to such
        a list. It is not applied in prediction. Only for models that are trained.
    image_size : int, default=64
        Height and width in pixels to which frames are resized for a network from scratch; that
        of a pretrained model is fixed.
    n_components : int, default=128
        Width of the vectors of ``"cnn"``.
    max_epochs : int, default=10
        Passes over the training videos when a network is trained alone.
    learning_rate : float or "auto", default="auto"
        Step size of Adam when a network is trained alone. ``"auto"`` is 1e-3 from scratch and for
        the linear head, and for pretrained weights 5e-5 (last blocks), 2e-5 (all) or 2e-4
        (adapters). A number is used for all weights.
    batch_size : int, default=32
        Number of frames per batch of a frozen image model; number of clips or videos per batch
        of a video model and in training.
    warmup : float, default=0
        Epochs in which the step sizes grow linearly from zero, such as 1 or 0.5.
    early_stopping : bool, default=False
        Whether to hold out 10 % of the training videos when a network is trained alone,
        stop after 10 epochs without a lower loss on them and keep the weights of the best epoch.
        With fewer than 40 videos nothing is held out.
    on_error : {"raise", "missing"}, default="raise"
        What to do with an unreadable or truncated video: raise ``MediaDecodeError`` with its row
        and column, or warn and count it as absent.
    device : str, default="auto"
        Where the model runs: ``"auto"``, ``"cpu"``, ``"cuda"``, ``"cuda:1"``.
    dtype : {"auto", "float32", "bfloat16", "float16"}, default="auto"
        Precision of a pretrained model's matrix products (autocast); ``"auto"`` is bfloat16
        on a GPU that has it, else float32. The result is float32.
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

    Notes
    -----
    ``transform_sequence`` returns one token per frame or clip; for a video model with
    ``sampling="uniform"``, one token per space-time patch.

    References
    ----------
    .. [1] Hu et al. (2022), "LoRA: low-rank adaptation of large language models", ICLR.

    Wang et al. (2016), "Temporal segment networks", ECCV, for frames from equal parts. Tong et
    al. (2022), "VideoMAE", NeurIPS. Bertasius et al. (2021), "Is space-time attention all you
    need for video understanding?", ICML (TimeSformer).

    Examples
    --------
    >>> import numpy as np
    >>> import pandas as pd
    >>> from skmm import VideoEncoder
    >>> there = np.eye(6, dtype=np.uint8)[:, None, :, None] * np.full((1, 6, 1, 1), 255, np.uint8)
    >>> back = there[::-1]
    >>> X = pd.DataFrame({"clip": [there, back, there, back, None]})

    A bar that moves to the right and one that moves to the left have the same frames. A network
    that uses the order of frames can learn to distinguish them.

    >>> encoder = VideoEncoder(
    ...     "cnn",
    ...     temporal_pooling="gru",
    ...     image_size=8,
    ...     n_components=8,
    ...     max_epochs=2,
    ...     random_state=0,
    ... )
    >>> features = encoder.fit_transform(X, ["right", "left", "right", "left", "left"])
    >>> features.shape
    (5, 8)
    >>> np.isnan(features).any(axis=1).tolist()
    [False, False, False, False, True]
    """

    modality: ClassVar[str] = "video"
    takes_numbers: ClassVar[bool] = False
    _parameter_constraints: ClassVar[dict[str, Any]] = {
        "model": [str, HasMethods("__fspath__"), nn.Module],
        "sampling": [StrOptions({"uniform", "rate", "keyframes"})],
        "n_frames": POSITIVE_INT,
        "frame_rate": [*POSITIVE_REAL, None],
        "temporal_pooling": [StrOptions({"mean", "max", "gru", "attention"})],
        "pooling": [StrOptions({"auto", "mean", "max", "cls", "pooler"})],
        "normalize": [StrOptions({"auto"}), "boolean"],
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
        "store": STORE,
        "random_state": RANDOM_STATE,
        "verbose": VERBOSE,
    }

    def __init__(
        self,
        model: ModelName | nn.Module = "efficientnet-lite0",
        *,
        sampling: Literal["uniform", "rate", "keyframes"] = "uniform",
        n_frames: int = 8,
        frame_rate: float | None = None,
        temporal_pooling: Literal["mean", "max", "gru", "attention"] = "mean",
        pooling: Literal["auto", "mean", "max", "cls", "pooler"] = "auto",
        normalize: bool | Literal["auto"] = "auto",
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
        store: StoreLike = None,
        random_state: RandomState = None,
        verbose: bool | int = 0,
    ):
        self.model = model
        self.sampling = sampling
        self.n_frames = n_frames
        self.frame_rate = frame_rate
        self.temporal_pooling = temporal_pooling
        self.pooling = pooling
        self.normalize = normalize
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
        if self.sampling != "uniform":
            unused["n_frames"] = "sampling"
        if self.sampling != "rate":
            unused["frame_rate"] = "sampling"
        return unused

    def _validate_params(self) -> None:
        super()._validate_params()
        name = type(self).__name__
        if self.sampling == "rate" and self.frame_rate is None:
            raise ValueError(
                f"{name}: sampling='rate' needs frame_rate, the number of frames to take per"
                " second, got None."
            )
        if self.temporal_pooling in ("gru", "attention") and not self._is_from_scratch:
            state = "frozen"
            if self._is_tuned:
                state = f"trained in small steps by fine_tune={self.fine_tune!r}"
            raise ValueError(
                f"{name}: temporal_pooling={self.temporal_pooling!r} is trained from scratch, but"
                f" model={str(self.model)!r} is {state}. Use model='cnn', or"
                " temporal_pooling='mean' or 'max'."
            )

    def _make_engine(self, columns: list[Column]) -> Engine:
        engine = PretrainedEngine(self, "video")
        self._learn_clip_length(engine)
        if self._n_clip_frames is None:
            # As images, so that the weights are shared with an ImageEncoder of the same model.
            engine = PretrainedEngine(self, "image")
        elif self.sampling == "uniform":
            return engine
        return PartsEngine(engine, self.temporal_pooling, owner=type(self).__name__)

    def _learn_clip_length(self, engine: PretrainedEngine) -> None:
        """Store the number of frames of a video model's clip; None for a model of images."""
        self._n_clip_frames: int | None = engine.description.get("n_frames")
        if self._n_clip_frames is not None:
            self._refuse_unused({"n_frames": "model"})
            if self.sampling == "uniform":  # a single clip needs no pooling
                self._refuse_unused({"temporal_pooling": "model"})

    def _untrained_engine(self, columns: list[Column]) -> TrainedEngine:
        if not self._is_tuned:
            return super()._untrained_engine(columns)
        name, device = type(self).__name__, resolve_device(self.device)
        self._learn_clip_length(PretrainedEngine(self, "video"))
        if self._n_clip_frames is None:
            engine = make_tuned(self, "image", device)
            return over_frames(engine, temporal_pooling=self.temporal_pooling, owner=name)
        if self.sampling != "uniform":
            raise ValueError(
                f"{name}: fine_tune={self.fine_tune!r} trains {str(self.model)!r} on one clip of"
                f" each video, but sampling={self.sampling!r} gives several. Use"
                " sampling='uniform', fine_tune='frozen', or a model of single images."
            )
        return make_tuned(self, "video", device)

    def _make_backbone(self, cells: Sequence[list[np.ndarray]]) -> Backbone:
        if isinstance(self.model, nn.Module):
            # A copy: training must not touch the parameter.
            own = ImageModule(copy.deepcopy(self.model), image_size=self.image_size)
            own.measure(cells[0][0])
            return FrameEncoder(own, temporal_pooling=self.temporal_pooling)
        network = ImageCNN(image_size=self.image_size, n_components=self.n_components)
        return FrameEncoder(network, temporal_pooling=self.temporal_pooling)

    def _read(self, cell: object) -> Any:
        frames = self._arranged(read_video(cell, **self._sampled()))
        return frames if self._is_from_scratch or self._is_lazy else list(frames)

    def _digest(self, cell: object) -> bytes:
        return digest_video(cell)

    def _read_with_digest(self, cell: object) -> tuple[bytes, Any]:
        digest, frames = load_video(cell, **self._sampled())
        return digest, self._arranged(frames)

    def _sampled(self) -> dict[str, Any]:
        """Return the options of the reader that choose the frames."""
        if self.sampling == "rate":
            return {"sampling": "rate", "frame_rate": float(self.frame_rate or 0)}
        if self.sampling == "keyframes":
            return {"sampling": "keyframes"}
        own = None if self._is_from_scratch else self._n_clip_frames
        return {"sampling": "uniform", "n_frames": int(own or self.n_frames)}

    def _arranged(self, frames: Any) -> Any:
        """Return frames in the form that the engine, or its trunk, takes."""
        if self._is_from_scratch:
            return resized(frames, self.image_size)
        if self._n_clip_frames is None:
            return frames
        return _Clips(frames, self._n_clip_frames) if self._is_lazy else list(frames)

    @property
    def _is_lazy(self) -> bool:
        """Whether frames are read one by one, by the engine of a frozen model."""
        return isinstance(self._engine, PartsEngine)

    def _augmented(self, cell: Any, seed: tuple[int, ...]) -> Any:
        # All frames at once: most changes must be the same for all of them.
        assert self.augment is not None
        return self.augment(cell, np.random.default_rng(seed))

    def _reading(self) -> dict[str, Any]:
        # Another decoder gives other pixels. Versions are read without an import: arrays need no
        # PyAV.
        versions = {"av": package_version("av"), "pillow": package_version("pillow")}
        return {"format": _FORMAT, **self._sampled(), **versions}


class _Clips:
    """Frames in groups of the length of a video model's clip; the last may be shorter."""

    def __init__(self, frames: Any, n_frames: int):
        self._frames = frames
        self._n_frames = n_frames

    def __iter__(self) -> Iterator[list[np.ndarray]]:
        clip: list[np.ndarray] = []
        for frame in self._frames:
            clip.append(frame)
            if len(clip) == self._n_frames:
                yield clip
                clip = []
        if clip:
            yield clip
