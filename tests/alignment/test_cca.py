"""Canonical correlations equal those of scikit-learn and of textbook eigenproblems."""

import pickle
import re

import numpy as np
import pandas as pd
import pytest
import torch
from fusing import with_trainer
from scipy import linalg
from sklearn.base import clone
from sklearn.cross_decomposition import CCA
from sklearn.metrics.pairwise import rbf_kernel
from sklearn.model_selection import GridSearchCV

from skmm import CCAAlignment
from skmm.alignment import _cca_solver
from skmm.alignment._blocks import batch_of_blocks, unpacked
from skmm.alignment._cca_solver import DeepCCAModule
from skmm.exceptions import ModalityWarning
from skmm.nets._correlation import CorrelationLoss, CorrelationNet

NAMES = ["audio", "scene", "text"]


def make(seed, n=300, widths=(6, 9), n_shared=3, noise=0.5, absent=0.0):
    """Return a frame whose modalities share a latent, and the latent."""
    rng = np.random.default_rng(seed)
    latent = rng.normal(size=(n, n_shared))
    X = pd.DataFrame(
        {
            name: list(latent @ rng.normal(size=(n_shared, w)) + noise * rng.normal(size=(n, w)))
            for name, w in zip(NAMES, widths, strict=False)
        }
    )
    for name in X:
        X.loc[rng.random(n) < absent, name] = None
    return X, latent


def triples(X):
    return [(name, "passthrough", [name]) for name in X]


def align(X, **params):
    params = {"n_components": 3, "method": "cca", "random_state": 0, **params}
    return CCAAlignment(triples(X), **with_trainer(**params)).fit(X)


def scaled(X):
    """Return the features of each modality as an alignment standardizes them."""
    blocks = [np.stack(X[name]) for name in X]
    return [(b - b.mean(axis=0)) / b.std(axis=0) for b in blocks]


def same_up_to_scale(found, expected):
    for a, b in zip(found.T, expected.T, strict=True):
        cosine = a @ b / (np.linalg.norm(a) * np.linalg.norm(b))
        assert abs(cosine) == pytest.approx(1, abs=1e-4)


def variates(alignment, blocks):
    names = [name for name, _, _ in alignment.modalities_]
    return [alignment._project(n, b) for n, b in zip(names, blocks, strict=True)]


@pytest.mark.parametrize("seed", range(3))
def test_two_modalities_equal_scikit_learn(seed):
    X, _ = make(seed)
    blocks = scaled(X)
    alignment = align(X)
    reference = CCA(3, max_iter=10_000, tol=1e-12).fit(*blocks)
    expected = reference.transform(*blocks)
    for found, truth in zip(variates(alignment, blocks), expected, strict=True):
        same_up_to_scale(found, truth)
    correlations = [np.corrcoef(a, b)[0, 1] for a, b in zip(*(e.T for e in expected), strict=True)]
    np.testing.assert_allclose(alignment.correlations_, correlations, atol=1e-5)


def test_unit_variance_without_correlation_power():
    X, _ = make(0)
    for found in variates(align(X, correlation_power=0.0), scaled(X)):
        np.testing.assert_allclose(found.std(axis=0), 1, atol=1e-4)
    weighted = align(X, correlation_power=2.0)
    for found in variates(weighted, scaled(X)):
        np.testing.assert_allclose(found.std(axis=0), weighted.correlations_**2, atol=1e-4)


@pytest.mark.parametrize("share", [0.0, 0.3])
def test_three_modalities_equal_the_eigenproblem(share):
    X, _ = make(1, widths=(4, 6, 5))
    blocks = scaled(X)
    alignment = align(X, method="regularized", regularization=share, correlation_power=0.0)
    together = np.cov(np.hstack(blocks).T, bias=True)
    parts = [(1 - share) * np.cov(b.T, bias=True) + share * np.eye(b.shape[1]) for b in blocks]
    own = linalg.block_diag(*parts)
    # Shrinkage affects the normalization only, not the products of features.
    vectors = linalg.eigh(together, own)[1][:, ::-1][:, :3]
    edges = np.cumsum([0, 4, 6, 5])
    for i, found in enumerate(variates(alignment, blocks)):
        same_up_to_scale(found, blocks[i] @ vectors[edges[i] : edges[i + 1]])


