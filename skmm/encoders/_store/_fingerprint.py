"""Digests of arrays, modules and code: what makes two computations the same one.

A digest that is too fine costs work, one that is too coarse gives a wrong vector. Where
something cannot be looked into, the answer is None, and nothing is stored.
"""

import hashlib
import weakref
from typing import Any

import joblib
import numpy as np
import torch
from torch import nn
from torch.nn.modules import module as _torch_module

from skmm.encoders import _code

__all__ = ["code_digest", "digest_decoded", "module_digest"]

# What nn.Module keeps besides the attributes that its author set.
_OWN_STATE = {"_parameters", "_buffers", "_modules", "_non_persistent_buffers_set", "training"}
_HOOKS = (
    "_forward_hooks",
    "_forward_pre_hooks",
    "_backward_hooks",
    "_backward_pre_hooks",
)
_GLOBAL_HOOKS = ("_global_forward_hooks", "_global_forward_pre_hooks")


class _OpaqueError(Exception):
    """Something cannot be looked into."""


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
    try:
        return _Looker().module(module)
    except _OpaqueError:
        return None


def code_digest(thing: Any) -> str | None:
    """Digest of a function or class and all it reaches; None if some of it cannot be seen."""
    return _code.code_digest(thing, other=_Looker())


class _Looker:
    """Looks into modules and tensors, for itself and for whoever comes upon one in code."""

    def __init__(self) -> None:
        self.open: list[nn.Module] = []  # those that are being looked into

    def __call__(self, thing: Any) -> str | None:
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
            raise _OpaqueError
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
            raise _OpaqueError
        found = [kind.__module__, kind.__qualname__]
        if kind.__module__.startswith("torch.") and not kind.__module__.startswith("torch.nn."):
            raise _OpaqueError  # scripted, traced or compiled: its code is in no class
        if not kind.__module__.startswith("torch."):
            found.append(_seen(_code.code_digest(kind, other=self)))
        for attribute, value in sorted(part.__dict__.items()):
            if attribute not in _OWN_STATE and not attribute.endswith("_hooks"):
                found.append(f"{attribute}={_seen(_code.value_digest(value, other=self))}")
        return hashlib.blake2b("|".join(found).encode(), digest_size=16).hexdigest()


def _seen(digest: str | None) -> str:
    if digest is None:
        raise _OpaqueError
    return digest


def _tensor_digest(tensor: torch.Tensor) -> str:
    raw = tensor.detach().cpu().contiguous()
    # Bytes, not values: numpy has no bfloat16, and one bit may be all that differs.
    digest = hashlib.blake2b(f"{raw.dtype}|{tuple(raw.shape)}|".encode(), digest_size=16)
    digest.update(raw.flatten().view(torch.uint8).numpy().tobytes() if raw.numel() else b"")
    return digest.hexdigest()
