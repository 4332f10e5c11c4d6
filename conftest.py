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


# The longest files of tests, which xdist gives to one process each: they come first, so that no
# process waits for another one at the end.
LONGEST = ("tests/test_examples.py", "tests/test_common.py")


def pytest_collection_modifyitems(items):
    """Mark the pages of the documentation as slow, and put the longest files first."""
    for item in items:
        if item.path.suffix == ".rst":
            item.add_marker(pytest.mark.slow)
    items.sort(key=lambda item: not item.nodeid.startswith(LONGEST))
