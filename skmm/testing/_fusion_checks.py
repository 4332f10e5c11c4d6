"""Checks of the contract of a fusion, of skmm or of a user."""

import inspect
import pickle
import warnings
from typing import Any

import numpy as np
import pandas as pd
from sklearn.base import clone
from sklearn.decomposition import PCA
from sklearn.exceptions import NotFittedError
from sklearn.pipeline import make_pipeline
from sklearn.utils import estimator_html_repr

from skmm._constraints import Estimator
from skmm._environment._optional import is_installed
from skmm.encoders import TextEncoder
from skmm.exceptions import ModalityMissingError
from skmm.testing._compare import (
    assert_close,
    contents,
    global_seeds,
    raises,
    unchanged_globals,
)
from skmm.testing._encoder_checks import run_checks
from skmm.testing._fusion_case import FusionCase, triples
from skmm.testing._toys import MISSING, to_polars, without

__all__ = ["FUSION_CHECKS", "check_fusion"]


def check_fusion(fusion: Estimator) -> None:
    """Check if a fusion adheres to the conventions of skmm.

    scikit-learn's ``check_estimator`` tests what holds for every estimator. This function tests
    what is expected of a fusion beyond that:

    - it accepts triples ``(name, transformer, columns)`` with ``"drop"`` and ``"passthrough"``
      (numbers, or cells that are vectors), fits clones of their transformers, and
      ``set_params`` reaches the parameters of these by name;
    - any row may lack any modality, in ``fit`` and later, and a row without any modality gets the
      answer of ``all_missing`` or an error;
    - neither the values of an absent modality nor other rows change the prediction for a row;
    - pickles, polars frames, feature names and the HTML diagram work, and errors name the column;
    - frames and global seeds are not changed, and the same ``random_state`` gives the same result.

    Parameters
    ----------
    fusion : estimator
        Unfitted fusion with a parameter ``modalities``, which is replaced by triples over a
        generated frame. Clones of it are fitted about thirty times, so it should be small and have
        a ``random_state``.

    Raises
    ------
    AssertionError
        If the fusion fails a check. The message names the check and what went wrong.

    See Also
    --------
    check_encoder : The same for encoders.
    sklearn.utils.estimator_checks.check_estimator : Checks of every estimator.

    Examples
    --------
    >>> from skmm import EarlyFusion
    >>> from skmm.testing import check_fusion
    >>> check_fusion(EarlyFusion())
    """
    run_checks(FUSION_CHECKS, FusionCase(fusion))


# --- Checks of a fusion as an estimator: triples, parameters, names, diagram, seeds ---


def _is_random(case: FusionCase) -> bool:
    params = case.fusion.get_params(deep=False)
    return "random_state" in params and params["random_state"] is None


def _fitted_triples(fusion: Any) -> list[tuple[str, Any, Any]]:
    """Return the name, the fitted transformer and the columns of each modality."""
    triples: list[tuple[str, Any, Any]] = fusion.modalities_
    return triples


def check_triples(case: FusionCase) -> None:
    """``fit`` fits clones of the given transformers."""
    given = triples()
    fusion = clone(case.fusion)
    fusion.modalities = given
    fusion.fit(case.X, case.y)
    learned = [name for name in vars(given[0][1]) if name.endswith("_")]
    assert not learned, f"{case}.fit fits the transformer that it was given, not a clone of it."
    assert fusion.modalities is given, f"{case}.fit changes the parameter modalities."
    names = [name for name, _, _ in _fitted_triples(fusion)]
    assert names == ["words", "numbers", "vector"], f"{case}.modalities_ names {names}."
    assert np.isfinite(case.predictions).all() and len(case.predictions) == case.n
    for wrong in ([], [("words", "passthrough")], [("a__b", "passthrough", ["a"])], "everything"):
        raises(
            lambda wrong=wrong: case.fit(modalities=wrong),  # type: ignore[misc]
            (ValueError, TypeError),
            f"{case} must refuse modalities={wrong!r}.",
        )
    twice = [("same", "passthrough", ["a"]), ("same", "passthrough", ["b"])]
    sentence = f"{case} must refuse two modalities of one name."
    raises(lambda: case.fit(modalities=twice), ValueError, sentence)


