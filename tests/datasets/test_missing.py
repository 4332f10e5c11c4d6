import numpy as np
import pytest

from skmm.datasets import make_multimodal_classification, make_multimodal_regression

MAKERS = [make_multimodal_classification, make_multimodal_regression]
KINDS = ("text", "image", "tabular", "vector", "timeseries")


@pytest.fixture(params=MAKERS, ids=["classification", "regression"])
def make(request):
    return request.param


def absent_cells(dataset):
    """Return whether all cells of a modality are missing, (n_samples, n_modalities)."""
    return np.column_stack(
        [dataset.data[columns].isna().all(axis=1) for columns in dataset.columns.values()]
    )


@pytest.mark.parametrize("pattern", ["random", "never_all", "train_complete", "dependent"])
def test_rates_are_exact(make, pattern):
    rates = {"text": 0.5, "image": 0.25, "tabular": 0.4, "vector": 0.0}
    truth = make(
        400,
        modalities=KINDS,
        missing_rate=rates,
        missing_pattern=pattern,
        image_size=4,
        return_latent=True,
        random_state=1,
    )
    absent = absent_cells(truth)
    np.testing.assert_array_equal(absent, truth.absent)
    # A tabular modality is missing as a whole, and no other cell is.
    for position, columns in enumerate(truth.columns.values()):
        assert (truth.data[columns].isna().to_numpy() == absent[:, [position]]).all()
    rows = slice(200, None) if pattern == "train_complete" else slice(None)
    assert absent[rows].mean(axis=0).tolist() == [0.5, 0.25, 0.4, 0.0, 0.0]
    assert pattern != "train_complete" or not absent[:200].any()


def test_random_pattern_is_independent():
    absent = make_multimodal_regression(
        4000, modalities=["vector", "text"], missing_rate=0.5, return_latent=True, random_state=0
    ).absent
    assert absent.all(axis=1).mean() == pytest.approx(0.25, abs=0.03)


@pytest.mark.parametrize("rate", [0.3, 0.6, 2 / 3])
def test_never_all_keeps_a_cell_in_every_row(rate):
    truth = make_multimodal_classification(
        300,
        missing_rate=rate,
        missing_pattern="never_all",
        image_size=4,
        return_latent=True,
        random_state=0,
    )
    absent = truth.absent.to_numpy()
    assert not absent.all(axis=1).any()
    assert absent.mean(axis=0) == pytest.approx(rate, abs=1 / 300)


def test_never_all_where_rounded_rates_are_impossible():
    for seed in range(20):
        absent = make_multimodal_regression(
            3,
            modalities=["text", "vector"],
            missing_rate=0.5,
            missing_pattern="never_all",
            return_latent=True,
            random_state=seed,
        ).absent
        assert not absent.all(axis=1).any()


def test_dependent_pattern_depends_on_the_target():
    absent = {}
    for make in MAKERS:
        truth = make(
            3000,
            modalities=["vector", "text"],
            missing_rate={"vector": 0.3},
            missing_pattern="dependent",
            return_latent=True,
            random_state=0,
        )
        high = truth.target > 0  # class 1, or a target above its mean
        absent[make] = [truth.absent["vector"][high == side].mean() for side in (False, True)]
    low, high = absent[make_multimodal_classification]
    assert high / (1 - high) > 8 * low / (1 - low)  # odds, of rows sampled without replacement
    low, high = absent[make_multimodal_regression]
    assert high > 2 * low
    truth = make_multimodal_classification(
        3000, modalities=["vector", "text"], missing_rate=0.3, return_latent=True, random_state=0
    )
    rates = truth.absent["vector"].groupby(truth.target).mean()
    assert abs(rates[0] - rates[1]) < 0.05  # the pattern "random" does not depend on it


def test_modality_that_is_always_missing(make):
    X, _ = make(20, missing_rate={"text": 1.0, "tabular": 1.0}, random_state=0)
    assert X["text"].isna().all() and X.filter(like="tabular").isna().to_numpy().all()
    assert X["image"].notna().all()
