"""What does it cost to train pretrained encoders with the head, and what does it bring?

Frozen, the last blocks, and adapters, each as a candidate of the same search: one split of the
rows in 3 : 1. Subsets, so that all of it ends within some minutes on two cores.
"""

import tempfile
import time

import pandas as pd
from report import load_real, table, write_section
from sklearn.model_selection import GridSearchCV, StratifiedShuffleSplit

from skmm import ImageEncoder, JointFusionClassifier, TabularEncoder, TextEncoder, set_config
from skmm.encoders import EmbeddingStore

N_EMOJI, N_CLOTHING = 800, 600
# Adapters go through the whole model in each epoch, the last blocks through a sixth of it.
EPOCHS = {"frozen": 100, "last": 10, "lora": 5}


def emoji():
    frame = load_real("emoji").sample(N_EMOJI, random_state=0)
    triples = [("image", ImageEncoder(), ["image"]), ("text", TextEncoder(), ["name"])]
    candidates = [
        {"text__fine_tune": "frozen", "image__fine_tune": "frozen"},
        {"text__fine_tune": "last", "image__fine_tune": "frozen"},
        {"text__fine_tune": "last", "image__fine_tune": "last"},
        {"text__fine_tune": "lora", "image__fine_tune": "frozen"},
    ]
    return frame[["image", "name"]], frame["label"], triples, candidates, "accuracy"


def clothing():
    frame = load_real("clothing").sample(N_CLOTHING, random_state=0)
    table_columns = ["age", "positive_feedback_count", "division", "department", "class_name"]
    triples = [
        ("text", TextEncoder(max_length=48), ["review_text"]),
        ("table", TabularEncoder(), table_columns),
    ]
    candidates = [{"text__fine_tune": how} for how in EPOCHS]
    return frame[["review_text", *table_columns]], frame["label"], triples, candidates, "roc_auc"


def measure(load):
    X, y, triples, candidates, metric = load()
    split = StratifiedShuffleSplit(1, test_size=0.25, random_state=0)
    rows = {}
    for candidate in candidates:
        with tempfile.TemporaryDirectory() as folder:
            store = EmbeddingStore(folder)
            set_config(store=store.folder)
            epochs = min(EPOCHS[how] for how in candidate.values())
            model = JointFusionClassifier(triples, max_epochs=epochs, random_state=0)
            grid = {name: [how] for name, how in candidate.items()}
            started = time.process_time()
            search = GridSearchCV(model, grid, cv=split, scoring=metric, refit=False)
            search.fit(X, y)
            name = ", ".join(f"{key.partition('__')[0]} {how}" for key, how in candidate.items())
            trained = sum(how != "frozen" for how in candidate.values())
            rows[name] = {
                metric: float(search.best_score_),
                "CPU s": round(time.process_time() - started),
                "cells encoded": store.stats()["encoded"],
                "encoders trained": trained,
                "most epochs": epochs,
            }
            store.close()
            print(load.__name__, name, rows[name], flush=True)
    return pd.DataFrame(rows).T


def main():
    parts = []
    for load in (emoji, clothing):
        figures = measure(load)
        for column in figures.columns[1:]:
            figures[column] = figures[column].astype(int)
        parts.append(f"{load.__name__}\n\n{table(figures)}")
    parts.append(
        "Cells encoded: vectors, or hidden states below the trained blocks, that went into an"
        " empty store. What is trained goes through its part of the model in every epoch."
    )
    write_section("Fine-tuning", "fine_tuning.py", "\n\n".join(parts))


if __name__ == "__main__":
    main()
