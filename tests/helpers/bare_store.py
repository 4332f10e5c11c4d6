"""The store without torch, for processes of tests, which then start quickly."""

import sys
from importlib.util import find_spec
from types import ModuleType

# A package in sys.modules is not imported again, so no encoder is imported.
package = ModuleType("skmm.encoders")
package.__path__ = [f"{find_spec('skmm').submodule_search_locations[0]}/encoders"]
sys.modules["skmm.encoders"] = package

from skmm.encoders._store import _connection  # noqa: E402
from skmm.encoders._store._store import EmbeddingStore  # noqa: E402

__all__ = ["EmbeddingStore", "_connection"]
