"""Settings of every test run, doctests of the package included."""

import os
from pathlib import Path

import pytest
from hypothesis import settings

# Generated data are cached where the run's other leftovers are, not in the user's cache.
os.environ.setdefault("SKMM_DATA_HOME", str(Path(__file__).parent / ".pytest_cache" / "skmm-data"))

# No test asserts a time. In CI the examples are the same in every run, so that what is red
# there is red because of the change.
settings.register_profile("skmm", deadline=None, derandomize="CI" in os.environ)
settings.load_profile("skmm")


def pytest_collection_modifyitems(items):
    """Mark examples that train for seconds as slow, and start with the longest file of tests.

    xdist gives a file to one process, which should not begin with the longest one at the end.
    """
    for item in items:
        if item.path.suffix == ".rst" or item.nodeid.startswith("skmm/generation/"):
            item.add_marker(pytest.mark.slow)
    items.sort(key=lambda item: not item.nodeid.startswith("tests/test_common.py"))
