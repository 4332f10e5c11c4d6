"""Digests of arrays, modules and code: two equal digests mean the same computation.

A digest that is too fine causes repeated work, one that is too coarse gives a wrong vector. Where
an object cannot be inspected, the digest is None, and nothing is stored.
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
# Attributes that Python adds to classes and that do not affect what they do.
_CLASS_NOISE = {
    *("__dict__", "__weakref__", "__doc__", "__module__", "__annotations__", "__parameters__"),
    *("__firstlineno__", "__static_attributes__", "__annotate__", "__annotate_func__"),
    *("__annotations_cache__", "__abstractmethods__", "__match_args__", "_abc_impl"),
    *("__orig_bases__", "__type_params__", "__qualname__"),
    "__slotnames__",  # written when an object is pickled
}
# Attributes of nn.Module itself; the others were set by the author of the module.
_OWN_STATE = {"_parameters", "_buffers", "_modules", "_non_persistent_buffers_set", "training"}
_HOOKS = (
    "_forward_hooks",
    "_forward_pre_hooks",
    "_backward_hooks",
    "_backward_pre_hooks",
)
_GLOBAL_HOOKS = ("_global_forward_hooks", "_global_forward_pre_hooks")


def digest_decoded(decoded: object) -> bytes:
    """Return the digest of a decoded cell, 16 bytes."""
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
    """Return the digest of weights, buffers, attributes and code; None if there are hooks."""
    try:
        return _ModuleDigest().module(module)
    except _Opaque:
        return None


def code_digest(obj: object) -> str | None:
    """Return the digest of a function or class and all that it uses; None if this is unknown."""
    return _Walk(_ModuleDigest())(obj)


def package_version(name: str) -> str | None:
    """Return the version of an installed package without importing it; None if there is none."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


class _ModuleDigest:
    """Computes digests of modules and tensors, also of those that code refers to."""

    def __init__(self) -> None:
        self.open: list[nn.Module] = []  # modules whose digest is being computed

    def __call__(self, obj: object) -> str | None:
        """Return the digest of a tensor or module that code refers to, None for other objects."""
        if isinstance(obj, weakref.ref):  # recurrent networks have such references to weights
            obj = obj()
        if isinstance(obj, nn.Module):
            return self.module(obj)
        return _tensor_digest(obj) if isinstance(obj, torch.Tensor) else None

    def module(self, module: nn.Module) -> str:
        if any(module is other for other in self.open):
            return "itself"
        if any(getattr(_torch_module, name, None) for name in _GLOBAL_HOOKS):
            raise _Opaque
        self.open.append(module)
        digest = hashlib.blake2b(digest_size=16)
        digest.update(torch.__version__.split("+")[0].encode())
        # With duplicates, because a part that is used twice differs from one that is used once.
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
        """Return the digest of a module without its children: its class and attributes."""
        kind = type(part)
        if any(getattr(part, hooks, None) for hooks in _HOOKS):
            raise _Opaque
        found = [kind.__module__, kind.__qualname__]
        if kind.__module__.startswith("torch.") and not kind.__module__.startswith("torch.nn."):
            raise _Opaque  # scripted, traced or compiled: no class has its code
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
    # Of the bytes, not the values: numpy has no bfloat16, and a single bit may differ.
    digest = hashlib.blake2b(f"{raw.dtype}|{tuple(raw.shape)}|".encode(), digest_size=16)
    digest.update(raw.flatten().view(torch.uint8).numpy().tobytes() if raw.numel() else b"")
    return digest.hexdigest()


class _Opaque(Exception):  # noqa: N818 - always caught in this file
    """An object cannot be inspected."""


