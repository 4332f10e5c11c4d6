"""Adversarial alignment recovers a known rotation with and without pairs, or warns."""

import pickle
import warnings

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.spatial.transform import Rotation
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import GridSearchCV

from skmm import AdversarialAlignment
from skmm._environment._device import one_thread, seeded
from skmm.alignment._adversarial_training import AdversarialTraining, Whitening, procrustes
from skmm.exceptions import ConvergenceError
from skmm.nets._adversary import Discriminator, OrthogonalMap

# Six clusters of different sizes and weights, whose centers are not symmetric.
CENTERS = np.array(
    [[2.0, 0, 0], [0, 1.5, 0.5], [-1, -1, 2], [0.5, -2, -1], [-1.5, 1, -1], [1, 1, 2]]
)
SHARES = [0.3, 0.25, 0.2, 0.1, 0.1, 0.05]
WIDTHS = [0.1, 0.2, 0.3, 0.2, 0.4, 0.1]


def sample_latent(rng, n, shape="clusters"):
    if shape == "ball":
        return rng.normal(size=(n, 3))
    cluster = rng.choice(6, size=n, p=SHARES)
    return CENTERS[cluster] + np.take(WIDTHS, cluster)[:, None] * rng.normal(size=(n, 3))


def make(seed, n_alone=500, n_both=0, shape="clusters"):
    """Return training rows, most of which have one modality, and 200 new rows with both."""
    rng = np.random.default_rng(seed)
    maps = {"audio": rng.normal(size=(3, 7)), "scene": rng.normal(size=(3, 5))}

    def sample(n):
        latent = sample_latent(rng, n, shape)
        return {
            k: list(latent @ m + 0.05 * rng.normal(size=(n, m.shape[1]))) for k, m in maps.items()
        }

    both, recordings, scenes, new = (sample(n) for n in (n_both, n_alone, n_alone, 200))
    train = pd.DataFrame(
        {
            "audio": [*both["audio"], *recordings["audio"], *[None] * n_alone],
            "scene": [*both["scene"], *[None] * n_alone, *scenes["scene"]],
        }
    )
    return train, pd.DataFrame(new)


def align(X, **params):
    params = {"n_components": 3, "max_iter": 75, "random_state": 0, **params}
    if not params.get("paired", True):
        params = {"n_init": 4, **params}
    triples = [(name, "passthrough", [name]) for name in ("scene", "audio")]
    return AdversarialAlignment(triples, **params).fit(X)


def partner_similarity(alignment, X):
    """Return the mean cosine similarity of partners."""
    one, other = (alignment.transform_modality(X, name) for name in ("audio", "scene"))
    return (one * other).sum(axis=1).mean()


def components(alignment, X, name):
    """Return the whitened features of a modality."""
    return alignment._whitenings[name].transform(alignment._read(name, X).values)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_recovers_the_rotation_without_pairs(seed):
    X, new = make(seed)
    alignment = align(X, paired=False, random_state=seed)
    assert partner_similarity(alignment, new) > 0.9
    truth = procrustes(*(components(alignment, new, name) for name in ("audio", "scene")))
    assert np.trace(alignment.rotations_["audio"].T @ truth) / 3 > 0.95
    found = alignment.predict_modality(new[["audio"]], "scene")
    scenes = np.stack(new["scene"])
    assert ((found - scenes) ** 2).mean() < 0.2 * scenes.var(axis=0).mean()


@pytest.mark.slow
def test_wrong_pairs_do_not_matter_without_pairs():
    X, new = make(0, n_alone=0, n_both=500)
    X["scene"] = X["scene"].sample(frac=1, random_state=0).to_numpy()
    assert partner_similarity(align(X, paired=False), new) > 0.9


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2))
def test_training_alone_corrects_a_wrong_initial_map(seed):
    """The initial map is an eighth of a turn off; there is no refinement and no other map."""
    X, _ = make(seed, n_alone=0, n_both=500)
    alignment = align(X, max_iter=1)
    one, other = components(alignment, X, "audio"), components(alignment, X, "scene")
    truth = procrustes(one, other)
    turn = Rotation.from_rotvec(np.pi / 4 * np.array([2, -1, 2]) / 3).as_matrix()
    training = AdversarialTraining(
        max_iter=200,
        learning_rate=1e-2,
        batch_size=128,
        n_starts=1,
        orthogonality=0.1,
        hidden_sizes=(64, 64),
        n_refinements=0,
        device=torch.device("cpu"),
        owner="Test",
        report=lambda losses: None,
    )
    with seeded(seed), one_thread():
        (found,) = training._train((truth @ turn)[None], one, other)
    assert np.trace(turn) / 3 < 0.81
    assert np.trace(found.T @ truth) / 3 > 0.95


@pytest.mark.slow
def test_few_pairs_and_many_rows_of_one_modality():
    X, new = make(1, n_both=12)
    assert partner_similarity(align(X), new) > 0.9


def test_target_is_not_rotated_and_the_others_are():
    X, _ = make(2, n_both=50)
    alignment = align(X, target="audio", max_iter=20)
    np.testing.assert_array_equal(alignment.rotations_["audio"], np.eye(3))
    turn = alignment.rotations_["scene"]
    np.testing.assert_allclose(turn @ turn.T, np.eye(3), atol=1e-5)


