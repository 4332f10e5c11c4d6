"""Checks of the contract of an encoder, of skmm or of a user."""

import inspect
import pickle
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd
from sklearn.base import clone
from sklearn.exceptions import NotFittedError

from skmm._constraints import Estimator
from skmm._environment._optional import is_installed
from skmm.testing._compare import (
    assert_close,
    contents,
    global_seeds,
    raises,
    unchanged_globals,
)
from skmm.testing._encoder_case import EncoderCase
from skmm.testing._encoder_cells import CELL_CHECKS, WORK_CHECKS

__all__ = ["ENCODER_CHECKS", "check_encoder", "run_checks"]


def check_encoder(encoder: Estimator, X: pd.DataFrame | None = None) -> None:
    """Check if an encoder adheres to the conventions of skmm.

    scikit-learn's ``check_estimator`` tests what holds for every estimator. This function tests
    what fusions and searches expect of an encoder beyond that:

    - ``__init__`` only stores its parameters, and a clone has no fitted attributes;
    - ``transform`` returns float32 with one row per sample and readable feature names, in the
      container that ``set_output`` chooses, for cells in pandas, polars, numpy, a Series or a list;
    - an absent cell (None, NaN, ``pd.NA``, ...) gives a row of NaN and no token;
    - a cell of a wrong type raises an error that names its column and row;
    - a vector depends on its cell alone, not on other rows, the batch size, the index or the names
      of the columns;
    - an unpickled encoder gives the same vectors;
    - the input and global seeds are not changed, and the same ``random_state`` gives the same
      result;
    - a cell in the store is not encoded again, and its vector is never used for other parameters;
    - an encoder with ``needs_training`` can be trained together with another network.

    Parameters
    ----------
    encoder : estimator
        Unfitted encoder. Clones of it are fitted about fifty times, so it should have a small model
        and a ``random_state``.
    X : DataFrame of shape (n_samples, n_columns), default=None
        Cells to encode: at least four rows, all different and none missing. None takes generated
        cells of the modality that ``encoder.modality`` names.

    Raises
    ------
    AssertionError
        If the encoder fails a check. The message names the check and what went wrong.
    ValueError
        If ``X`` is not such a frame, or is None and there are no generated cells of the modality.

    See Also
    --------
    check_fusion : The same for fusions.
    sklearn.utils.estimator_checks.check_estimator : Checks of every estimator.

    Examples
    --------
    >>> from skmm import TabularEncoder
    >>> from skmm.testing import check_encoder
    >>> check_encoder(TabularEncoder())

    An encoder that treats a missing text as an empty one fails:

    >>> from skmm import TextEncoder
    >>> class Careless(TextEncoder):
    ...     def transform(self, X):
    ...         return super().transform(X.fillna(""))
    >>> check_encoder(Careless("tfidf", n_components=2, random_state=0))
    Traceback (most recent call last):
        ...
    AssertionError: ...
    """
    run_checks(ENCODER_CHECKS, EncoderCase(encoder, X))


def run_checks(checks: Sequence[Callable[[Any], None]], case: object) -> None:
    """Run checks on a case; turn every error into an AssertionError that names the check."""
    for check in checks:
        try:
            check(case)
        except AssertionError as error:
            raise AssertionError(f"{error} ({check.__name__})") from error
        except Exception as error:
            raise AssertionError(
                f"{case} raised {type(error).__name__} in {check.__name__}: {error}"
            ) from error


# --- Checks of an encoder as an estimator: parameters, clones, names, pickles, seeds ---


def check_init_only_stores(case: EncoderCase) -> None:
    """``__init__`` loads no model and validates no parameter."""
    cls = type(case.encoder)
    marks = {name: object() for name in case.params}
    try:
        bare = cls(**marks)
    except Exception as error:
        raise AssertionError(
            f"{case}.__init__ validates its parameters or loads something: with any objects it"
            f" raised {type(error).__name__}: {error}"
        ) from error
    extra = sorted(set(vars(bare)) - set(marks))
    assert not extra, f"{case}.__init__ sets {extra}, which are not parameters: set them in fit."
    for name, mark in marks.items():
        assert getattr(bare, name) is mark, f"{case}.__init__ does not store {name!r} unchanged."
    names = set(inspect.signature(cls).parameters)
    assert names == set(marks), f"get_params of {case} gives {set(marks)}, __init__ takes {names}."


