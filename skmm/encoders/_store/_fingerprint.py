"""Digests of arrays, modules and code: what makes two computations the same one.

A digest that is too fine costs work, one that is too coarse gives a wrong vector. Where
something cannot be looked into, the answer is None, and nothing is stored.
"""

import collections
import dis
import functools
import hashlib
import platform
import site
import sys
import sysconfig
import types
import weakref
from collections.abc import Iterable, Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import torch
from torch import nn
from torch.nn.modules import module as _torch_module

__all__ = [
    "code_digest",
    "digest_decoded",
    "module_digest",
    "package_version",
]

_PLAIN = (bool, int, float, complex, str, bytes, type(None), type(Ellipsis), range)
_IN_C = (
    types.BuiltinFunctionType,
    types.ClassMethodDescriptorType,
    types.GetSetDescriptorType,
    types.MemberDescriptorType,
    types.MethodDescriptorType,
    types.WrapperDescriptorType,
)
# What Python itself writes into every class: it tells nothing about what the class does.
_CLASS_NOISE = {
    *("__dict__", "__weakref__", "__doc__", "__module__", "__annotations__", "__parameters__"),
    *("__firstlineno__", "__static_attributes__", "__annotate__", "__annotate_func__"),
    *("__annotations_cache__", "__abstractmethods__", "__match_args__", "_abc_impl"),
    *("__orig_bases__", "__type_params__", "__qualname__"),
    "__slotnames__",  # written when an object is pickled
}
# What nn.Module keeps besides the attributes that its author set.
_OWN_STATE = {"_parameters", "_buffers", "_modules", "_non_persistent_buffers_set", "training"}
_HOOKS = (
    "_forward_hooks",
    "_forward_pre_hooks",
    "_backward_hooks",
    "_backward_pre_hooks",
)
_GLOBAL_HOOKS = ("_global_forward_hooks", "_global_forward_pre_hooks")


def digest_decoded(decoded: object) -> bytes:
    """Digest of a decoded cell, 16 bytes."""
    digest = hashlib.blake2b(digest_size=16)
    if isinstance(decoded, str):
        digest.update(b"str|" + decoded.encode("utf-8", "surrogatepass"))
    elif isinstance(decoded, bytes):
        digest.update(b"bytes|" + decoded)
    elif isinstance(decoded, np.ndarray | np.generic) and decoded.dtype.kind != "O":
        array = np.ascontiguousarray(decoded)
        digest.update(f"array|{array.dtype.str}|{np.shape(decoded)}|".encode())
        digest.update(array.tobytes())
    elif isinstance(decoded, torch.Tensor):
        return digest_decoded(decoded.detach().cpu().numpy())
    else:
        digest.update(b"object|" + joblib.hash(decoded).encode())
    return digest.digest()


def module_digest(module: nn.Module) -> str | None:
    """Digest of a module: weights, buffers, attributes and code; None if it has hooks."""
    try:
        return _Looker().module(module)
    except _Opaque:
        return None


def code_digest(thing: object) -> str | None:
    """Digest of a function or class and all it reaches; None if some of it cannot be seen."""
    return _Walk(_Looker())(thing)


