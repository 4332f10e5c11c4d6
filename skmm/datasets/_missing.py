"""Which cells of a made data set are missing."""

from collections.abc import Mapping

import numpy as np

from skmm.datasets._check import check_real

__all__ = ["PATTERNS", "check_rates", "draw_missing"]

PATTERNS = ("random", "never_all", "train_complete", "dependent")

# Odds of being absent at the highest target over those at the lowest.
_LOG_ODDS = 3.0


def check_rates(function: str, missing: object, names: tuple[str, ...], pattern: str) -> np.ndarray:
    """Rate of every modality, (n_modalities,), from a number or a dict."""
    if isinstance(missing, Mapping):
        for name in missing:
            if name not in names:
                raise ValueError(
                    f"{function}: missing names the modality {name!r}, which is not one of"
                    f" {list(names)}."
                )
        rates = [
            check_real(function, f"missing[{name!r}]", missing.get(name, 0.0), 0, 1)
            for name in names
        ]
    else:
        rates = [check_real(function, "missing", missing, 0, 1)] * len(names)
    if pattern == "never_all" and sum(rates) > len(names) - 1:
        raise ValueError(
            f"{function}: missing_pattern='never_all' leaves every row a cell, which needs rates"
            f" that sum to at most {len(names) - 1}, got {sum(rates):g}. Lower missing, or take"
            " missing_pattern='random'."
        )
    return np.array(rates)


def draw_missing(
    pattern: str, rates: np.ndarray, y: np.ndarray, rng: np.random.RandomState
) -> np.ndarray:
    """Which modality is absent in which row.

    Parameters
    ----------
    pattern : str
        One of `PATTERNS`.
    rates : ndarray of shape (n_modalities,)
        Share of the rows in which a modality is absent.
    y : ndarray of shape (n_samples,) or (n_samples, n_targets)
        The target, on whose rank ``"dependent"`` depends (the first, of several).
    rng : RandomState
        Draws the rows.

    Returns
    -------
    absent : ndarray of bool, shape (n_samples, n_modalities)
        True where the modality is absent.
    """
    n_samples = len(y)
    may_lack = np.ones(n_samples, dtype=bool)
    log_odds = np.zeros(n_samples)
    if pattern == "train_complete":
        may_lack[: n_samples // 2] = False
    elif pattern == "dependent":
        log_odds = _LOG_ODDS * _rank(y if y.ndim == 1 else y[:, 0])
    absent = np.zeros((n_samples, len(rates)), dtype=bool)
    for column, rate in enumerate(rates):
        # The highest of log odds + Gumbel noise are a draw without replacement in which a
        # row's odds are what they should be, of exactly as many rows as asked for.
        keys = np.where(may_lack, log_odds + rng.gumbel(size=n_samples), -np.inf)
        n_absent = int(round(rate * may_lack.sum()))
        absent[np.argsort(-keys, kind="stable")[:n_absent], column] = True
    if pattern == "never_all":
        _spread(absent, rng)
    return absent


def _rank(y: np.ndarray) -> np.ndarray:
    """Rank of every value between 0 and 1; equal values share it."""
    values, places = np.unique(y, return_inverse=True)
    return places / max(len(values) - 1, 1)


def _spread(absent: np.ndarray, rng: np.random.RandomState) -> None:
    """Give every row that lacks all one cell back, taken from a row that has two or more.

    So the rate of every modality stays.
    """
    for row in rng.permutation(np.flatnonzero(absent.all(axis=1))):
        n_present = (~absent).sum(axis=1)
        for column in rng.permutation(absent.shape[1]):
            donors = np.flatnonzero(~absent[:, column] & (n_present >= 2))
            if len(donors):
                absent[rng.choice(donors), column] = True
                break
        # Without a donor, which rounded rates can bring about, the rate is missed by a row.
        absent[row, column] = False
