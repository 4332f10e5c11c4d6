"""From audio to texts: spoken digits transcribed, word by word and as whole readings.

``avdigits``: recordings of a digit by six speakers. A reading is one to three recordings of one
speaker, glued together with a tenth of a second of silence between; what should be written are its
words. ``--small`` takes a few rows and epochs, so that the suite can run it; ``--part words`` or
``--part readings`` measures one of the two.
"""

import argparse
import time
from itertools import islice

import numpy as np
import pandas as pd
from report import load_real, table, write_section
from scipy.io import wavfile
from sklearn.metrics import pairwise_distances_argmin
from sklearn.model_selection import LeaveOneGroupOut, StratifiedShuffleSplit
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skmm import AudioEncoder, CaptionGenerator, Trainer
from skmm.metrics import chrf, exact_match

BAR = 0.95
WORDS = np.array("zero one two three four five six seven eight nine".split())
RATE, PAUSE = 8000, 800
N_READINGS, MOST_DIGITS, N_PARTS = 3000, 3, 4
WHISPER = "Whisper's frames, frozen + transformer, words"
CNN = "CNN from scratch + GRU, characters"
NEAREST = "text of the nearest training audio"


def captioner(kind, seed, small):
    """Return a captioner of one of two kinds: its encoder of audio and its decoder."""
    common = {
        "granularity": "sequence",
        "n_components": 64,
        "trainer": Trainer(batch_size=32, early_stopping=False),
        "random_state": seed,
    }
    if kind == CNN:
        audio_clips = AudioEncoder("cnn", n_components=64, sampling_rate=RATE)
        own = {"decoder": "gru", "tokenizer": "character", "n_layers": 1}
        return CaptionGenerator(
            [("audio", audio_clips, ["audio"])], max_epochs=1 if small else 12, **own, **common
        )
    audio_clips = AudioEncoder("whisper-tiny.en", sampling_rate=RATE, window=3.0)
    return CaptionGenerator(
        [("audio", audio_clips, ["audio"])],
        max_tokens=40,
        dropout=0.2,
        max_epochs=6 if small else 15,
        **common,
    )


def nearest(train, test):
    """Return the text of the training audio with the nearest cepstral coefficients."""
    near = make_pipeline(AudioEncoder(sampling_rate=RATE), StandardScaler())
    known = near.fit_transform(train[["audio"]])
    found = pairwise_distances_argmin(near.transform(test[["audio"]]), known)
    return train["text"].to_numpy()[found]


def words(data):
    """Return each recording with its word."""
    return pd.DataFrame(
        {
            "audio": data["audio"],
            "text": WORDS[data["label"]],
            "speaker": data["speaker"],
            "digits": 1,
        }
    )


def readings(data, n):
    """Glued recordings; those of a reading are of one speaker and one part of all recordings."""
    rng = np.random.default_rng(0)
    part = np.empty(len(data), dtype=int)
    for rows in data.groupby(["speaker", "label"]).indices.values():
        part[rng.permutation(rows)] = np.arange(len(rows)) % N_PARTS
    clips = [wavfile.read(path)[1] for path in data["audio"]]
    pause = np.zeros(PAUSE, dtype=clips[0].dtype)
    groups = list(data.groupby([part, data["speaker"].to_numpy()]).indices.items())
    rows = []
    for k in range(n):
        (own_part, speaker), pool = groups[k % len(groups)]
        chosen = rng.choice(pool, rng.integers(1, MOST_DIGITS + 1))
        audio_clips = [piece for clip in chosen for piece in (pause, clips[clip])][1:]
        rows.append(
            {
                "audio": np.concatenate(audio_clips),
                "text": " ".join(WORDS[data["label"].iloc[chosen]]),
                "speaker": speaker,
                "digits": len(chosen),
                "part": own_part,
            }
        )
    return pd.DataFrame(rows)


def splits(frame, n):
    """Yield kind, training and test rows: speakers of the training rows, and an unseen one."""
    if "part" in frame:  # no recording is in a training and in a test reading
        known = [
            (np.flatnonzero(frame["part"] != k), np.flatnonzero(frame["part"] == k))
            for k in range(n)
        ]
    else:
        strata = frame["speaker"] + frame["text"]
        known = StratifiedShuffleSplit(n, test_size=0.2, random_state=0).split(frame, strata)
    for train, test in known:
        yield "known speakers", train, test
    unseen = LeaveOneGroupOut().split(frame, groups=frame["speaker"])
    for train, test in islice(unseen, n):
        yield "unseen speaker", train, test


