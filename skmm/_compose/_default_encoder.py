"""The default encoder of each modality: where fusions and encoders meet."""

import difflib
from typing import Any

from skmm._frame._modality import MODALITIES
from skmm.encoders import (
    AudioEncoder,
    ImageEncoder,
    PointCloudEncoder,
    TabularEncoder,
    TextEncoder,
    TimeSeriesEncoder,
    VideoEncoder,
)

__all__ = ["default_encoder"]

_ENCODERS: dict[str, type] = {
    "text": TextEncoder,
    "image": ImageEncoder,
    "audio": AudioEncoder,
    "video": VideoEncoder,
    "timeseries": TimeSeriesEncoder,
    "pointcloud": PointCloudEncoder,
    "tabular": TabularEncoder,
}
# What replaces the encoder of modalities whose cells need none.
_WORDS = {"vector": "passthrough", "drop": "drop"}


def default_encoder(modality: str) -> Any:
    """Make the default encoder of a modality.

    Parameters
    ----------
    modality : str
        A value of :func:`skmm.infer_modalities`.

    Returns
    -------
    encoder : estimator or str
        A new, unfitted encoder with default parameters; ``"passthrough"`` for ``"vector"``,
        ``"drop"`` for ``"drop"``.

    Raises
    ------
    ValueError
        If there is no such modality.

    Examples
    --------
    >>> from skmm._compose._default_encoder import default_encoder
    >>> default_encoder("vector")
    'passthrough'
    >>> default_encoder("images")
    Traceback (most recent call last):
        ...
    ValueError: There is no modality 'images': did you mean 'image'? Modalities are 'text', \
'image', 'audio', 'video', 'timeseries', 'pointcloud', 'tabular', 'vector', 'drop'.
    """
    if modality not in MODALITIES:
        near = difflib.get_close_matches(str(modality), MODALITIES, n=2)
        hint = f": did you mean {' or '.join(map(repr, near))}?" if near else "."
        known = ", ".join(map(repr, MODALITIES))
        raise ValueError(f"There is no modality {modality!r}{hint} Modalities are {known}.")
    return _WORDS[modality] if modality in _WORDS else _ENCODERS[modality]()
