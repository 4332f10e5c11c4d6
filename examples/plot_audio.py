"""
Audio: averages over time or a network
======================================

*Two melodies have the same notes in another order: which features distinguish them?*

``AudioEncoder()`` describes a recording by the mean and the standard deviation of its cepstral
coefficients. They contain which notes are in a recording, but not when. A small network from
scratch reads the whole spectrogram. The recordings are generated; nothing is downloaded.
"""

# %%
# Steps up, steps down
# --------------------
# Every melody has a low, a middle and a high note, and begins and ends with the low one. One kind
# rises step by step and falls at once, the other rises at once and falls step by step. The pitch of
# the notes is random, and so is the noise.

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skmm import AudioEncoder

RATE = 8000
rng = np.random.default_rng(0)


def melody(kind):
    """Return 0.4 seconds of four notes."""
    low, middle, high = rng.uniform(250, 400), rng.uniform(550, 800), rng.uniform(1000, 1500)
    notes = [low, middle, high, low] if kind == "up" else [low, high, middle, low]
    hertz = np.repeat(notes, RATE // 10)
    tone = np.sin(2 * np.pi * np.cumsum(hertz) / RATE)
    return (tone + rng.normal(0, 0.2, len(tone))).astype(np.float32)


y = rng.choice(["up", "down"], 300)
X = pd.DataFrame({"clip": [melody(kind) for kind in y]})
X_train, X_test, y_train, y_test = train_test_split(X, y, test_size=100, random_state=0)

# %%
# Arrays have no sampling rate, so the encoder requires it. Files contain it.

averages = AudioEncoder(sampling_rate=RATE)
network = AudioEncoder(
    "cnn", sampling_rate=RATE, n_components=32, max_epochs=8, learning_rate=5e-3, random_state=0
)
scores = {}
for name, encoder in [("averages", averages), ("network", network)]:
    model = make_pipeline(encoder, StandardScaler(), LogisticRegression(max_iter=1000))
    scores[name] = model.fit(X_train, y_train).score(X_test, y_test)
    print(f"{name}: {encoder.n_outputs_} features, {scores[name]:.0%} of the test melodies right")

# %%
# The averages are at chance, since both kinds have the same notes. The order is in the frames:
# ``transform_sequence`` returns them one by one, a hundred a second, with a mask of those that
# exist.

frames, mask = averages.transform_sequence(X_test)
print(frames.shape, mask.all())

# %%
# Spectrograms and accuracy
# -------------------------

figure, axes = plt.subplots(1, 3, figsize=(10, 3.2), width_ratios=[1, 1, 0.8], layout="constrained")
for axis, kind in zip(axes, ["up", "down"], strict=False):
    clip = X_test["clip"][y_test == kind].iloc[0]
    axis.specgram(clip, Fs=RATE, NFFT=256, noverlap=192, cmap="magma")
    axis.set(title=f"steps {kind}", xlabel="seconds", ylim=(0, 2000))
axes[0].set_ylabel("Hz")
axes[2].bar(list(scores), list(scores.values()), color=["0.6", "tab:blue"])
axes[2].axhline(0.5, color="black", linewidth=1, linestyle=":")
axes[2].set(title="test accuracy", ylim=(0, 1))
axes[2].spines[["top", "right"]].set_visible(False)
plt.show()
