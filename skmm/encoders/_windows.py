"""Recordings that are encoded window by window, and become one vector."""

import json
from collections import deque
from collections.abc import Iterator
from typing import Any, ClassVar

import numpy as np
import torch

from skmm.backbones import MFCC
from skmm.encoders._engines._base import BackboneEngine, Runtime
from skmm.encoders._engines._parts import PartsEngine
from skmm.exceptions import MediaDecodeError

__all__ = ["MfccEngine", "WindowsEngine"]

_FORMAT = 1


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
        self.description = {
            "pooling": self.backbone.pooling,
            "normalize": normalize is True,
            "rate": self.backbone.rate,
            "window": None,
        }

    def fingerprint(self, runtime: Runtime) -> str:
        model = self.backbone
        facts = {
            "format": _FORMAT,
            "model": "mfcc",
            "shape": [model.n_coefficients, model.n_mels, model.rate],
            "pooling": model.pooling,
            "dtype": str(runtime.dtype),
            "torch": torch.__version__.split("+")[0].rsplit(".", 1)[0],
        }
        return json.dumps(facts, sort_keys=True)

    def _backbone(self, runtime: Runtime) -> Any:
        return self.backbone


class WindowsEngine(PartsEngine):
    """Encodes recordings that come as windows, the last one shorter than the others.

    Each window weighs as much as it is long, so that the mean over the windows is the mean over
    all frames. Means and standard deviations are combined exactly. As a sequence, the tokens of
    the windows stand one behind the other.

    Parameters
    ----------
    engine : Engine
        Encodes a window. Its ``description`` says the ``pooling``, and whether to ``normalize``.
    owner : str
        The encoder's class, for messages.
    """

    keeps_tokens: ClassVar[bool] = True

    def __init__(self, engine: Any, *, owner: str):
        super().__init__(engine, engine.description["pooling"], owner=owner)
        self.description = engine.description
        self.normalize = engine.description["normalize"]

    def fingerprint(self, runtime: Runtime) -> str | None:
        parts = super().fingerprint(runtime)
        if parts is None:
            return None
        return json.dumps({"format": _FORMAT, "windows": parts, "normalize": self.normalize})

    def _pool(self, *, sequence: bool) -> "_Windows":
        return _Windows(self.pooling, self.normalize, sequence=sequence)


class _Windows:
    """Vectors of a recording's windows, as far as they are known."""

    def __init__(self, pooling: str, normalize: bool, *, sequence: bool):
        self.pooling = pooling
        self.normalize = normalize
        self.error: MediaDecodeError | None = None
        self._tokens: list[np.ndarray] | None = [] if sequence else None
        self._lengths: deque[int] = deque()  # of windows that are still being encoded
        self._n = 0  # samples so far
        self._pooled: np.ndarray = np.zeros(0)

    def measured(self, windows: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
        """Pass the windows on, and keep their lengths until their vectors come."""
        for window in windows:
            self._lengths.append(len(window))
            yield window

    def add(self, array: np.ndarray) -> None:
        if self._tokens is not None:
            self._tokens.append(array)
            return
        n_new = self._lengths.popleft()
        vector = array.astype(np.float64)
        if not self._n:
            self._pooled = vector
        elif self.pooling == "max":
            self._pooled = np.maximum(self._pooled, vector)
        elif self.pooling == "statistics" and not self.normalize:
            self._pooled = _combined(self._pooled, self._n, vector, n_new)
        else:
            self._pooled += (vector - self._pooled) * (n_new / (self._n + n_new))
        self._n += n_new

    def result(self) -> np.ndarray | MediaDecodeError:
        if self.error is not None:
            return self.error
        if self._tokens is not None:
            return np.concatenate(self._tokens)
        if self.normalize:
            self._pooled /= max(float(np.linalg.norm(self._pooled)), 1e-12)
        return self._pooled.astype(np.float32)


def _combined(first: np.ndarray, n_first: int, second: np.ndarray, n_second: int) -> np.ndarray:
    """Mean and standard deviation of two stretches together (Chan, Golub, LeVeque 1983)."""
    (mean, deviation), (other_mean, other_deviation) = np.split(first, 2), np.split(second, 2)
    share = n_second / (n_first + n_second)
    apart = other_mean - mean
    variance = (
        (1 - share) * deviation**2 + share * other_deviation**2 + share * (1 - share) * apart**2
    )
    return np.concatenate([mean + share * apart, np.sqrt(variance)])
