"""Split a pretrained model into a frozen trunk and a trained head, and add adapters to it.

The weights of a loaded model are shared, so they are never changed. The functions here copy the
structure of a model: its frozen weights are the same tensors, and its trained weights are new ones.
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
    "Trunk",
    "LastBlocks",
    "add_lora",
    "block_count",
    "put_parameter",
    "names_with_gradient",
    "without_layerdrop",
    "structure_of",
]


_Model = TypeVar("_Model", bound=nn.Module)
# Initializations of adapters that do not change the weights of the model.
_ADDING = (True, False, "gaussian", "orthogonal")


def structure_of(tower: _Model, replaced: Mapping[int, Tensor] | None = None) -> _Model:
    """Copy the structure of a model and share its tensors.

    Parameters
    ----------
    tower : nn.Module
        The model.
    replaced : mapping of int to Tensor, default=None
        From the ``id`` of a tensor of the model to the tensor that replaces it in the copy.

    Returns
    -------
    copied : nn.Module
        A model with new modules and the tensors of ``tower`` or their replacements.
    """
    memo: dict[int, Any] = {id(t): t for t in (*tower.parameters(), *tower.buffers())}
    return copy.deepcopy(tower, memo | dict(replaced or {}))


def without_layerdrop(tower: _Model) -> _Model:
    """Disable LayerDrop and SpecAugment, which some models apply in training, in place.

    LayerDrop would skip the block where the head of a split model starts. SpecAugment of
    transformers uses numpy's global generator and fails on short audio.

    Parameters
    ----------
    tower : nn.Module
        A copy from ``structure_of``, which is changed and returned.
    """
    for module in tower.modules():
        for owner in (module, getattr(module, "config", None)):
            for name in ("layerdrop", "encoder_layerdrop", "apply_spec_augment"):
                if getattr(owner, name, False):
                    setattr(owner, name, 0.0 if name.endswith("drop") else False)
    return tower


def put_parameter(module: nn.Module, name: str, value: nn.Parameter) -> None:
    """Replace the parameter that ``named_parameters`` calls ``name``."""
    owner, _, leaf = name.rpartition(".")
    setattr(module.get_submodule(owner), leaf, value)


def block_count(tower: nn.Module) -> int:
    """Return the number of blocks: the layers of a transformer, the stages of other models."""
    return len(_stages(tower))


def _stages(tower: nn.Module) -> list[int]:
    """Return how many modules of the list of blocks each block has."""
    return list(getattr(tower, "stages", None) or [1] * len(_block_list(tower)))


def _block_list(tower: nn.Module) -> nn.ModuleList:
    """Return the list of modules with most of the weights, the outermost one."""
    lists = [module for module in tower.modules() if isinstance(module, nn.ModuleList)]
    sizes = [sum(p.numel() for p in blocks.parameters()) for blocks in lists]
    return lists[sizes.index(max(sizes))] if lists else nn.ModuleList()


def _first_trained(tower: nn.Module, n_blocks: int) -> int:
    """Return the position in the list of the first of the last ``n_blocks`` blocks."""
    stages = _stages(tower)
    return sum(stages[: len(stages) - n_blocks])


class Trunk(nn.Module):
    """The part of a model before its last blocks.

    Parameters
    ----------
    tower : nn.Module
        The model, whose tensors are shared.
    n_blocks : int
        Number of blocks that are left out.
    """

    def __init__(self, tower: nn.Module, n_blocks: int):
        super().__init__()
        self.tower = structure_of(tower)
        blocks = _block_list(self.tower)
        first = _first_trained(self.tower, n_blocks)
        blocks[first] = _Exit(blocks[first])

    def forward(self, **tensors: Tensor) -> tuple[Tensor, None]:
        """Return the input of the first block that is left out, and None as pooled vector."""
        n_cells = len(next(iter(tensors.values())))
        parts: list[Tensor] = []
        done = 0
        while done < n_cells:  # some models split their batch
            parts.append(self._reached({name: t[done:] for name, t in tensors.items()}))
            done += len(parts[-1])
        return torch.cat(parts), None

    def _reached(self, tensors: Mapping[str, Tensor]) -> Tensor:
        try:
            self.tower(**tensors)
        except _Reached as reached:
            return reached.hidden
        raise RuntimeError("the model did not run its blocks")


class LastBlocks(nn.Module):
    """The last blocks of a model and the layers after them.

    Parameters
    ----------
    tower : nn.Module
        A copy from ``structure_of``, which is changed.
    n_blocks : int
        Number of blocks that are run.
    blank : mapping of str to Tensor
        Inputs of the model for one cell. Zeros of the same shape replace inputs that are not
        given to ``forward``: the model requires them, but its last blocks do not use them.
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
            # Replaced, not removed: some models select options of a block by its position.
            blocks[i] = _Skipped(self.entry)

    def forward(self, *, hidden: Tensor, **tensors: Tensor) -> tuple[Tensor, Tensor | None]:
        """Compute the output of the whole model from ``hidden``, the output of ``Trunk``.

        Parameters
        ----------
        hidden : Tensor of shape (n_cells, ...)
            Input of the first of the last blocks.
        **tensors : Tensor of shape (n_cells, ...)
            Inputs of the model that its last blocks use, such as masks.
        """
        for name, tensor in self.blank.items():
            if name not in tensors:
                blank = tensor.to(hidden.device).expand(len(hidden), *tensor.shape[1:])
                tensors[name] = blank
        with self.entry.given(hidden):
            output: tuple[Tensor, Tensor | None] = self.tower(**tensors)
            return output