def check_clone(case: EncoderCase) -> None:
    """A clone has the parameters and no fitted attribute."""
    copy = clone(case.fitted)
    learned = [name for name in vars(copy) if name.endswith("_") and not name.startswith("_")]
    assert not learned, f"A clone of a fitted {case} has {learned}."
    again = np.asarray(copy.fit(case.X, case.y).transform(case.X))
    if case.params.get("random_state") is not None or not case.needs_training:
        assert_close(again, case.vectors, f"A clone of {case} returns other vectors.")


def check_needs_fit(case: EncoderCase) -> None:
    """Encoding before ``fit`` raises ``NotFittedError``."""
    bare = clone(case.encoder)
    sentence = f"{case} must raise NotFittedError before fit."
    raises(lambda: bare.transform(case.X), NotFittedError, sentence)
    raises(lambda: bare.transform_sequence(case.X), NotFittedError, sentence)
    raises(lambda: bare.get_feature_names_out(), NotFittedError, sentence)


def check_output(case: EncoderCase) -> None:
    """``transform`` returns float32, one row for each row."""
    output = case.fitted.set_output(transform="default").transform(case.X)
    assert isinstance(output, np.ndarray), f"{case}.transform gives {type(output).__name__}."
    assert output.dtype == np.float32, f"{case}.transform gives {output.dtype}, not float32."
    width = len(case.fitted.get_feature_names_out())
    assert output.shape == (case.n, width), (
        f"{case}.transform gives shape {output.shape} for {case.n} rows and {width} names."
    )
    declared = getattr(case.fitted, "n_outputs_", width)
    assert declared == width, f"{case}.n_outputs_ is {declared}, but there are {width} outputs."
    assert np.isfinite(output).all(), f"{case} returns NaN or infinity for present cells."
    assert len(np.unique(output.round(4), axis=0)) > 1, f"{case} gives all cells the same vector."
    fresh = clone(case.encoder).set_output(transform="default")
    together = fresh.fit_transform(case.X, case.y)
    assert_close(
        together,
        fresh.transform(case.X),
        f"fit_transform of {case} returns something else than fit and then transform.",
    )


def check_feature_names(case: EncoderCase) -> None:
    """Feature names are readable and unique, and follow the names of the columns."""
    names = case.fitted.get_feature_names_out()
    assert all(isinstance(name, str) for name in names), f"Names of {case} must be str."
    assert all(name.isprintable() and " at 0x" not in name for name in names), (
        f"Names of {case} are not readable: {names[0]!r}."
    )
    assert len(set(names)) == len(names), f"{case} gives two outputs the same name."
    same = case.fitted.get_feature_names_out(list(case.X.columns))
    assert list(same) == list(names), f"{case} gives other names when given those of fit."
    raises(
        lambda: case.fitted.get_feature_names_out([*case.X.columns, "more"]),
        ValueError,
        f"{case}.get_feature_names_out must refuse other columns than those of fit.",
    )


def check_set_output(case: EncoderCase) -> None:
    """Output as a pandas or polars frame keeps names, index and values."""
    encoder = case.fit()
    plain = np.asarray(encoder.transform(case.X))
    names = list(encoder.get_feature_names_out())
    frame = encoder.set_output(transform="pandas").transform(case.X)
    assert list(frame.columns) == names, f"The pandas output of {case} has other names."
    assert list(frame.index) == list(case.X.index), f"The pandas output of {case} loses the index."
    assert_close(frame, plain, f"The pandas output of {case} has other values.")
    if is_installed("polars"):
        frame = encoder.set_output(transform="polars").transform(case.X)
        assert type(frame).__module__.startswith("polars"), f"{case} ignores set_output('polars')."
        assert list(frame.columns) == names, f"The polars output of {case} has other names."
        assert_close(frame.to_numpy(), plain, f"The polars output of {case} has other values.")


