"""Audio clips to vectors."""

import copy
import json
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar, Literal

import numpy as np
import torch
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
from skmm._frame._column import Column
from skmm.backbones import Backbone
from skmm.backbones._audio_resnet import AudioCNN
from skmm.backbones._spectrogram import MFCC
from skmm.backbones._user_module import AudioModule
from skmm.encoders._cell_encoder import Augment, CellEncoder, Dtype, FineTune, ModelName, OnError
from skmm.encoders._engines._base import BackboneEngine, Engine, Runtime
from skmm.encoders._engines._fine_tuned import TunedEngine
from skmm.encoders._engines._parts import WindowsEngine
from skmm.encoders._engines._pretrained import PretrainedEngine
from skmm.encoders._store._fingerprint import package_version
from skmm.encoders._store._store import StoreLike
from skmm.readers._audio import digest_audio, load_audio, read_audio

__all__ = ["AudioEncoder"]

_RATE = 16_000  # of what is not pretrained
_MFCC_FORMAT = 1  # raised when code of ours changes what the coefficients are
# Another version of what decodes and resamples may give other samples.
_DECODERS = ("av", "scipy", "soundfile")


class AudioEncoder(CellEncoder):
    """Encode audio clips with cepstral coefficients, a pretrained model or a small network.

    A cell is a path, the bytes of a file, or an array of float, int16 or int32 samples, of shape
    ``(n_samples,)`` or ``(n_samples, n_channels)``. Files are wav, flac, ogg, mp3 and whatever
    else soundfile reads (extra ``audio``); m4a, aac and the audio track of a video need PyAV (extra
    ``video``). Channels are averaged, and every audio clip is brought to the rate that the model wants.

    Parameters
    ----------
    model : str, path or nn.Module, default="mfcc"
        What listens:

        - ``"mfcc"``: mel-frequency cepstral coefficients and their differences. Nothing is
          trained and nothing downloaded.
        - a folder, the name of packaged weights (``"whisper-tiny.en"``, the encoder of a speech
          recognizer; ``"ge2e"``, which tells speakers apart) or a name on the Hugging Face hub
          (extra ``hub``), looked for in this order: wav2vec 2.0 and its like, HuBERT, WavLM,
          the encoder of Whisper, AST, or the audio half of CLAP, from safetensors. Frozen,
          unless ``fine_tune`` says otherwise.
        - ``"cnn"``: a small residual network over log-mel spectrograms, trained from scratch:
          inside a joint fusion with its head, alone with ``y`` through a linear head that is
          then dropped, or without ``y`` by reconstructing the spectrogram in small.
        - an ``nn.Module``, trained like ``"cnn"``: from floats ``(n, n_samples)`` at 16 kHz to
          ``(n, width)`` or ``(n, n_tokens, width)``. ``n_samples`` is that of the longest
          training audio; others are padded with silence or cut.
    pooling : {"auto", "mean", "max", "statistics", "pooler"}, default="auto"
        How the frames of ``"mfcc"`` or of a pretrained model become one vector. ``"statistics"``
        puts mean and standard deviation side by side, which doubles the width; ``"pooler"`` is
        a model's own summary (AST, CLAP). ``"auto"`` is the statistics for ``"mfcc"``, else the
        model's own summary if it has one, else the mean.
    normalize : {"auto"} or bool, default="auto"
        Whether vectors are scaled to length one; ``"auto"`` as published, which is only so
        for ``"ge2e"``.
    sampling_rate : int, default=None
        Samples per second of cells that are arrays, which do not say it themselves. Files do.
    window : float, default=30.0
        Seconds that go through a frozen model at once, unless it takes less. A longer recording
        is read and encoded window by window, and never lies in memory as a whole.
        ``"whisper-tiny.en"`` pads every audio clip to this length: 30 s as in its training, a few
        seconds for short audio clips in a fraction of the time. What is trained here, from scratch
        or by ``fine_tune``, hears the first window of a recording.
    fine_tune : {"frozen", "last", "lora", "full"} or int, default="frozen"
        Which weights of a pretrained model are trained, inside a joint fusion with its head or
        alone with ``y`` through a linear head that is then dropped:

        - ``"frozen"``: none; audio clips are encoded once and their vectors stored;
        - ``"last"``, or a number: the last layer of its transformer, or so many. What lies
          below stays frozen, is encoded once and stored, so an epoch costs only the top. WavLM
          and CLAP cannot be cut so, nor can ``"ge2e"``;
        - ``"lora"``: low-rank adapters [1]_ beside the linear layers (extra ``lora``);
        - ``"full"``: all.

        Networks from scratch are always trained, and ``"mfcc"`` never is.
    lora_params : dict, default=None
        Parameters of ``peft.LoraConfig`` for ``"lora"``; rank 8, ``lora_alpha`` 16 and all
        linear layers of the transformer if not told.
    augment : callable, default=None
        Changes an audio clip in training, as ``augment(cell, rng)`` with a numpy ``Generator``, anew
        in each epoch; ``cell`` is an array (n_samples,), float32, and so is what comes back. A
        pretrained model hears of it what fits into a window. Prediction never sees it. A frozen
        model takes none.
    n_components : int, default=128
        Width of the vectors of ``"cnn"``.
    max_epochs : int, default=10
        Passes over the training audio clips when a network is trained alone.
    learning_rate : float, default=1e-3
        Step size when a network is trained alone. Pretrained weights take smaller steps: 5e-5
        for the last layers, 2e-5 for all, 2e-4 for adapters.
    batch_size : int, default=16
        Windows that go through the model at once.
    on_error : {"raise", "missing"}, default="raise"
        What to do with an unreadable audio: raise ``MediaDecodeError`` with its row and column,
        or warn and count it as absent.
    device : str, default="auto"
        Where the model runs: ``"auto"``, ``"cpu"``, ``"cuda"``, ``"cuda:1"``.
    dtype : {"auto", "float32", "bfloat16", "float16"}, default="auto"
        Precision of a pretrained model; ``"auto"`` is bfloat16 on a GPU that has it, else
        float32. The result is float32.
    store : path, EmbeddingStore, False or None, default=None
        Where vectors of a frozen model are kept; see :func:`skmm.set_config`.
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
    An audio clip without samples, with NaN or infinite values, or with less than its header declares
    is unreadable. As a sequence (``transform_sequence``) an audio clip is one token a frame; with
    ``pooling="statistics"`` the frame's distance from the mean frame stands behind it.

    References
    ----------
    .. [1] Hu et al. (2022), "LoRA: low-rank adaptation of large language models", ICLR.

    Davis and Mermelstein (1980), "Comparison of parametric representations for monosyllabic word
    recognition", IEEE TASSP. Radford et al. (2023), "Robust speech recognition via large-scale
    weak supervision", ICML. Wan et al. (2018), "Generalized end-to-end loss for speaker
    verification", ICASSP. Kong et al. (2020), "PANNs", IEEE/ACM TASLP, for ``"cnn"``.

    Examples
    --------
    >>> import numpy as np
    >>> import pandas as pd
    >>> from skmm import AudioEncoder
    >>> seconds = np.arange(8000) / 16000
    >>> tones = [np.sin(2 * np.pi * hertz * seconds) for hertz in (220, 440, 880)]
    >>> X = pd.DataFrame({"clip": [*tones, None]})

    Mean and standard deviation of 60 coefficients; the missing clip stays missing.

    >>> features = AudioEncoder(sampling_rate=16_000).fit_transform(X)
    >>> features.shape
    (4, 120)
    >>> np.isnan(features).any(axis=1).tolist()
    [False, False, False, True]
    """

    modality: ClassVar[str] = "audio"
    takes_numbers: ClassVar[bool] = False
    _parameter_constraints: ClassVar[dict[str, Any]] = {
        "model": [str, HasMethods("__fspath__"), nn.Module],
        "pooling": [StrOptions({"auto", "mean", "max", "statistics", "pooler"})],
        "normalize": [StrOptions({"auto"}), "boolean"],
        "sampling_rate": [*POSITIVE_INT, None],
        "window": POSITIVE_REAL,
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
        "store": STORE,
        "random_state": RANDOM_STATE,
        "verbose": VERBOSE,
    }

    def __init__(
        self,
        model: ModelName | nn.Module = "mfcc",
        *,
        pooling: Literal["auto", "mean", "max", "statistics", "pooler"] = "auto",
        normalize: bool | Literal["auto"] = "auto",
        sampling_rate: int | None = None,
        window: float = 30.0,
        fine_tune: FineTune = "frozen",
        lora_params: dict[str, Any] | None = None,
        augment: Augment | None = None,
        n_components: int = 128,
        max_epochs: int = 10,
        learning_rate: float = 1e-3,
        batch_size: int = 16,
        on_error: OnError = "raise",
        device: str = "auto",
        dtype: Dtype = "auto",
        store: StoreLike = None,
        random_state: RandomState = None,
        verbose: bool | int = 0,
    ):
        self.model = model
        self.pooling = pooling
        self.normalize = normalize
        self.sampling_rate = sampling_rate
        self.window = window
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
        self.store = store
        self.random_state = random_state
        self.verbose = verbose

    @property
    def _is_from_scratch(self) -> bool:
        return isinstance(self.model, nn.Module) or self.model == "cnn"

    @property
    def _is_pretrained(self) -> bool:
        return not self._is_from_scratch and self.model != "mfcc"

    def _without_effect(self) -> dict[str, str]:
        idle = super()._without_effect()
        if self.model != "cnn":
            idle["n_components"] = "model"
        return idle

    def _make_engine(self, columns: list[Column]) -> Engine:
        frozen: MfccEngine | PretrainedEngine
        if self.model == "mfcc":
            frozen = MfccEngine(self.pooling, self.normalize)
        else:
            frozen = PretrainedEngine(self, "audio")
        return WindowsEngine(frozen, owner=type(self).__name__)

    def _make_backbone(self, cells: Sequence[np.ndarray]) -> Backbone:
        if isinstance(self.model, nn.Module):
            # A copy: training must not touch the parameter.
            n_samples = max(len(cell) for cell in cells)
            network = AudioModule(copy.deepcopy(self.model), n_samples=n_samples)
            network.measure(cells[0])
            return network
        return AudioCNN(self.n_components)

    def _read(self, cell: object) -> Any:
        return self._heard(read_audio(cell, **self._target()))

    def _digest(self, cell: object) -> bytes:
        return digest_audio(cell)

    def _read_with_digest(self, cell: object) -> tuple[bytes, Any]:
        digest, windows = load_audio(cell, **self._target())
        return digest, self._heard(windows)

    def _heard(self, windows: Iterator[np.ndarray]) -> Any:
        """What the model is given: all windows, or the first one where it is trained here."""
        frozen = not self._is_from_scratch and isinstance(self._engine, WindowsEngine)
        return windows if frozen else next(windows)

    def _augmented(self, cell: Any, seed: tuple[int, ...]) -> Any:
        changed = super()._augmented(cell, seed)
        if self._is_from_scratch:
            return changed
        target = self._target()
        return changed[: max(1, round(target["window"] * target["rate"]))]

    def _target(self) -> dict[str, Any]:
        """What a cell is decoded to."""
        rate, window = _RATE, self.window
        if not self._is_from_scratch:
            assert isinstance(self._engine, WindowsEngine | TunedEngine)
            described = self._engine.description
            rate, limit = described["rate"], described["window"]
            window = window if limit is None else min(window, limit)
        return {"rate": rate, "array_rate": self.sampling_rate, "window": window}

    def _reading(self) -> dict[str, Any]:
        return {**self._target(), **{name: package_version(name) for name in _DECODERS}}


class MfccEngine(BackboneEngine):
    """Cepstral coefficients: nothing is learned, so there is nothing but settings.

    Parameters
    ----------
    pooling : {"auto", "mean", "max", "statistics"}
        How frames become one vector.
    normalize : "auto" or bool
        Whether that vector gets length 1.
    """

    def __init__(self, pooling: str, normalize: bool | str):
        self.backbone = MFCC("statistics" if pooling == "auto" else pooling)
        self.n_outputs = self.backbone.width
        self.description: dict[str, Any] = {
            "pooling": self.backbone.pooling,
            "normalize": normalize is True,
            "rate": self.backbone.rate,
            "window": None,
        }

    def fingerprint(self, runtime: Runtime) -> str:
        model = self.backbone
        facts = {
            "format": _MFCC_FORMAT,
            "model": "mfcc",
            "shape": [model.n_coefficients, model.n_mels, model.rate],
            "pooling": model.pooling,
            "dtype": str(runtime.dtype),
            "torch": torch.__version__.split("+")[0].rsplit(".", 1)[0],
        }
        return json.dumps(facts, sort_keys=True)

    def backbone_on(self, runtime: Runtime) -> MFCC:
        return self.backbone
