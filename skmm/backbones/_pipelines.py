"""What a folder of diffusers says of itself: which parts lie in it, and what is to load each.

Leaf of its folder: it imports no torch.
"""

import json
import re
from pathlib import Path
from typing import Any

__all__ = ["INDEX", "component_folders", "read_index"]

INDEX = "model_index.json"


def read_index(folder: Path) -> dict[str, Any]:
    """Content of ``model_index.json``; nothing if there is none, or it is no such thing."""
    try:
        index = json.loads((folder / INDEX).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return index if isinstance(index, dict) else {}


def component_folders(folder: Path) -> list[str]:
    """Folders inside ``folder`` that its index names, e.g. ``["scheduler", "unet"]``."""
    return sorted(
        name
        for name, value in read_index(folder).items()
        # A name that leaves the folder would escape the digest; no library writes one.
        if isinstance(value, list) and any(value) and re.fullmatch(r"[A-Za-z]\w*", name)
    )
