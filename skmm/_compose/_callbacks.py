"""scikit-learn's own callbacks (progress bars, monitors), where its version has them.

They came in 1.9 as an experiment. On older versions the names below do nothing.
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
        """Stands for the mixin that this version lacks."""

    def with_callbacks(method: _Method) -> _Method:
        """Stand for the decorator that this version lacks."""
        return method


__all__ = ["CallbackSupportMixin", "TaskReporter", "with_callbacks"]


class TaskReporter:
    """Tell scikit-learn's callbacks of the tasks of a ``fit``: modalities, epochs.

    Parameters
    ----------
    estimator : CallbackSupportMixin
        Estimator whose ``fit`` runs, decorated by ``with_callbacks``.
    X, y : object
        What ``fit`` was given.
    max_tasks : int
        Most tasks there can be.
    name : str
        What a task is called.
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
        # Contexts stay in a tree until fit ends, so none is built where no callback listens.
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
        """Tell that a task begins."""
        if self.context is not None:
            self._task = self.context.subcontext(task_name=self.name)
            self._task.call_on_fit_task_begin(**self.given)

    def end(self, *, usable: bool = False) -> bool:
        """Tell that a task has ended; True if a callback asks to stop.

        ``usable`` says that the estimator could predict now, as after an epoch.
        """
        if self.context is None:
            return False
        # No attribute is needed beyond those that the estimator has at this moment.
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
