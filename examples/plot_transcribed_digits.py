"""
Transcribe a dialed number
==========================

*One key is a class. A whole number is a text: a word for each key, in their order.*

Each recording is a number dialed on a telephone, of two to four keys with a short pause after each.
scikit-learn has no recordings of speech, so the two tones of a key replace a spoken digit. They are
generated with random speed and loudness, and with noise on the line. Nothing is downloaded.
"""

# %%
# Numbers on the line
# -------------------
# A key plays two tones at once, one for its row and one for its column. Only the digits from 1 to 6
# are dialed, which keeps the example short.

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
    """Return the tones of a key and the pause after it."""
    row, column = divmod(digit, 3)
    t = np.arange(int(RATE * rng.uniform(0.15, 0.25))) / RATE
    tones = np.sin(2 * np.pi * LOW[row] * t) + np.sin(2 * np.pi * HIGH[column] * t + 1)
    return np.concatenate([tones, np.zeros(int(RATE * rng.uniform(0.08, 0.15)))])


def dialed(digits):
    """Return the recording of a number, of random loudness, with noise on the line."""
    tones = np.concatenate([key(digit) for digit in digits])
    noise = 0.3 * rng.normal(size=len(tones))
    return (rng.uniform(0.05, 0.1) * (tones + noise)).astype(np.float32)


numbers = [rng.integers(0, 6, rng.integers(2, 5)) for _ in range(700)]
X = pd.DataFrame({"line": [dialed(digits) for digits in numbers]})
y = np.array([" ".join(WORDS[digits]) for digits in numbers], dtype=object)
X_train, X_test, y_train, y_test = X[:550], X[550:], y[:550], y[550:]
unseen = ~np.isin(y_test, y_train)
print(f"{unseen.sum()} of {len(y_test)} test numbers are not in training")

# %%
# An encoder and a decoder
# ------------------------
# ``AudioEncoder("cnn")`` is trained from scratch with the decoder. With ``granularity="sequence"``
# the decoder attends, for each word, to the frames of the recording.

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
predicted = transcripts.predict(X_test)
for text, truth in zip(predicted[:5], y_test[:5], strict=True):
    print(f"dialed: {truth:25} transcribed: {text}")

# %%
# Numbers that are not in training
# --------------------------------
# A number counts as right only if every word of it is right. The numbers that are not in training
# matter most: the model cannot have memorized their texts.

lengths = np.array([len(digits) for digits in numbers[550:]])
kinds = {f"{k} keys": lengths == k for k in (2, 3, 4)} | {"not in training": unseen}
shares = {name: exact_match(y_test[rows], predicted[rows]) for name, rows in kinds.items()}
print({name: round(share, 2) for name, share in shares.items()})

plt.figure(figsize=(6, 3))
bars = plt.barh(list(shares), list(shares.values()), color=["C0", "C0", "C0", "C1"])
plt.bar_label(bars, fmt="%.2f", padding=3)
plt.xlim(0, 1.15)
plt.xlabel("share of the numbers without a mistake")
plt.gca().invert_yaxis()
plt.tight_layout()
plt.show()

# %%
# The likelihood of a text
# ------------------------
# ``score_samples`` returns the log-likelihood of any text for any recording. Here it compares the
# right number with one in which the first two words are swapped.

swapped = [" ".join([b, a, *rest]) for a, b, *rest in (text.split() for text in y_test)]
differ = np.array([text != other for text, other in zip(y_test, swapped, strict=True)])
right = transcripts.score_samples(X_test, y_test)
wrong = transcripts.score_samples(X_test, swapped)
print(f"the right order is likelier in {np.mean(right[differ] > wrong[differ]):.0%} of the rows")
