"""The documentation is complete: every name, every parameter, every fitted attribute.

Docstring examples and the guide pages run as doctests (see ``addopts`` in pyproject.toml);
this file checks what they cannot.
"""

import ast
import builtins
import importlib
import inspect
import pkgutil
import re
import textwrap
from pathlib import Path

import pytest
import torch
from numpydoc.docscrape import NumpyDocString
from numpydoc.validate import validate

import skmm
from skmm.fusion import LateFusionClassifier
from skmm.fusion._strategies import STRATEGIES
from skmm.testing import all_estimators
from skmm.testing._instances import fitted_instance

REPO = Path(__file__).resolve().parents[1]
PUBLIC_MODULES = (
    "skmm",
    "skmm.encoders",
    "skmm.fusion",
    "skmm.alignment",
    "skmm.generation",
    "skmm.retrieval",
    "skmm.metrics",
    "skmm.model_selection",
    "skmm.inspection",
    "skmm.datasets",
    "skmm.testing",
    "skmm.nets",
    "skmm.backbones",
    "skmm.readers",
    "skmm.exceptions",
)
# numpydoc's own codes. Left out are those of taste (GL01, SS05, RT02, SA, ES), examples (EX01)
# outside classes, and YD01, which requires a section of a context manager that yields nothing.
CHECKS = {
    "GL03",  # double blank lines
    "GL05",  # tabs
    "GL06",  # unknown section
    "GL07",  # sections in the wrong order
    "GL08",  # no docstring
    "SS01",  # no summary
    "SS02",  # summary without a capital
    "SS03",  # summary without a full stop
    "SS06",  # summary over several lines
    "PR01",  # parameter not documented
    "PR02",  # documented, but no parameter
    "PR03",  # parameters in the wrong order
    "PR04",  # parameter without a type
    "PR07",  # parameter without a description
    "PR08",  # description without a capital
    "PR09",  # description without a full stop
    "PR10",  # space before the colon
    "RT01",  # no Returns section
    "RT03",  # return value without a description
    "RT04",  # its description without a capital
    "RT05",  # its description without a full stop
}


def public_objects(modules: tuple[str, ...]) -> dict[str, object]:
    """Return each public class and function by its path under the module that lists it."""
    found = {}
    for name in modules:
        module = importlib.import_module(name)
        for member in module.__all__:
            value = getattr(module, member)
            if not inspect.ismodule(value):
                found[f"{name}.{member}"] = value
    return found


def api_entries() -> set[str]:
    """Return the names that have a page in docs/api.rst."""
    entries, module, in_list = set(), "", False
    for line in (REPO / "docs" / "api.rst").read_text().splitlines():
        if line.startswith(".. currentmodule::"):
            module = line.split("::")[1].strip()
        if line.startswith(".. "):
            in_list = line.startswith(".. autosummary::")
        elif in_list and re.fullmatch(r"   \w+", line):
            entries.add(f"{module}.{line.strip()}")
    return entries


OBJECTS = public_objects(PUBLIC_MODULES)
ENTRIES = {path: value for path, value in OBJECTS.items() if path in api_entries()}
CLASSES = {path: value for path, value in ENTRIES.items() if inspect.isclass(value)}
ESTIMATORS = dict(all_estimators())


def test_checked_objects_are_found():
    assert len(OBJECTS) > 30
    assert len(ESTIMATORS) >= 9
    assert len(ENTRIES) > 30


def test_each_public_module_is_checked():
    found = {f"skmm.{module.name}" for module in pkgutil.iter_modules(skmm.__path__)}
    public = {name for name in found if not name.startswith("skmm._")}
    assert {"skmm", *public} == set(PUBLIC_MODULES)


@pytest.mark.parametrize("name", PUBLIC_MODULES)
def test_a_public_module_has_public_names_only(name):
    module = importlib.import_module(name)
    assert len(module.__all__) == len(set(module.__all__))
    shown = {member for member in dir(module) if not member.startswith("_")}
    assert shown == set(module.__all__)


@pytest.mark.parametrize("path", OBJECTS)
def test_public_name_has_an_api_entry(path):
    # The root repeats names of the folders; one entry for each object.
    assert id(OBJECTS[path]) in map(id, ENTRIES.values()), f"docs/api.rst has no entry for {path}"


def test_api_entries_exist():
    assert api_entries() == set(ENTRIES)


def docstring_errors(path: str, checks: set[str]) -> list[str]:
    return [f"{path}: {code} {text}" for code, text in validate(path)["errors"] if code in checks]


@pytest.mark.parametrize("path", ENTRIES)
def test_docstring(path):
    value, checks = ENTRIES[path], CHECKS
    if inspect.isclass(value):
        # Parameters of these are Python's and torch's own.
        foreign = issubclass(value, Exception | torch.nn.Module | tuple)
        checks = CHECKS - {"PR01"} if foreign else CHECKS | {"EX01"}
    errors = docstring_errors(path, checks)
    assert not errors, "\n".join(errors)


def own_methods(cls: type) -> list[str]:
    """Return public methods that skmm defines; scikit-learn documents its own."""
    found = []
    for name in dir(cls):
        method = inspect.getattr_static(cls, name)
        method = getattr(method, "fget", None) or getattr(method, "fn", None) or method
        if not name.startswith("_") and (getattr(method, "__module__", "") or "").startswith(
            "skmm"
        ):
            found.append(name)
    return found


@pytest.mark.parametrize("path", CLASSES)
def test_docstrings_of_methods(path):
    errors = []
    for name in own_methods(CLASSES[path]):
        errors += docstring_errors(f"{path}.{name}", CHECKS)
    assert not errors, "\n".join(errors)


