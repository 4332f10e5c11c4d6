"""What surrounds the package agrees with it: versions, pins, links, commands."""

import importlib.util
import re
import tomllib
from pathlib import Path

import pytest

import skmm

REPO = Path(__file__).resolve().parents[1]
PAGES = ["CONTRIBUTING.md", "SECURITY.md", "RELEASING.md", "CODE_OF_CONDUCT.md"]


def text_of(path):
    return (REPO / path).read_text()


def test_one_version():
    """RELEASING.md promises it."""
    (cited,) = re.findall(r"^version: (\S+)$", text_of("CITATION.cff"), re.MULTILINE)
    newest = re.search(r"^(\S+) \((.+)\)\n-+$", text_of("docs/changes.rst"), re.MULTILINE)
    assert cited == skmm.__version__
    assert newest[1] == skmm.__version__.removesuffix(".dev0")
    assert (newest[2] == "in development") == skmm.__version__.endswith(".dev0")


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_to_files(page):
    for target in re.findall(r"\]\(([^)#]+)\)", text_of(page)):
        assert target.startswith("https://") or (REPO / target).exists(), target


@pytest.mark.parametrize("page", ["README.md", *PAGES])
def test_paths_in_pages_exist(page):
    """A path between backticks, without placeholders, is there; so is a package of skmm."""
    paths = re.findall(r"`((?:skmm|tests|docs|examples)/[\w./-]+)`", text_of(page))
    for path in paths:
        assert (REPO / path).exists(), path


def make_targets():
    return set(re.findall(r"^([a-z-]+):", text_of("Makefile"), re.MULTILINE))


@pytest.mark.parametrize(
    "path", [*PAGES, "README.md", ".ci/run", *Path(REPO, ".github/workflows").glob("*.yml")]
)
def test_make_is_asked_for_what_it_knows(path):
    commands = re.findall(r"(?:`|^\s*|run: )make ([a-z -]+)", text_of(path), re.MULTILINE)
    asked = {word for command in commands for word in command.split()}
    assert asked <= make_targets() | {"sure"}


def test_linters_have_one_version():
    """What pre-commit runs is what `make lint` runs."""
    project = tomllib.loads(text_of("pyproject.toml"))["project"]
    pins = dict(
        re.match(r"(\w+)==([\d.]+)\.\*", line).groups()
        for line in project["optional-dependencies"]["dev"]
        if line.startswith(("ruff", "codespell"))
    )
    assert len(pins) == 2
    hooks = text_of(".pre-commit-config.yaml")
    for name, pin in pins.items():
        (used,) = re.findall(rf"{name}(?:-pre-commit)?\n\s+rev: v([\d.]+)", hooks)
        assert used.startswith(f"{pin}."), name


def test_workflows_can_be_read():
    """Every job has steps, and pins what it uses."""
    yaml = pytest.importorskip("yaml")
    workflows = sorted(REPO.glob(".github/workflows/*.yml"))
    assert {path.stem for path in workflows} == {"docs", "lint", "nightly", "test"}
    for path in workflows:
        jobs = yaml.safe_load(path.read_text())["jobs"]
        for job in jobs.values():
            used = [step["uses"] for step in job["steps"] if "uses" in step]
            assert used and all(re.fullmatch(r"actions/[\w-]+@v\d+", name) for name in used)
    for path in [*REPO.glob(".github/*/*.yml"), REPO / ".pre-commit-config.yaml"]:
        assert yaml.safe_load(path.read_text())


def check_changelog():
    path = REPO / ".github" / "check_changelog.py"
    spec = importlib.util.spec_from_file_location("check_changelog", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        (["skmm/fusion/_late.py"], True),
        (["skmm/fusion/_late.py", "docs/changes.rst"], False),
        (["tests/test_docs.py", "README.md"], False),
    ],
)
def test_a_change_of_the_package_needs_an_entry_in_the_changelog(changed, expected):
    assert check_changelog().missing_entry(changed) is expected
