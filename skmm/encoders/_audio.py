"""Encoder of audio."""

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
from skmm._frame._column import Column
from skmm.backbones import Backbone
from skmm.backbones._audio_resnet import AudioCNN
from skmm.backbones._spectrogram import MFCC
from skmm.backbones._user_module import AudioModule
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
from skmm.encoders._engines._fine_tuned import TunedEngine
from skmm.encoders._engines._parts import WindowsEngine
from skmm.encoders._engines._pretrained import PretrainedEngine
from skmm.encoders._store._fingerprint import package_version
from skmm.encoders._store._store import StoreLike
from skmm.readers._audio import digest_audio, load_audio, read_audio

__all__ = ["AudioEncoder"]

_RATE = 16_000  # samples per second, for models that are not pretrained
_MFCC_FORMAT = 1  # to be raised with every change of the code that changes the coefficients
# Packages that decode and resample: another version may give other samples.
_DECODERS = ("av", "scipy", "soundfile")


class AudioEncoder(CellEncoder):
    """Encode audio with cepstral coefficients, a pretrained model or a small network.

    A cell is a path, the bytes of a file, or an array of float, int16 or int32 samples, of shape
    ``(n_samples,)`` or ``(n_samples, n_channels)``. Files are wav, flac, ogg, mp3 and all others
    that soundfile reads (extra ``audio``); m4a, aac and the audio track of a video need PyAV
    (extra ``video``). Channels are averaged, and audio is resampled to the rate of the model.

    Parameters
    ----------
    model : str, path or nn.Module, default="mfcc"
        Model of the audio:

        - ``"mfcc"``: mel-frequency cepstral coefficients and their differences. Nothing is
          trained or downloaded.
        - a folder, the name of packaged weights (``"whisper-tiny.en"``, the encoder of a speech
          recognizer; ``"ge2e"``, which distinguishes speakers) or a name on the Hugging Face
          hub (extra ``hub``), looked up in this order: wav2vec 2.0 and similar models, HuBERT,
          WavLM, the encoder of Whisper, AST, or the audio encoder of CLAP, from safetensors. It
          is frozen unless ``fine_tune`` is set.
        - ``"cnn"``: a small residual network over log-mel spectrograms, trained from scratch:
          in a joint fusion together with its head, alone with ``y`` through a linear head that
          is then dropped, or without ``y`` by reconstructing a coarse spectrogram.
        - an ``nn.Module``, trained like ``"cnn"``: from floats ``(n, n_samples)`` at 16 kHz to
          ``(n, n_outputs)`` or ``(n, n_tokens, n_outputs)``. ``n_samples`` is that of the
          longest training recording; others are padded with silence or cut.
    pooling : {"auto", "mean", "max", "statistics", "pooler"}, default="auto"
        How the frames of ``"mfcc"`` or of a pretrained model are pooled to one vector.
        ``"statistics"`` concatenates mean and standard deviation, which doubles the width;
        ``"pooler"`` is the pooled output of a model (AST, CLAP). ``"auto"`` is ``"statistics"``
        for ``"mfcc"``, else ``"pooler"`` if the model has one, else ``"mean"``.
    normalize : {"auto"} or bool, default="auto"
        Whether to scale the vectors to length one; ``"auto"`` follows the published model, which
        is True for ``"ge2e"`` only.
    sampling_rate : int, default=None
        Samples per second of cells that are arrays; files contain it.
    window : float, default=30.0
        Length in seconds of the windows that a frozen model encodes, at most that of the model.
        A longer recording is read and encoded window by window and is never in memory as a
        whole. ``"whisper-tiny.en"`` pads every window to this length: 30 s as in its training; a
        few seconds are faster for short recordings. A model that is trained, from scratch or by
        ``fine_tune``, reads the first window of a recording.
    fine_tune : {"frozen", "last", "lora", "full"} or int, default="frozen"
        Which weights of a pretrained model are trained, either in a joint fusion together with
        its head, or alone with ``y`` through a linear head that is then dropped:

        - ``"frozen"``: none; recordings are encoded once and their vectors stored;
        - ``"last"`` or an int: the last layer of its transformer, or that many last layers. The
          layers before them stay frozen. Their outputs are computed once and stored, so an epoch
          only runs the last layers. WavLM, CLAP and ``"ge2e"`` do not support this;
        - ``"lora"``: low-rank adapters [1]_ of the linear layers (extra ``lora``);
        - ``"full"``: all.

        Networks from scratch are always trained, and ``"mfcc"`` never is.
    lora_params : dict, default=None
        Parameters of ``peft.LoraConfig`` for ``fine_tune="lora"``. By default the rank is 8,
        ``lora_alpha`` is 16, and all linear layers of the transformer have an adapter.
    augment : callable, default=None
        Function ``augment(cell, rng)`` that changes a recording in each epoch of training: from
        a float32 array (n_samples,) and a numpy ``Generator`` to such an array. A pretrained
        model reads its first window. It is not applied in prediction. Only for models that are
        trained.
    n_components : int, default=128
        Width of the vectors of ``"cnn"``.
    max_epochs : int, default=10
        Passes over the training recordings when a network is trained alone.
    learning_rate : float or "auto", default="auto"
        Step size of Adam when a network is trained alone. ``"auto"`` is 1e-3 from scratch and for
        the linear head, and for pretrained weights 5e-5 (last layers), 2e-5 (all) or 2e-4
        (adapters). A number is used for all weights.
    batch_size : int, default=16
        Number of windows per batch.
    warmup : float, default=0
        Epochs in which the step sizes grow linearly from zero, such as 1 or 0.5.
    early_stopping : bool, default=False
        Whether to hold out 10 % of the training recordings when a network is trained alone,
        stop after 10 epochs without a lower loss on them and keep the weights of the best epoch.
        With fewer than 40 recordings nothing is held out.
    on_error : {"raise", "missing"}, default="raise"
        What to do with an unreadable recording: raise ``MediaDecodeError`` with its row and column,
        or warn and count it as absent.
    device : str, default="auto"
        Where the model runs: ``"auto"``, ``"cpu"``, ``"cuda"``, ``"cuda:1"``.
    dtype : {"auto", "float32", "bfloat16", "float16"}, default="auto"
        Precision of a pretrained model; ``"auto"`` is bfloat16 on a GPU that has it, else
        float32. The result is float32.
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
    A recording without samples, with NaN or infinite values, or with fewer samples than its
    header declares is unreadable. As a sequence (``transform_sequence``) a recording has one
    token per frame; with ``pooling="statistics"`` a token is the frame and its deviation from
    the mean frame.

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

    Mean and standard deviation of 60 coefficients; the row of the missing clip is NaN.

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
        learning_rate: LearningRate = "auto",
        batch_size: int = 16,
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

    @property
    def _is_pretrained(self) -> bool:
        return not self._is_from_scratch and self.model != "mfcc"

    def _unused_parameters(self) -> dict[str, str]:
        unused = super()._unused_parameters()
        if self.model != "cnn":
            unused["n_components"] = "model"
        return unused

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
        return self._windowed(read_audio(cell, **self._target()))

    def _digest(self, cell: object) -> bytes:
        return digest_audio(cell)

    def _read_with_digest(self, cell: object) -> tuple[bytes, Any]:
        digest, windows = load_audio(cell, **self._target())
        return digest, self._windowed(windows)

    def _windowed(self, windows: Iterator[np.ndarray]) -> Any:
        """Return the input of the model: all windows, or the first one if it is trained."""
        frozen = not self._is_from_scratch and isinstance(self._engine, WindowsEngine)
        return windows if frozen else next(windows)

    def _augmented(self, cell: Any, seed: tuple[int, ...]) -> Any:
        changed = super()._augmented(cell, seed)
        if self._is_from_scratch:
            return changed
        target = self._target()
        return changed[: max(1, round(target["window"] * target["rate"]))]

    def _target(self) -> dict[str, Any]:
        """Return sampling rate and window length to which a cell is decoded."""
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
    """Cepstral coefficients, which have settings and no weights.

    Parameters
    ----------
    pooling : {"auto", "mean", "max", "statistics"}
        How frames are pooled to one vector.
    normalize : "auto" or bool
        Whether to scale that vector to length one; ``"auto"`` does not.
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
