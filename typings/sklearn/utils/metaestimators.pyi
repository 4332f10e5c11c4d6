# Why there are stubs at all: see sklearn/__init__.pyi.
from abc import ABCMeta
from collections.abc import Callable
from typing import Any, Self, TypeVar

from sklearn.base import BaseEstimator

_F = TypeVar("_F", bound=Callable[..., Any])

class _BaseComposition(BaseEstimator, metaclass=ABCMeta):
    def _get_params(self, attr: str, deep: bool = True) -> dict[str, Any]: ...
    def _set_params(self, attr: str, **params: Any) -> Self: ...

# The method stays what it is for whoever has it; hasattr is how one asks.
def available_if(check: Callable[[Any], object]) -> Callable[[_F], _F]: ...
