"""Visual question answering on `easy-vqa`: a picture and a question in, one of 13 answers out.

Pictures are frozen, questions are read by a small network that is trained with the fusion. All of
the training questions, the official test split.
"""

import argparse
import time

import easy_vqa
import pandas as pd
from report import table, write_section
from sklearn.dummy import DummyClassifier
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

from skmm import ImageEncoder, JointFusionClassifier, TextEncoder

BAR = 0.90
PICTURE = ("picture", ImageEncoder(), ["picture"])
QUESTION = ("question", TextEncoder("gru", n_components=64), ["question"])
CROSS = "cross attention"


def load(part):
    """Frame of pictures (paths) and questions, and the answers."""
    questions, answers, pictures = getattr(easy_vqa, f"get_{part}_questions")()
    paths = getattr(easy_vqa, f"get_{part}_image_paths")()
    X = pd.DataFrame({"picture": [paths[i] for i in pictures], "question": questions})
    return X, pd.Series(answers, name="answer")


def models(max_epochs):
    options = {
        "max_epochs": max_epochs,
        "batch_size": 64,
        "learning_rate": 1e-3,
        "modality_dropout": 0,  # an answer needs both: without one of them there is none
        "early_stopping": False,
        "random_state": 0,
    }
    words = make_pipeline(TfidfVectorizer(), LogisticRegression(max_iter=1000))
    yield "most frequent answer", DummyClassifier(), None
    yield "question alone, TF-IDF + logistic regression", words, "question"
    both = [PICTURE, QUESTION]
    for name, strategy in ((CROSS, "cross_attention"), ("concat", "concat"), ("film", "film")):
        yield name, JointFusionClassifier(both, strategy=strategy, **options), None


def measure(train, test, max_epochs):
    (X, y), (X_test, y_test) = train, test
    kind = X_test["question"].str.partition(" ")[0].map(lambda word: "what" == word)
    kind = kind.map({True: "what ...?", False: "yes or no"})
    rows = {}
    for name, model, column in models(max_epochs):
        started = time.process_time()
        model.fit(X if column is None else X[column], y)
        right = model.predict(X_test if column is None else X_test[column]) == y_test
        rows[name] = {
            "accuracy": right.mean(),
            **right.groupby(kind).mean(),
            "CPU s": round(time.process_time() - started),
        }
        print(name, rows[name], flush=True)
    found = pd.DataFrame(rows).T
    found["CPU s"] = found["CPU s"].astype(int)
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rows", type=int, help="training questions; all by default")
    parser.add_argument("--epochs", type=int, default=20)
    options = parser.parse_args()
    X, y = load("train")
    if options.rows:
        X = X.sample(options.rows, random_state=0)
        y = y[X.index]
    results = measure((X, y), load("test"), options.epochs)
    reached = "reached" if results.loc[CROSS, "accuracy"] >= BAR else "MISSED"
    text = (
        f"{len(X)} training questions about {X['picture'].nunique()} pictures, all 9,673 questions"
        f" of the official test split. EfficientNet-Lite0, frozen, one vector a picture; a GRU over"
        f" the words, trained from scratch with the fusion for {options.epochs} epochs. The first"
        f" fusion's CPU seconds are with the encoding of all pictures, the others find them stored."
        f"\n\n{table(results)}\n\nBar (cross attention at least {BAR:.2f}): {reached}."
    )
    write_section("Question answering: easy-vqa", "question_answering.py", text)


if __name__ == "__main__":
    main()