def test_docstring_check_can_fail():
    """None of numpydoc's codes above has been renamed."""
    from numpydoc.validate import ERROR_MSGS

    assert set(ERROR_MSGS) >= CHECKS | {"EX01"}
    found = docstring_errors("textwrap.dedent", CHECKS)
    assert any("PR01" in error for error in found)


@pytest.mark.parametrize("name", ESTIMATORS)
def test_documented_attributes_are_the_fitted_ones(name):
    cls = ESTIMATORS[name]
    documented = {
        name.strip()
        for attribute in NumpyDocString(inspect.getdoc(cls))["Attributes"]
        for name in attribute.name.split(",")
    }
    fitted = fitted_instance(cls)
    there = {name for name in vars(fitted) if name.endswith("_") and not name.startswith("_")}
    assert documented == there, f"documented only, or fitted only: {sorted(documented ^ there)}"


def code_blocks(text: str) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE)


@pytest.mark.slow
def test_readme_example_runs(capsys):
    (example,) = code_blocks((REPO / "README.md").read_text())
    assert len([line for line in example.splitlines() if line.strip()]) <= 11
    exec(compile(example, "README.md", "exec"), {})
    assert capsys.readouterr().out.strip()


def test_readme_links_exist():
    text = (REPO / "README.md").read_text()
    links = [link for link in re.findall(r"\]\(([^)#]+)", text) if "://" not in link]
    assert links
    for link in links:
        assert (REPO / link).exists(), link


def test_readme_names_each_estimator():
    text = (REPO / "README.md").read_text()
    for name in ESTIMATORS:
        assert f"`{name}`" in text


@pytest.mark.parametrize("page", ["README.md", "docs/guide/fusion.rst"])
def test_rules_and_strategies_are_listed(page):
    text = (REPO / page).read_text()
    rules = LateFusionClassifier._parameter_constraints["rule"][0].options
    for name in (*STRATEGIES, *rules):
        assert name in text, f"{page} does not name {name!r}"


def test_each_guide_page_is_in_the_index():
    index = (REPO / "docs" / "guide" / "index.rst").read_text()
    for page in (REPO / "docs" / "guide").glob("*.rst"):
        assert page.stem == "index" or f"   {page.stem}\n" in index


# Without the gallery, which exists after the documentation has been built.
PAGES = sorted(p for p in (REPO / "docs").glob("*/*.rst") if p.parent.name != "auto_examples")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_page_has_an_example_that_runs(page):
    # `>>>` in any .rst below docs/ is a doctest, and pytest runs it.
    assert page.stem == "index" or ">>> " in page.read_text()


def wrong_calls(code: str) -> list[str]:
    """Return names of skmm that do not exist, and parameters that they do not have."""
    wrong = []
    tree = ast.parse(code)
    foreign = {
        alias.asname or alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and not str(node.module).startswith("skmm")
        for alias in node.names
    }
    foreign |= {node.name for node in ast.walk(tree) if isinstance(node, ast.ClassDef)}
    foreign |= set(dir(builtins))
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            name = ast.unparse(node.func).removeprefix("skmm.")
            if "." in name or name in foreign:
                continue  # a method of something, or another package's
            if name not in skmm.__all__:
                wrong.append(f"skmm has no {name}")
                continue
            known = inspect.signature(getattr(skmm, name)).parameters
            wrong += [f"{name} has no {k.arg}" for k in node.keywords if k.arg not in known]
    return wrong


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_code_that_does_not_run_uses_existing_names(page):
    """Snippets that would download something, or leave files behind, are checked by name."""
    blocks = re.findall(r"^\.\. code-block:: python\n\n((?:   .*\n|\n)+)", page.read_text(), re.M)
    for block in blocks:
        assert not wrong_calls(textwrap.dedent(block))


SCRIPTS = [*(REPO / "examples").glob("*.py"), *(REPO / "tests" / "benchmarks").glob("*.py")]


@pytest.mark.parametrize("path", sorted(SCRIPTS), ids=lambda path: path.stem)
def test_scripts_use_existing_names(path):
    """Also in scripts that the suite does not run: names and parameters of skmm exist."""
    tree = ast.parse(path.read_text())
    public = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "skmm":
            module = importlib.import_module(node.module)
            for alias in node.names:
                assert hasattr(module, alias.name), f"{node.module} has no {alias.name}"
                public[alias.asname or alias.name] = getattr(module, alias.name)
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and ast.unparse(node.func) in public:
            function = public[ast.unparse(node.func)]
            known = inspect.signature(function).parameters
            if not any(p.kind is p.VAR_KEYWORD for p in known.values()):
                unknown = [k.arg for k in node.keywords if k.arg and k.arg not in known]
                assert not unknown, f"{ast.unparse(node.func)} has no {unknown}"


def test_wrong_calls_are_found():
    assert wrong_calls('TextEncoder(modell="tfidf")') == ["TextEncoder has no modell"]
    assert wrong_calls("TextEncode()") == ["skmm has no TextEncode"]
    assert wrong_calls("skmm.set_config(store=None)") == []
    assert wrong_calls("from sklearn.pipeline import Pipeline\nPipeline([])") == []
    assert wrong_calls("from skmm import Pipeline\nPipeline([])") == ["skmm has no Pipeline"]


def test_make_help_names_each_target():
    text = (REPO / "Makefile").read_text()
    (phony,) = re.findall(r"^\.PHONY: (.*)$", text, flags=re.MULTILINE)
    for target in set(phony.split()) - {"help"}:
        assert re.search(rf'@echo "make {target} ', text)


def test_code_block_finder():
    text = textwrap.dedent("""
        ```python
        a = 1
        ```
        ```sh
        make demo
        ```
        """)
    assert code_blocks(text) == ["a = 1\n"]