def test_kernel_as_the_dual_problem():
    X, _ = make(2, n=80)
    share = 0.05
    alignment = align(
        X, method="kernel", regularization=share, n_components=2, correlation_power=0.0
    )
    blocks = [b.astype(np.float32).astype(float) for b in scaled(X)]
    n = len(X)
    centering = np.eye(n) - 1 / n
    kernels = [centering @ rbf_kernel(b) @ centering for b in blocks]
    ridges = [(1 - share) * k @ k + share * np.trace(k) * k for k in kernels]
    cross = np.zeros((2 * n, 2 * n))
    cross[:n, n:] = kernels[0] @ kernels[1]
    cross += cross.T + linalg.block_diag(*(k @ k for k in kernels))
    own = linalg.block_diag(*ridges) + 1e-10 * np.eye(2 * n)
    vectors = linalg.eigh(cross, own)[1][:, ::-1][:, :2]
    expected = [kernels[0] @ vectors[:n], kernels[1] @ vectors[n:]]
    for found, truth in zip(variates(alignment, blocks), expected, strict=True):
        same_up_to_scale(found, truth)


def test_missing_cells_equal_the_problem_over_rows():
    """Compare with the formula of van de Velden and Takane, with a matrix of rows by rows."""
    X, _ = make(3, n=200, widths=(4, 6, 5), absent=0.3)
    alignment = align(X, correlation_power=0.0)
    present = X.notna().to_numpy()
    used = present.sum(axis=1) >= 2
    total, projections = np.zeros(len(X)), []
    for j, name in enumerate(X):
        rows = present[:, j] & used
        block = np.zeros((len(X), len(X[name][rows].iloc[0])))
        block[rows] = np.stack(X[name][rows])
        block[rows] -= block[rows].mean(axis=0)
        projections.append(block @ np.linalg.pinv(block.T @ block) @ block.T)
        total += rows
    root = np.diag(np.where(used, 1 / np.sqrt(np.maximum(total, 1)), 0))
    shared = linalg.eigh(root @ sum(projections) @ root)[1][:, ::-1][:, :3]
    expected = [p @ root @ shared for p in projections]
    for j, name in enumerate(X):
        rows = present[:, j] & used
        read = alignment._read(name, X[rows])
        found = alignment._variates(name, read.values)
        same_up_to_scale(found, expected[j][rows])


def explained(alignment, X, latent, n_train):
    """Return the fraction of the latent's variance that the vectors of new rows explain."""
    vectors = np.column_stack([alignment.transform(X), np.ones(len(X))])
    known = np.linalg.lstsq(vectors[:n_train], latent[:n_train], rcond=None)[0]
    error = latent[n_train:] - vectors[n_train:] @ known
    return 1 - (error**2).mean() / latent[n_train:].var()


@pytest.mark.slow
@pytest.mark.parametrize("method", ["cca", "regularized", "kernel", "deep"])
def test_recovers_the_latent_of_incomplete_rows(method):
    X, latent = make(4, n=900, widths=(6, 9, 7), noise=0.3, absent=0.2)
    # Kernel features are nonlinear, so that a linear map to the latent needs more of them.
    n = 8 if method == "kernel" else 3
    params = {"kernel": {"n_landmarks": 150}, "deep": {"max_epochs": 60}}.get(method, {})
    alignment = align(X[:600], method=method, n_components=n, **params)
    assert explained(alignment, X, latent, 600) > 0.6
    whole = X[600:].dropna()
    assert alignment.score(whole, k=10) > 0.4  # chance is 0.06


def make_nonlinear(seed, n=900):
    rng = np.random.default_rng(seed)
    latent = rng.uniform(-1, 1, size=(n, 2))
    bowl = np.column_stack([latent**2, latent[:, :1] * latent[:, 1:]])
    views = {"audio": latent @ rng.normal(size=(2, 4)), "scene": bowl @ rng.normal(size=(3, 5))}
    return pd.DataFrame({n: list(v + 0.03 * rng.normal(size=v.shape)) for n, v in views.items()})


