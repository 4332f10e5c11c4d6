"""Weights from a file into a module, all of them or none."""

import os
import pickle
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from skmm.exceptions import CheckpointError

__all__ = ["load_weights"]


def load_weights(module: nn.Module, path: str | os.PathLike[str]) -> nn.Module:
    """Read a file of tensors into a module whose weights have the same names and shapes.

    Only tensors are read (``weights_only=True``), never objects, so a file from an unknown
    source cannot run code.

    Parameters
    ----------
    module : Module
        Module whose weights are replaced, on whatever device it is.
    path : str or path-like
        File that ``torch.save`` wrote from a ``state_dict``.

    Returns
    -------
    module : Module
        The same module, for chaining.

    Raises
    ------
    CheckpointError
        If the file cannot be read, if weights are missing, left over, or of another shape;
        the module is then unchanged.
    """
    name = f"{type(module).__name__} from {os.fspath(path)!r}"
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, EOFError, RuntimeError, ValueError, pickle.UnpicklingError) as error:
        reason = str(error).partition("\n")[0]
        raise CheckpointError(
            f"Cannot load {name}: {type(error).__name__}: {reason} The path must be that of a"
            " file with a state_dict, saved by torch.save."
        ) from error
    _check(module, state, name)
    module.load_state_dict(state)
    return module


def _check(module: nn.Module, state: object, name: str) -> None:
    if not isinstance(state, dict) or not all(isinstance(v, Tensor) for v in state.values()):
        raise CheckpointError(
            f"Cannot load {name}: the file holds a {type(state).__name__} that is not a"
            " dictionary of tensors. Save the module's state_dict."
        )
    expected = module.state_dict()
    missing, unexpected = expected.keys() - state.keys(), state.keys() - expected.keys()
    if missing or unexpected:
        raise CheckpointError(
            f"Cannot load {name}: {_some(missing)} missing, {_some(unexpected)} unexpected."
            " The file belongs to another model."
        )
    for key, value in expected.items():
        if value.shape != state[key].shape:
            raise CheckpointError(
                f"Cannot load {name}: {key} has shape {tuple(state[key].shape)} in the file and"
                f" {tuple(value.shape)} in the module. The file belongs to another model."
            )


def _some(keys: Iterable[str]) -> str:
    ordered = sorted(keys)
    if not ordered:
        return "no weights"
    shown = ", ".join(ordered[:3])
    return f"{len(ordered)} weights ({shown}{', ...' if len(ordered) > 3 else ''})"
