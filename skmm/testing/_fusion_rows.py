"""What is asked of a fusion about rows: absent modalities, order, subsets, containers."""

import warnings
from typing import Any

import numpy as np
from sklearn.decomposition import PCA
from sklearn.pipeline import make_pipeline

from skmm._environment._optional import is_installed
from skmm.encoders import TextEncoder
from skmm.exceptions import ModalityMissingError
from skmm.testing._compare import assert_close, raises
from skmm.testing._fusion_case import FusionCase, triples
from skmm.testing._toys import MISSING, to_polars, without

__all__ = ["ROW_CHECKS"]


def _gappy(case: FusionCase) -> Any:
    """The frame with a fifth of each modality taken out, and one row with nothing left."""
    X = without(case.X, range(0, case.n, 5), columns=["text"])
    X = without(X, range(1, case.n, 5), columns=["a", "b"])
    X = without(X, range(2, case.n, 5), columns=["vector"])
    return without(X, [case.n - 1])


def check_missing_at_fit_and_predict(case: FusionCase) -> None:
    """Any row may lack any modality, in ``fit`` and after it."""
    X = _gappy(case)
    answers = case.ask(X, case.fit(X))
    assert np.isfinite(answers).all(), f"{case} gives NaN for rows that lack a modality."


def check_missing_at_predict_alone(case: FusionCase) -> None:
    """A modality that was never absent in training may be absent later."""
    for columns in (["text"], ["a", "b"], ["vector"], ["text", "vector"]):
        X = without(case.X, [0, 3], columns=columns)
        answers = case.ask(X)
        assert np.isfinite(answers).all(), (
            f"{case} gives NaN for a row that lacks {columns}, which training never lacked."
        )
        kept = ~np.isin(np.arange(case.n), [0, 3])
        assert_close(
            answers[kept],
            case.answers[kept],
            f"An absent modality in one row changes what {case} gives for others.",
        )


def check_row_without_any_modality(case: FusionCase) -> None:
    """Such a row gets the prior, or ``ModalityMissingError`` where that is asked for."""
    X = without(case.X, [4])
    params = case.fusion.get_params(deep=False)
    if "all_missing" in params:
        answers = case.ask(X, case.fit(all_missing="prior"))
        refusing = case.fit(all_missing="raise")
        raises(
            lambda: case.ask(X, refusing),
            ModalityMissingError,
            f'{case} with all_missing="raise" has to refuse a row without any modality.',
        )
        raises(
            lambda: case.fit(X, all_missing="raise"),
            ModalityMissingError,
            f'{case} with all_missing="raise" has to refuse such a row in fit too.',
        )
    else:
        answers = case.ask(X)
    assert np.isfinite(answers).all(), f"{case} gives NaN for a row without any modality."
    if case.prior is not None:
        assert_close(
            answers[4], case.prior, f"{case} does not give the prior for a row without modalities."
        )


def check_absent_values_do_not_matter(case: FusionCase) -> None:
    """However absence is spelled, and whatever others hold, the answer is the same."""
    rows = [1, 6]
    expected = case.ask(without(case.X, rows, columns=["text", "a", "b"]))
    for spelling in MISSING:
        X = without(case.X, rows, columns=["text", "a", "b"], by=spelling)
        assert_close(
            case.ask(X),
            expected,
            f"What {case} gives depends on how an absent cell is spelled ({spelling!r}).",
        )
    X = without(case.X, rows, columns=["text"])
    others = X.copy()
    others["text"] = [None if text is None else f"scarf {text} hat" for text in X["text"]]
    assert_close(
        case.ask(others)[rows],
        case.ask(X)[rows],
        f"Texts of other rows change what {case} gives for a row without text.",
    )


def check_rows_are_independent(case: FusionCase) -> None:
    """Order of rows and rows left out do not change the answer for a row."""
    X = _gappy(case)
    answers = case.ask(X)
    order = np.random.default_rng(0).permutation(case.n)
    sentence = f"What {case} gives for a row depends on the other rows."
    assert_close(case.ask(X.iloc[order]), answers[order], sentence)
    for rows in ([0], [1], [2], [case.n - 1], [5, 3, 5], list(range(0, case.n, 3))):
        assert_close(case.ask(X.iloc[rows]), answers[rows], sentence)
    numbered = X.reset_index(drop=True)
    assert_close(case.ask(numbered), answers, f"The index of a frame changes what {case} gives.")


def check_middle_meets_no_absent_cell(case: FusionCase) -> None:
    """A transformer is fitted on, and applied to, the rows that have the modality."""
    encoder = TextEncoder("tfidf", n_components=3, random_state=0)
    modalities = triples(words=make_pipeline(encoder, PCA(2, random_state=0)))
    X = _gappy(case)
    answers = case.ask(X, case.fit(X, modalities=modalities))
    assert np.isfinite(answers).all(), f"{case} gives NaN with a PCA after an encoder."


def check_modality_that_is_never_there(case: FusionCase) -> None:
    """A modality without one cell in training is left out with a warning, not an error."""
    X = without(case.X, range(case.n), columns=["vector"])
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        fusion = case.fit(X)
    assert any("vector" in str(warning.message) for warning in caught), (
        f"{case} does not warn of a modality that is absent in every training row."
    )
    assert np.isfinite(case.ask(case.X, fusion)).all()


def check_polars(case: FusionCase) -> None:
    """A polars frame gives what a pandas frame gives."""
    if not is_installed("polars"):
        return
    X = _gappy(case)
    expected = case.ask(X, case.fit(X))
    frame = to_polars(X)
    answers = case.ask(frame, case.fit(frame))
    assert_close(answers, expected, f"{case} gives something else for a polars frame.")


ROW_CHECKS = [
    check_missing_at_fit_and_predict,
    check_missing_at_predict_alone,
    check_row_without_any_modality,
    check_absent_values_do_not_matter,
    check_rows_are_independent,
    check_middle_meets_no_absent_cell,
    check_modality_that_is_never_there,
    check_polars,
]
