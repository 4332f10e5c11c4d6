"""scikit-learn's own callbacks (progress bars, monitors), where its version has them.

They are experimental in 1.9. With older versions the names below do nothing.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Self, TypeVar

_Method = TypeVar("_Method", bound=Callable[..., Any])

try:
    from sklearn.callback import CallbackSupportMixin, with_callbacks

    HAVE_CALLBACKS = True
except ImportError:
    HAVE_CALLBACKS = False

    class CallbackSupportMixin:  # type: ignore[no-redef]
        """Replace the mixin that this version of scikit-learn does not have."""

    def with_callbacks(method: _Method) -> _Method:
        """Replace the decorator that this version of scikit-learn does not have."""
        return method


__all__ = ["CallbackSupportMixin", "TaskReporter", "with_callbacks"]


class TaskReporter:
    """Report the tasks of a ``fit`` (modalities, epochs) to scikit-learn's callbacks.

    Parameters
    ----------
    estimator : CallbackSupportMixin
        Estimator whose ``fit`` runs, decorated by ``with_callbacks``.
    X, y : object
        Arguments of ``fit``.
    max_tasks : int
        Maximum number of tasks.
    name : str
        Name of a task.
    """

    def __init__(
        self, estimator: CallbackSupportMixin, X: object, y: object, max_tasks: int, name: str
    ):
        self.given = {"estimator": estimator, "X": X, "y": y}
        self.estimator = estimator
        self.max_tasks = max_tasks
        self.name = name
        self.context: Any = None

    def __enter__(self) -> Self:
        known = vars(self.estimator)
        # Contexts are kept until fit ends, so none is created without a callback.
        if HAVE_CALLBACKS and ("_skl_callbacks" in known or "_parent_callback_ctx" in known):
            self.context = self.estimator._init_callback_context(max_subtasks=self.max_tasks)
            self.context.call_on_fit_task_begin(**self.given)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self.context is not None and error is None:
            self.context.call_on_fit_task_end(**self.given)

    def begin(self) -> None:
        """Report that a task begins."""
        if self.context is not None:
            self._task = self.context.subcontext(task_name=self.name)
            self._task.call_on_fit_task_begin(**self.given)

    def end(self, *, usable: bool = False) -> bool:
        """Report that a task has ended, and return True if a callback requests to stop.

        ``usable`` means that the estimator can predict at this moment, as after an epoch.
        """
        if self.context is None:
            return False
        # No attributes are needed besides those that the estimator has at this moment.
        attributes: dict[str, Any] | None = {} if usable else None
        return bool(
            self._task.call_on_fit_task_end(**self.given, reconstruction_attributes=attributes)
        )

    @contextmanager
    def task(self) -> Iterator[None]:
        """Report what is done inside the block as a task."""
        self.begin()
        yield
        self.end()
