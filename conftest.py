"""Settings of every test run, doctests of the package included."""

import os
from pathlib import Path

# Drawn data are cached where the run's other leftovers are, not in the user's cache.
os.environ.setdefault("SKMM_DATA_HOME", str(Path(__file__).parent / ".pytest_cache" / "skmm-data"))
