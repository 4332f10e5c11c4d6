"""Small frames of cells on which the contracts are checked, and toy models."""

import atexit
import shutil
import string
import tempfile
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any, Self

import numpy as np
import pandas as pd
import torch
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_is_fitted

from skmm._environment._optional import import_optional

__all__ = [
    "MISSING",
    "ToySpace",
    "fusion_frame",
    "tidy",
    "to_polars",
    "toy_captioner",
    "toy_cells",
    "toy_clip",
    "toy_diffusion",
    "toy_rows",
    "without",
    "write_diffusion",
]

# The absent values of pandas, numpy and Python.
MISSING = (None, float("nan"), np.float32("nan"), pd.NA, pd.NaT)

_TEXTS = (
    "a warm red coat",
    "two small blue hats",
    "shoes that fell apart",
    "the coat is too small and not warm",
    "blue",
    "a hat, a scarf and a pair of shoes",
    "not what I ordered",
    "warm shoes, small price",
)


def toy_cells(modality: str) -> pd.DataFrame:
    """Return eight rows of different cells.

    Parameters
    ----------
    modality : {"text", "image", "audio", "video", "timeseries", "pointcloud", "tabular", "number"}
        What the cells hold; ``"number"`` is a column of numbers for a module.

    Returns
    -------
    X : DataFrame of shape (8, n_columns)
        Without missing cells.
    """
    rng = np.random.default_rng(0)
    n = len(_TEXTS)
    if modality == "text":
        columns: dict[str, Any] = {"review": list(_TEXTS)}
    elif modality == "image":
        # Images of different sizes and brightness.
        sizes = [(12 + i, 18 - i, 3) for i in range(n)]
        images = [
            rng.integers(0, 64, size).astype(np.uint8) + np.uint8(20 * i)
            for i, size in enumerate(sizes)
        ]
        columns = {"photo": pd.Series(images, dtype=object)}
    elif modality == "video":
        # Videos of different lengths and sizes, from one frame on; gray and colored.
        clips = [rng.integers(0, 256, (1 + i, 12 + i, 18 - i, 1 + 2 * (i % 2))) for i in range(n)]
        columns = {"clip": pd.Series([clip.astype(np.uint8) for clip in clips], dtype=object)}
    elif modality == "audio":
        # Clips of 0.1 seconds and more, of different pitch and loudness.
        seconds = [np.arange(1600 + 300 * i) / 16_000 for i in range(n)]
        audio_clips = [
            ((0.1 + 0.1 * i) * np.sin(2 * np.pi * 150 * (i + 1) * t)).astype(np.float32)
            for i, t in enumerate(seconds)
        ]
        columns = {"clip": pd.Series(audio_clips, dtype=object)}
    elif modality == "tabular":
        columns = {
            "price": rng.normal(10.0, 3.0, n).round(2),
            "size": ["S", "M", "L", "S", "M", "L", "XL", "S"],
            "pieces": np.arange(n) % 3,
        }
    elif modality == "timeseries":
        # Series of different lengths, from one timestamp on; two have a missing value.
        series = [rng.normal(i, 1.0 + i, (1 + 3 * i, 2)).astype(np.float32) for i in range(n)]
        series[3][2, 0] = series[5][:4, 1] = np.nan
        columns = {"motion": pd.Series(series, dtype=object)}
    elif modality == "pointcloud":
        # Clouds of different sizes, from one point on; with a feature, and one missing value.
        clouds = [rng.normal(size=(1 + 5 * i, 4)) * [1, 2, 1 + i, 1] for i in range(n)]
        clouds[3][2] = np.nan
        columns = {"scan": pd.Series(clouds, dtype=object)}
    elif modality == "number":
        columns = {"value": rng.normal(size=n)}
    else:
        raise ValueError(
            f"There are no toy cells of modality {modality!r}. Give X, a DataFrame of at least"
            " four rows of different cells, none missing."
        )
    return pd.DataFrame(columns)


def tidy(X: pd.DataFrame) -> pd.DataFrame:
    """Validate the cells of a caller and label the rows ``"row0"``, ``"row1"``, ..."""
    if not isinstance(X, pd.DataFrame) or len(X) < 4 or X.isna().any(axis=None):
        raise ValueError(
            "X must be a pandas DataFrame of at least four rows without missing cells, got"
            f" {type(X).__name__} of shape {getattr(X, 'shape', None)}."
        )
    X = X.rename(columns=str)
    return X.set_axis([f"row{i}" for i in range(len(X))], axis=0)


