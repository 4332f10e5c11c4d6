"""Autoencoder alignment recovers a known latent, and predicts missing modalities."""

import pickle

import numpy as np
import pandas as pd
import pytest
import torch
from fusing import with_trainer
from sklearn.base import clone
from sklearn.linear_model import LinearRegression
from sklearn.model_selection import GridSearchCV

from skmm import AutoencoderAlignment
from skmm.exceptions import ConvergenceError
from skmm.nets._autoencoder import SharedAutoencoder

NAMES = ["audio", "scene", "text"]


def make(seed, n=600, widths=(6, 9, 7), absent=0.0, noise=0.1):
    """Return a frame, its latent, and the features of each modality without noise."""
    rng = np.random.default_rng(seed)
    latent = rng.normal(size=(n, 3))
    # In units that are not standardized.
    clean = {
        name: 100 * (latent @ rng.normal(size=(3, w))) + 500
        for name, w in zip(NAMES, widths, strict=False)
    }
    X = pd.DataFrame(
        {name: list(c + 100 * noise * rng.normal(size=c.shape)) for name, c in clean.items()}
    )
    for name in X:
        X.loc[rng.random(n) < absent, name] = None
    return X, latent, clean


def align(X, **params):
    params = {"n_components": 3, "hidden_sizes": (64,), "max_epochs": 15, **params}
    params = {"learning_rate": 3e-3, "early_stopping": False, "random_state": 0, **params}
    return AutoencoderAlignment([(n, "passthrough", [n]) for n in X], **with_trainer(**params)).fit(
        X
    )


def explained(found, truth):
    return 1 - ((found - truth) ** 2).mean() / ((truth - truth.mean(axis=0)) ** 2).mean()


@pytest.fixture(scope="module", params=[False, True], ids=["point", "variational"])
def incomplete(request):
    """Frame with missing cells, its latent, its features without noise, and an alignment."""
    X, latent, clean = make(0, absent=0.3)
    return X, latent, clean, align(X[:400], variational=request.param, n_components=6)


@pytest.mark.slow
def test_predicts_a_missing_modality(incomplete):
    X, _, clean, alignment = incomplete
    new = X[400:].drop(columns="text")
    known = new.notna().any(axis=1).to_numpy()
    found = alignment.predict_modality(new, "text")
    assert found.dtype == np.float32
    assert explained(found[known], clean["text"][400:][known]) > 0.8
    # A row without any other modality gets the mean, in the units of the cells.
    average = np.stack(X["text"][:400].dropna()).mean(axis=0)
    np.testing.assert_allclose(found[~known], np.tile(average, ((~known).sum(), 1)), rtol=1e-4)


@pytest.mark.slow
def test_recovers_the_known_linear_map():
    X, _, clean = make(3)
    alignment = align(X[:400], max_epochs=30)
    found = alignment.predict_modality(
        X[400:][["audio"]].reindex(columns=["audio", "scene"]), "text"
    )
    # The best linear prediction from the noisy modality.
    best = LinearRegression().fit(np.stack(X["audio"][:400]), np.stack(X["text"][:400]))
    expected = best.predict(np.stack(X["audio"][400:]))
    assert explained(found, expected) > 0.9
    assert explained(found, clean["text"][400:]) > 0.9


@pytest.mark.slow
def test_recovers_the_latent_of_incomplete_rows(incomplete):
    X, latent, _, alignment = incomplete
    read = alignment._read("audio", X)
    vectors = alignment._project("audio", read.values)
    known = latent[read.present]
    n = int(read.present[:400].sum())
    model = LinearRegression().fit(vectors[:n], known[:n])
    assert model.score(vectors[n:], known[n:]) > 0.8
    whole = X[400:].dropna()
    assert alignment.score(whole, k=10) > 0.5  # chance is 0.15


@pytest.mark.slow
def test_cross_reconstruction_improves_predictions():
    X, _, clean = make(5)
    alone = {"cross_weight": 0.0, "contrastive_weight": 0.0, "variational": False}
    errors = [
        explained(align(X[:400], **params).predict_modality(X[400:], "text"), clean["text"][400:])
        for params in ({}, alone)
    ]
    assert errors[0] > 0.8
    assert errors[1] < errors[0]


@pytest.mark.slow
def test_contrastive_loss_alone_aligns_partners():
    X, *_ = make(6)
    weights = {"reconstruction_weight": 0.0, "cross_weight": 0.0, "contrastive_weight": 1.0}
    assert align(X[:400], **weights).score(X[400:], k=10) > 0.5  # chance is 0.05


def network(variational=False, **weights):
    torch.manual_seed(0)
    net = SharedAutoencoder([4, 5, 3], 2, hidden_sizes=(6,), variational=variational, **weights)
    return net.double()


def batch(n=30):
    values = {f"values_{i}": torch.randn(n, w).double() for i, w in enumerate((4, 5, 3))}
    return torch.rand(n, 3) > 0.3, values


