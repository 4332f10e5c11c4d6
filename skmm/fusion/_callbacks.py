"""scikit-learn's own callbacks (progress bars, monitors), where its version has them.

They came in 1.9 as an experiment. On older versions the names below do nothing.
"""

from collections.abc import Callable
from typing import Any

try:
    from sklearn.callback import CallbackSupportMixin, with_callbacks

    HAVE_CALLBACKS = True
except ImportError:
    HAVE_CALLBACKS = False

    class CallbackSupportMixin:  # type: ignore[no-redef]
        """Stands for the mixin that this version lacks."""

    def with_callbacks(method: Callable[..., Any]) -> Callable[..., Any]:  # type: ignore[misc]
        """Stand for the decorator that this version lacks."""
        return method


__all__ = ["CallbackSupportMixin", "EpochReporter", "with_callbacks"]


class EpochReporter:
    """Tells scikit-learn's callbacks of the epochs of a training.

    Parameters
    ----------
    estimator : CallbackSupportMixin
        Estimator whose ``fit`` runs.
    X, y : object
        What it was given.
    max_epochs : int
        Most epochs there can be.
    """

    def __init__(self, estimator: Any, X: Any, y: Any, max_epochs: int):
        self.given = {"estimator": estimator, "X": X, "y": y}
        self.estimator = estimator
        self.context: Any = None
        # Contexts stay in a tree until fit ends: nothing is built for nobody.
        wanted = hasattr(estimator, "_skl_callbacks") or hasattr(estimator, "_parent_callback_ctx")
        if HAVE_CALLBACKS and wanted:
            self.context = estimator._init_callback_context(max_subtasks=max_epochs)
            self.context.call_on_fit_task_begin(**self.given)

    def begin(self) -> None:
        """Tell that an epoch begins."""
        if self.context is not None:
            self._epoch = self.context.subcontext(task_name="epoch")
            self._epoch.call_on_fit_task_begin(**self.given)

    def end(self) -> bool:
        """Tell that an epoch has ended; True if a callback asks to stop."""
        if self.context is None:
            return False
        return bool(self._epoch.call_on_fit_task_end(**self.given))

    def close(self) -> None:
        """Tell that the fit has ended."""
        if self.context is not None:
            self.context.call_on_fit_task_end(**self.given)
