"""The store alone, for processes of tests: without torch they start in no time."""

import sys
from importlib.util import find_spec
from types import ModuleType

# A package that is there already is not run, so it imports no encoder.
package = ModuleType("skmm.encoders")
package.__path__ = [f"{find_spec('skmm').submodule_search_locations[0]}/encoders"]
sys.modules["skmm.encoders"] = package

from skmm.encoders._store import _connection  # noqa: E402
from skmm.encoders._store._store import EmbeddingStore  # noqa: E402

__all__ = ["EmbeddingStore", "_connection"]
