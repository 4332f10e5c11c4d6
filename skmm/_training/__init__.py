"""How networks over modalities are trained, for fusion, alignment and generation alike."""

from skmm._training._trainer import Trainer

__all__ = ["Trainer"]
