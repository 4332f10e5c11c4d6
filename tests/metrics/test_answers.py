"""The accuracy of visual question answering, against its definition."""

import numpy as np
import pandas as pd
import pytest

from skmm.metrics import vqa_accuracy

TEN = ["Two", "two", "2", *["three"] * 2, *["many"] * 5]


def test_three_people_have_to_agree():
    given = ["2", "three", "the many!", None]
    assert vqa_accuracy([TEN] * 4, given) == pytest.approx((1 + 2 / 3 + 1 + 0) / 4)
    assert vqa_accuracy(["yes", ["yes"] * 2, ["yes"] * 9], ["yes"] * 3) == pytest.approx(2 / 3)


@pytest.mark.parametrize("answer", ["2", "three", "many", "none of these"])
def test_leaving_one_out_is_the_mean_over_all_nine(answer):
    nine = [TEN[:i] + TEN[i + 1 :] for i in range(10)]
    mean = np.mean([vqa_accuracy([row], [answer]) for row in nine])
    assert vqa_accuracy([TEN], [answer], leave_one_out=True) == pytest.approx(mean)


def test_rows_without_an_answer_are_left_out():
    y_true = pd.Series([["a dog"] * 3, None, [None, "cat", "cat"]], dtype=object)
    assert vqa_accuracy(y_true, ["Dog", "x", "cat"]) == pytest.approx((1 + 2 / 3) / 2)
    with pytest.raises(ValueError, match="vqa_accuracy: no row of y_true has a text"):
        vqa_accuracy([None], ["x"])
    with pytest.raises(TypeError, match="vqa_accuracy: a cell of y_true must be a text or a list"):
        vqa_accuracy([3], ["3"])


def test_an_answer_of_articles_alone_is_itself():
    """An answer may be the letter a."""
    assert vqa_accuracy([["a"] * 3, ["the"] * 3], ["the", "dog"]) == 0
    assert vqa_accuracy([["a"] * 3], ["A"]) == 1
