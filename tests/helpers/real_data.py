"""Real data, which are not part of the repository; a test that wants them skips without."""

import importlib.util
import os
import warnings
from pathlib import Path

import pytest

_DEFAULT = Path(__file__).resolve().parents[3] / "shared" / "data"


def load_real(name):
    """Load a data set by the ``load.py`` in its folder."""
    path = Path(os.environ.get("SKMM_DATA", _DEFAULT)) / name / "load.py"
    if not path.is_file():
        pytest.skip(f"the data set {name!r} is not here: SKMM_DATA names no folder that has it")
    spec = importlib.util.spec_from_file_location(f"load_{name}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # their files are left open
        return module.load()
