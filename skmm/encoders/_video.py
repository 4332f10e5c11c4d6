"""Videos to vectors."""

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
from skmm.encoders._cell_encoder import Augment, CellEncoder, Dtype, FineTune, ModelName, OnError
from skmm.encoders._engines._base import Engine
from skmm.encoders._engines._fine_tuned import make_tuned, over_frames
from skmm.encoders._engines._parts import PartsEngine
from skmm.encoders._engines._pretrained import PretrainedEngine
from skmm.encoders._engines._trained import TrainedEngine
from skmm.encoders._store._fingerprint import package_version
from skmm.encoders._store._store import StoreLike
from skmm.readers._video import digest_video, load_video, read_video

__all__ = ["VideoEncoder"]

# Raised when code of ours changes which frames are taken, or what they look like.
_FORMAT = 1


class VideoEncoder(CellEncoder):
    """Encode videos with a pretrained image or video model or a small network.

    A cell is a path or the bytes of a video file in any format that FFmpeg reads (extra
    ``video``), an array of frames ``(n_frames, height, width, 1 or 3 or 4)``, uint8, uint16 or
    float in [0, 1], or a list of images as ImageEncoder takes them. A still image is a video
    of one frame; a stack of slices is a video of gray frames. The audio clip of the same file is
    another modality: give its column to an AudioEncoder too.

    A file is decoded from its start, a frame at a time, and of the frames only those that are
    sampled are looked at: a long film takes no more memory than a short clip.

    Parameters
    ----------
    model : str, path or nn.Module, default="efficientnet-lite0"
        What looks at the video:

        - a vision model as :class:`ImageEncoder` takes it (folder, packaged weights, name on the
          hub): it looks at single frames, whose vectors are pooled.
        - a video model that ``transformers`` loads from safetensors (VideoMAE, TimeSformer), by
          folder or name: it looks at clips of as many frames as it was trained on. Like the
          vision model it is frozen, unless ``fine_tune`` says otherwise.
        - ``"cnn"``: a small residual network over frames and a pooling over time, trained from
          scratch: inside a joint fusion with its head, alone with ``y`` through a linear head
          that is then dropped, or without ``y`` by reconstructing the first, the middle and the
          last frame in small.
        - an ``nn.Module``, trained like ``"cnn"`` and in its place: from float images
          ``(n, 3, image_size, image_size)`` in [0, 1] to ``(n, width)``,
          ``(n, n_tokens, width)`` or ``(n, width, height, width)``.
    sampling : {"uniform", "rate", "keyframes"}, default="uniform"
        Which frames are looked at: those in the middle of ``n_frames`` equal parts of the video;
        ``frame_rate`` a second; or the key frames, which a file stores whole. Arrays and lists
        have no clock and no key frames: only ``"uniform"`` suits them.
    n_frames : int, default=8
        Number of frames for ``"uniform"``; all of a shorter video. A video model has its own
        number, takes no other, and repeats frames of a shorter video.
    frame_rate : float, default=None
        Frames per second for ``"rate"``. A video model looks at clip after clip of the frames
        that ``"rate"`` or ``"keyframes"`` give, and the clips' vectors are pooled.
    temporal_pooling : {"mean", "max", "gru", "attention"}, default="mean"
        How the vectors of frames, or of clips, become one. ``"mean"`` and ``"max"`` do not know
        the order of frames; ``"gru"`` and ``"attention"`` do, and have to be trained from
        nothing, so they need ``"cnn"`` or a module.
    pooling : {"auto", "mean", "max", "cls", "pooler"}, default="auto"
        How a pretrained model's patches become one vector; ``"auto"`` is what suits the
        kind of model.
    normalize : {"auto"} or bool, default="auto"
        Whether a pretrained model's vectors, of a frame or a clip, are scaled to length one;
        ``"auto"`` as published.
    fine_tune : {"frozen", "last", "lora", "full"} or int, default="frozen"
        Which weights of a pretrained model are trained, inside a joint fusion with its head or
        alone with ``y`` through a linear head that is then dropped:

        - ``"frozen"``: none; videos are encoded once and their vectors stored;
        - ``"last"``, or a number: the last block of its transformer, or stage of its
          convolutions, or so many. What lies below stays frozen, is encoded once and stored for
          each frame or clip, so an epoch costs only the top;
        - ``"lora"``: low-rank adapters [1]_ beside the linear layers (extra ``lora``);
        - ``"full"``: all.

        A video model is trained on one clip of each video, that of ``sampling="uniform"``.
        Networks from scratch are always trained.
    lora_params : dict, default=None
        Parameters of ``peft.LoraConfig`` for ``"lora"``; rank 8, ``lora_alpha`` 16 and all
        linear layers of the transformer if not told.
    augment : callable, default=None
        Changes a video in training, as ``augment(cell, rng)`` with a numpy ``Generator``, anew
        in each epoch; ``cell`` is the list of the sampled frames, arrays (height, width, 3),
        uint8, and so is what comes back. Prediction never sees it. A frozen model takes none.
    image_size : int, default=64
        Height and width in pixels to which frames are brought for a network that is trained
        here. A pretrained model has its own.
    n_components : int, default=128
        Width of the vectors of ``"cnn"``.
    max_epochs : int, default=10
        Passes over the training videos when a network is trained alone.
    learning_rate : float, default=1e-3
        Step size when a network is trained alone. Pretrained weights take smaller steps: 5e-5
        for the last blocks, 2e-5 for all, 2e-4 for adapters.
    batch_size : int, default=32
        Frames that go through a frozen image model at once; clips or videos through another,
        and through what is trained.
    on_error : {"raise", "missing"}, default="raise"
        What to do with a video that is unreadable, truncated, or no video: raise
        ``MediaDecodeError`` with its row and column, or warn and count it as absent.
    device : str, default="auto"
        Where the model runs: ``"auto"``, ``"cpu"``, ``"cuda"``, ``"cuda:1"``.
    dtype : {"auto", "float32", "bfloat16", "float16"}, default="auto"
        Precision of a pretrained model's matrix products (autocast); ``"auto"`` is bfloat16
        on a GPU that has it, else float32. The result is float32.
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

    Notes
    -----
    ``transform_sequence`` gives one token a frame, or a clip; of a video model with
    ``sampling="uniform"``, one token a patch in time.

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

    A bar that moves to the right and one that moves to the left have the same frames; a network
    that reads them in order, trained here, can tell the two apart.

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
        learning_rate: float = 1e-3,
        batch_size: int = 32,
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
        self.on_error = on_error
        self.device = device
        self.dtype = dtype
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
        if self.sampling != "uniform":
            idle["n_frames"] = "sampling"
        if self.sampling != "rate":
            idle["frame_rate"] = "sampling"
        return idle

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
                state = f"changed in small steps only by fine_tune={self.fine_tune!r}"
            raise ValueError(
                f"{name}: temporal_pooling={self.temporal_pooling!r} has to be trained from"
                f" nothing, and model={str(self.model)!r} is {state}. Use model='cnn', or"
                " temporal_pooling='mean' or 'max'."
            )

    def _make_engine(self, columns: list[Column]) -> Engine:
        engine = PretrainedEngine(self, "video")
        self._learn_clip_length(engine)
        if self._n_clip_frames is None:
            # Its own modality: the weights are shared with an ImageEncoder that has the same.
            engine = PretrainedEngine(self, "image")
        elif self.sampling == "uniform":
            return engine
        return PartsEngine(engine, self.temporal_pooling, owner=type(self).__name__)

    def _learn_clip_length(self, engine: PretrainedEngine) -> None:
        """Take over how many frames a video model looks at, None of a model of single images."""
        self._n_clip_frames: int | None = engine.description.get("n_frames")
        if self._n_clip_frames is not None:
            self._refuse_without_effect({"n_frames": "model"})
            if self.sampling == "uniform":  # one clip, so there is nothing to pool
                self._refuse_without_effect({"temporal_pooling": "model"})

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
                f" each video, and sampling={self.sampling!r} gives several. Use"
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
        """Which frames are taken: what the reader is told."""
        if self.sampling == "rate":
            return {"sampling": "rate", "frame_rate": float(self.frame_rate or 0)}
        if self.sampling == "keyframes":
            return {"sampling": "keyframes"}
        own = None if self._is_from_scratch else self._n_clip_frames
        return {"sampling": "uniform", "n_frames": int(own or self.n_frames)}

    def _arranged(self, frames: Any) -> Any:
        """Bring frames into the form that the engine, or its trunk, takes."""
        if self._is_from_scratch:
            return resized(frames, self.image_size)
        if self._n_clip_frames is None:
            return frames
        return _Clips(frames, self._n_clip_frames) if self._is_lazy else list(frames)

    @property
    def _is_lazy(self) -> bool:
        """Whether frames are asked for one after the other, by the engine of a frozen model."""
        return isinstance(self._engine, PartsEngine)

    def _augmented(self, cell: Any, seed: tuple[int, ...]) -> Any:
        # All frames at once: most changes have to be the same for each of them.
        assert self.augment is not None
        return self.augment(cell, np.random.default_rng(seed))

    def _reading(self) -> dict[str, Any]:
        # Another decoder gives other pixels. Asked by name: arrays need no PyAV.
        versions = {"av": package_version("av"), "pillow": package_version("pillow")}
        return {"format": _FORMAT, **self._sampled(), **versions}


class _Clips:
    """Frames in groups of as many as a video model takes; the last group may be shorter."""

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
