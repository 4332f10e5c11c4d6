"""Episodes have the given numbers of classes and rows, and disjoint training and test rows."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV

from skmm.model_selection import FewShotSplit

Y = np.array(list("aabbbbccccccdddddddd"))  # 2, 4, 6 and 8 rows


def test_shots_and_queries_of_an_episode():
    splitter = FewShotSplit(3, n_ways=2, n_queries=2, n_splits=50, random_state=0)
    seen = set()
    for train, test in splitter.split(Y, Y):
        classes, counts = np.unique(Y[train], return_counts=True)
        assert counts.tolist() == [3, 3] and "a" not in classes
        assert set(Y[test]) == set(classes)
        assert all(1 <= (Y[test] == c).sum() <= 2 for c in classes)
        assert not set(train) & set(test)
        assert len(set(train)) == 6
        seen.add(tuple(classes))
    assert seen == {("b", "c"), ("b", "d"), ("c", "d")}
    assert splitter.get_n_splits() == 50


def test_all_classes_and_all_rows_by_default():
    for train, test in FewShotSplit(1, n_splits=5, random_state=0).split(Y, Y):
        assert sorted(Y[train]) == list("abcd")
        assert sorted([*train, *test]) == list(range(20))


def test_rows_are_sampled_uniformly():
    y = np.repeat([0, 1], 10)
    drawn = np.concatenate(
        [train for train, _ in FewShotSplit(1, n_splits=4000, random_state=0).split(y, y)]
    )
    counts = np.bincount(drawn, minlength=20)
    assert counts.sum() == 8000
    assert 280 < counts.min() and counts.max() < 530  # 400 expected, deviation 19


def test_same_seed_same_episodes():
    def episodes(seed):
        return [
            (train.tolist(), test.tolist())
            for train, test in FewShotSplit(2, n_splits=3, random_state=seed).split(Y, Y)
        ]

    assert episodes(1) == episodes(1) != episodes(2)


def test_in_a_search():
    X = np.random.default_rng(0).standard_normal((20, 2)) + (Y == "d")[:, None] * 9
    grid = {"C": [1e-6, 10.0]}
    cv = FewShotSplit(3, n_ways=2, n_splits=10, random_state=0)
    search = GridSearchCV(LogisticRegression(), grid, cv=cv).fit(X, Y)
    assert len([key for key in search.cv_results_ if key.startswith("split")]) == 10


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"n_shots": 0}, "n_shots must be an int of at least 1, got 0"),
        ({"n_shots": 1, "n_ways": 1}, "n_ways must be an int of at least 2, got 1"),
        ({"n_shots": 1, "n_queries": 0}, "n_queries must be an int of at least 1"),
        ({"n_shots": 1, "n_splits": 1.5}, "n_splits must be an int of at least 1, got 1.5"),
        ({"n_shots": 7}, "needs 2 classes with more than n_shots=7 rows, and y has 1"),
        ({"n_shots": 2, "n_ways": 4}, "needs 4 classes with more than n_shots=2 rows, and y has 3"),
    ],
)
def test_wrong_input_is_refused(params, message):
    with pytest.raises(ValueError, match=f"FewShotSplit.* {message}"):
        next(FewShotSplit(**params).split(Y, Y))


def test_repr():
    assert repr(FewShotSplit(2)).startswith("FewShotSplit(n_")
