"""Settings of every test run, doctests of the package included."""

import os
from pathlib import Path

from hypothesis import settings

# Drawn data are cached where the run's other leftovers are, not in the user's cache.
os.environ.setdefault("SKMM_DATA_HOME", str(Path(__file__).parent / ".pytest_cache" / "skmm-data"))

# No test asserts a time. In CI the examples are the same in every run, so that what is red
# there is red because of the change.
settings.register_profile("skmm", deadline=None, derandomize="CI" in os.environ)
settings.load_profile("skmm")
