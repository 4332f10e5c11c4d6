"""Take a pretrained model apart: what stays frozen, what is trained, what is added to it.

Weights of a model that was loaded are shared by all who use it, so none of them is ever changed.
What is made here are copies of a model's structure in which the frozen weights are the same
tensors, and those that are trained are others.
"""

import copy
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from skmm._environment._optional import import_optional

__all__ = [
    "Lower",
    "Upper",
    "add_lora",
    "block_count",
    "put_parameter",
    "reached_by_gradient",
    "steadied",
    "structure_of",
]


_Model = TypeVar("_Model", bound=nn.Module)
# Ways to begin an adapter that leave the weights beside it as they are.
_ADDING = (True, False, "gaussian", "orthogonal")


def structure_of(tower: _Model, replaced: Mapping[int, Tensor] | None = None) -> _Model:
    """Copy a model but none of its tensors.

    Parameters
    ----------
    tower : nn.Module
        The model.
    replaced : mapping of int to Tensor, default=None
        By the ``id`` of a tensor of the model, what stands in its place in the copy.

    Returns
    -------
    copied : nn.Module
        Its modules are new, its other tensors are those of ``tower``.
    """
    memo: dict[int, Any] = {id(t): t for t in (*tower.parameters(), *tower.buffers())}
    return copy.deepcopy(tower, memo | dict(replaced or {}))


def steadied(tower: _Model) -> _Model:
    """Switch off what some models do in training beside dropout, and give the model back.

    Leaving out whole blocks at random leaves out the one where a cut model is entered. Hiding
    stretches of an audio clip draws from numpy's global generator, and fails on short ones.

    Parameters
    ----------
    tower : nn.Module
        Structure of its own, from ``structure_of``; it is changed.
    """
    for module in tower.modules():
        for owner in (module, getattr(module, "config", None)):
            for name in ("layerdrop", "encoder_layerdrop", "apply_spec_augment"):
                if getattr(owner, name, False):
                    setattr(owner, name, 0.0 if name.endswith("drop") else False)
    return tower


def put_parameter(module: nn.Module, name: str, value: nn.Parameter) -> None:
    """Put a parameter in the place of the one that ``named_parameters`` calls ``name``."""
    owner, _, leaf = name.rpartition(".")
    setattr(module.get_submodule(owner), leaf, value)


def block_count(tower: nn.Module) -> int:
    """How many blocks a model is made of: the layers of a transformer, the stages of others."""
    return len(_stages(tower))


def _stages(tower: nn.Module) -> list[int]:
    """Number of entries of each block in the list of blocks."""
    return list(getattr(tower, "stages", None) or [1] * len(_block_list(tower)))


def _block_list(tower: nn.Module) -> nn.ModuleList:
    """Find the blocks: the list of modules that holds most of the weights, the outermost one."""
    lists = [module for module in tower.modules() if isinstance(module, nn.ModuleList)]
    sizes = [sum(p.numel() for p in blocks.parameters()) for blocks in lists]
    return lists[sizes.index(max(sizes))] if lists else nn.ModuleList()


def _first_trained(tower: nn.Module, n_blocks: int) -> int:
    """Position in the list of the first of the last ``n_blocks`` blocks."""
    stages = _stages(tower)
    return sum(stages[: len(stages) - n_blocks])


class Lower(nn.Module):
    """The part of a model below its last blocks.

    Parameters
    ----------
    tower : nn.Module
        The model; its tensors are used as they are.
    n_blocks : int
        How many blocks are left out.
    """

    def __init__(self, tower: nn.Module, n_blocks: int):
        super().__init__()
        self.tower = structure_of(tower)
        blocks = _block_list(self.tower)
        first = _first_trained(self.tower, n_blocks)
        blocks[first] = _Exit(blocks[first])

    def forward(self, **tensors: Tensor) -> tuple[Tensor, None]:
        """Return what goes into the first block that is left out, and None for a summary."""
        n_cells = len(next(iter(tensors.values())))
        parts: list[Tensor] = []
        done = 0
        while done < n_cells:  # some models go through their batch in parts
            parts.append(self._reached({name: t[done:] for name, t in tensors.items()}))
            done += len(parts[-1])
        return torch.cat(parts), None

    def _reached(self, tensors: Mapping[str, Tensor]) -> Tensor:
        try:
            self.tower(**tensors)
        except _Reached as reached:
            return reached.hidden
        raise RuntimeError("the model did not run its blocks")


class Upper(nn.Module):
    """The last blocks of a model, and what comes after them.

    Parameters
    ----------
    tower : nn.Module
        Structure of its own, from ``structure_of``; it is changed.
    n_blocks : int
        How many blocks are run.
    blank : mapping of str to Tensor
        Input of the model for one cell. What is not given is filled up with zeros of its
        shape: nothing of it reaches the last blocks, but a model wants to see it.
    """

    def __init__(self, tower: nn.Module, n_blocks: int, blank: Mapping[str, Tensor]):
        super().__init__()
        self.tower = tower
        self.has_pooler = getattr(tower, "has_pooler", False)
        self.blank = {name: tensor[:1] * 0 for name, tensor in blank.items()}
        blocks = _block_list(tower)
        first = _first_trained(tower, n_blocks)
        self.entry = _Entry(blocks[first])
        blocks[first] = self.entry
        for i in range(first):
            # Left out, not taken out: some models look up facts of a block by its position.
            blocks[i] = _Skipped(self.entry)

    def forward(self, *, hidden: Tensor, **tensors: Tensor) -> tuple[Tensor, Tensor | None]:
        """Go on from ``hidden``, which ``Lower`` gave, as the whole model would.

        Parameters
        ----------
        hidden : Tensor of shape (n_cells, ...)
            Input of the first of the last blocks.
        **tensors : Tensor of shape (n_cells, ...)
            Input of the model, as far as its last blocks look at it: masks.
        """
        for name, tensor in self.blank.items():
            if name not in tensors:
                blank = tensor.to(hidden.device).expand(len(hidden), *tensor.shape[1:])
                tensors[name] = blank
        with self.entry.given(hidden):
            given: tuple[Tensor, Tensor | None] = self.tower(**tensors)
            return given


