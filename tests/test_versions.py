"""``show_versions`` tells what is there, what is not, and what is broken."""

import sys

import pytest

from skmm import _versions, show_versions


def lines_by_name(printed: str) -> dict[str, str]:
    return dict(line.split(maxsplit=1) for line in printed.splitlines() if line.strip())


def test_shows_each_library_once(capsys):
    import sklearn
    import torch

    show_versions()
    shown = lines_by_name(capsys.readouterr().out)
    assert {"skmm", "python", "platform", "devices", *_versions._PACKAGES} <= set(shown)
    assert shown["scikit-learn"] == sklearn.__version__
    assert shown["torch"] == torch.__version__
    assert shown["devices"].startswith("cpu")


def test_absent_package_is_told(capsys, monkeypatch):
    monkeypatch.setattr(_versions, "_PACKAGES", ("torch", "no-such-package"))
    show_versions()
    assert lines_by_name(capsys.readouterr().out)["no-such-package"] == "not installed"


def test_broken_torch_is_told(capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    show_versions()
    assert "torch cannot be imported" in lines_by_name(capsys.readouterr().out)["devices"]


@pytest.mark.parametrize("error", ["RuntimeError", "ImportError", "OSError"])
def test_broken_torchvision_is_told_in_words(error, capsys, monkeypatch, tmp_path):
    message = "operator torchvision::nms does not exist"
    (tmp_path / "torchvision.py").write_text(f"raise {error}({message!r})")
    monkeypatch.syspath_prepend(tmp_path)
    show_versions()
    printed = capsys.readouterr().out
    assert message in printed
    assert "uninstall it" in printed


def test_sound_or_absent_torchvision_is_no_news(capsys, monkeypatch, tmp_path):
    show_versions()
    assert "torchvision" not in capsys.readouterr().out
    (tmp_path / "torchvision.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    show_versions()
    assert "torchvision" not in capsys.readouterr().out
    sys.modules.pop("torchvision")