def held_out_correlation(alignment, X):
    vectors = [
        alignment._project(name, alignment._read(name, X).values)
        for name, _, _ in alignment.modalities_
    ]
    return np.corrcoef(vectors[0][:, 0], vectors[1][:, 0])[0, 1]


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0])
@pytest.mark.parametrize("method", ["kernel", "deep"])
def test_nonlinear_relations_need_a_nonlinear_method(method, seed):
    X = make_nonlinear(seed)
    params = {"kernel": {"n_landmarks": 150}, "deep": {"max_epochs": 100, "learning_rate": 5e-3}}
    assert held_out_correlation(align(X[:600], n_components=2), X[600:]) < 0.4
    nonlinear = align(X[:600], n_components=2, method=method, **params[method])
    assert held_out_correlation(nonlinear, X[600:]) > 0.7


def test_result_does_not_depend_on_the_block_size(monkeypatch):
    X, _ = make(5, absent=0.1)
    expected = align(X)
    monkeypatch.setattr(_cca_solver, "_BLOCK", 17)
    found = align(X)
    np.testing.assert_allclose(found.correlations_, expected.correlations_, atol=1e-8)
    np.testing.assert_allclose(found.transform(X), expected.transform(X), atol=1e-5)


def test_default_number_of_components():
    X, _ = make(6, widths=(4, 6, 5))
    assert align(X, n_components=None).n_components_ == 5
    assert align(X[["audio", "scene"]], n_components=None).n_components_ == 4


def test_shrinkage_is_that_of_ledoit_and_wolf_and_decreases_with_rows():
    from sklearn.covariance import ledoit_wolf_shrinkage

    values = np.random.default_rng(0).normal(size=(20_000, 8)) * np.arange(1, 9)
    few = _cca_solver.FeatureSource(lambda rows: values[rows], np.arange(20_000) < 1000)
    assert _cca_solver.shrinkage(few) == ledoit_wolf_shrinkage(values[:1000])
    many = _cca_solver.FeatureSource(lambda rows: values[rows], np.ones(20_000, dtype=bool))
    assert _cca_solver.shrinkage(many) < 0.1 * _cca_solver.shrinkage(few)


def test_gradients_reach_all_networks_and_no_absent_cell():
    net = CorrelationNet([4, 5, 3], 2, hidden_sizes=(6,)).double()
    values = {f"values_{i}": torch.randn(40, w).double() for i, w in enumerate((4, 5, 3))}
    present = torch.rand(40, 3) > 0.3
    for tensor in values.values():
        tensor.requires_grad_()
    loss = CorrelationLoss(2)(net(present, **values), None)
    loss.backward()
    assert 0 < loss < 1
    for parameter in net.parameters():
        assert parameter.grad.isfinite().all()
    for weight in (layer[0].weight for layer in net.networks):
        assert weight.grad.abs().sum() > 0
    used = present.sum(dim=1) >= 2
    for i, tensor in enumerate(values.values()):
        seen = tensor.grad.abs().sum(dim=1) > 0
        assert torch.equal(seen, used & present[:, i])


def test_loss_is_that_of_the_canonical_correlations():
    X, _ = make(7)
    blocks = [torch.from_numpy(b) for b in scaled(X)]
    width = max(b.shape[1] for b in blocks)
    blocks = [torch.nn.functional.pad(b, (0, width - b.shape[1])) for b in blocks]
    outputs = torch.stack(blocks, dim=1), torch.ones(len(X), 2, dtype=torch.bool)
    expected = 1 - (1 + align(X).correlations_.mean()) / 2
    assert float(CorrelationLoss(3, ridge=1e-9)(outputs, None)) == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("method", ["regularized", "kernel", "deep"])
def test_repeats_copies_and_pickles(method):
    X, _ = make(8, n=80, absent=0.1)
    params = {"kernel": {"n_landmarks": 30}, "deep": {"max_epochs": 3}}
    alignment = align(X, method=method, **params.get(method, {}))
    vectors = alignment.transform(X)
    assert vectors.dtype == np.float32
    np.testing.assert_array_equal(clone(alignment).fit(X).transform(X), vectors)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(alignment)).transform(X), vectors)