def check_drop(case: FusionCase) -> None:
    """A dropped modality has the effect of a modality that is not listed."""
    dropped = case.predict(case.X, case.fit(modalities=triples(vector="drop")))
    left_out = case.predict(case.X, case.fit(modalities=triples()[:2]))
    sentence = f"{case} returns something else for a dropped modality than without it."
    if not _is_random(case):
        assert_close(dropped, left_out, sentence)
    set_later = case.predict(case.X, case.fit(vector="drop"))
    if not _is_random(case):
        assert_close(set_later, left_out, sentence)
    nothing = [(name, "drop", columns) for name, _, columns in triples()]
    sentence = f"{case} must refuse to fuse nothing."
    raises(lambda: case.fit(modalities=nothing), ValueError, sentence)


def check_passthrough(case: FusionCase) -> None:
    """Cells that are vectors give the same result as their numbers in columns."""
    numbers = pd.DataFrame(np.stack(list(case.X["vector"])), columns=["v0", "v1", "v2"])
    wide = pd.concat([case.X.reset_index(drop=True), numbers], axis=1)
    modalities = triples()[:2]
    in_columns = [*modalities, ("vector", "passthrough", ["v0", "v1", "v2"])]
    predicted = case.predict(wide, case.fit(wide, modalities=in_columns))
    if not _is_random(case):
        assert_close(
            predicted, case.predictions, f"{case} reads vectors in cells differently from columns."
        )
    ragged = case.X.copy()
    cells = list(case.X["vector"])
    cells[5] = np.ones(7)
    ragged["vector"] = pd.Series(cells, index=ragged.index, dtype=object)
    sentence = f"{case} must refuse vectors of several lengths."
    raises(lambda: case.fit(ragged), ValueError, sentence, naming=("vector",))
    text = [("words", "passthrough", ["text"]), triples()[1]]
    sentence = f"{case} must refuse to pass texts through."
    raises(lambda: case.fit(modalities=text), (ValueError, TypeError), sentence, naming=("text",))


def check_parameters(case: FusionCase) -> None:
    """Parameters of transformers are set by the names of their modalities."""
    fusion = clone(case.fusion)
    deep = fusion.get_params(deep=True)
    for name in ("words", "numbers", "words__n_components", "modalities"):
        assert name in deep, f"{case}.get_params(deep=True) does not have {name!r}."
    assert "words" not in fusion.get_params(deep=False)
    fusion.set_params(words__n_components=2)
    assert fusion.modalities[0][1].n_components == 2, f"{case} loses words__n_components."
    assert case.fusion.modalities[0][1].n_components == 3, f"A clone of {case} shares transformers."
    other = TextEncoder("tfidf", n_components=1, random_state=0)
    fusion.set_params(words=other)
    assert fusion.modalities[0][1] is other, f"{case}.set_params(words=...) changes nothing."
    assert [columns for _, _, columns in fusion.modalities] == [c for _, _, c in triples()]
    sentence = f"{case}.set_params must refuse an unknown parameter."
    raises(lambda: fusion.set_params(nowhere__model="x"), ValueError, sentence)
    copy = clone(case.fitted)
    learned = [name for name in vars(copy) if name.endswith("_") and not name.startswith("_")]
    assert not learned, f"A clone of a fitted {case} has {learned}."


def check_columns(case: FusionCase) -> None:
    """A missing column is named in the error, in ``fit`` and later."""
    wrong = [*triples()[:2], ("vector", "passthrough", ["vectro"])]
    raises(
        lambda: case.fit(modalities=wrong),
        (ValueError, KeyError),
        f"{case}.fit must refuse a missing column.",
        naming=("vectro", "vector"),
    )
    renamed = case.X.rename(columns={"text": "review"})
    raises(
        lambda: case.predict(renamed),
        ValueError,
        f"{case} must refuse a frame with other columns than in fit.",
        naming=("text",),
    )
    sentence = f"{case} must refuse a frame without a column of the training frame."
    raises(lambda: case.predict(case.X.drop(columns="vector")), (ValueError, KeyError), sentence)
    sentence = f"{case}.fit must refuse a frame without rows."
    raises(lambda: case.fusion.fit(case.X.iloc[:0], case.y[:0]), ValueError, sentence)
    bare = clone(case.fusion)
    sentence = f"{case} must raise NotFittedError before fit."
    raises(lambda: case.predict(case.X, bare), NotFittedError, sentence)
    auto = case.fit(case.X.drop(columns="text"), modalities="auto")
    found = sorted(column for _, _, columns in _fitted_triples(auto) for column in columns)
    assert found == ["a", "b", "vector"], f'{case} with modalities="auto" finds {found}.'


