"""Fixtures of the tests of inspection."""

import sys

import pytest


@pytest.fixture(autouse=True)
def closed_figures():
    """Close all figures before and after a test."""
    _close()
    yield
    _close()


def _close():
    if (pyplot := sys.modules.get("matplotlib.pyplot")) is not None:
        pyplot.close("all")