def test_grid_search_and_pandas_output():
    X, _ = make(9, n=90, absent=0.1)
    search = GridSearchCV(
        CCAAlignment(triples(X), n_components=2), {"regularization": [0.0, 0.5, "auto"]}, cv=3
    ).fit(X)
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()
    frame = search.best_estimator_.set_output(transform="pandas").transform(X)
    assert list(frame) == ["ccaalignment0", "ccaalignment1"]


def test_one_modality_is_enough_in_transform_modality():
    X, _ = make(10)
    alignment = align(X)
    vectors = alignment.transform_modality(X[["scene"]], "scene")
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)


def test_too_many_components_are_refused():
    X, _ = make(11)
    with pytest.raises(ValueError, match="n_components=7 is more than the 6 directions"):
        align(X, n_components=7)
    few = X.copy()
    few.loc[4:, "scene"] = None
    with pytest.raises(ValueError, match="more than the 3 directions.*n_samples=4 rows"):
        align(few, n_components=4)


def test_modalities_without_common_rows_are_refused():
    X, _ = make(12, widths=(4, 6, 5))
    X.loc[:, "text"] = X["text"].where(X.index < 10, None)
    X.loc[:9, ["audio", "scene"]] = None
    with pytest.raises(ValueError, match="links modality 'text' to 'audio'"):
        align(X)


def test_warns_of_correlations_in_noise():
    rng = np.random.default_rng(0)
    X = pd.DataFrame({n: list(rng.normal(size=(20, 15))) for n in ("audio", "scene")})
    with pytest.warns(ModalityWarning, match="20 rows .* finds a correlation of 1 in any noise"):
        alignment = align(X)
    assert alignment.correlations_.min() > 0.999
    assert align(X, method="regularized").correlations_.max() < 0.999


@pytest.mark.parametrize(
    ("method", "unused"),
    [
        ("cca", {"regularization": 0.1}),
        ("regularized", {"gamma": 0.5}),
        ("regularized", {"max_epochs": 7}),
        ("kernel", {"hidden_sizes": (8,)}),
        ("deep", {"n_landmarks": 30}),
    ],
)
def test_options_of_another_method_are_refused(method, unused):
    X, _ = make(13, n=40)
    ((name, value),) = unused.items()
    with pytest.raises(
        ValueError, match=re.escape(f"{name}={value} has no effect with method='{method}'")
    ):
        align(X, method=method, **unused)


def test_deep_loss_is_that_of_its_networks():
    module = DeepCCAModule([4, 5], 2, hidden_sizes=(6,), dropout=0.0)
    blocks = {"audio": np.random.rand(30, 4), "scene": np.random.rand(30, 5)}
    blocks = {name: values.astype(np.float32) for name, values in blocks.items()}
    batch = batch_of_blocks(blocks, dict.fromkeys(blocks, np.ones(30, dtype=bool)))
    losses = module(batch)
    assert losses.shape == (30,)
    present, values = unpacked(batch)
    np.testing.assert_array_equal(values["values_1"], blocks["scene"])
    expected = CorrelationLoss(2)(module.net(present, **values), None)
    torch.testing.assert_close(losses.mean(), expected)


def test_networks_are_trained_in_batches_of_equal_size_and_with_early_stopping():
    X, _ = make(14, n=100)
    alignment = align(X, method="deep", max_epochs=3, batch_size=64)
    assert alignment.net_.batch_size == 50
    assert [set(epoch) for epoch in alignment.history_] == [{"epoch", "train_loss"}] * 3
    stopped = align(X, method="deep", max_epochs=3, early_stopping=True, dtype="bfloat16")
    assert "valid_loss" in stopped.history_[0]
    assert stopped.correlations_.min() > 0.5
    solved = stopped.set_params(method="regularized", trainer=None, max_epochs=None).fit(X)
    assert not hasattr(solved, "module_") and not hasattr(solved, "history_")