def check_feature_names(case: FusionCase) -> None:
    """Feature names are unique, one for each output, and the columns of an output frame."""
    if not hasattr(case.fitted, "transform"):
        return
    names = list(case.fitted.get_feature_names_out())
    width = np.asarray(case.fitted.transform(case.X)).shape[1]
    assert len(names) == width, f"{case} has {len(names)} names for {width} outputs."
    assert len(set(names)) == width, f"{case} gives two outputs the same name."
    assert all(isinstance(name, str) and name.isprintable() for name in names)
    frame = case.fit().set_output(transform="pandas").transform(case.X)
    assert list(frame.columns) == names and list(frame.index) == list(case.X.index), (
        f"The pandas output of {case} loses names or index."
    )


def check_shown(case: FusionCase) -> None:
    """``repr`` and the diagram show the modalities, before and after ``fit``."""
    for fusion in (case.fusion, case.fitted):
        page = estimator_html_repr(fusion)
        for part in ("words", "numbers", "vector", "TextEncoder"):
            assert part in page, f"The diagram of {case} does not show {part!r}."
        assert type(fusion).__name__ in repr(fusion)
    assert estimator_html_repr(clone(case.fusion).set_params(modalities="auto"))


def check_pickle(case: FusionCase) -> None:
    """A pickle gives the same predictions."""
    loaded = pickle.loads(pickle.dumps(case.fitted))
    assert_close(
        case.predict(case.X, loaded),
        case.predictions,
        f"{case} returns other predictions after a pickle.",
    )


def check_input_and_seeds(case: FusionCase) -> None:
    """Input and global states are not changed; the same seed gives the same predictions."""
    before, y = contents(case.X), case.y.copy()
    # Without a seed, estimators of scikit-learn use the global generator of numpy.
    seed: dict[str, Any] = (
        {"random_state": 0} if "random_state" in case.fusion.get_params(deep=False) else {}
    )
    with unchanged_globals(f"{case}.fit or predict"):
        case.predict(case.X, case.fit(**seed))
    assert contents(case.X) == before, f"{case} changes its input frame."
    assert np.array_equal(case.y, y), f"{case} changes y."
    if not seed:
        return
    predicted: list[Any] = []
    for global_seed in (1, 2):  # must not affect the result
        with global_seeds(global_seed):
            predicted.append(case.predict(case.X, case.fit(random_state=0)))
    assert_close(
        predicted[0], predicted[1], f"{case} returns other predictions for the same random_state."
    )


# --- Checks with rows: absent modalities, order, subsets, containers ---


def _gappy(case: FusionCase) -> Any:
    """Return the frame without a fifth of each modality, and with one empty row."""
    X = without(case.X, range(0, case.n, 5), columns=["text"])
    X = without(X, range(1, case.n, 5), columns=["a", "b"])
    X = without(X, range(2, case.n, 5), columns=["vector"])
    return without(X, [case.n - 1])


def check_missing_at_fit_and_predict(case: FusionCase) -> None:
    """Any modality may be missing in any row, in ``fit`` and later."""
    X = _gappy(case)
    predicted = case.predict(X, case.fit(X))
    assert np.isfinite(predicted).all(), f"{case} returns NaN for rows without a modality."


def check_missing_only_at_predict(case: FusionCase) -> None:
    """A modality that was never missing in training may be missing later."""
    for columns in (["text"], ["a", "b"], ["vector"], ["text", "vector"]):
        X = without(case.X, [0, 3], columns=columns)
        predicted = case.predict(X)
        assert np.isfinite(predicted).all(), (
            f"{case} gives NaN for a row without {columns}, which were never missing in training."
        )
        kept = ~np.isin(np.arange(case.n), [0, 3])
        assert_close(
            predicted[kept],
            case.predictions[kept],
            f"An absent modality in one row changes the output of {case} for others.",
        )


