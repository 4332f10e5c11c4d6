"""From texts to series: the spectrogram of a word that a named speaker says.

``avdigits``: from the word of a digit and the name of a speaker to a log-mel spectrogram. A
classifier that is trained on real spectrograms alone predicts its digit. Two digits of each speaker
are left out of the training: these combinations are new to the generator. ``--small`` takes
a few rows and epochs, so that the suite can run it.
"""

import argparse
import time

import numpy as np
import pandas as pd
import torch
from report import load_real, table, write_section
from scipy.io import wavfile
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from skmm import SeriesGenerator, TextEncoder, TimeSeriesEncoder, Trainer
from skmm.backbones._spectrogram import log_mel, mel_spectrogram

WORDS = np.array("zero one two three four five six seven eight nine".split())
RATE, N_MELS, HOP, N_FFT = 8000, 20, 160, 320
MAX_STEPS = 60
GENERATED = "generated from word and speaker"


def spectrogram(path):
    """Return decibels, at most 80 below the loudest value, (n_frames, n_mels)."""
    samples = torch.from_numpy(wavfile.read(path)[1].astype(np.float32) / 2**15)
    power = mel_spectrogram(samples, n_mels=N_MELS, rate=RATE, n_fft=N_FFT, hop=HOP)
    return 10 * log_mel(power).T.numpy()[:MAX_STEPS]


def generator(seed, max_epochs):
    return SeriesGenerator(
        [
            ("word", TextEncoder("tfidf", n_components=10, random_state=0), ["word"]),
            ("speaker", OneHotEncoder(sparse_output=False), ["speaker"]),
        ],
        decoder="gru",
        position="share",
        n_components=64,
        n_layers=1,
        max_epochs=max_epochs,
        trainer=Trainer(learning_rate=3e-3),
        random_state=seed,
    )


def measure(data, seed, small):
    """Yield the data, the kind of combinations, the accuracy of the classifier, and R2."""
    train, test = train_test_split(
        np.arange(len(data)), test_size=0.25, stratify=data["combination"], random_state=seed
    )
    classifier = make_pipeline(
        TimeSeriesEncoder(n_kernels=500 if small else 2000, random_state=seed),
        StandardScaler(),
        LogisticRegression(C=0.01, max_iter=2000),
    ).fit(data[["series"]].iloc[train], data["label"].iloc[train])
    # Digits d and d + 5 of the speaker d, counted on by one a seed.
    left_out = (data["label"] - data["speaker"].astype("category").cat.codes - seed) % 5 == 0
    learned = train[~left_out.iloc[train].to_numpy()]
    own = generator(seed, 3 if small else 40)
    own.fit(data[["word", "speaker"]].iloc[learned], data["series"].iloc[learned])
    combinations = data.assign(left_out=left_out).drop_duplicates("combination")
    generated = own.predict(combinations[["word", "speaker"]])
    mean = own.predict(pd.DataFrame({"word": [None], "speaker": [None]}))[0]
    sides = {
        "real recordings, held out": (data.iloc[test], list(data["series"].iloc[test])),
        GENERATED: (combinations, list(generated)),
        "mean of all recordings": (combinations, [mean] * len(combinations)),
    }
    for name, (rows, series) in sides.items():
        right = classifier.predict(pd.DataFrame({"series": series})) == rows["label"].to_numpy()
        unseen = left_out.loc[rows.index].to_numpy()
        yield {"spectrograms": name, "seen": right[~unseen].mean(), "unseen": right[unseen].mean()}
    for name, of in (("seen", ~left_out.iloc[test]), ("unseen", left_out.iloc[test])):
        rows = data.iloc[test][of.to_numpy()]
        print(seed, "R2", name, own.score(rows[["word", "speaker"]], rows["series"]), flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--small", action="store_true", help="a few rows and epochs")
    small = parser.parse_args().small
    data = load_real("avdigits")
    if small:
        data = data.groupby(["speaker", "label"]).head(8).reset_index(drop=True)
    started = time.process_time()
    data["series"] = [spectrogram(path) for path in data["audio"]]
    data["word"] = WORDS[data["label"]]
    data["combination"] = data["speaker"] + " " + data["word"]
    n_seeds = 1 if small else 3
    rows = [row for seed in range(n_seeds) for row in measure(data, seed, small)]
    found = pd.DataFrame(rows).groupby("spectrograms", sort=False)
    means = found.mean().join(found["unseen"].std().rename("+-"))
    seconds = time.process_time() - started
    text = (
        f"{len(data)} recordings of ten words by six speakers; log-mel spectrograms of {N_MELS}"
        f" bands and {RATE // HOP} frames a second. A GRU decoder learns to generate them from the"
        " word and the speaker's name, of three quarters of the recordings; of each speaker two"
        " words are left out. A classifier (MiniRocket + logistic regression) is trained on real"
        " recordings alone; the table shows its accuracy, for combinations of word and speaker"
        " that are in the training rows of the generator and for those left out."
        f" {n_seeds} splits and seeds,"
        f" {seconds:.0f} CPU seconds in all.\n\n{table(means)}"
    )
    write_section("Spectrograms generated from words", "series_from_texts.py", text)


if __name__ == "__main__":
    main()
