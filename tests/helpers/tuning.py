"""For tests of fine-tuning: checkpoints with several blocks, data for them, marks of adapters."""

import shutil
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

N_BLOCKS = 3

needs_peft = pytest.mark.skipif(find_spec("peft") is None, reason="adapters need the extra 'lora'")
# fine_tune="lora" in a parametrization
LORA = pytest.param("lora", marks=needs_peft)


def deepened(source, folder, *, seed=0, n_blocks=N_BLOCKS, **options):
    """Copy a checkpoint with other random weights, ``n_blocks`` blocks and no dropout."""
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
    """Return texts of letters, and 1 where a text has either ``x`` or ``q``, not both.

    No letter alone predicts the label, so the mean of frozen vectors does not either.
    """
    rng = np.random.default_rng(seed)
    has_x, has_q = rng.random(n) < 0.5, rng.random(n) < 0.5
    texts = []
    for x, q in zip(has_x, has_q, strict=True):
        letters = ["x"] * int(x) + ["q"] * int(q)
        letters += list(rng.choice(list("abcd"), 6 - len(letters)))  # equal lengths
        texts.append(" ".join(rng.permutation(letters)))
    return pd.DataFrame({"text": texts}), (has_x ^ has_q).astype(int)


def noise_images(n, seed=0, size=(40, 48)):
    """Return a column of random images."""
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (n, *size, 3)).astype(np.uint8)
    return pd.DataFrame({"photo": pd.Series(list(images), dtype=object)})


def untrained(encoder, X):
    """Return an encoder prepared for fine-tuning, with the weights it has before."""
    return encoder.end_training(encoder.start_training(X).eval())
