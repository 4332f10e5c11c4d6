"""Four motions of a smart watch (BasicMotions), official split: each sensor alone, and fused.

Three seeds; random convolutions and initial weights differ between them.
"""

import numpy as np
import pandas as pd
from report import load_real, table, write_section
from sklearn.linear_model import LogisticRegression, RidgeClassifierCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skmm import EarlyFusion, JointFusionClassifier, LateFusionClassifier, TimeSeriesEncoder

SEEDS = (0, 1, 2)
SENSORS = ("accelerometer", "gyroscope")


def triples(model, seed, sensors=SENSORS):
    width = {} if model == "minirocket" else {"n_components": 64}
    return [
        (sensor, TimeSeriesEncoder(model, random_state=seed, **width), [sensor])
        for sensor in sensors
    ]


def linear(modalities, classifier):
    return make_pipeline(EarlyFusion(modalities), StandardScaler(), classifier)


def models(seed):
    ridge = RidgeClassifierCV(np.logspace(-3, 3, 10))
    for sensor in SENSORS:
        alone = triples("minirocket", seed, [sensor])
        yield f"{sensor}, minirocket, ridge", linear(alone, ridge)
        yield f"{sensor}, minirocket, logistic", linear(alone, LogisticRegression(max_iter=1000))
    both = triples("minirocket", seed)
    yield "both, minirocket, early, ridge", linear(both, ridge)
    yield "both, minirocket, late, mean", LateFusionClassifier(both, rule="mean")
    yield "both, minirocket, late, stacking", LateFusionClassifier(both, random_state=seed)
    for model in ("minirocket", "inception", "gru"):
        joint = JointFusionClassifier(triples(model, seed), random_state=seed)
        yield f"both, {model}, joint", joint


def main():
    frame = load_real("basicmotions")
    train = (frame["split"] == "train").to_numpy()
    scores = {}
    for seed in SEEDS:
        for name, model in models(seed):
            model.fit(frame[train], frame["label"][train])
            score = model.score(frame[~train], frame["label"][~train])
            scores.setdefault(name, []).append(score)
            print(f"seed {seed}, {name}: {score:.3f}", flush=True)
    result = pd.DataFrame(
        {
            "accuracy": {name: float(np.mean(values)) for name, values in scores.items()},
            "lowest": {name: float(np.min(values)) for name, values in scores.items()},
        }
    )
    text = (
        f"{train.sum()} training and {(~train).sum()} test recordings of 100 timestamps, three"
        f" channels a sensor; mean and lowest of seeds {', '.join(map(str, SEEDS))}.\n\n"
    )
    write_section("Motions of a smart watch: basicmotions", "motions.py", text + table(result))


if __name__ == "__main__":
    main()
