"""Encoding texts of mixed length against a bare loop and sentence-transformers, on the CPU."""

import tempfile

import numpy as np
import pandas as pd
import torch
from material import minilm_folder, mixed_texts
from report import table, versions, write_section
from sentence_transformers import SentenceTransformer
from timing import interleaved, speeds
from transformers import AutoModel, AutoTokenizer
from transformers.utils import logging

from skmm import TextEncoder

N_TEXTS, REPEATS, BATCH_SIZE = 2000, 3, 64
BARS = {
    "bare loop": 0.97,
    "sentence-transformers, batch 32": 1.0,
    "sentence-transformers, batch 64": 1.0,
}


class BareLoop:
    """What one would write by hand: sorted by length, mean of the tokens, length one."""

    def __init__(self, folder):
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        self.model = AutoModel.from_pretrained(folder).eval()

    @torch.inference_mode()
    def encode(self, texts):
        tokenized = self.tokenizer(texts, truncation=True, max_length=256)["input_ids"]
        order = np.argsort([-len(ids) for ids in tokenized], kind="stable")
        vectors = np.empty((len(texts), self.model.config.hidden_size), dtype=np.float32)
        for start in range(0, len(order), BATCH_SIZE):
            rows = order[start : start + BATCH_SIZE]
            batch = self.tokenizer.pad(
                {"input_ids": [tokenized[row] for row in rows]}, return_tensors="pt"
            )
            tokens = self.model(**batch).last_hidden_state
            mask = batch["attention_mask"].unsqueeze(-1)
            mean = (tokens * mask).sum(dim=1) / mask.sum(dim=1)
            vectors[rows] = torch.nn.functional.normalize(mean, dim=1).numpy()
        return vectors


def main():
    logging.disable_progress_bar()
    texts, _ = mixed_texts(N_TEXTS)
    frame = pd.DataFrame({"text": texts})
    bare = BareLoop(minilm_folder())
    rival = SentenceTransformer(str(minilm_folder()), device="cpu")
    encoder = TextEncoder(device="cpu", dtype="float32", store=False).fit(frame)
    results = {}

    def skmm():
        with tempfile.TemporaryDirectory() as store:  # a new one: nothing is in it
            results["skmm"] = encoder.set_params(store=store).transform(frame)

    def by_hand():
        results["bare loop"] = bare.encode(texts)

    def sentence_transformers(batch_size):
        name = f"sentence-transformers, batch {batch_size}"
        results[name] = rival.encode(texts, batch_size=batch_size, show_progress_bar=False)

    # Loaded and warm before the clock runs.
    for warm_up in (encoder.transform, lambda X: bare.encode(X["text"].tolist())):
        warm_up(frame[:64])
    rival.encode(texts[:64])
    seconds = interleaved(
        {
            "skmm": skmm,
            "bare loop": by_hand,
            "sentence-transformers, batch 32": lambda: sentence_transformers(32),
            "sentence-transformers, batch 64": lambda: sentence_transformers(64),
        },
        repeats=REPEATS,
    )
    farthest = max(float(np.abs(results["skmm"] - values).max()) for values in results.values())
    if farthest > 1e-4:
        raise SystemExit(f"The vectors differ by up to {farthest:.2e}: nothing to compare.")
    lengths = [len(ids) for ids in bare.tokenizer(texts)["input_ids"]]
    text = (
        f"{N_TEXTS} distinct texts, {np.mean(lengths):.0f} tokens on average, from {min(lengths)}"
        f" to {max(lengths)}; all-MiniLM-L6-v2 in float32, {torch.get_num_threads()} torch"
        f" threads on all sides, {versions(['sentence-transformers'])}. skmm starts with an empty"
        " store each time and fills it. The vectors of all sides differ by at most"
        f" {farthest:.0e}. {REPEATS} interleaved runs.\n\n"
    )
    write_section("Encoding texts", "texts.py", text + table(speeds(seconds, "skmm", BARS), 2))


if __name__ == "__main__":
    main()