class _Reached(Exception):  # noqa: N818 - no error: the way out of the middle of a model
    def __init__(self, hidden: Tensor):
        super().__init__()
        self.hidden = hidden


class _InPlaceOf(nn.Module):
    """Stands where a block of a model stood, and answers questions as that would."""

    def __init__(self, block: nn.Module):
        super().__init__()
        self.block = block

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("block"), name)


class _Exit(_InPlaceOf):
    def forward(self, *args: Any, **kwargs: Any) -> Any:
        raise _Reached(args[0] if args else kwargs["hidden_states"])


class _Entry(_InPlaceOf):
    """Runs a block on what it was given, not on what the model hands to it."""

    def __init__(self, block: nn.Module):
        super().__init__(block)
        self._given: dict[int, Tensor] = {}  # by thread: several may be in the model at once

    @contextmanager
    def given(self, hidden: Tensor) -> Iterator[None]:
        me = threading.get_ident()
        self._given[me] = hidden
        try:
            yield
        finally:
            del self._given[me]

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        me = threading.get_ident()
        # As many as the model asks for: it may go through its batch in parts.
        n = len(args[0] if args else kwargs["hidden_states"])
        hidden, self._given[me] = self._given[me][:n], self._given[me][n:]
        if args:
            return self.block(hidden, *args[1:], **kwargs)
        return self.block(**{**kwargs, "hidden_states": hidden})


class _Skipped(nn.Module):
    """Does nothing, where a block stood whose work is done already."""

    def __init__(self, entry: _Entry):
        super().__init__()
        self._like = (entry,)  # not a part of this module

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(self.__dict__["_like"][0], name)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return args[0] if args else kwargs["hidden_states"]


def add_lora(tower: nn.Module, params: Mapping[str, Any], *, needed_by: str) -> list[str]:
    """Put low-rank adapters beside the linear layers of a model's blocks, by ``peft``.

    Draws from torch's current generator. A new adapter does not change what the model gives.

    Parameters
    ----------
    tower : nn.Module
        Structure of its own, from ``structure_of``; it is changed.
    params : mapping of str to object
        For ``peft.LoraConfig``, in front of our defaults: rank 8, ``lora_alpha`` 16, every
        linear layer of the blocks.
    needed_by : str
        Class that asks, for messages.

    Returns
    -------
    names : list of str
        Names of the weights that were added.

    Raises
    ------
    ValueError
        If there is no such layer, or peft does not take the parameters, or they would change
        the model's own weights.
    """
    init, bias = params.get("init_lora_weights", True), params.get("bias", "none")
    if init not in _ADDING or bias != "none":
        told = f"init_lora_weights={init!r}" if init not in _ADDING else f"bias={bias!r}"
        raise ValueError(
            f"{needed_by}: lora_params has {told}, which would change weights that are shared with"
            " others. Use what only adds to them, or fine_tune='full'."
        )
    peft = import_optional("peft", needed_by=needed_by)
    blocks = _block_list(tower)
    inside = {id(module) for module in blocks.modules() if type(module) is nn.Linear}
    targets = [name for name, module in tower.named_modules() if id(module) in inside]
    options = {"r": 8, "lora_alpha": 16, "target_modules": targets, **params}
    if not options["target_modules"]:
        others = "'last' or 'full'" if len(blocks) else "'full'"
        raise ValueError(
            f"{needed_by}: fine_tune='lora' needs linear layers, and the blocks of this model have"
            f" none. Use fine_tune={others}."
        )
    known = {id(p) for p in tower.parameters()}
    try:
        peft.inject_adapter_in_model(peft.LoraConfig(**options), tower)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"{needed_by}: peft does not take lora_params={dict(params)!r} ({error}). Give"
            " parameters of peft.LoraConfig that suit this model."
        ) from error
    return [name for name, p in tower.named_parameters() if id(p) not in known]


def reached_by_gradient(
    make: Callable[[Mapping[int, Tensor]], nn.Module],
    tower: nn.Module,
    run: Callable[[nn.Module], Tensor],
) -> list[str]:
    """Names of the weights of ``tower`` that change what a part of it gives.

    Parameters
    ----------
    make : callable
        From tensors in place of others, as in ``structure_of``, to the part.
    tower : nn.Module
        The whole model.
    run : callable
        From the part to all that is used of its output.
    """
    candidates = dict(tower.named_parameters())
    trial = {name: nn.Parameter(p.detach().clone()) for name, p in candidates.items()}
    part = make({id(p): trial[name] for name, p in candidates.items()})
    torch.autograd.backward(run(part.eval()).sum())
    return [name for name, p in trial.items() if p.grad is not None]