class _Reached(Exception):  # noqa: N818 - no error: it stops the forward pass of a trunk
    def __init__(self, hidden: Tensor):
        super().__init__()
        self.hidden = hidden


class _BlockWrapper(nn.Module):
    """Replacement of a block of a model, with the attributes of the block."""

    def __init__(self, block: nn.Module):
        super().__init__()
        self.block = block

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("block"), name)


class _Exit(_BlockWrapper):
    def forward(self, *args: Any, **kwargs: Any) -> Any:
        raise _Reached(args[0] if args else kwargs["hidden_states"])


class _Entry(_BlockWrapper):
    """Run a block on hidden states that were set before, not on those of the model."""

    def __init__(self, block: nn.Module):
        super().__init__(block)
        self._given: dict[int, Tensor] = {}  # by thread: several may run the model at once

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
        # The rows of this call: a model may split its batch.
        n = len(args[0] if args else kwargs["hidden_states"])
        hidden, self._given[me] = self._given[me][:n], self._given[me][n:]
        if args:
            return self.block(hidden, *args[1:], **kwargs)
        return self.block(**{**kwargs, "hidden_states": hidden})


class _Skipped(nn.Module):
    """Identity that replaces a block of the trunk."""

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
    """Add low-rank adapters of ``peft`` to the linear layers of a model's blocks.

    The weights of adapters are sampled from torch's global generator. New adapters do not change
    the output of the model.

    Parameters
    ----------
    tower : nn.Module
        A copy from ``structure_of``, which is changed.
    params : mapping of str to object
        Parameters of ``peft.LoraConfig``. The defaults are rank 8, ``lora_alpha`` 16 and every
        linear layer of the blocks.
    needed_by : str
        Name of the calling class, for errors.

    Returns
    -------
    names : list of str
        Names of the added weights.

    Raises
    ------
    ValueError
        If there is no such layer, if peft refuses the parameters, or if they would change the
        model's own weights.
    """
    init, bias = params.get("init_lora_weights", True), params.get("bias", "none")
    if init not in _ADDING or bias != "none":
        refused = f"init_lora_weights={init!r}" if init not in _ADDING else f"bias={bias!r}"
        raise ValueError(
            f"{needed_by}: lora_params has {refused}, which would change weights that are shared"
            " with others. Leave it out, or set fine_tune='full'."
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
            f"{needed_by}: peft does not take lora_params={dict(params)!r} ({error}). Pass"
            " parameters of peft.LoraConfig that suit this model."
        ) from error
    return [name for name, p in tower.named_parameters() if id(p) not in known]


def names_with_gradient(
    make: Callable[[Mapping[int, Tensor]], nn.Module],
    tower: nn.Module,
    run: Callable[[nn.Module], Tensor],
) -> list[str]:
    """Return the names of the weights of ``tower`` that change the output of a part of it.

    Parameters
    ----------
    make : callable
        Function from replaced tensors, as in ``structure_of``, to the part.
    tower : nn.Module
        The whole model.
    run : callable
        Function from the part to the output that is used.
    """
    candidates = dict(tower.named_parameters())
    trial = {name: nn.Parameter(p.detach().clone()) for name, p in candidates.items()}
    part = make({id(p): trial[name] for name, p in candidates.items()})
    torch.autograd.backward(run(part.eval()).sum())
    return [name for name, p in trial.items() if p.grad is not None]
