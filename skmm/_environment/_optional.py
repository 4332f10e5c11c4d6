"""Import of optional packages at their first use, with one message for missing ones."""

import importlib
import importlib.util
from types import ModuleType

from skmm.exceptions import MissingExtraError

__all__ = ["import_optional", "is_installed"]

# Package -> the extra of skmm that installs it.
_EXTRAS = {
    "transformers": "hub",
    "diffusers": "diffusion",
    "peft": "lora",
    "safetensors": "hub",
    "huggingface_hub": "hub",
    "matplotlib": "plot",
    "polars": "polars",
    "soundfile": "audio",
    "av": "video",
    "trimesh": "points",
    "pypcd4": "points",
    "faiss": "index",
}


def import_optional(name: str, *, needed_by: str) -> ModuleType:
    """Import an optional package.

    Parameters
    ----------
    name : str
        Module to import, e.g. ``"transformers"`` or ``"matplotlib.font_manager"``.
    needed_by : str
        Class or function that requires it, for the message.

    Returns
    -------
    module : ModuleType
        The imported module.

    Raises
    ------
    MissingExtraError
        If the package is not installed; the message says what to install.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        package = name.partition(".")[0]
        # An installed package that fails to import (usually a torchvision built for another
        # torch) must not be reported as missing.
        if is_installed(package):
            raise MissingExtraError(
                f"{needed_by} needs {package}, which is installed but cannot be imported: {error}."
                " See skmm.show_versions()."
            ) from error
        extra = _EXTRAS.get(package, "all")
        raise MissingExtraError(
            f"{needed_by} needs the package {package!r}, which is not installed."
            f' Install it with: pip install "skmm[{extra}]"'
        ) from error


def is_installed(package: str) -> bool:
    """Return whether a package is installed, without importing it."""
    return importlib.util.find_spec(package) is not None
