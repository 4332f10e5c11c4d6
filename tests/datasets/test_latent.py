import numpy as np
import pytest

from skmm.datasets import make_multimodal_classification, make_multimodal_regression

MAKERS = [make_multimodal_classification, make_multimodal_regression]


@pytest.fixture(params=MAKERS, ids=["classification", "regression"])
def make(request):
    return request.param


def test_scores_are_the_weighted_sum_of_the_factors(make):
    truth = make(
        300,
        modalities=("text", "vector"),
        redundant=0.1,
        private={"text": 0.2, "vector": 0.3},
        synergy=0.4,
        return_latent=True,
        random_state=0,
    )
    z = truth.latent
    product = z["synergy_text_vector_0_in_text"] * z["synergy_text_vector_0_in_vector"]
    expected = (
        np.sqrt(0.1) * z["redundant_0"]
        + np.sqrt(0.2) * z["private_text_0"]
        + np.sqrt(0.3) * z["private_vector_0"]
        + np.sqrt(0.4) * product
    )
    np.testing.assert_allclose(truth.scores[:, 0], expected)
    if make is make_multimodal_classification:
        np.testing.assert_array_equal(truth.target, expected > 0)
    else:
        np.testing.assert_allclose(truth.target, expected)


def test_shares_given_as_floats_are_split(make):
    truth = make(
        10,
        redundant=0.1,
        shared=0.3,
        private=0.6,
        return_latent=True,
        modalities=("text", "image", "tabular"),
    )
    # Each modality has a third of the private share and is in two of the three pairs.
    for share in truth.information.values():
        assert share == pytest.approx(0.1 + 0.2 + 0.2)
    # A rounding error of the sum of shares is no factor.
    truth = make(10, redundant=0.7, shared=0.2, synergy=0.1, return_latent=True)
    assert not any(column.startswith("private") for column in truth.latent)
