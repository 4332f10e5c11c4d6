# Written for skmm: scikit-learn has no types of its own. Without these few lines every estimator
# would inherit from Any, and mypy would check nothing that a subclass or a caller gets from them.
# Only what skmm subclasses, decorates with or calls often is here; the rest is Any.
from typing import Any

def get_config() -> dict[str, Any]: ...
def __getattr__(name: str) -> Any: ...
