"""``import skmm`` is fast, and its public names exist."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import skmm

HEAVY = ("torch", "transformers", "skorch", "sklearn", "pandas", "numpy", "scipy", "PIL", "joblib")


def run_python(code: str) -> str:
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return result.stdout.strip()


def loaded_after(statement: str) -> set[str]:
    printed = run_python(f"{statement}\nimport sys\nprint(*sys.modules)")
    return {name.partition(".")[0] for name in printed.split()}


def test_import_skmm_loads_nothing_heavy():
    assert loaded_after("import skmm").isdisjoint(HEAVY)


def test_introspection_loads_nothing_heavy():
    statement = (
        "import skmm; dir(skmm); skmm.__version__; skmm.exceptions; hasattr(skmm, 'nothing')"
    )
    assert loaded_after(statement).isdisjoint(HEAVY)


def test_a_heavy_import_is_found():
    assert "numpy" in loaded_after("import numpy")


@pytest.mark.slow
def test_readers_and_datasets_load_no_torch():
    assert "torch" not in loaded_after("import skmm.readers")
    assert "torch" not in loaded_after("import skmm.datasets")


@pytest.mark.parametrize("name", skmm.__all__)
def test_every_public_name_resolves(name):
    assert getattr(skmm, name) is getattr(skmm, name)


def test_dir_lists_the_public_names():
    assert dir(skmm) == sorted([*skmm.__all__, "__version__"])


def test_star_import():
    namespace: dict[str, object] = {}
    exec("from skmm import *", namespace)
    assert set(skmm.__all__) <= set(namespace)


def test_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'skmm' has no attribute 'TextEncodr'"):
        skmm.TextEncodr  # noqa: B018


def test_lazy_table_all_and_type_checking_imports_are_equal():
    """The imports are for type checkers, ``__all__`` for users, and the table for Python."""
    tree = ast.parse(Path(skmm.__file__).read_text())
    (guard,) = [node for node in tree.body if isinstance(node, ast.If)]
    typed = {
        alias.name: node.module
        for node in guard.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    folders = dict.fromkeys(skmm._FOLDERS, "skmm")
    assert typed == {**skmm._HOME, **folders}
    assert sorted(skmm.__all__) == skmm.__all__
    assert set(skmm.__all__) == set(typed)


def test_the_classes_of_a_folder_are_names_of_the_root():
    """Exceptions are the store, strategies, losses and methods, which are no estimators."""
    from skmm import alignment, encoders, fusion, generation, retrieval

    folders = (alignment, encoders, fusion, generation, retrieval)
    in_folders = {name for folder in folders for name in folder.__all__} - {"EmbeddingStore"}
    in_folders -= {"FusionStrategy", "make_strategy"}
    in_folders -= {cls.__name__ for cls in fusion._strategies.STRATEGIES.values()}
    # Objects that hold options are names of their folder alone.
    in_folders -= {"InfoNCE", "MaxMargin", "SigLIP", "Triplet"}
    in_folders -= {"BeamSearch", "FlowMatching", "GAN", "GreedySearch", "NucleusSampling"}
    assert in_folders == {name for name, home in skmm._HOME.items() if home.count("._") == 0}