def measure(frame, methods, *, n_splits, small):
    rows = []
    for seed, (split, train, test) in enumerate(splits(frame, n_splits)):
        for method in methods:
            started = time.process_time()
            X, X_test = frame.iloc[train], frame.iloc[test]
            if method == NEAREST:
                written = nearest(X, X_test)
            else:
                fitted = captioner(method, seed, small).fit(X[["audio"]], X["text"])
                written = fitted.predict(X_test[["audio"]])
            texts = X_test["text"].to_numpy()
            right = pd.Series(written == texts)
            rows.append(
                {
                    "method": method,
                    "speakers": split,
                    "exact match": exact_match(texts, written),
                    "chrF": chrf(texts, written),
                    **{
                        f"of {count}": share
                        for count, share in right.groupby(X_test["digits"].to_numpy())
                        .mean()
                        .items()
                    },
                    "CPU s": time.process_time() - started,
                }
            )
            print(rows[-1], flush=True)
    return pd.DataFrame(rows)


def summary(found):
    """Return the mean of each measure, and the lowest and the spread of the exact match."""
    found = found.dropna(axis=1, how="all")
    grouped = found.groupby(["method", "speakers"], sort=False)
    means = grouped.mean()
    means.insert(1, "+-", grouped["exact match"].std())
    means.insert(2, "lowest", grouped["exact match"].min())
    means["CPU s"] = means["CPU s"].round().astype(int)
    means.index = [f"{method}; {speakers}" for method, speakers in means.index]
    return means


def report_words(data, small, n_splits):
    found = measure(words(data), [NEAREST, CNN, WHISPER], n_splits=n_splits, small=small)
    known = found[found["speakers"] == "known speakers"].groupby("method")["exact match"].mean()
    bars = ", ".join(
        f"{name} {'reached' if known[name] >= BAR else 'MISSED'}" for name in (CNN, WHISPER)
    )
    text = (
        f"{len(data)} recordings, one of ten words each. Known speakers: a fifth of the recordings"
        f" of each speaker and digit held out, {n_splits} splits and seeds; unseen: all of one"
        f" speaker held out, the first {n_splits} of six by name. The baseline compares means"
        " and deviations of cepstral coefficients. CPU seconds of the first Whisper row include"
        f" the encoding of all recordings.\n\n{table(summary(found.drop(columns='of 1')))}\n\n"
        f"Bar (exact match at least {BAR} with known speakers): {bars}."
    )
    write_section("Spoken digits transcribed", "texts_from_audio.py", text)


def report_readings(data, small, n_splits):
    frame = readings(data, 96 if small else N_READINGS)
    found = measure(frame, [NEAREST, WHISPER], n_splits=n_splits, small=small)
    text = (
        f"{len(frame)} readings of one to {MOST_DIGITS} recordings of one speaker with"
        f" {PAUSE / RATE} s of silence between; {frame['text'].nunique()} different texts. Known"
        f" speakers: the recordings fall into {N_PARTS} parts, the readings of one part are held"
        f" out, so no test reading contains a training recording; {n_splits} of the parts."
        " Unseen: one speaker held out, as above. Exact match is of whole readings, `of 2` that of"
        f" readings of two digits.\n\n{table(summary(found))}"
    )
    write_section("Readings of several digits transcribed", "texts_from_audio.py", text)


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--small", action="store_true", help="a few rows and epochs")
    parser.add_argument("--part", choices=["words", "readings"])
    options = parser.parse_args()
    data = load_real("avdigits")
    if options.small:
        few = data["speaker"].isin(sorted(data["speaker"].unique())[:3])
        data = data[few].groupby(["speaker", "label"]).head(5).reset_index(drop=True)
    n_splits = 1 if options.small else 3
    if options.part != "readings":
        report_words(data, options.small, n_splits)
    if options.part != "words":
        report_readings(data, options.small, n_splits)


if __name__ == "__main__":
    main()
