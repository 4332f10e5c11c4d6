"""A checkpoint with two towers for tests: CLIP's kind, random weights, some kilobytes."""

import atexit
import shutil
import string
import tempfile
from functools import cache
from pathlib import Path

import torch

from skmm._environment._optional import import_optional

__all__ = ["toy_clip"]

_SMALL = {
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "projection_dim": 12,
}


@cache
def toy_clip() -> Path:
    """Folder of the checkpoint, written once a process and removed at its end."""
    transformers = import_optional("transformers", needed_by="skmm.testing")
    folder = Path(tempfile.mkdtemp(prefix="skmm-toy-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    letters = [*string.ascii_lowercase, *string.digits]
    tokens = [*letters, *(letter + "</w>" for letter in letters), "<|startoftext|>"]
    vocab = {token: i for i, token in enumerate([*tokens, "<|endoftext|>"])}
    end = len(tokens)
    special = {"bos_token_id": end - 1, "eos_token_id": end, "pad_token_id": end}
    config = transformers.CLIPConfig(
        text_config={
            **_SMALL,
            **special,
            "vocab_size": len(vocab),
            "max_position_embeddings": 24,
        },
        vision_config={**_SMALL, "image_size": 32, "patch_size": 8},
        projection_dim=12,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        transformers.CLIPModel(config).save_pretrained(folder)
    pictures = transformers.CLIPImageProcessor(
        size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}
    )
    texts = transformers.CLIPTokenizer(vocab=vocab, merges=[])
    transformers.CLIPProcessor(pictures, texts).save_pretrained(folder)
    return folder
