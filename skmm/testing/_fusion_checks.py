"""The contract of a fusion, for those of skmm and for anybody else's."""

from typing import Any

from skmm.testing._encoder_checks import run_checks
from skmm.testing._fusion_case import FusionCase
from skmm.testing._fusion_estimator import ESTIMATOR_CHECKS, ROW_CHECKS

__all__ = ["FUSION_CHECKS", "check_fusion"]

FUSION_CHECKS = [*ESTIMATOR_CHECKS, *ROW_CHECKS]


def check_fusion(fusion: Any) -> None:
    """Check that a fusion keeps the contract of a meta-estimator over modalities.

    scikit-learn's ``check_estimator`` asks what holds for every estimator; this asks what a
    fusion promises beyond that. It takes triples with ``'drop'`` and ``'passthrough'``
    (numbers, or cells that are vectors), fits clones of their transformers, and reaches their
    parameters by name; any row may lack any modality, at fit and after it, and a row without
    one gets the prior or an error; what is absent cannot change an answer, nor can other
    rows; pickles, polars frames, feature names and the diagram work; errors name the column;
    frames and global seeds are left alone, and ``random_state`` decides.

    Parameters
    ----------
    fusion : estimator
        Unfitted fusion with a parameter ``modalities``, which is replaced by triples over a toy
        frame. Clones of it are fitted, some thirty times: best one with small settings and a
        ``random_state``.

    Raises
    ------
    AssertionError
        If the fusion breaks the contract; the message says how.

    Examples
    --------
    >>> from skmm import EarlyFusion
    >>> from skmm.testing import check_fusion
    >>> check_fusion(EarlyFusion())
    """
    run_checks(FUSION_CHECKS, FusionCase(fusion))
