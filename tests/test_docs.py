"""The documentation says what is there: every name, every parameter, every fitted attribute.

Docstring examples and the guide pages run as doctests (see ``addopts`` in pyproject.toml);
this file checks what they cannot.
"""

import importlib
import inspect
import re
import textwrap
from pathlib import Path

import pytest
from numpydoc.docscrape import NumpyDocString
from numpydoc.validate import validate

REPO = Path(__file__).resolve().parents[1]
PUBLIC_MODULES = (
    "skmm",
    "skmm.encoders",
    "skmm.fusion",
    "skmm.datasets",
    "skmm.testing",
    "skmm.exceptions",
)
# numpydoc's own codes. Left out are those of taste (GL01, SS05, RT02, SA, ES) and, outside
# classes, examples (EX01).
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
    "YD01",  # no Yields section
}


def public_objects() -> dict[str, object]:
    """Path of each public class and function under the module that lists it."""
    found = {}
    for name in PUBLIC_MODULES:
        module = importlib.import_module(name)
        for member in module.__all__:
            value = getattr(module, member)
            if not inspect.ismodule(value):
                found[f"{name}.{member}"] = value
    return found


def api_entries() -> set[str]:
    """Names that docs/api.rst gives a page."""
    entries, module, in_list = set(), "", False
    for line in (REPO / "docs" / "api.rst").read_text().splitlines():
        if line.startswith(".. currentmodule::"):
            module = line.split("::")[1].strip()
        if line.startswith(".. "):
            in_list = line.startswith(".. autosummary::")
        elif in_list and re.fullmatch(r"   \w+", line):
            entries.add(f"{module}.{line.strip()}")
    return entries


OBJECTS = public_objects()
CLASSES = {path: value for path, value in OBJECTS.items() if inspect.isclass(value)}
# The root repeats names of the folders; one check for each object.
ESTIMATORS = {
    path: value
    for path, value in CLASSES.items()
    if path.startswith(("skmm.encoders.", "skmm.fusion.")) and hasattr(value, "fit")
}


def test_there_is_something_to_check():
    assert len(OBJECTS) > 30
    assert len(ESTIMATORS) >= 9
    assert len(api_entries()) > 20


@pytest.mark.parametrize("path", OBJECTS)
def test_public_name_has_an_api_entry(path):
    entries = {id(OBJECTS[entry]) for entry in api_entries() & set(OBJECTS)}
    assert id(OBJECTS[path]) in entries, f"docs/api.rst has no entry for {path}"


def test_api_entries_exist():
    assert api_entries() <= set(OBJECTS)


def docstring_errors(path: str, checks: set[str]) -> list[str]:
    return [f"{path}: {code} {text}" for code, text in validate(path)["errors"] if code in checks]


@pytest.mark.parametrize("path", sorted(set(OBJECTS) & api_entries()))
def test_docstring(path):
    value = OBJECTS[path]
    if inspect.isclass(value) and issubclass(value, Exception):
        checks = {code for code in CHECKS if not code.startswith("PR")}
    elif inspect.isclass(value):
        checks = CHECKS | {"EX01"}
    else:
        checks = CHECKS
    errors = docstring_errors(path, checks)
    assert not errors, "\n".join(errors)


def own_methods(cls: type) -> list[str]:
    """Public methods that skmm defines; those of scikit-learn are documented there."""
    found = []
    for name in dir(cls):
        method = inspect.getattr_static(cls, name)
        method = getattr(method, "fget", None) or getattr(method, "fn", None) or method
        if not name.startswith("_") and (getattr(method, "__module__", "") or "").startswith(
            "skmm"
        ):
            found.append(name)
    return found


@pytest.mark.parametrize("path", sorted(set(CLASSES) & api_entries()))
def test_docstrings_of_methods(path):
    errors = []
    for name in own_methods(CLASSES[path]):
        errors += docstring_errors(f"{path}.{name}", CHECKS)
    assert not errors, "\n".join(errors)


def test_docstring_check_can_fail():
    """Not one of numpydoc's codes above may have been renamed."""
    from numpydoc.validate import ERROR_MSGS

    assert set(ERROR_MSGS) >= CHECKS | {"EX01"}
    found = docstring_errors("textwrap.dedent", CHECKS)
    assert any("PR01" in error for error in found)


@pytest.mark.parametrize("path", ESTIMATORS)
def test_documented_attributes_are_the_fitted_ones(path):
    # HOOK: skmm/testing/_instances.py has to give `fitted_instance(cls)`, an instance of the
    # class that was fitted on toy data (a DataFrame, so that feature_names_in_ is there).
    instances = pytest.importorskip("skmm.testing._instances", reason="no table of instances yet")
    fitted = instances.fitted_instance(ESTIMATORS[path])
    documented = {
        name.strip()
        for attribute in NumpyDocString(inspect.getdoc(ESTIMATORS[path]))["Attributes"]
        for name in attribute.name.split(",")
    }
    assert documented, f"{path} has no section Attributes"
    ghosts = {name for name in documented if not hasattr(fitted, name)}
    assert not ghosts, "documented, but not there after fit"
    there = {name for name in vars(fitted) if name.endswith("_") and not name.startswith("_")}
    assert there <= documented, "there after fit, but not documented"


def code_blocks(text: str) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE)


def test_readme_example_runs(capsys):
    (example,) = code_blocks((REPO / "README.md").read_text())
    assert len([line for line in example.splitlines() if line.strip()]) <= 14
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
    for path in ESTIMATORS:
        assert f"`{path.rpartition('.')[2]}`" in text


def test_each_guide_page_is_in_the_index():
    index = (REPO / "docs" / "guide" / "index.rst").read_text()
    for page in (REPO / "docs" / "guide").glob("*.rst"):
        assert page.stem == "index" or f"   {page.stem}\n" in index


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
