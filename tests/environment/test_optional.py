"""Missing and broken optional packages give an error that says what to install."""

import sys
import tomllib
from pathlib import Path

import pytest

import skmm._environment._optional as optional
from skmm._environment._optional import import_optional, is_installed
from skmm.exceptions import MissingExtraError

PYPROJECT = tomllib.loads((Path(__file__).resolve().parents[2] / "pyproject.toml").read_text())
EXTRAS = PYPROJECT["project"]["optional-dependencies"]


def test_module_is_returned():
    assert import_optional("json.decoder", needed_by="A test") is sys.modules["json.decoder"]


@pytest.mark.parametrize("package", [*optional._EXTRAS, "nowhere"])
def test_missing_package(package, monkeypatch):
    def nothing_there(name):
        raise ModuleNotFoundError(f"No module named {name!r}")

    monkeypatch.setattr(optional.importlib, "import_module", nothing_there)
    monkeypatch.setattr(optional, "is_installed", lambda name: False)
    extra = optional._EXTRAS.get(package, "all")
    wording = rf'^A test needs the package {package!r}, .*: pip install "skmm\[{extra}\]"$'
    with pytest.raises(MissingExtraError, match=wording) as caught:
        import_optional(f"{package}.part", needed_by="A test")
    assert isinstance(caught.value, ImportError)


def test_broken_package_is_not_reported_as_missing(tmp_path, monkeypatch):
    (tmp_path / "skmm_broken.py").write_text("raise ImportError('built for another torch')")
    monkeypatch.syspath_prepend(tmp_path)
    assert is_installed("skmm_broken")
    with pytest.raises(MissingExtraError, match="cannot be imported: built for another torch"):
        import_optional("skmm_broken", needed_by="A test")


def test_other_errors_of_a_package_are_not_hidden(tmp_path, monkeypatch):
    (tmp_path / "skmm_faulty.py").write_text("1 / 0")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ZeroDivisionError):
        import_optional("skmm_faulty", needed_by="A test")


def test_every_extra_named_in_a_message_exists():
    assert set(optional._EXTRAS.values()) | {"all"} <= set(EXTRAS)
    # The hub client is a dependency of transformers; all others are in their extra.
    for package, extra in optional._EXTRAS.items():
        named = any(requirement.startswith(package) for requirement in EXTRAS[extra])
        assert named or package == "huggingface_hub"


def test_pillow_is_not_an_extra():
    assert "PIL" not in optional._EXTRAS
    assert any(r.startswith("pillow") for r in PYPROJECT["project"]["dependencies"])


def test_transformers_is_recent_enough_to_need_no_torchvision():
    assert "transformers>=5.5" in EXTRAS["hub"]
