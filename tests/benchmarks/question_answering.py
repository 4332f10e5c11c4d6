"""Visual question answering on `easy-vqa`: an image and a question in, one of 13 answers out.

Images are frozen. The answer is chosen, the question read by a small network that is trained
with the fusion; or written by a decoder that reads the question first. All of the training
questions, the official test split.
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

from skmm import ImageEncoder, QuestionAnswerer, Trainer

BAR = 0.90
IMAGE = ("image", ImageEncoder(), ["image"])
CLOSED, OPEN = "closed: cross attention", "open: decoder after the question"


def load(part):
    """Return a frame of images (paths) and questions, and the answers."""
    questions, answers, images = getattr(easy_vqa, f"get_{part}_questions")()
    paths = getattr(easy_vqa, f"get_{part}_image_paths")()
    X = pd.DataFrame({"image": [paths[i] for i in images], "question": questions})
    return X, pd.Series(answers, name="answer")


def models(max_epochs):
    options = {
        "max_epochs": max_epochs,
        "modality_dropout": 0,  # an answer needs both modalities
        "trainer": Trainer(early_stopping=False),
        "random_state": 0,
    }
    words = make_pipeline(TfidfVectorizer(), LogisticRegression(max_iter=1000))
    yield "most frequent answer", DummyClassifier(), None
    yield "question alone, TF-IDF + logistic regression", words, "question"
    yield CLOSED, QuestionAnswerer([IMAGE], **options), None
    for strategy in ("concat", "film"):
        answerer = QuestionAnswerer([IMAGE], strategy=strategy, **options)
        yield f"closed: {strategy}", answerer, None
    yield OPEN, QuestionAnswerer([IMAGE], answers="open", **options), None


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
    parser.add_argument("--epochs", type=int, default=12)
    options = parser.parse_args()
    X, y = load("train")
    if options.rows:
        X = X.sample(options.rows, random_state=0)
        y = y[X.index]
    results = measure((X, y), load("test"), options.epochs)
    bars = [
        f"Bar ({name}, at least {BAR:.2f}): "
        + ("reached." if results.loc[name, "accuracy"] >= BAR else "MISSED.")
        for name in (CLOSED, OPEN)
    ]
    text = (
        f"{len(X)} training questions about {X['image'].nunique()} images, all 9,673 questions"
        f" of the official test split; {options.epochs} epochs. `QuestionAnswerer`: EfficientNet-"
        f"Lite0, frozen, one vector an image. Closed: a GRU over the words, trained from scratch"
        f" with the fusion. Open: two layers of a transformer decoder, trained from scratch,"
        f" that reads the question and generates the answer; its text is right if it equals the"
        f" answer. The CPU seconds of the first of them include the encoding of all"
        f" images, the others find them stored.\n\n{table(results)}\n\n" + "\n\n".join(bars)
    )
    write_section("Question answering: easy-vqa", "question_answering.py", text)


if __name__ == "__main__":
    main()
