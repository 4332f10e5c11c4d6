"""Write the sections of RESULTS.md; every figure there comes from a script of this folder.

With ``SKMM_RESULTS=some/file.md`` in the environment the sections go there instead: for a trial.
"""

import datetime
import os
import platform
import re
from importlib import metadata
from pathlib import Path

import torch

RESULTS = Path(os.environ.get("SKMM_RESULTS", Path(__file__).with_name("RESULTS.md")))
PACKAGES = ("skmm", "torch", "transformers", "scikit-learn")


def machine():
    """Name the machine of a measurement."""
    if torch.cuda.is_available():
        return f"{torch.cuda.get_device_name()}, {os.cpu_count()} CPU cores"
    return f"{os.cpu_count()} CPU cores ({platform.machine()}), no GPU"


def versions(packages=PACKAGES):
    """Name the packages and their versions; what is not installed is left out."""
    found = []
    for package in packages:
        try:
            found.append(f"{package} {metadata.version(package)}")
        except metadata.PackageNotFoundError:
            continue
    return ", ".join(found)


def write_section(title, script, body):
    """Replace the section ``title``, or add it."""
    head = "# Results\n\nMeasured by the scripts in this folder, which rewrite their sections.\n"
    text = RESULTS.read_text() if RESULTS.exists() else head
    section = (
        f"\n## {title}\n\n`python tests/benchmarks/{script}`, {datetime.date.today()},"
        f" {versions()}, {machine()}.\n\n{body.strip()}\n"
    )
    pattern = re.compile(rf"\n## {re.escape(title)}\n.*?(?=\n## |\Z)", re.DOTALL)
    if pattern.search(text):
        text = pattern.sub(lambda _: section, text)
    else:
        text = text.rstrip() + "\n" + section
    RESULTS.write_text(text)
    print(section)


def table(frame, digits=3):
    """Return a DataFrame as a Markdown table."""
    frame = frame.map(lambda v: f"{v:.{digits}f}" if isinstance(v, float) else str(v))
    head = ["", *map(str, frame.columns)]
    rows = [[str(index), *row] for index, row in zip(frame.index, frame.to_numpy(), strict=True)]
    lines = ["| " + " | ".join(row) + " |" for row in [head, ["---"] * len(head), *rows]]
    return "\n".join(lines)


def data_folder():
    """Folder with the real data, None where it is absent."""
    default = Path(__file__).parents[3] / "shared" / "data"
    folder = Path(os.environ.get("SKMM_DATA", default))
    return folder if folder.is_dir() else None


def load_real(name):
    """Load one of the real data sets by its own ``load.py``."""
    import importlib.util

    folder = data_folder()
    if folder is None:
        raise SystemExit("The real data are not here: set SKMM_DATA to their folder.")
    spec = importlib.util.spec_from_file_location(f"load_{name}", folder / name / "load.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.load()
