"""The contract of an encoder, for those of skmm and for anybody else's."""

from collections.abc import Callable, Sequence
from typing import Any

from skmm.testing._encoder_case import EncoderCase
from skmm.testing._encoder_cells import CELL_CHECKS, WORK_CHECKS
from skmm.testing._encoder_estimator import ESTIMATOR_CHECKS

__all__ = ["ENCODER_CHECKS", "check_encoder", "run_checks"]

ENCODER_CHECKS = [*ESTIMATOR_CHECKS, *CELL_CHECKS, *WORK_CHECKS]


def check_encoder(encoder: Any, X: Any = None) -> None:
    """Check that an encoder keeps the contract on which fusions and searches rely.

    scikit-learn's ``check_estimator`` asks what holds for every estimator; this asks what an
    encoder promises beyond that. ``__init__`` only stores; output is float32 with readable
    names, in any container; an absent cell, however it is spelled, is a row of NaN and has no
    token; an opaque cell is refused by column and row; a vector depends on its cell alone,
    not on other rows, batches, index or column names; a pickle gives the same vectors; the
    input is left alone, and so are global seeds; the same ``random_state`` gives the same
    result; what the store keeps is not encoded again and never belongs to other parameters; a
    network that ``needs_training`` can be trained under another head.

    Parameters
    ----------
    encoder : estimator
        Unfitted encoder; clones of it are fitted. Best one with small settings and a
        ``random_state``: it is fitted some fifty times.
    X : DataFrame of shape (n_samples, n_columns), default=None
        Cells that differ, at least four rows, none missing. None takes toy cells, which there
        are for ``encoder.modality`` in ``"text"``, ``"image"`` and ``"tabular"``.

    Raises
    ------
    AssertionError
        If the encoder breaks the contract; the message says how.
    ValueError
        If there is no X to check it on.

    Examples
    --------
    >>> from skmm import TabularEncoder
    >>> from skmm.testing import check_encoder
    >>> check_encoder(TabularEncoder())

    An encoder that takes an absent text for an empty one breaks the contract:

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


def run_checks(checks: Sequence[Callable[[Any], None]], case: Any) -> None:
    """Run checks on a case; whatever goes wrong becomes an AssertionError that says where."""
    for check in checks:
        try:
            check(case)
        except AssertionError as error:
            raise AssertionError(f"{error} ({check.__name__})") from error
        except Exception as error:
            raise AssertionError(
                f"{case} raised {type(error).__name__} in {check.__name__}: {error}"
            ) from error
