"""Objects with a color, a shape and a size, as vectors and as sentences."""

import numpy as np
import pandas as pd
import pytest

COLORS = np.array(["red", "green", "blue", "black"])
SHAPES = np.array(["circle", "square", "star", "cross"])
SIZES = np.array(["small", "large", "huge"])


@pytest.fixture
def make_objects():
    def make(n=480, seed=0):
        """Return a frame, sentences, and which rows have a combination to hold out."""
        rng = np.random.default_rng(seed)
        color, shape, size = (rng.integers(0, k, n) for k in (4, 4, 3))
        latent = np.hstack([np.eye(4)[color], np.eye(4)[shape], np.eye(3)[size]])
        turned = latent @ np.linalg.qr(rng.standard_normal((16, 16)))[0][:11]
        seen = turned + 0.15 * rng.standard_normal((n, 16))
        X = pd.DataFrame({"left": list(seen[:, :8]), "right": list(seen[:, 8:])})
        words = zip(SIZES[size], COLORS[color], SHAPES[shape], strict=True)
        y = np.array([f"A {a} {b} {c}." for a, b, c in words], dtype=object)
        return X, y, (color + shape + size) % 4 == 0

    return make
