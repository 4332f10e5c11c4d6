"""
Written and dialed digits: the weights of a gated fusion
========================================================

*Half of the calls have a bad line. Does a gated fusion adapt its weights, row by row?*

Each row is a digit in two modalities: a handwritten image and a recording. The images are
scikit-learn's ``load_digits`` with some noise. The recordings are not speech but the generated
tones of telephone keys, since scikit-learn has no recordings of spoken digits. Nothing is
downloaded.
"""

# %%
# Digits on paper and on the line
# -------------------------------
# A key of a telephone plays two tones at once, one for its row and one for its column. On a good
# line there is little noise, on a bad one the noise is much stronger than the tones. No column says
# which line it was.

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from sklearn.datasets import load_digits

from skmm import AudioEncoder, ImageEncoder, JointFusionClassifier
from skmm.inspection import modality_weights

SEED = 0
RATE = 8000
LOW, HIGH = (697, 770, 852, 941), (1209, 1336, 1477)
KEYS = {digit: divmod(digit - 1, 3) for digit in range(1, 10)} | {0: (3, 1)}
rng = np.random.default_rng(SEED)


def audio(digit, bad):
    """Return a quarter of a second of a key, of random loudness, with noise."""
    row, column = KEYS[digit]
    t = np.arange(RATE // 4) / RATE
    tones = np.sin(2 * np.pi * LOW[row] * t) + np.sin(2 * np.pi * HIGH[column] * t + 1)
    noise = (5 if bad else 0.3) * rng.normal(size=len(t))
    return (rng.uniform(0.05, 0.1) * (tones + noise)).astype(np.float32)


def noisy(image):
    """Return eight by eight gray values with noise."""
    return np.clip(15 * image + rng.normal(0, 60, image.shape), 0, 255).astype(np.uint8)


digits = load_digits()
chosen = rng.permutation(len(digits.target))[:1200]
y = digits.target[chosen]
bad = rng.random(len(y)) < 0.5
X = pd.DataFrame(
    {
        "written": [noisy(digits.images[k]) for k in chosen],
        "spoken": [audio(*row) for row in zip(y, bad, strict=True)],
    }
)
X_train, y_train = X[:700], y[:700]
X_test, y_test, bad_test = X[700:], y[700:], bad[700:]

# %%
figure, axes = plt.subplots(2, 4, figsize=(9, 4.2), layout="constrained")
shown = [(2, False), (5, False), (6, True), (8, True)]
for (digit, is_bad), (image, line) in zip(shown, axes.T, strict=True):
    row = np.flatnonzero((y_test == digit) & (bad_test == is_bad))[0]
    image.imshow(X_test["written"].iloc[row], cmap="gray_r")
    image.set(xticks=[], yticks=[], title=f"a {digit}, {'bad' if is_bad else 'good'} line")
    line.specgram(X_test["spoken"].iloc[row], Fs=RATE, NFFT=256, noverlap=192, cmap="magma")
    line.set(ylim=(0, 2000), xlabel="seconds")
axes[1, 0].set_ylabel("Hz")
plt.show()

# %%
# A network with gates
# --------------------
# In a gated fusion each modality has a gate. The gate reads all modalities and sets the weight of
# its own in this row. The network for images is trained with the fusion. The features of the
# recordings are cepstral coefficients, which need no training.

triples = [
    ("written", ImageEncoder("cnn", image_size=16, n_components=32), ["written"]),
    ("spoken", AudioEncoder(sampling_rate=RATE), ["spoken"]),
]


def network(modalities):
    """Return a gated fusion of some modalities; with one, its weight is constant."""
    return JointFusionClassifier(
        modalities, strategy="gated", n_components=64, max_epochs=25, random_state=SEED
    )


fusion = network(triples).fit(X_train, y_train)
alone = {triple[0]: network([triple]).fit(X_train, y_train) for triple in triples}

# %%
# Right answers by line
# ---------------------
# In prediction one of the two may be missing, though none was missing in training: its cell is
# ``None``. The plain mean of the two is the same network without gates.


def by_line(model, X):
    """Return the accuracy over good lines and over bad ones."""
    right = model.predict(X) == y_test
    return {"good line": right[~bad_test].mean(), "bad line": right[bad_test].mean()}


plain = network(triples).set_params(strategy="mean").fit(X_train, y_train)
scores = pd.DataFrame(
    {
        "written, own model": by_line(alone["written"], X_test),
        "spoken, own model": by_line(alone["spoken"], X_test),
        "both, gated": by_line(fusion, X_test),
        "both, plain mean": by_line(plain, X_test),
        "gated, audio missing": by_line(fusion, X_test.assign(spoken=None)),
        "gated, image missing": by_line(fusion, X_test.assign(written=None)),
    }
).T
print(scores.round(2).to_string())

# %%
# The weights of the gates
# ------------------------
# ``modality_weights`` returns the share of each modality in each row.

weights = modality_weights(fusion, X_test)
print(weights.groupby(np.where(bad_test, "bad line", "good line")).mean().round(2).to_string())

figure, (gates, bars) = plt.subplots(
    1, 2, figsize=(10, 3.8), width_ratios=[1, 1.1], layout="constrained"
)
edges = np.linspace(0, 1, 26)
for is_bad, name in enumerate(scores.columns):
    color = ("C0", "C1")[is_bad]
    gates.hist(weights["spoken"][bad_test == is_bad], edges, color=color, alpha=0.7, label=name)
    places = np.arange(len(scores)) + 0.38 * is_bad - 0.19
    bars.barh(places, scores[name], 0.36, color=color, alpha=0.7)
    for place, score in zip(places, scores[name], strict=True):
        bars.text(score + 0.01, place, f"{score:.2f}", va="center", fontsize=8)
gates.set(xlabel="weight of the recording", ylabel="test rows", title="Weights by line")
gates.legend(frameon=False, loc="upper left")
bars.set_yticks(range(len(scores)), scores.index)
bars.invert_yaxis()
bars.set(xlabel="accuracy", xlim=(0, 1.12), title="Right answers")
for panel in (gates, bars):
    panel.spines[["top", "right"]].set_visible(False)
plt.show()

# %%
# The gates distinguish the lines, although no column names them: on a good line the weight of the
# recording is about one half, on a bad one about a quarter. The fusion is nearly always right on
# good lines, about as often as the model of the image on bad ones, and works without the recording.
# It also has a weakness: with nothing but the recording of a bad line it is worse than a model of
# the recording alone. And the gates explain more than they gain: a plain mean of the two is within
# a few points.
