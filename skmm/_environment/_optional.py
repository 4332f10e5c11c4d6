"""The only place that imports an optional package.

A package behind an extra is imported at its first use, and its absence is worded once.
"""

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
    """Import a package that not every user has.

    Parameters
    ----------
    name : str
        Module to import, e.g. ``"transformers"`` or ``"matplotlib.font_manager"``.
    needed_by : str
        What asks for it, for the message: a class or function name.

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
        # A package that is there but broken (a torchvision built for another torch
        # is the usual case) must not be reported as absent.
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
    """Whether a package can be found, without importing it."""
    return importlib.util.find_spec(package) is not None
