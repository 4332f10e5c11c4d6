"""Columns as tokens: the formula, missing cells, interactions by attention."""

import pickle

import numpy as np
import pytest
import torch
from training import accuracy_when_trained, unexplained_when_trained

from skmm.backbones._column_tokens import FeatureTokens

NAN = float("nan")
ROWS = [[0.5, -1.0, 4, 2], [NAN, 2.0, 0, 3], [1.0, NAN, 1, NAN], [NAN, NAN, 0, 0]]


def xor_table(n_rows, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n_rows, 3))
    return x, torch.from_numpy((x[:, 0] * x[:, 1] > 0).astype(np.int64))


@pytest.fixture
def model():
    torch.manual_seed(0)
    return FeatureTokens(2, cardinalities=[3, 2], n_components=8).eval()


def test_formula_without_layers():
    torch.manual_seed(0)
    model = FeatureTokens(2, cardinalities=[3, 2], n_components=6, n_layers=0)
    encoded = model(**model.collate(ROWS))
    table = model.categories.weight
    expected = [
        [0.5 * model.slopes[0], -1.0 * model.slopes[1], table[4], table[5 + 2]],
        [None, 2.0 * model.slopes[1], None, table[5 + 3]],
        [1.0 * model.slopes[0], None, table[1], None],
        [None] * 4,
    ]
    for row in range(4):
        kept = []
        for column, token in enumerate(expected[row]):
            assert bool(encoded.mask[row, column]) == (token is not None)
            if token is not None:
                kept.append(token + model.columns[column])
                torch.testing.assert_close(encoded.tokens[row, column], kept[-1])
        pooled = torch.stack(kept).mean(0) if kept else torch.zeros(6)
        torch.testing.assert_close(encoded.pooled[row], pooled)


@pytest.mark.parametrize("n_layers", [0, 1, 2])
def test_missing_cell_equals_absent_column(n_layers):
    torch.manual_seed(0)
    full = FeatureTokens(3, n_components=8, n_layers=n_layers).eval()
    less = FeatureTokens(2, n_components=8, n_layers=n_layers).eval()
    state = full.state_dict()
    state["slopes"], state["columns"] = state["slopes"][:2], state["columns"][:2]
    less.load_state_dict(state)
    expected = less(**less.collate([[0.3, -2.0]])).pooled
    got = full(**full.collate([[0.3, -2.0, NAN]])).pooled
    torch.testing.assert_close(got, expected, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("mode", [True, False])
def test_row_without_cells_has_finite_output_and_gradients(model, mode):
    model.train(mode)
    encoded = model(**model.collate(ROWS))
    assert torch.isfinite(encoded.tokens).all()
    assert torch.equal(encoded.pooled[3], torch.zeros(8))
    encoded.pooled.square().sum().backward()
    for name, parameter in model.named_parameters():
        assert torch.isfinite(parameter.grad).all(), name
    with torch.no_grad():  # torch has another implementation without gradients
        torch.testing.assert_close(model(**model.collate(ROWS)).pooled, encoded.pooled)


@pytest.mark.slow
def test_learns_the_product_of_two_columns():
    torch.manual_seed(0)
    model = FeatureTokens(3, n_components=16)
    assert accuracy_when_trained(model, xor_table(500), xor_table(500, seed=1), steps=200) > 0.9


def test_columns_do_not_interact_without_layers():
    torch.manual_seed(0)
    model = FeatureTokens(3, n_components=16, n_layers=0)
    assert accuracy_when_trained(model, xor_table(500), xor_table(500, seed=1), steps=200) < 0.75


def test_learns_categories():
    def table(seed):
        rng = np.random.default_rng(seed)
        codes = rng.integers(2, 6, (300, 2))
        return np.c_[rng.normal(size=300), codes], torch.from_numpy((codes[:, 1] < 4).astype(int))

    torch.manual_seed(0)
    model = FeatureTokens(1, cardinalities=[4, 4], n_components=16, n_layers=0)
    assert accuracy_when_trained(model, table(0), table(1), steps=100) > 0.98


@pytest.mark.slow
def test_pooled_vector_learns_to_reconstruct():
    torch.manual_seed(0)
    model = FeatureTokens(3, n_components=16)
    train, test = xor_table(300)[0], xor_table(200, seed=1)[0]
    assert unexplained_when_trained(model, train, test, steps=200) < 0.1


def test_row_does_not_depend_on_its_batch(model):
    together = model(**model.collate(ROWS)).pooled
    alone = torch.cat([model(**model.collate([row])).pooled for row in ROWS])
    torch.testing.assert_close(together, alone, atol=1e-6, rtol=1e-5)


def test_collate(model):
    tensors = model.collate(ROWS)
    assert tensors["numbers"].dtype == torch.float32
    np.testing.assert_array_equal(tensors["numbers"].numpy(), np.array(ROWS)[:, :2])
    assert tensors["categories"].tolist() == [[4, 2], [0, 3], [1, 0], [0, 0]]
    empty = model.collate(np.empty((0, 4)))
    assert empty["numbers"].shape == empty["categories"].shape == (0, 2)
    assert model(**empty).pooled.shape == (0, 8)


@pytest.mark.parametrize(("n_numbers", "cardinalities"), [(2, ()), (0, (3, 1)), (1, (0,))])
def test_only_numbers_or_only_categories(n_numbers, cardinalities):
    model = FeatureTokens(n_numbers, cardinalities=cardinalities, n_components=4)
    rows = np.ones((3, n_numbers + len(cardinalities)))
    encoded = model(**model.collate(rows))
    assert encoded.tokens.shape == (3, rows.shape[1], 4)
    assert encoded.mask.all()
    assert model.reconstruction_target(**model.collate(rows)).shape[1] == n_numbers + sum(
        n + 1 for n in cardinalities
    )


def test_reconstruction_target(model):
    target = model.reconstruction_target(**model.collate(ROWS))
    assert target.tolist() == [
        [0.5, -1.0, 0, 0, 0, 1, 0, 1, 0],
        [0.0, 2.0, 0, 0, 0, 0, 0, 0, 1],
        [1.0, 0.0, 1, 0, 0, 0, 0, 0, 0],
        [0.0] * 9,
    ]


def test_seed_state_dict_and_pickle(model):
    options = {"cardinalities": [3, 2], "n_components": 8}
    torch.manual_seed(0)
    again, copied = FeatureTokens(2, **options), FeatureTokens(2, **options)
    copied.load_state_dict(model.state_dict())
    expected = model(**model.collate(ROWS)).pooled
    for other in (again, copied, pickle.loads(pickle.dumps(model))):
        assert torch.equal(other.eval()(**model.collate(ROWS)).pooled, expected)


def test_errors():
    with pytest.raises(ValueError, match="FeatureTokens needs at least one column"):
        FeatureTokens(0)
    with pytest.raises(ValueError, match="n_components=10 is not a multiple of n_heads=4.*=12"):
        FeatureTokens(1, n_components=10)
    assert FeatureTokens(1, n_components=10, n_layers=0).width == 10
