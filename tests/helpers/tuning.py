"""Tiny checkpoints with several blocks, and texts whose label takes more than frozen vectors."""

import shutil
from pathlib import Path

import numpy as np
import pandas as pd

N_BLOCKS = 3


def deepened(source, folder, *, seed=0, n_blocks=N_BLOCKS, **options):
    """A copy of a checkpoint with other random weights, ``n_blocks`` blocks and no dropout."""
    import torch
    from transformers import AutoConfig, AutoModel

    folder = Path(shutil.copytree(source, folder))
    config = AutoConfig.from_pretrained(folder)
    for part in (config, getattr(config, "text_config", None), getattr(config, "vision_config", 0)):
        for name in ("num_hidden_layers", "num_layers", "n_layer", "encoder_layers"):
            if hasattr(part, name):
                setattr(part, name, n_blocks)
        for name in ("hidden_dropout_prob", "attention_probs_dropout_prob"):
            if hasattr(part, name):
                setattr(part, name, 0.0)
    for name, value in options.items():
        setattr(config, name, value)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        AutoModel.from_config(config).save_pretrained(folder)
    return folder


def parity_texts(n, seed=0):
    """Texts of letters; 1 where exactly one of ``x`` and ``q`` is there."""
    rng = np.random.default_rng(seed)
    has_x, has_q = rng.random(n) < 0.5, rng.random(n) < 0.5
    texts = []
    for x, q in zip(has_x, has_q, strict=True):
        letters = ["x"] * int(x) + ["q"] * int(q)
        letters += list(rng.choice(list("abcd"), 6 - len(letters)))  # all of one length
        texts.append(" ".join(rng.permutation(letters)))
    return pd.DataFrame({"text": texts}), (has_x ^ has_q).astype(int)


def noise_images(n, seed=0, size=(40, 48)):
    """A column of random images."""
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (n, *size, 3)).astype(np.uint8)
    return pd.DataFrame({"photo": pd.Series(list(images), dtype=object)})


def untrained(encoder, X):
    """Return an encoder whose parameters a search sets."""
    return encoder.end_training(encoder.start_training(X).eval())