def check_columns(case: EncoderCase) -> None:
    """Columns other than those of ``fit`` are refused."""
    first = case.X.columns[0]
    renamed = case.X.rename(columns={first: f"not_{first}"})
    raises(
        lambda: case.fitted.transform(renamed),
        ValueError,
        f"{case}.transform must refuse columns with other names than in fit.",
        naming=(f"not_{first}",),
    )
    wider = case.X.assign(more=case.X[first])
    sentence = f"{case}.transform must refuse more columns than in fit."
    raises(lambda: case.fitted.transform(wider), ValueError, sentence)
    raises(
        lambda: clone(case.encoder).fit(case.X, case.y[:-1]),
        ValueError,
        f"{case}.fit must refuse a y of another length than X.",
    )
    raises(
        lambda: clone(case.encoder).fit(case.X.iloc[:0], case.y[:0]),
        ValueError,
        f"{case}.fit must refuse a frame without rows.",
    )


def check_pickle(case: EncoderCase) -> None:
    """A pickle gives the same vectors, tokens and names."""
    loaded = pickle.loads(pickle.dumps(case.fitted))
    sentence = f"{case} returns something else after a pickle."
    assert_close(loaded.transform(case.X), case.vectors, sentence)
    tokens, mask = case.fitted.transform_sequence(case.X)
    again, its_mask = loaded.transform_sequence(case.X)
    assert_close(again, tokens, sentence)
    assert np.array_equal(mask, its_mask), sentence
    assert list(loaded.get_feature_names_out()) == list(case.fitted.get_feature_names_out()), (
        sentence
    )
    bare = pickle.loads(pickle.dumps(clone(case.encoder)))
    assert set(bare.get_params()) == set(case.encoder.get_params()), sentence


def check_input_is_left_alone(case: EncoderCase) -> None:
    """Neither cells nor ``y`` are changed, and writing to an output changes no later output."""
    X, y = case.X, case.y.copy()
    before = contents(X)
    encoder = case.fit()
    features = np.asarray(encoder.transform(X))
    encoder.transform_sequence(X)
    assert contents(X) == before, f"{case} changes its input frame."
    assert np.array_equal(y, case.y), f"{case} changes y."
    features = features.copy() if not features.flags.writeable else features
    expected = features.copy()
    features[:] = -1.0
    assert contents(X) == before, f"Writing to an output of {case} changes its input frame."
    assert_close(
        encoder.transform(X), expected, f"Writing to an output of {case} changes later outputs."
    )


def check_seeds(case: EncoderCase) -> None:
    """The same ``random_state`` gives the same vectors; global states are not changed."""
    # Without a seed, estimators of scikit-learn use the global generator of numpy.
    seed: dict[str, Any] = {"random_state": 0} if "random_state" in case.params else {}
    with unchanged_globals(f"{case}.fit or transform"):
        encoder = case.fit(**seed)
        encoder.transform(case.X)
        encoder.transform_sequence(case.X)
    if not seed:
        return
    results: list[Any] = []
    for global_seed in (1, 2):  # must not affect the result
        with global_seeds(global_seed):
            results.append(case.fit(random_state=0).transform(case.X))
    sentence = f"{case} returns other vectors for the same random_state."
    assert_close(results[0], results[1], sentence)
    generator = np.random.RandomState(0)
    from_generator = case.fit(random_state=generator).transform(case.X)
    assert_close(from_generator, results[0], f"{case} does not accept a RandomState as its seed.")


ENCODER_CHECKS = [
    check_init_only_stores,
    check_clone,
    check_needs_fit,
    check_output,
    check_feature_names,
    check_set_output,
    check_columns,
    check_pickle,
    check_input_is_left_alone,
    check_seeds,
    *CELL_CHECKS,
    *WORK_CHECKS,
]
