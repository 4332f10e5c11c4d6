"""Run a script in this process, with every training cut to two epochs if asked."""

import runpy
import sys
import warnings

from skmm import Trainer
from skmm.encoders import _cell_encoder, _tabular

__all__ = ["run_briefly", "run_script"]

N_EPOCHS = 2


def cut(training, epochs_of):
    """Return the function with at most ``N_EPOCHS`` epochs."""

    def brief(*args, max_epochs=None, **kwargs):
        given = epochs_of(*args) if max_epochs is None else max_epochs
        return training(*args, max_epochs=min(given, N_EPOCHS), **kwargs)

    return brief


def run_briefly(script, arguments, monkeypatch):
    """Run a script: what it calls is there and takes what it is given, whatever its figures."""
    monkeypatch.setattr(Trainer, "fit", cut(Trainer.fit, lambda trainer, *_: trainer.max_epochs))
    for module in (_cell_encoder, _tabular):
        alone = cut(module.train_backbone, lambda *_: N_EPOCHS)
        monkeypatch.setattr(module, "train_backbone", alone)
    run_script(script, arguments, monkeypatch)


def run_script(script, arguments, monkeypatch):
    """Run a script in this process, since importing everything takes longer than most scripts."""
    monkeypatch.setattr(sys, "argv", [str(script), *arguments])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of trainings that end too early
        runpy.run_path(str(script), run_name="__main__")
