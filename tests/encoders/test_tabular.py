"""TabularEncoder: standardized numbers and one-hot categories, and tokens from scratch."""

import datetime
import decimal
import pickle

import numpy as np
import pandas as pd
import polars as pl
import pytest
from PIL import Image
from sklearn.compose import make_column_transformer
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from skmm import TabularEncoder
from skmm.exceptions import CellTypeError


@pytest.fixture(name="X")
def frame():
    return pd.DataFrame(
        {
            "price": [10.0, 20.0, 40.0, 10.0],
            "size": ["S", "M", "S", "L"],
            "sold": [True, False, True, True],
        }
    )


class TestOneHot:
    def test_equals_scikit_learn(self, X):
        reference = make_column_transformer(
            (StandardScaler(), ["price"]),
            (OneHotEncoder(sparse_output=False), ["size"]),
            (StandardScaler(), ["sold"]),
        )
        features = TabularEncoder().fit_transform(X)
        np.testing.assert_allclose(features, reference.fit_transform(X), atol=1e-6)

    def test_names(self, X):
        X.loc[1, "price"] = None
        X["size"] = ["S", "M", None, "L"]
        assert list(TabularEncoder().fit(X).get_feature_names_out()) == [
            *("price", "price_missing"),
            *("size_L", "size_M", "size_S", "size_missing"),
            "sold",
        ]

    def test_missing_cells_are_marked(self, X):
        X.loc[1, "price"] = None
        X["size"] = ["S", None, "S", "L"]
        features = TabularEncoder().set_output(transform="pandas").fit_transform(X)
        assert features["price_missing"].tolist() == [0, 1, 0, 0]
        assert features["price"].iloc[1] == 0  # the mean
        assert features["size_missing"].tolist() == [0, 1, 0, 0]
        assert features[["size_S", "size_L"]].iloc[1].tolist() == [0, 0]

    def test_missing_for_the_first_time(self, X):
        encoder = TabularEncoder().set_output(transform="pandas").fit(X)
        later = pd.DataFrame({"price": [None], "size": ["M"], "sold": [True]})
        features = encoder.transform(later)
        assert features["price"].tolist() == [0] and features["size_M"].tolist() == [1]
        assert np.isfinite(features).all(axis=None)

    def test_a_row_without_any_cell(self, X):
        encoder = TabularEncoder().fit(X)
        X = X.astype(object)
        X.loc[2] = [None, None, None]
        assert np.isnan(encoder.transform(X)).all(axis=1).tolist() == [False, False, True, False]
        tokens, mask = encoder.transform_sequence(X)
        assert mask.tolist() == [[True] * 3, [True] * 3, [False] * 3, [True] * 3]
        assert not tokens[2].any()

    def test_tokens_add_up_to_the_vector(self, X):
        X.loc[1, "price"] = None
        encoder = TabularEncoder().fit(X)
        tokens, mask = encoder.transform_sequence(X)
        assert tokens.shape == (4, 3, encoder.n_outputs_)
        np.testing.assert_array_equal(tokens.sum(axis=1), encoder.transform(X))
        assert mask.all()  # the indicator of the missing price is a token

    def test_rare_and_unknown_categories(self):
        X = pd.DataFrame({"color": ["red"] * 5 + ["blue"] * 3 + ["teal"]})
        encoder = TabularEncoder(max_categories=2).set_output(transform="pandas").fit(X)
        features = encoder.transform(pd.DataFrame({"color": ["red", "blue", "teal", "new"]}))
        assert list(features.columns) == ["color_blue", "color_red"]
        assert features.to_numpy().tolist() == [[0, 1], [1, 0], [0, 0], [0, 0]]

    def test_categories_do_not_depend_on_the_order_of_rows(self):
        X = pd.DataFrame({"color": ["b", "a", "c", "d"]})
        encoders = [
            TabularEncoder(max_categories=2).fit(X.iloc[order])
            for order in ([0, 1, 2, 3], [3, 2, 1, 0])
        ]
        assert [list(e.get_feature_names_out()) for e in encoders] == [["color_a", "color_b"]] * 2

    @pytest.mark.parametrize(
        ("column", "expected"),
        [
            ([True, False, None], [1, -1, 0]),
            ([decimal.Decimal("1.5"), decimal.Decimal("3.5"), None], [-1, 1, 0]),
            (pd.to_datetime(["2020-01-01", "2020-01-03", None]), [-1, 1, 0]),
            ([datetime.date(2020, 1, 1), datetime.date(2020, 1, 3), None], [-1, 1, 0]),
            (pd.to_timedelta(["1 day", "3 days", None]), [-1, 1, 0]),
            (pd.array([4, 6, None], dtype="Int64"), [-1, 1, 0]),
            (np.array([1, 3, np.nan], dtype=np.float16), [-1, 1, 0]),
        ],
        ids=["bool", "decimal", "datetime", "date", "timedelta", "nullable", "float16"],
    )
    def test_number_columns(self, column, expected):
        X = pd.DataFrame({"a": column, "b": ["x"] * 3})
        features = TabularEncoder().set_output(transform="pandas").fit_transform(X)
        assert list(features.columns) == ["a", "a_missing", "b_x"]
        np.testing.assert_allclose(features["a"], expected, atol=1e-6)

    def test_a_category_has_one_text(self):
        encoder = TabularEncoder().fit(pd.DataFrame({"grade": [1, 2, "none"]}))
        assert list(encoder.get_feature_names_out()) == ["grade_1", "grade_2", "grade_none"]
        # A missing cell turns integers into floats.
        features = encoder.transform(pd.DataFrame({"grade": [1.0, "2", None]}))
        np.testing.assert_array_equal(features[:2], [[1, 0, 0], [0, 1, 0]])

    def test_categories_of_pandas_and_polars(self):
        plain = pd.DataFrame({"size": ["S", "M", None]})
        expected = TabularEncoder().fit_transform(plain.assign(n=1.0))
        for frame in (
            pd.DataFrame({"size": pd.Categorical(["S", "M", None]), "n": 1.0}),
            pl.DataFrame({"size": pl.Series(["S", "M", None], dtype=pl.Categorical), "n": 1.0}),
            pl.DataFrame({"size": ["S", "M", None], "n": [1.0] * 3}),
        ):
            np.testing.assert_array_equal(TabularEncoder().fit_transform(frame), expected)

    def test_names_are_deduplicated(self):
        X = pd.DataFrame(
            {"a": [1.0, None], "a_missing": [2.0, 3.0], "b": ["c_d", "e"], "b_c": ["d", "e"]}
        )
        names = list(TabularEncoder().fit(X).get_feature_names_out())
        assert names == ["a", "a_missing", "a_missing_2", "b_c_d", "b_e", "b_c_d_2", "b_c_e"]

    @pytest.mark.parametrize(
        "cell",
        [{"a": 1}, [1, 2], np.ones(2), b"x", Image.new("L", (1, 1)), object(), lambda: 1],
        ids=lambda cell: type(cell).__name__,
    )
    def test_an_opaque_cell_is_refused(self, cell):
        """Its repr has an address and would be another category each time."""
        cells = pd.Series([None, cell, "text"], index=["a", "b", "c"], dtype=object)
        with pytest.raises(CellTypeError, match=f"'things', row 'b'.* got {type(cell).__name__}"):
            TabularEncoder().fit(pd.DataFrame({"things": cells}))

    def test_a_text_among_numbers(self, X):
        encoder = TabularEncoder().fit(X)
        X["price"] = [10.0, "cheap", 1, 2]
        with pytest.raises(ValueError, match="'price', row 1: got 'cheap' in a column.*numbers"):
            encoder.transform(X)

    def test_infinity(self, X):
        X.loc[3, "price"] = np.inf
        with pytest.raises(ValueError, match="'price', row 3: got infinity"):
            TabularEncoder().fit(X)

    def test_large_numbers_keep_their_differences(self):
        seconds = 1.7e9 + np.arange(4.0)
        features = TabularEncoder().fit_transform(seconds[:, None])
        np.testing.assert_allclose(features[:, 0], (np.arange(4) - 1.5) / np.sqrt(1.25), atol=1e-5)


