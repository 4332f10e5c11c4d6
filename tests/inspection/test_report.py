"""Content of a report of given scores."""

import numpy as np
import pandas as pd
import pytest

from skmm.inspection import FusionReport


def report(singles, fused, *, chosen=None, subsets=None, **options):
    """Return a report on three splits with the given scores of each estimator."""
    chosen = chosen or [max(singles, key=lambda name: np.mean(singles[name]))] * 3
    rows = [("single", n, 1, s, v) for n, own in singles.items() for s, v in enumerate(own)]
    rows += [("fused", " + ".join(singles), len(singles), s, v) for s, v in enumerate(fused)]
    for name, own in (subsets or {}).items():
        rows += [("subset", name, name.count("+") + 1, s, v) for s, v in enumerate(own)]
    rows += [("best single", n, 1, s, singles[n][s]) for s, n in enumerate(chosen)]
    columns = ["kind", "modalities", "n_modalities", "split", "score"]
    scores = pd.DataFrame(rows, columns=columns).assign(fit_seconds=0.25, score_seconds=0.5)
    return FusionReport(scores, **{"test_per_train": 0.5, **options})


A = [0.60, 0.61, 0.62]
B = [0.70, 0.72, 0.71]


@pytest.mark.parametrize(
    "fused, opening",
    [
        ([0.90, 0.91, 0.91], "Fusion pays: score 0.907, against 0.710"),
        ([0.80, 0.60, 0.75], "Fusion is not shown to pay: score 0.717, against 0.710"),
        (B, "Fusion is not shown to pay: score 0.710, against 0.710"),
        ([0.50, 0.51, 0.51], "Fusion does harm: score 0.507, against 0.710"),
    ],
)
def test_verdict(fused, opening):
    found = report({"a": A, "b": B}, fused)
    assert found.verdict_.startswith(f"{opening} of the best single modality (b).")
    assert found.pays_ == opening.startswith("Fusion pays")


def test_verdict_names_the_chosen_modality_and_the_interval():
    found = report({"a": A, "b": B}, B, chosen=["b", "a", "b"], confidence_level=0.9)
    assert "(b in 2, a in 1 of 3 splits)" in found.verdict_
    assert "its 90% interval" in found.verdict_


def test_modalities_that_can_be_left_out():
    fused = [0.90, 0.91, 0.92]
    subsets = {"a + b": fused, "a + c d": [0.7, 0.71, 0.72], "b + c d": [0.91, 0.9, 0.92]}
    found = report({"a": A, "b": B, "c d": A}, fused, subsets=subsets)
    assert found.verdict_.endswith(
        "Left out one at a time, none of these is shown to be missed: a, c d."
    )


def test_name_with_a_plus():
    found = report({"a + b": A, "c": [0.5, 0.5, 0.5]}, A)
    assert found.verdict_.endswith("Nothing is shown to be lost without c.")


def test_summary_is_sorted_and_has_medians():
    found = report({"a": A, "b": B}, [0.9, 0.9, 0.9])
    assert found.summary_["kind"].tolist() == ["fused", "best single", "single", "single"]
    assert found.summary_["score"].round(3).tolist() == [0.9, 0.71, 0.61, 0.71]
    assert found.summary_["deviation"].round(3).tolist() == [0, 0.01, 0.01, 0.01]
    assert set(found.summary_["fit_seconds"]) == {0.25}


def test_text_and_html():
    found = report({"<a>": A, "b": B}, [0.9, 0.91, 0.9], score_name="accuracy")
    text = repr(found)
    assert text.startswith(found.verdict_)
    assert "best single chosen inside    0.710" in text.replace("  chosen", " chosen")
    assert "accuracy" in text and "[" in text
    page = found._repr_html_()
    assert page.startswith("<p>Fusion pays")
    assert "&lt;a&gt;" in page and "<a>" not in page