def check_row_without_any_modality(case: FusionCase) -> None:
    """Such a row gets the prior, or raises with ``all_missing="raise"``."""
    X = without(case.X, [4])
    params = case.fusion.get_params(deep=False)
    if "all_missing" in params:
        # The value other than "raise" depends on the class and is its default.
        answering = inspect.signature(type(case.fusion)).parameters["all_missing"].default
        predicted = case.predict(X, case.fit(all_missing=answering))
        refusing = case.fit(all_missing="raise")
        raises(
            lambda: case.predict(X, refusing),
            ModalityMissingError,
            f'{case} with all_missing="raise" must refuse a row without any modality.',
        )
        raises(
            lambda: case.fit(X, all_missing="raise"),
            ModalityMissingError,
            f'{case} with all_missing="raise" must refuse such a row in fit too.',
        )
    else:
        predicted = case.predict(X)
    assert np.isfinite(predicted).all(), f"{case} gives NaN for a row without any modality."
    if case.prior is not None:
        assert_close(
            predicted[4],
            case.prior,
            f"{case} does not give the prior for a row without modalities.",
        )


def check_absent_values_do_not_matter(case: FusionCase) -> None:
    """A prediction depends neither on the spelling of absence nor on other rows."""
    rows = [1, 6]
    expected = case.predict(without(case.X, rows, columns=["text", "a", "b"]))
    for spelling in MISSING:
        X = without(case.X, rows, columns=["text", "a", "b"], by=spelling)
        assert_close(
            case.predict(X),
            expected,
            f"The output of {case} depends on the spelling of an absent cell ({spelling!r}).",
        )
    X = without(case.X, rows, columns=["text"])
    others = X.copy()
    others["text"] = [None if text is None else f"scarf {text} hat" for text in X["text"]]
    assert_close(
        case.predict(others)[rows],
        case.predict(X)[rows],
        f"Texts of other rows change the output of {case} for a row without text.",
    )


def check_rows_are_independent(case: FusionCase) -> None:
    """The prediction of a row does not depend on the other rows or their order."""
    X = _gappy(case)
    predicted = case.predict(X)
    order = np.random.default_rng(0).permutation(case.n)
    sentence = f"The output of {case} for a row depends on the other rows."
    assert_close(case.predict(X.iloc[order]), predicted[order], sentence)
    for rows in ([0], [1], [2], [case.n - 1], [5, 3, 5], list(range(0, case.n, 3))):
        assert_close(case.predict(X.iloc[rows]), predicted[rows], sentence)
    numbered = X.reset_index(drop=True)
    assert_close(
        case.predict(numbered), predicted, f"The index of a frame changes the output of {case}."
    )


def check_transformer_gets_no_absent_cell(case: FusionCase) -> None:
    """A transformer is fitted on, and applied to, the rows with its modality only."""
    encoder = TextEncoder("tfidf", n_components=3, random_state=0)
    modalities = triples(words=make_pipeline(encoder, PCA(2, random_state=0)))
    X = _gappy(case)
    predicted = case.predict(X, case.fit(X, modalities=modalities))
    assert np.isfinite(predicted).all(), f"{case} gives NaN with a PCA after an encoder."


def check_modality_that_is_always_missing(case: FusionCase) -> None:
    """A modality without any cell in training is left out with a warning."""
    X = without(case.X, range(case.n), columns=["vector"])
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        fusion = case.fit(X)
    assert any("vector" in str(warning.message) for warning in caught), (
        f"{case} does not warn of a modality that is absent in every training row."
    )
    assert np.isfinite(case.predict(case.X, fusion)).all()


def check_polars(case: FusionCase) -> None:
    """A polars frame gives the same predictions as a pandas frame."""
    if not is_installed("polars"):
        return
    X = _gappy(case)
    expected = case.predict(X, case.fit(X))
    frame = to_polars(X)
    predicted = case.predict(frame, case.fit(frame))
    assert_close(predicted, expected, f"{case} returns something else for a polars frame.")


FUSION_CHECKS = [
    check_triples,
    check_drop,
    check_passthrough,
    check_parameters,
    check_columns,
    check_feature_names,
    check_shown,
    check_pickle,
    check_input_and_seeds,
    check_missing_at_fit_and_predict,
    check_missing_only_at_predict,
    check_row_without_any_modality,
    check_absent_values_do_not_matter,
    check_rows_are_independent,
    check_transformer_gets_no_absent_cell,
    check_modality_that_is_always_missing,
    check_polars,
]