def problem(n, seed=0):
    """The class is whether two signs agree; one is of a number, one a category."""
    rng = np.random.default_rng(seed)
    a, b = rng.integers(0, 2, (2, n))
    X = pd.DataFrame(
        {
            "number": np.where(a, 1, -1) * rng.uniform(0.5, 2, n),
            "category": np.where(b, "up", "down"),
            "noise": rng.normal(size=n),
        }
    )
    return X, (a == b).astype(int)


class TestTokens:
    def test_learn_what_no_linear_model_can(self):
        X, y = problem(400)
        encoder = TabularEncoder(
            "tokens",
            n_components=16,
            max_epochs=15,
            learning_rate=0.01,
            batch_size=32,
            random_state=0,
        ).fit(X.iloc[:300], y[:300])
        features = encoder.transform(X)
        head = LogisticRegression(max_iter=1000).fit(features[:300], y[:300])
        assert head.score(features[300:], y[300:]) > 0.95
        assert encoder.history_[-1]["train_loss"] < 0.3 * encoder.history_[0]["train_loss"]
        onehot = TabularEncoder().fit(X.iloc[:300])
        linear = LogisticRegression().fit(onehot.transform(X.iloc[:300]), y[:300])
        assert linear.score(onehot.transform(X.iloc[300:]), y[300:]) < 0.7

    def test_reconstruct_the_table_without_y(self):
        X, _ = problem(400)
        encoder = TabularEncoder(
            "tokens",
            n_components=16,
            max_epochs=20,
            learning_rate=0.01,
            batch_size=32,
            random_state=0,
        ).fit(X.iloc[:300])
        features, table = encoder.transform(X), TabularEncoder().fit_transform(X)
        head = Ridge(1e-3).fit(features[:300], table[:300])
        assert head.score(features[300:], table[300:]) > 0.9

    def test_learn_a_number(self):
        X, y = problem(300)
        amount = X["number"] * np.where(X["category"] == "up", 1, -1)
        encoder = TabularEncoder(
            "tokens",
            n_components=16,
            max_epochs=20,
            learning_rate=0.01,
            batch_size=32,
            random_state=0,
        ).fit(X, amount)
        head = Ridge(1e-3).fit(encoder.transform(X), amount)
        assert head.score(encoder.transform(X), amount) > 0.9

    def test_missing_cells(self):
        X, y = problem(40)
        X = X.astype(object)
        X.loc[3, "number"] = None
        X.loc[4] = [None, None, None]
        encoder = TabularEncoder("tokens", n_components=8, max_epochs=1, random_state=0).fit(X, y)
        features = encoder.transform(X)
        assert np.flatnonzero(np.isnan(features).any(axis=1)).tolist() == [4]
        tokens, mask = encoder.transform_sequence(X)
        assert mask[3].tolist() == [False, True, True] and not mask[4].any()
        assert not tokens[3, 0].any() and not tokens[4].any()

    def test_names_belong_to_the_whole_table(self):
        X, y = problem(10)
        encoder = TabularEncoder("tokens", n_components=12, max_epochs=1).fit(X, y)
        assert list(encoder.get_feature_names_out()[[0, 11]]) == ["table_00", "table_11"]

    @pytest.mark.parametrize("n_components", [1, 2, 3, 6])
    def test_any_width(self, n_components):
        X, y = problem(10)
        encoder = TabularEncoder("tokens", n_components=n_components, max_epochs=1)
        assert encoder.fit(X, y).transform(X).shape == (10, n_components)

    def test_an_empty_table(self):
        X = pd.DataFrame({"a": [None, None], "b": [None, None]})
        with pytest.raises(ValueError, match="no row to train on"):
            TabularEncoder("tokens").fit(X)
        assert np.isnan(TabularEncoder().fit_transform(X)).all()

    def test_another_model_removes_the_network(self):
        X, y = problem(10)
        encoder = TabularEncoder("tokens", n_components=4, max_epochs=1).fit(X, y)
        encoder.set_params(model="onehot", n_components=32, max_epochs=20)
        assert encoder.transform(X).shape == (10, 4)  # as it was fitted
        encoder.fit(X, y)
        assert encoder.transform(X).shape == (10, encoder.n_outputs_) != (10, 4)
        assert not hasattr(encoder, "history_")
        assert len(pickle.dumps(encoder)) < 5_000