@pytest.mark.slow
def test_warns_of_an_ambiguous_rotation():
    X, _ = make(3, shape="ball")
    with pytest.warns(ConvergenceWarning, match="equally well.*paired=True"):
        align(X, paired=False, n_init=8)


@pytest.mark.slow
def test_warns_if_no_rotation_fits():
    X, _ = make(4)
    ring = np.random.default_rng(0).choice([-1.0, 1.0], size=(500, 5))
    X.loc[500:, "scene"] = pd.Series(list(ring), index=X.index[500:])
    with pytest.warns(ConvergenceWarning, match="no rotation brought modality 'audio'"):
        align(X, paired=False, n_components=2, max_iter=50)


def test_training_that_diverges():
    X, _ = make(5)
    with pytest.raises(ConvergenceError, match="Lower learning_rate, now 1e\\+30"):
        align(X, paired=False, learning_rate=1e30, max_iter=20)


@pytest.mark.parametrize("paired", [True, False])
def test_repeats_copies_and_pickles(paired):
    X, new = make(6, n_alone=100, n_both=50)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        alignment = align(X, paired=paired, max_iter=10)
        again = clone(alignment).fit(X)
    vectors = alignment.transform(new)
    assert vectors.dtype == np.float32
    np.testing.assert_array_equal(again.transform(new), vectors)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(alignment)).transform(new), vectors)


def test_grid_search_and_pandas_output():
    X, new = make(7, n_alone=0, n_both=90)
    search = GridSearchCV(clone(align(X, max_iter=5)), {"n_components": [2, 3]}, cv=2).fit(X)
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()
    frame = search.best_estimator_.set_output(transform="pandas").transform(new)
    assert list(frame)[0] == "adversarialalignment0"


def test_errors():
    X, _ = make(8, n_both=20)
    with pytest.raises(ValueError, match="n_components=6 is more than .*'scene' 5, 'audio' 7"):
        align(X, n_components=6)
    with pytest.raises(ValueError, match="target='taste' is no usable modality"):
        align(X, target="taste")
    alone, _ = make(8)
    with pytest.raises(ValueError, match="two modalities"):
        align(alone)


def test_history_holds_the_mean_losses_of_ten_steps_each():
    X, _ = make(6, n_alone=50, n_both=50)
    alignment = align(X, max_iter=25)
    assert [entry["step"] for entry in alignment.history_] == [10, 20, 25]
    assert {entry["modality"] for entry in alignment.history_} == {"audio"}
    losses = ("train_loss", "discriminator_loss")
    assert all(entry[name] > 0 for entry in alignment.history_ for name in losses)
    assert alignment.n_iter_ == 25
    with pytest.warns(ConvergenceWarning):
        assert len(align(X, paired=False, n_init=1, max_iter=5).history_) == 1
    steps = align(X, max_iter=25, learning_rate=0.01).transform(X)
    np.testing.assert_array_equal(steps, alignment.transform(X))  # "auto" is 0.01


@pytest.mark.slow
def test_verbose_prints_the_losses(capsys):
    X, _ = make(6, n_alone=20, n_both=20)
    align(X, max_iter=1)
    assert capsys.readouterr().out == ""
    align(X, max_iter=110, verbose=1)
    lines = capsys.readouterr().out.splitlines()
    assert [line.partition(", train_loss")[0] for line in lines] == [
        f"AdversarialAlignment, 'audio': step {step} of 110" for step in (100, 110)
    ]


def test_whitening_and_its_inverse():
    values = np.random.default_rng(0).normal(size=(300, 6)) @ np.diag([5, 4, 3, 2, 1, 0])
    whitening = Whitening(values)
    assert whitening.rank == 5
    whitening.keep(5)
    components = whitening.transform(values)
    np.testing.assert_allclose(np.cov(components.T, bias=True), np.eye(5), atol=1e-8)
    np.testing.assert_allclose(whitening.inverse_transform(components), values, atol=1e-8)


def test_maps_and_discriminators_of_different_starts_are_independent():
    torch.manual_seed(0)
    maps, discriminators = OrthogonalMap(torch.eye(3).repeat(2, 1, 1)), Discriminator(2, 3)
    discriminators(maps(torch.randn(2, 8, 3)))[0].sum().backward()
    for parameter in (*maps.parameters(), *discriminators.parameters()):
        assert parameter.grad[0].abs().sum() > 0
        assert parameter.grad[1].abs().sum() == 0


def test_maps_are_pulled_to_rotations():
    torch.manual_seed(0)
    maps = OrthogonalMap(torch.eye(3)[None] + 0.1 * torch.randn(1, 3, 3))
    nearest = maps.rotations()
    for _ in range(100):
        maps.pull(0.1)
    torch.testing.assert_close(maps.weight.detach(), nearest, atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    ("paired", "unused"), [(True, "n_init"), (True, "n_refinements"), (False, "pair_weight")]
)
def test_unused_parameters_are_refused(paired, unused):
    X, _ = make(6, n_alone=20, n_both=20)
    with pytest.raises(ValueError, match=f"{unused}=3 has no effect with paired={paired}"):
        align(X, paired=paired, **{unused: 3})
