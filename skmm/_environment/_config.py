"""Process-wide settings: where embeddings are kept and on which device encoders run.

The settings hold for the whole process, all its threads included, and travel to joblib
workers with the encoders that are sent there (see ``skmm.encoders._store._session``).
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
        ``store`` and ``device``, as given to :func:`set_config`.

    Examples
    --------
    >>> from skmm import get_config
    >>> get_config()
    {'store': None, 'device': 'auto'}
    """
    return dict(_config)


def set_config(*, store: object = _UNCHANGED, device: object = _UNCHANGED) -> None:
    """Set where embeddings are kept and on which device encoders run.

    Parameters
    ----------
    store : path, EmbeddingStore, False or None
        Folder in which embeddings stay from one run to the next. None (the initial
        setting) keeps them in a private folder of the running process, shared with its
        workers and removed at exit. False keeps nothing.
    device : str
        Device of every encoder and joint fusion whose own ``device`` is ``"auto"``:
        ``"auto"`` (the initial setting: CUDA where there is a GPU, else the CPU), or any
        name that torch knows, such as ``"cpu"`` or ``"cuda:1"``.

    Raises
    ------
    TypeError
        If a setting has the wrong type.

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
    """Change settings inside a ``with`` block and put the old ones back after it.

    Parameters
    ----------
    store : path, EmbeddingStore, False or None
        As in :func:`set_config`.
    device : str
        As in :func:`set_config`.

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