@pytest.mark.parametrize("variational", [False, True])
def test_gradients_reach_all_parameters_and_no_absent_cell(variational):
    net = network(variational)
    present, values = batch()
    for tensor in values.values():
        tensor.requires_grad_()
    net(present, **values).mean().backward()
    for name, parameter in net.named_parameters():
        assert parameter.grad.isfinite().all()
        assert parameter.grad.abs().sum() > 0, name
    for i, tensor in enumerate(values.values()):
        assert torch.equal(tensor.grad.abs().sum(dim=1) > 0, present[:, i])


def test_values_of_absent_cells_do_not_matter():
    net = network()
    present, values = batch()
    changed = {n: torch.where(present[:, [i]], t, 7.0) for i, (n, t) in enumerate(values.items())}
    torch.testing.assert_close(net(present, **changed), net(present, **values))


def test_product_of_experts_by_hand():
    net = network(variational=True)
    experts = [(torch.tensor([[1.0]]), torch.tensor([[3.0]]))] * 2
    both, one, none = (torch.tensor([flags]) for flags in ([True] * 2, [True, False], [False] * 2))
    assert [float(t) for t in net.join(experts, both)] == pytest.approx([6 / 7, 7])
    assert [float(t) for t in net.join(experts, one)] == pytest.approx([3 / 4, 4])
    assert [float(t) for t in net.join(experts, none)] == [0, 1]
    divergence = net._divergence(torch.tensor([[0.5]]), torch.tensor([[4.0]]))
    posterior = torch.distributions.Normal(0.5, 0.5)
    expected = torch.distributions.kl_divergence(posterior, torch.distributions.Normal(0.0, 1.0))
    assert float(divergence) == pytest.approx(float(expected))


def test_loss_by_hand():
    """Two modalities without a hidden layer: the squared errors of all encodings and decodings."""
    net = SharedAutoencoder([2, 2], 2, hidden_sizes=(), contrastive_weight=0.0, cross_weight=3.0)
    for layers in (*net.encoders, *net.decoders):
        torch.nn.init.eye_(layers[0].weight)
        torch.nn.init.zeros_(layers[0].bias)
    one, other = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 0.0]])
    both = torch.tensor([[True, True]])
    # From itself: 0 and 0; from the mean of both: 0.125 each; from the other: 0.5 each.
    loss = net(both, values_0=one, values_1=other)
    assert loss.item() == pytest.approx((0 + 0 + 0.125 + 0.125) / 4 + 3 * 0.5)
    assert net(torch.tensor([[True, False]]), values_0=one, values_1=other).item() == 0


@pytest.mark.parametrize("variational", [False, True])
def test_repeats_copies_and_pickles(variational):
    X, *_ = make(7, n=80, absent=0.1)
    alignment = align(X, variational=variational, max_epochs=3)
    vectors = alignment.transform(X)
    assert vectors.dtype == np.float32
    np.testing.assert_array_equal(clone(alignment).fit(X).transform(X), vectors)
    again = pickle.loads(pickle.dumps(alignment))
    np.testing.assert_array_equal(again.transform(X), vectors)
    filled = alignment.predict_modality(X, "scene")
    np.testing.assert_array_equal(again.predict_modality(X, "scene"), filled)
    assert len(alignment.history_) == alignment.n_iter_ == 3


@pytest.mark.slow
def test_grid_search_and_pandas_output():
    X, *_ = make(8, n=90, absent=0.1)
    search = GridSearchCV(
        clone(align(X, max_epochs=1)), {"variational": [False, True], "n_components": [2, 4]}, cv=2
    ).fit(X)
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()
    frame = search.best_estimator_.set_output(transform="pandas").transform(X)
    assert list(frame)[0] == "autoencoderalignment0"


def test_all_weights_zero():
    X, *_ = make(9, n=50)
    weights = {f"{term}_weight": 0.0 for term in ("reconstruction", "cross", "contrastive")}
    with pytest.raises(ValueError, match="so there is no loss"):
        align(X, **weights)


def test_training_that_diverges():
    X, *_ = make(10, n=100)
    with pytest.raises(ConvergenceError, match="Use a learning_rate below"):
        align(X, learning_rate=1e30)


def test_unknown_modality():
    X, *_ = make(11, n=50)
    with pytest.raises(ValueError, match="no modality 'taste'"):
        align(X, max_epochs=1).predict_modality(X, "taste")


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"kl_weight": 0.5}, "kl_weight=0.5 has no effect with variational=False"),
        (
            {"contrastive_weight": 0.0, "temperature": 0.5},
            "temperature=0.5 has no effect with contrastive_weight=0",
        ),
    ],
)
def test_unused_parameters_are_refused(params, message):
    X, *_ = make(12, n=50)
    with pytest.raises(ValueError, match=message):
        align(X, **params)