def package_version(name: str) -> str | None:
    """Version of an installed package, None if there is none; it is not imported."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


class _Looker:
    """Looks into modules and tensors, for itself and for whoever comes upon one in code."""

    def __init__(self) -> None:
        self.open: list[nn.Module] = []  # those that are being looked into

    def __call__(self, thing: object) -> str | None:
        """Digest of a tensor or module that code refers to, None for anything else."""
        if isinstance(thing, weakref.ref):  # how recurrent networks hold their weights once more
            thing = thing()
        if isinstance(thing, nn.Module):
            return self.module(thing)
        return _tensor_digest(thing) if isinstance(thing, torch.Tensor) else None

    def module(self, module: nn.Module) -> str:
        if any(module is other for other in self.open):
            return "itself"
        if any(getattr(_torch_module, name, None) for name in _GLOBAL_HOOKS):
            raise _Opaque
        self.open.append(module)
        digest = hashlib.blake2b(digest_size=16)
        digest.update(torch.__version__.split("+")[0].encode())
        # With duplicates: a part that is used twice is not a part that is used once.
        for name, part in module.named_modules(remove_duplicate=False):
            digest.update(f"|{name}|{self._part(part)}".encode())
        tensors = [
            *module.named_parameters(remove_duplicate=False),
            *module.named_buffers(remove_duplicate=False),
        ]
        for name, tensor in tensors:
            digest.update(f"|{name}|{_tensor_digest(tensor)}".encode())
        self.open.pop()
        return digest.hexdigest()

    def _part(self, part: nn.Module) -> str:
        """Digest of one module without its children: its class and its attributes."""
        kind = type(part)
        if any(getattr(part, hooks, None) for hooks in _HOOKS):
            raise _Opaque
        found = [kind.__module__, kind.__qualname__]
        if kind.__module__.startswith("torch.") and not kind.__module__.startswith("torch.nn."):
            raise _Opaque  # scripted, traced or compiled: its code is in no class
        if not kind.__module__.startswith("torch."):
            found.append(_known(_Walk(self)(kind)))
        for attribute, value in sorted(part.__dict__.items()):
            if attribute not in _OWN_STATE and not attribute.endswith("_hooks"):
                found.append(f"{attribute}={_known(_Walk(self)(value))}")
        return hashlib.blake2b("|".join(found).encode(), digest_size=16).hexdigest()


def _known(digest: str | None) -> str:
    if digest is None:
        raise _Opaque
    return digest


def _tensor_digest(tensor: torch.Tensor) -> str:
    raw = tensor.detach().cpu().contiguous()
    # Bytes, not values: numpy has no bfloat16, and one bit may be all that differs.
    digest = hashlib.blake2b(f"{raw.dtype}|{tuple(raw.shape)}|".encode(), digest_size=16)
    digest.update(raw.flatten().view(torch.uint8).numpy().tobytes() if raw.numel() else b"")
    return digest.hexdigest()


class _Opaque(Exception):  # noqa: N818 - never leaves this file
    """Something cannot be looked into."""


class _Walk:
    """One walk over everything that an object reaches: values, functions, classes.

    Code of installed packages counts by name and version, the user's own by its compiled form
    and by all that it reaches: globals, closures, defaults, other functions. What cannot be
    looked into has the digest None.

    Parameters
    ----------
    looker : _Looker
        Digests the modules and tensors that the walk comes upon.
    """

    def __init__(self, looker: _Looker):
        self.looker = looker
        # By id, with the things themselves: an id alone may be given to another one.
        self.seen: dict[int, tuple[int, Any]] = {}

    def __call__(self, thing: object) -> str | None:
        try:
            return self._digest(thing)
        except Exception:  # unpicklable, an empty closure, a property that raises, ...
            return None

    def _digest(self, thing: Any) -> str:
        if isinstance(thing, _PLAIN):
            return _hash("plain", type(thing).__name__, repr(thing))
        if id(thing) in self.seen:  # recursion, or super(), which closes over its own class
            return _hash("seen", self.seen[id(thing)][0])
        found = self.looker(thing)
        if found is not None:
            return found
        self.seen[id(thing)] = (len(self.seen), thing)
        if type(thing) in (list, tuple, dict, set, frozenset, types.MappingProxyType):
            return _hash(type(thing).__name__, *self._items(thing))
        return self._object(thing)

    def _items(self, thing: Any) -> list[str]:
        """Digests of what a container holds."""
        if isinstance(thing, dict | types.MappingProxyType):
            return sorted(f"{self._digest(k)}:{self._digest(v)}" for k, v in thing.items())
        if isinstance(thing, set | frozenset):
            return sorted(map(self._digest, thing))
        if isinstance(thing, list | tuple | collections.deque):
            return [self._digest(item) for item in thing]
        return []

    def _object(self, thing: Any) -> str:
        if isinstance(thing, types.ModuleType):
            return _hash("module", thing.__name__, _release(thing.__name__))
        if isinstance(thing, functools.partial):
            return _hash("partial", *map(self._digest, (thing.func, thing.args, thing.keywords)))
        if isinstance(thing, types.MethodType):
            return _hash("method", self._digest(thing.__func__), self._digest(thing.__self__))
        if isinstance(thing, type | types.FunctionType):
            return self._code(thing)
        if callable(getattr(thing, "__wrapped__", None)):  # functools.cache and its kind
            return _hash("wrapped", self._digest(thing.__wrapped__))
        if isinstance(thing, _IN_C):
            return _hash("builtin", _name_of(thing))
        return self._value(thing)

    def _value(self, value: Any) -> str:
        kind = type(value)
        name, release = _name_of(kind), _release(kind.__module__)
        bases = [base for base in kind.__mro__ if base is not object]
        # An object of the user's may be one that cannot be pickled, of a class in a notebook;
        # without a base in C all that it holds is in its __dict__.
        plain = all(_release(b.__module__) is None and "__slots__" not in vars(b) for b in bases)
        held = None if plain else joblib.hash(value)
        # A pickle knows functions by their names: what they do is to be looked up.
        inside = self._digest(getattr(value, "__dict__", None))
        code = self._digest(kind) if release is None else release
        return _hash("object", name, held, code, inside, *self._items(value))

    def _code(self, thing: Any) -> str:
        release = _release(getattr(thing, "__module__", None))
        if release is not None and "<locals>" not in thing.__qualname__:
            return _hash("installed", release, _name_of(thing))
        if isinstance(thing, types.FunctionType):
            return self._function(thing)
        members = [
            f"{name}={self._digest(_unwrapped(member))}"
            for name, member in sorted(vars(thing).items())
            if name not in _CLASS_NOISE
        ]
        return _hash("class", thing.__qualname__, *members, *map(self._digest, thing.__bases__))

    def _function(self, function: types.FunctionType) -> str:
        cells = [cell.cell_contents for cell in function.__closure__ or ()]
        state = [function.__defaults__, function.__kwdefaults__, cells]
        reached = []
        codes = list(_codes(function.__code__))
        attributes = _names(codes, "LOAD_ATTR", "LOAD_METHOD")
        if any(_release(name) is None for name in _names(codes, "IMPORT_NAME")):
            raise _Opaque  # a module of the user's, imported in the function
        for name in sorted(_names(codes, "LOAD_GLOBAL", "LOAD_NAME")):
            if name in function.__globals__:
                digest = self._global(function.__globals__[name], attributes)
                reached.append(f"{name}={digest}")
        return _hash(
            "function",
            platform.python_version(),
            *map(_constants, codes),
            *map(self._digest, state),
            *reached,
        )

    def _global(self, value: Any, attributes: Iterable[str]) -> str:
        if not isinstance(value, types.ModuleType) or _release(value.__name__) is not None:
            return self._digest(value)
        # A module of the user's: what is used of it.
        used = [name for name in sorted(attributes) if name in vars(value)]
        return _hash(value.__name__, *(f"{n}={self._digest(vars(value)[n])}" for n in used))


def _hash(*parts: object) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for part in parts:
        text = str(part).encode("utf-8", "surrogatepass")
        digest.update(f"{len(text)}:".encode() + text)
    return digest.hexdigest()


def _name_of(thing: Any) -> str:
    owner = getattr(thing, "__self__", None)
    if owner is not None and not isinstance(owner, types.ModuleType | type):
        raise _Opaque  # a method in C of an object that may hold anything
    module = getattr(thing, "__module__", None) or getattr(owner, "__name__", "")
    return f"{module}.{thing.__qualname__}"


def _unwrapped(member: Any) -> Any:
    """What stands behind a property, a class method and the like."""
    if isinstance(member, property):
        return (member.fget, member.fset)
    if isinstance(member, staticmethod | classmethod):
        return member.__func__
    if isinstance(member, functools.cached_property):
        return member.func
    return member


def _codes(code: types.CodeType) -> Iterator[types.CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _codes(constant)


def _names(codes: list[types.CodeType], *kinds: str) -> set[str]:
    """Names that the instructions of some kinds mention."""
    return {
        str(instruction.argval)
        for code in codes
        for instruction in dis.get_instructions(code)
        if instruction.opname in kinds
    }


def _constants(code: types.CodeType) -> str:
    constants = [repr(c) for c in code.co_consts if not isinstance(c, types.CodeType | frozenset)]
    sets = [repr(sorted(map(repr, c))) for c in code.co_consts if isinstance(c, frozenset)]
    names = (code.co_names, code.co_varnames, code.co_freevars)
    shape = (code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount, code.co_flags)
    jumps = getattr(code, "co_exceptiontable", b"")
    return _hash(code.co_code.hex(), jumps, *constants, *sets, names, shape)


@functools.lru_cache(maxsize=1024)
def _release(module: str | None) -> str | None:
    """Name and version of the installed package of a module, None for the user's own."""
    package = (module or "").partition(".")[0]
    if package in sys.stdlib_module_names and package != "__main__":
        return f"python=={platform.python_version()}"
    loaded = sys.modules.get(package)
    version, file = getattr(loaded, "__version__", None), getattr(loaded, "__file__", None)
    if not isinstance(version, str) or not isinstance(file, str):
        return None
    # One that is installed in place (pip install -e) may be edited: it counts by its code.
    inside = any(place in Path(file).parents for place in _site_packages())
    return f"{package}=={version}" if inside else None


def _site_packages() -> set[Path]:
    paths = sysconfig.get_paths()
    places = {paths["purelib"], paths["platlib"], site.getusersitepackages()}
    return {Path(place) for place in (*places, *site.getsitepackages())}
