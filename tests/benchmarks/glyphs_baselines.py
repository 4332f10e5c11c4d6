"""The accuracy of a linear model on the glyphs with each modality, each pair and all three.

Run it to see the table of accuracies (3-fold, about two minutes)::

    python tests/benchmarks/glyphs_baselines.py

The test of the data set calls `accuracies` on fewer rows.
"""

from itertools import combinations

import numpy as np
from sklearn.compose import make_column_transformer
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, StandardScaler

from skmm.datasets import load_glyphs

MODALITIES = ("text", "image", "tabular")


def pixels(cells):
    """Return the ink of the images, (n_samples, n_pixels), scaled to rows of norm about one."""
    images = np.stack(list(np.asarray(cells, dtype=object).ravel()))
    return (1 - images.reshape(len(images), -1) / 255.0) * 4 / images.shape[1]


def blocks(data, modalities):
    """Return a transformer of the frame: plain, concatenated features of the modalities."""
    table = data.drop(columns=["name", "image"])
    numbers = make_pipeline(
        SimpleImputer(strategy="constant", fill_value=-1, add_indicator=True), StandardScaler()
    )
    parts = {
        "text": [(TfidfVectorizer(token_pattern=r"\S+"), "name")],
        "image": [(FunctionTransformer(pixels), ["image"])],
        "tabular": [
            (OneHotEncoder(handle_unknown="ignore"), list(table.select_dtypes("category"))),
            (numbers, list(table.select_dtypes("number"))),
        ],
    }
    return make_column_transformer(*[part for name in modalities for part in parts[name]])


def accuracies(task, *, subsets, n_samples=None, image_size=32, cv=3):
    """Return the mean accuracy of logistic regression for each subset of the modalities.

    Parameters
    ----------
    task : str
        Task of `load_glyphs`.
    subsets : iterable of tuple of str
        Which modalities are seen together.
    n_samples : int, default=None
        Rows to take; None takes all.
    image_size : int, default=32
        Side of the images in pixels.
    cv : int, default=3
        Number of folds.

    Returns
    -------
    accuracies : dict of tuple to float
        Mean accuracy over the folds.
    """
    data, target = load_glyphs(
        task=task, image_size=image_size, n_samples=n_samples, return_X_y=True
    )
    folds = StratifiedKFold(cv, shuffle=True, random_state=0)
    result = {}
    for subset in subsets:
        model = make_pipeline(blocks(data, subset), LogisticRegression(C=30, max_iter=2000))
        result[subset] = float(cross_val_score(model, data, target, cv=folds).mean())
    return result


def main():
    """Print the table."""
    subsets = [subset for size in (1, 2, 3) for subset in combinations(MODALITIES, size)]
    for task in ("script", "category"):
        for subset, accuracy in accuracies(task, subsets=subsets).items():
            print(f"{task:10s} {' + '.join(subset):24s} {accuracy:.3f}", flush=True)


if __name__ == "__main__":
    main()