def without(
    X: pd.DataFrame, rows: Iterable[int], columns: Iterable[str] | None = None, by: object = None
) -> pd.DataFrame:
    """Copy a frame and set some cells to missing.

    Parameters
    ----------
    X : DataFrame
        Cells.
    rows : list of int
        Positions of the rows.
    columns : list of str, default=None
        Names of the columns; None for all.
    by : object, default=None
        Value that replaces the cells.

    Returns
    -------
    X : DataFrame
        The changed columns are of dtype object.
    """
    X = X.copy()
    for name in X.columns if columns is None else columns:
        cells = np.empty(len(X), dtype=object)
        cells[:] = list(X[name])
        for row in rows:
            cells[row] = by
        X[name] = pd.Series(cells, index=X.index, dtype=object)
    return X


def to_polars(X: pd.DataFrame) -> Any:
    """Return the same cells in a polars frame, with null for absent ones."""
    polars = import_optional("polars", needed_by="skmm.testing")
    columns = {}
    for name in X.columns:
        cells = [
            None if missing else cell for cell, missing in zip(X[name], X[name].isna(), strict=True)
        ]
        plain = all(isinstance(cell, str | bytes | bool | int | float | None) for cell in cells)
        columns[str(name)] = polars.Series(cells, dtype=None if plain else polars.Object)
    return polars.DataFrame(columns)


def fusion_frame(n: int = 48) -> tuple[pd.DataFrame, np.ndarray, np.ndarray]:
    """Return a frame of three modalities, a class and a number to predict.

    Parameters
    ----------
    n : int, default=48
        Number of rows.

    Returns
    -------
    X : DataFrame of shape (n, 4)
        ``text``; two numbers, ``a`` and ``b``; ``vector``, whose cells are arrays of length 3.
    classes : ndarray of shape (n,)
        ``"no"`` or ``"yes"``.
    values : ndarray of shape (n,)
        Numbers.
    """
    rng = np.random.default_rng(0)
    latent = rng.normal(size=(n, 3))
    words = np.where(latent[:, [0]] + 0.3 * rng.normal(size=(n, 5)) > 0, "good", "bad")
    fillers = rng.choice(["coat", "hat", "shoe", "scarf"], size=(n, 2))
    vectors = latent[:, [2]] + 0.5 * rng.normal(size=(n, 3))
    X = pd.DataFrame(
        {
            "text": [" ".join(row) for row in np.hstack([words, fillers])],
            "a": latent[:, 1] + 0.3 * rng.normal(size=n),
            "b": rng.normal(size=n),
            "vector": pd.Series(list(vectors), dtype=object),
        }
    )
    values = latent.sum(axis=1)
    return tidy(X), np.where(values > 0, "yes", "no"), values


# --- An alignment that learns nothing, for estimators that use one ---

_LETTERS = "abcd"


class ToySpace(BaseEstimator):
    """Alignment that maps a text to the sum of vectors of its letters, and a vector to itself."""

    def fit(self, X: object, y: object = None) -> Self:
        """Learn nothing."""
        self.modalities_ = [(name, "passthrough", [name]) for name in ("text", "vector")]
        return self

    def transform_modality(self, X: Any, modality: str) -> np.ndarray:
        """Return vectors of one modality, NaN where it is absent."""
        check_is_fitted(self)
        vectors = np.full((len(X), len(_LETTERS)), np.nan, dtype=np.float32)
        for vector, cell in zip(vectors, X[modality], strict=True):
            if cell is not None:
                vector[:] = _letters_of(cell) if modality == "text" else cell
        return vectors


def _letters_of(cell: object) -> list[int]:
    if not isinstance(cell, str):
        raise TypeError(f"ToySpace: a text must be a str, got {type(cell).__name__}.")
    return [cell.count(letter) for letter in _LETTERS]


def toy_rows() -> tuple[pd.DataFrame, np.ndarray]:
    """Return rows for the toy space, one without text and one without vector, and classes."""
    texts = ["a", "b", "aab", "bba", None, "c", "acd", "bd"]
    vectors = [[n + 0.1 for n in _letters_of(t)] for t in ("a", "b", "aab", "bba", "b", "c")]
    cells = pd.Series([*vectors, None, [0.0, 1.0, 0.0, 1.0]], dtype=object)
    X = pd.DataFrame({"text": pd.Series(texts, dtype=object), "vector": cells})
    return X, np.array(["a", "b"] * 4)


