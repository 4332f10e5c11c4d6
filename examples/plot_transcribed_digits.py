"""
A number that is dialled: can a network write down what it hears?
=================================================================

*One key is a class. A whole number is a text: as many words as keys were pressed, in their order.*

Each audio clip is a number dialled on a telephone, of two to four keys with a short pause after each.
Recordings of speech do not ship with scikit-learn; the two tones of a key stand for a spoken digit
and are made here, at any pace and loudness and over a line with noise. Nothing is downloaded.
"""

# %%
# Numbers on the line
# -------------------
# A key sounds two tones at once, one for its row and one for its column. Only the digits from 1
# to 6 are dialled here, which keeps the example short.

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from skmm import AudioEncoder, CaptionGenerator, Trainer
from skmm.metrics import exact_match

SEED = 0
RATE = 8000
LOW, HIGH = (697, 770), (1209, 1336, 1477)
WORDS = np.array(["one", "two", "three", "four", "five", "six"])
rng = np.random.default_rng(SEED)


def key(digit):
    """Give the audio clip of a key that is held for a moment, and the pause behind it."""
    row, column = divmod(digit, 3)
    t = np.arange(int(RATE * rng.uniform(0.15, 0.25))) / RATE
    tones = np.sin(2 * np.pi * LOW[row] * t) + np.sin(2 * np.pi * HIGH[column] * t + 1)
    return np.concatenate([tones, np.zeros(int(RATE * rng.uniform(0.08, 0.15)))])


def dialled(digits):
    """Give the audio clip of a number, of any loudness, with noise on the line."""
    tones = np.concatenate([key(digit) for digit in digits])
    noise = 0.3 * rng.normal(size=len(tones))
    return (rng.uniform(0.05, 0.1) * (tones + noise)).astype(np.float32)


numbers = [rng.integers(0, 6, rng.integers(2, 5)) for _ in range(700)]
X = pd.DataFrame({"line": [dialled(digits) for digits in numbers]})
y = np.array([" ".join(WORDS[digits]) for digits in numbers], dtype=object)
X_train, X_test, y_train, y_test = X[:550], X[550:], y[:550], y[550:]
unheard = ~np.isin(y_test, y_train)
print(f"{unheard.sum()} of {len(y_test)} test numbers were never dialled in training")

# %%
# A network that listens, and one that writes
# -------------------------------------------
# ``AudioEncoder("cnn")`` is trained from scratch with the decoder. With ``granularity="sequence"``
# the decoder sees the frames of the audio clip and looks, for each word, at those that tell it.

transcripts = CaptionGenerator(
    [("line", AudioEncoder("cnn", sampling_rate=RATE, n_components=32), ["line"])],
    decoder="gru",
    granularity="sequence",
    n_components=64,
    n_layers=1,
    max_epochs=12,
    trainer=Trainer(batch_size=16, learning_rate=3e-3, early_stopping=False),
    scoring="exact_match",
    random_state=SEED,
).fit(X_train, y_train)
written = transcripts.predict(X_test)
for text, truth in zip(written[:5], y_test[:5], strict=True):
    print(f"dialled: {truth:25} written: {text}")

# %%
# Numbers that it never heard
# ---------------------------
# A whole number counts only if every word of it is right. What counts most are numbers that were
# never dialled in training: there is no text to be remembered.

lengths = np.array([len(digits) for digits in numbers[550:]])
kinds = {f"{k} keys": lengths == k for k in (2, 3, 4)} | {"never heard": unheard}
shares = {name: exact_match(y_test[rows], written[rows]) for name, rows in kinds.items()}
print({name: round(share, 2) for name, share in shares.items()})

plt.figure(figsize=(6, 3))
bars = plt.barh(list(shares), list(shares.values()), color=["C0", "C0", "C0", "C1"])
plt.bar_label(bars, fmt="%.2f", padding=3)
plt.xlim(0, 1.15)
plt.xlabel("share of the numbers written down without a mistake")
plt.gca().invert_yaxis()
plt.tight_layout()
plt.show()

# %%
# How sure it is
# --------------
# ``score_samples`` gives the log-likelihood of any text for any audio. So it tells how much
# likelier the right number is than one in which the first two words have changed places.

swapped = [" ".join([b, a, *rest]) for a, b, *rest in (text.split() for text in y_test)]
differ = np.array([text != other for text, other in zip(y_test, swapped, strict=True)])
right = transcripts.score_samples(X_test, y_test)
wrong = transcripts.score_samples(X_test, swapped)
print(f"the right order is likelier in {np.mean(right[differ] > wrong[differ]):.0%} of the rows")
