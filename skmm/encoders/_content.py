"""Digests of arrays, modules and code: what makes two computations the same one.

A digest that is too fine costs work, one that is too coarse gives a wrong vector. Where
something cannot be looked into, the answer is None, and nothing is stored.
"""

import hashlib
import platform
import types
from typing import Any

import joblib
import numpy as np
import torch
from torch import nn

__all__ = ["code_digest", "digest_decoded", "module_digest"]

# What nn.Module keeps besides the attributes that its author set.
_OWN_STATE = {"_parameters", "_buffers", "_modules", "_non_persistent_buffers_set", "training"}
_HOOKS = (
    "_forward_hooks",
    "_forward_pre_hooks",
    "_backward_hooks",
    "_backward_pre_hooks",
)


def digest_decoded(decoded: Any) -> bytes:
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
    digest = hashlib.blake2b(digest_size=16)
    digest.update(torch.__version__.split("+")[0].encode())
    for name, part in module.named_modules():
        if any(getattr(part, hooks, None) for hooks in _HOOKS):
            return None
        kind = type(part)
        digest.update(f"|{name}|{kind.__module__}.{kind.__qualname__}".encode())
        if not kind.__module__.startswith("torch."):
            code = code_digest(kind)
            if code is None:
                return None
            digest.update(code.encode())
        for attribute, value in sorted(part.__dict__.items()):
            if attribute in _OWN_STATE or attribute.endswith("_hooks"):
                continue
            try:
                seen = code_digest(value) if callable(value) else _value_digest(value)
            except Exception:  # an attribute that cannot be pickled cannot be compared
                return None
            if seen is None:
                return None
            digest.update(f"|{attribute}={seen}".encode())
    tensors = [*module.named_parameters(), *module.named_buffers()]
    for name, tensor in tensors:
        digest.update(f"|{name}|{tensor.dtype}|".encode())
        raw = tensor.detach().cpu().contiguous()
        # Bytes, not values: numpy has no bfloat16, and one bit may be all that differs.
        digest.update(str(tuple(raw.shape)).encode())
        digest.update(raw.flatten().view(torch.uint8).numpy().tobytes() if raw.numel() else b"")
    return digest.hexdigest()


def _value_digest(value: Any) -> str:
    if isinstance(value, torch.Tensor):
        return digest_decoded(value).hex()
    return str(joblib.hash(value))


def code_digest(thing: Any, _inside: tuple[Any, ...] = ()) -> str | None:
    """Digest of a function's or class' compiled code, defaults and closure."""
    if any(thing is outer for outer in _inside):
        return "itself"  # a method that says super() closes over its own class
    inside = (*_inside, thing)
    digest = hashlib.blake2b(platform.python_version().encode(), digest_size=16)
    if isinstance(thing, type):
        for base in thing.__mro__:
            if base.__module__.startswith("torch.") or base is object:
                continue
            for name, member in sorted(vars(base).items()):
                member = getattr(member, "__func__", member)
                if isinstance(member, property):
                    member = member.fget
                if isinstance(member, types.FunctionType):
                    code = code_digest(member, inside)
                    if code is None:
                        return None
                    digest.update(f"|{name}|{code}".encode())
                elif isinstance(member, int | float | str | bytes | bool | tuple):
                    digest.update(f"|{name}={member!r}".encode())
        return digest.hexdigest()
    if isinstance(thing, types.FunctionType):
        _update_with_code(digest, thing.__code__)
        try:
            cells = [cell.cell_contents for cell in thing.__closure__ or ()]
            state = (thing.__defaults__, thing.__kwdefaults__)
            digest.update(str(joblib.hash(state)).encode())
            for value in cells:
                seen = code_digest(value, inside) if callable(value) else _value_digest(value)
                if seen is None:
                    return None
                digest.update(seen.encode())
        except Exception:  # something unpicklable, or a closure still empty
            return None
        return digest.hexdigest()
    if isinstance(thing, types.BuiltinFunctionType | types.MethodType | type(np.sum)):
        owner = getattr(thing, "__self__", None)
        if owner is not None and not isinstance(owner, types.ModuleType):
            return None  # a bound method: its object may hold anything
        name = f"{getattr(thing, '__module__', '')}.{getattr(thing, '__qualname__', thing)}"
        digest.update(name.encode())
        return digest.hexdigest()
    return None


def _update_with_code(digest: Any, code: types.CodeType) -> None:
    digest.update(code.co_code)
    digest.update(repr((code.co_names, code.co_varnames, code.co_freevars)).encode())
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            _update_with_code(digest, constant)
        elif isinstance(constant, frozenset):
            digest.update(repr(sorted(map(repr, constant))).encode())
        else:
            digest.update(repr(constant).encode())