# --- A small checkpoint with two towers (CLIP) and random weights ---

_SMALL = {
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "projection_dim": 12,
}


@cache
def toy_clip() -> Path:
    """Return the folder of the checkpoint, which is written once per process."""
    transformers = import_optional("transformers", needed_by="skmm.testing")
    folder = _toy_folder()
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
    images = transformers.CLIPImageProcessor(
        size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}
    )
    texts = transformers.CLIPTokenizer(vocab=vocab, merges=[])
    transformers.CLIPProcessor(images, texts).save_pretrained(folder)
    return folder


def _toy_folder() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="skmm-toy-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


# --- Small checkpoints that generate texts and images, with random weights ---


@cache
def toy_captioner() -> Path:
    """Return the folder of a vision-encoder-decoder, which is written once per process."""
    transformers = import_optional("transformers", needed_by="skmm.testing")
    folder = _toy_folder()
    vocab = {letter: i for i, letter in enumerate([*string.ascii_lowercase, "\u0120", "<end>"])}
    end = vocab["<end>"]
    ends = {"bos_token_id": end, "eos_token_id": end, "pad_token_id": end}
    width = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    encoder = transformers.ViTConfig(image_size=32, patch_size=16, intermediate_size=32, **width)
    decoder = transformers.GPT2Config(
        vocab_size=len(vocab),
        n_positions=32,
        n_embd=16,
        n_layer=1,
        n_head=2,
        add_cross_attention=True,
        **ends,
    )
    config = transformers.VisionEncoderDecoderConfig.from_encoder_decoder_configs(
        encoder, decoder, decoder_start_token_id=end, **ends
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        transformers.VisionEncoderDecoderModel(config).save_pretrained(folder)
    tokenizer = transformers.GPT2Tokenizer(
        vocab=vocab, merges=[], unk_token="<end>", eos_token="<end>"
    )
    tokenizer.save_pretrained(folder)
    size = {"height": 32, "width": 32}
    transformers.ViTImageProcessor(size=size).save_pretrained(folder)
    return folder


@cache
def toy_diffusion() -> Path:
    """Return the folder of a diffusion pipeline, which is written once per process."""
    folder = _toy_folder()
    write_diffusion(folder)
    return folder


def write_diffusion(folder: Path, *, seed: int = 0) -> None:
    """Write a Stable Diffusion of 16 x 16 pixels whose output depends on the text.

    Parameters
    ----------
    folder : Path
        Where to.
    seed : int, default=0
        Of the weights.
    """
    transformers = import_optional("transformers", needed_by="skmm.testing")
    diffusers = import_optional("diffusers", needed_by="skmm.testing")
    letters = [*string.ascii_lowercase, *(letter + "</w>" for letter in string.ascii_lowercase)]
    tokens = [*letters, "<|startoftext|>", "<|endoftext|>"]
    tokenizer = transformers.CLIPTokenizer(
        vocab={token: i for i, token in enumerate(tokens)}, merges=[], model_max_length=24
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        text = transformers.CLIPTextConfig(
            vocab_size=len(tokens),
            hidden_size=16,
            intermediate_size=32,
            num_hidden_layers=1,
            num_attention_heads=2,
            max_position_embeddings=24,
            bos_token_id=len(tokens) - 2,
            eos_token_id=len(tokens) - 1,
        )
        unet = diffusers.UNet2DConditionModel(
            sample_size=8,
            in_channels=4,
            out_channels=4,
            block_out_channels=(8, 16),
            layers_per_block=1,
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
            cross_attention_dim=16,
            norm_num_groups=4,
            attention_head_dim=4,
        )
        vae = diffusers.AutoencoderKL(
            block_out_channels=(4, 8),
            norm_num_groups=4,
            latent_channels=4,
            down_block_types=("DownEncoderBlock2D",) * 2,
            up_block_types=("UpDecoderBlock2D",) * 2,
            sample_size=16,
        )
        encoder = transformers.CLIPTextModel(text)
    with torch.no_grad():
        for name, weight in unet.named_parameters():
            if "attn2" in name:  # where the text comes in
                weight.mul_(8)
    diffusers.StableDiffusionPipeline(
        vae=vae,
        text_encoder=encoder,
        tokenizer=tokenizer,
        unet=unet,
        scheduler=diffusers.DDIMScheduler(clip_sample=False, steps_offset=1),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    ).save_pretrained(folder)
