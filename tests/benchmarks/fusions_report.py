"""Does fusion pay on emoji? `fusion_report` of three fusions, with good and with poor images."""

import warnings

import numpy as np
import pandas as pd
from PIL import Image
from report import load_real, table, write_section
from sklearn.model_selection import StratifiedKFold

from skmm import ImageEncoder, JointFusionClassifier, LateFusionClassifier, TextEncoder
from skmm.exceptions import FusionWarning
from skmm.inspection import fusion_report

SIDE = 16


def pixels(path):
    """Return an image on white, 16 x 16, as a vector."""
    with Image.open(path) as image:
        image = image.convert("RGBA")
    white = Image.new("RGBA", image.size, "white")
    small = Image.alpha_composite(white, image).convert("RGB").resize((SIDE, SIDE))
    return np.asarray(small, dtype=np.float32).ravel() / 255


def fusions(triples):
    yield "late, mean", LateFusionClassifier(triples, rule="mean")
    yield "late, stacking", LateFusionClassifier(triples, rule="stacking")
    yield "joint, concat", JointFusionClassifier(triples, random_state=0)


def pays_on_emoji(folder):
    """Write what the reports say into RESULTS.md, and a table of it into the folder."""
    frame = load_real("emoji")
    frame["pixels"] = [pixels(path) for path in frame["image"]]
    images = {
        "EfficientNet-Lite0": ("image", ImageEncoder(), ["image"]),
        f"{SIDE} x {SIDE} pixels": ("image", "passthrough", ["pixels"]),
    }
    folds = StratifiedKFold(5, shuffle=True, random_state=0)
    rows, verdicts = [], []
    for kind, image in images.items():
        triples = [image, ("name", TextEncoder(), ["name"])]
        for name, model in fusions(triples):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", FusionWarning)  # it is in the table
                report = fusion_report(model, frame, frame["label"], cv=folds)
            rows.append({"image": kind, "fusion": name, **figures(report)})
            verdicts.append(f"- {kind}, {name}: {report.verdict_}")
            print(verdicts[-1], flush=True)
    shown = pd.DataFrame(rows)
    shown.to_csv(folder / "report.csv", index=False)
    text = (
        f"`skmm.inspection.fusion_report` on {len(frame)} rows, 5 folds, accuracy. The name goes"
        " through all-MiniLM-L6-v2, the image through EfficientNet-Lite0 or in as pixels; each"
        " modality alone is the same estimator with the other one dropped.\n\n"
    )
    body = table(shown.set_index("image")) + "\n\n" + "\n".join(verdicts)
    write_section("Does fusion pay on emoji?", "fusions.py --only report", text + body)


def figures(report):
    """Of a report, what the documentation shows."""
    means = report.summary_.set_index(["kind", "modalities"])["score"]
    best = report.differences_.set_index("kind").loc["best single"]
    return {
        "image alone": f"{means['single', 'image']:.3f}",
        "name alone": f"{means['single', 'name']:.3f}",
        "fused": f"{means['fused'].iloc[0]:.3f}",
        "more than the best single": (
            f"{best['difference']:+.3f} [{best['lower']:+.3f}, {best['upper']:+.3f}]"
        ),
        "pays": "yes" if report.pays_ else ("harm" if best["upper"] < 0 else "not shown"),
    }
