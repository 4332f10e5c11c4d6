"""Fixtures of the inspection's tests."""

import sys

import pytest


@pytest.fixture(autouse=True)
def closed_figures():
    """No figure is left open, and none of a doctest is found."""
    _close()
    yield
    _close()


def _close():
    if (pyplot := sys.modules.get("matplotlib.pyplot")) is not None:
        pyplot.close("all")