class _Walk:
    """Computes the digest of an object from everything that it uses: values, functions, classes.

    Code of installed packages counts by name and version; the user's code by its compiled form
    and by all that it uses: globals, closures, defaults, other functions. The digest of an object
    that cannot be inspected is None.

    Parameters
    ----------
    modules : _ModuleDigest
        Computes the digests of modules and tensors.
    """

    def __init__(self, modules: _ModuleDigest):
        self.modules = modules
        # By id, with the objects themselves, so that no other object gets the same id.
        self.seen: dict[int, tuple[int, Any]] = {}

    def __call__(self, obj: object) -> str | None:
        try:
            return self._digest(obj)
        except Exception:  # unpicklable, an empty closure, a property that raises, ...
            return None

    def _digest(self, obj: Any) -> str:
        if isinstance(obj, _PLAIN):
            return _hash("plain", type(obj).__name__, repr(obj))
        if id(obj) in self.seen:  # recursion, or super(), which closes over its own class
            return _hash("seen", self.seen[id(obj)][0])
        found = self.modules(obj)
        if found is not None:
            return found
        self.seen[id(obj)] = (len(self.seen), obj)
        if type(obj) in (list, tuple, dict, set, frozenset, types.MappingProxyType):
            return _hash(type(obj).__name__, *self._items(obj))
        return self._object(obj)

    def _items(self, obj: Any) -> list[str]:
        """Return the digests of the items of a container."""
        if isinstance(obj, dict | types.MappingProxyType):
            return sorted(f"{self._digest(k)}:{self._digest(v)}" for k, v in obj.items())
        if isinstance(obj, set | frozenset):
            return sorted(map(self._digest, obj))
        if isinstance(obj, list | tuple | collections.deque):
            return [self._digest(item) for item in obj]
        return []

    def _object(self, obj: Any) -> str:
        if isinstance(obj, types.ModuleType):
            return _hash("module", obj.__name__, _release(obj.__name__))
        if isinstance(obj, functools.partial):
            return _hash("partial", *map(self._digest, (obj.func, obj.args, obj.keywords)))
        if isinstance(obj, types.MethodType):
            return _hash("method", self._digest(obj.__func__), self._digest(obj.__self__))
        if isinstance(obj, type | types.FunctionType):
            return self._code(obj)
        if callable(getattr(obj, "__wrapped__", None)):  # functools.cache and similar
            return _hash("wrapped", self._digest(obj.__wrapped__))
        if isinstance(obj, _IN_C):
            return _hash("builtin", _name_of(obj))
        return self._value(obj)

    def _value(self, value: Any) -> str:
        kind = type(value)
        name, release = _name_of(kind), _release(kind.__module__)
        bases = [base for base in kind.__mro__ if base is not object]
        # A user's object may not be picklable, e.g. of a class in a notebook; without a base in C
        # its __dict__ has all of its state.
        plain = all(_release(b.__module__) is None and "__slots__" not in vars(b) for b in bases)
        held = None if plain else joblib.hash(value)
        # A pickle refers to functions by name, so their code is added.
        inside = self._digest(getattr(value, "__dict__", None))
        code = self._digest(kind) if release is None else release
        return _hash("object", name, held, code, inside, *self._items(value))

    def _code(self, obj: Any) -> str:
        release = _release(getattr(obj, "__module__", None))
        if release is not None and "<locals>" not in obj.__qualname__:
            return _hash("installed", release, _name_of(obj))
        if isinstance(obj, types.FunctionType):
            return self._function(obj)
        members = [
            f"{name}={self._digest(_unwrapped(member))}"
            for name, member in sorted(vars(obj).items())
            if name not in _CLASS_NOISE
        ]
        return _hash("class", obj.__qualname__, *members, *map(self._digest, obj.__bases__))

    def _function(self, function: types.FunctionType) -> str:
        cells = [cell.cell_contents for cell in function.__closure__ or ()]
        state = [function.__defaults__, function.__kwdefaults__, cells]
        reached = []
        codes = list(_codes(function.__code__))
        attributes = _names(codes, "LOAD_ATTR", "LOAD_METHOD")
        if any(_release(name) is None for name in _names(codes, "IMPORT_NAME")):
            raise _Opaque  # a user's module, imported in the function
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
        # Of a user's module, the attributes that are used.
        used = [name for name in sorted(attributes) if name in vars(value)]
        return _hash(value.__name__, *(f"{n}={self._digest(vars(value)[n])}" for n in used))


def _hash(*parts: object) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for part in parts:
        text = str(part).encode("utf-8", "surrogatepass")
        digest.update(f"{len(text)}:".encode() + text)
    return digest.hexdigest()


def _name_of(obj: Any) -> str:
    owner = getattr(obj, "__self__", None)
    if owner is not None and not isinstance(owner, types.ModuleType | type):
        raise _Opaque  # a method in C of an object with unknown state
    module = getattr(obj, "__module__", None) or getattr(owner, "__name__", "")
    return f"{module}.{obj.__qualname__}"


def _unwrapped(member: Any) -> Any:
    """Return the functions of a property, class method or similar member."""
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
    """Return the names in instructions of some kinds."""
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
    """Return name and version of a module's installed package, None for the user's code."""
    package = (module or "").partition(".")[0]
    if package in sys.stdlib_module_names and package != "__main__":
        return f"python=={platform.python_version()}"
    loaded = sys.modules.get(package)
    version, file = getattr(loaded, "__version__", None), getattr(loaded, "__file__", None)
    if not isinstance(version, str) or not isinstance(file, str):
        return None
    # A package that is installed in place (pip install -e) may be edited, so its code counts.
    inside = any(place in Path(file).parents for place in _site_packages())
    return f"{package}=={version}" if inside else None


def _site_packages() -> set[Path]:
    paths = sysconfig.get_paths()
    places = {paths["purelib"], paths["platlib"], site.getusersitepackages()}
    return {Path(place) for place in (*places, *site.getsitepackages())}
