# Why there are stubs at all: see sklearn/__init__.pyi.
from collections.abc import Callable
from typing import Any, Self, TypeVar

_F = TypeVar("_F", bound=Callable[..., Any])

class CallbackSupportMixin:
    def set_callbacks(self, *callbacks: Any) -> Self: ...
    def _init_callback_context(
        self,
        task_name: str = "fit",
        task_id: int = 0,
        max_subtasks: int | None = 0,
        sequential_subtasks: bool = True,
    ) -> Any: ...

def with_callbacks(method: _F) -> _F: ...
def __getattr__(name: str) -> Any: ...
