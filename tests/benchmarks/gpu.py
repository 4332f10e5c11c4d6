"""Images through a ViT of the size of B/16 in bfloat16, on a GPU, against the bare forward.

Says so and ends where there is no CUDA device. ``--small`` runs all of it in small, on any
device, and writes nothing down: it shows that the script works.
"""

import os
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pandas as pd
import torch
from material import write_jpegs
from report import table, write_section
from timing import interleaved, verdict

from skmm import ImageEncoder
from skmm.readers import read_image

SMALL = "--small" in sys.argv
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
N_IMAGES, N_FILES, BATCH_SIZE, REPEATS = (48, 16, 8, 1) if SMALL else (20_000, 2000, 256, 3)
BAR = 0.85


def random_vit(folder):
    """Write a ViT of the size of B/16 with random weights; with ``--small`` a tiny one."""
    from transformers import ViTConfig, ViTImageProcessor, ViTModel
    from transformers.utils import logging

    logging.disable_progress_bar()
    tiny = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    options = {**tiny, "intermediate_size": 64} if SMALL else {}
    ViTModel(ViTConfig(**options)).save_pretrained(folder)
    ViTImageProcessor(size={"height": 224, "width": 224}).save_pretrained(folder)


def bare_forward(folder):
    """Return the seconds of the forward for an image alone: the batch is on the device."""
    from transformers import ViTModel

    model = ViTModel.from_pretrained(folder, dtype=torch.bfloat16).to(DEVICE).eval()
    batch = torch.randn(BATCH_SIZE, 3, 224, 224, dtype=torch.bfloat16, device=DEVICE)
    n_batches = -(-N_IMAGES // BATCH_SIZE)

    def run():
        with torch.inference_mode():
            for _ in range(n_batches):
                pooled = model(batch).pooler_output
            pooled.float().cpu()  # waits for the device

    run()
    return run, n_batches * BATCH_SIZE


def images(folder):
    """Measure arrays that are ready, and files, through skmm against the bare forward."""
    random_vit(folder)
    base = np.random.default_rng(0).integers(0, 256, (224, 224, 3), dtype=np.uint8)
    arrays = []
    for i in range(N_IMAGES):
        arrays.append(np.roll(base, i % 224, axis=0))
        arrays[-1][0, :4, 0] = np.frombuffer(np.uint32(i).tobytes(), np.uint8)  # all distinct
    paths = write_jpegs(folder, N_FILES)
    frames = {"decoded": pd.DataFrame({"photo": arrays}), "files": pd.DataFrame({"photo": paths})}
    options = {"device": DEVICE, "dtype": "bfloat16", "batch_size": BATCH_SIZE, "store": False}
    encoder = ImageEncoder(folder, **options).fit(frames["decoded"][:BATCH_SIZE])
    encoder.transform(frames["decoded"][:BATCH_SIZE])

    def skmm(kind, stored):
        with tempfile.TemporaryDirectory() as store:
            encoder.set_params(store=store if stored else False).transform(frames[kind])

    def decode_alone():
        with ThreadPoolExecutor(os.cpu_count()) as threads:
            list(threads.map(read_image, paths))

    forward, n_forward = bare_forward(folder)
    seconds = interleaved(
        {
            "bare forward": forward,
            "skmm, decoded": lambda: skmm("decoded", stored=True),
            "skmm, decoded, no store": lambda: skmm("decoded", stored=False),
            "skmm, JPEG files": lambda: skmm("files", stored=True),
            "decoding alone, all cores": decode_alone,
        },
        repeats=REPEATS,
    )
    counts = [n_forward, N_IMAGES, N_IMAGES, N_FILES, N_FILES]
    rate = {k: n / min(s) for n, (k, s) in zip(counts, seconds.items(), strict=True)}
    rows = {}
    for name, value in rate.items():
        ratio = value / rate["bare forward"]
        barred = name == "skmm, decoded"
        rows[name] = {
            "images/s": round(value),
            "of the bare forward": f"{ratio:.2f}",
            "bar": verdict(ratio >= BAR, f"at least {BAR}") if barred else "",
        }
    slower = min("decoding alone, all cores", "bare forward", key=rate.get)
    text = (
        f"ViT-B/16 with random weights in bfloat16, batches of {BATCH_SIZE}: {N_IMAGES} decoded"
        f" arrays of 224 x 224, and {N_FILES} JPEG files of 1024 x 768. The bare forward repeats"
        f" one batch that lies on the device. The slower half of the way from files: {slower};"
        f" skmm runs at {rate['skmm, JPEG files'] / rate[slower]:.2f} of its speed."
    )
    return f"{text}\n\n{table(pd.DataFrame(rows).T)}"


def main():
    if DEVICE == "cpu" and not SMALL:
        print("No CUDA device here: nothing is measured. --small runs it in small on the CPU.")
        return
    with tempfile.TemporaryDirectory() as folder:
        text = images(folder)
    if SMALL:
        print(text)
    else:
        write_section("Images on a GPU", "gpu.py", text)


if __name__ == "__main__":
    main()
