"""Process-wide settings: the store of embeddings and the device of models.

The settings apply to all threads of the process. They are passed to joblib workers with the
encoders that are sent there (see ``skmm.encoders._store._session``).
"""

from collections.abc import Iterator
from contextlib import contextmanager
from os import PathLike
from typing import Any

__all__ = ["config_context", "get_config", "set_config"]

_UNCHANGED = object()
_config: dict[str, Any] = {"store": None, "device": "auto"}


def get_config() -> dict[str, Any]:
    """Return the current settings.

    Returns
    -------
    config : dict
        Values of ``store`` and ``device``, as given to :func:`set_config`.

    Examples
    --------
    >>> from skmm import get_config
    >>> get_config()
    {'store': None, 'device': 'auto'}
    """
    return dict(_config)


def set_config(*, store: object = _UNCHANGED, device: object = _UNCHANGED) -> None:
    """Set where embeddings are stored and on which device models run.

    The settings hold for the whole process, all its threads included. A setting that is not given
    keeps its value.

    Parameters
    ----------
    store : path, EmbeddingStore, False or None
        Where encoders whose own ``store`` is None keep the vectors (embeddings) that frozen models
        compute. A path is a folder that later runs can use again. None, the initial setting, is a
        private folder of the running process, which its workers share and which is removed at
        exit. False stores nothing.
    device : str
        Device of every estimator whose own ``device`` is ``"auto"``. ``"auto"``, the initial
        setting, is a GPU if there is one, else the CPU. Any name of a torch device, such as
        ``"cpu"`` or ``"cuda:1"``, is allowed; it is checked when it is used.

    Raises
    ------
    TypeError
        If a setting has a wrong type.

    See Also
    --------
    config_context : Change settings within a ``with`` block.
    get_config : Return the current settings.

    Examples
    --------
    >>> from skmm import get_config, set_config
    >>> set_config(device="cpu")
    >>> get_config()["device"]
    'cpu'
    >>> set_config(device="auto")
    """
    if store is not _UNCHANGED:
        known = store is None or store is False or isinstance(store, str | PathLike)
        if not known and not hasattr(store, "get_many"):
            raise TypeError(
                f"store must be a folder, an EmbeddingStore, False or None, got {store!r}."
            )
    if device is not _UNCHANGED and not isinstance(device, str):
        raise TypeError(f"device must be a str such as 'cpu' or 'cuda:0', got {device!r}.")
    if store is not _UNCHANGED:
        _config["store"] = store
    if device is not _UNCHANGED:
        _config["device"] = device


@contextmanager
def config_context(*, store: object = _UNCHANGED, device: object = _UNCHANGED) -> Iterator[None]:
    """Change settings within a ``with`` block and restore the old ones after it.

    Parameters
    ----------
    store : path, EmbeddingStore, False or None
        Where embeddings are stored, as in :func:`set_config`. If not given, it is not changed.
    device : str
        Device of models, as in :func:`set_config`. If not given, it is not changed.

    Examples
    --------
    >>> from skmm import config_context, get_config
    >>> with config_context(device="cpu"):
    ...     get_config()["device"]
    'cpu'
    >>> get_config()["device"]
    'auto'
    """
    before = get_config()
    set_config(store=store, device=device)
    try:
        yield
    finally:
        _config.update(before)
