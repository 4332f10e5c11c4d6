"""Losses of a contrastive alignment, each with its own parameters.

They hold parameters, which are searched as ``loss__temperature``, and build the torch module of
``skmm.nets`` that computes the loss.
"""

import copy
import math
from abc import ABC, abstractmethod
from numbers import Real
from typing import Any, ClassVar, Literal, TypeAlias

from sklearn.base import BaseEstimator
from torch import nn

from skmm._constraints import POSITIVE_REAL, Interval, StrOptions
from skmm.nets._contrastive import InfoNCELoss, MaxMarginLoss, SigLIPLoss, TripletLoss

__all__ = [
    "LOSS_SHORTHANDS",
    "BaseAlignmentLoss",
    "InfoNCE",
    "LossShorthand",
    "MaxMargin",
    "Negatives",
    "SigLIP",
    "Triplet",
    "loss_module",
]

Negatives: TypeAlias = Literal["all", "hard", "semi_hard"]
LossShorthand: TypeAlias = Literal["infonce", "siglip", "triplet", "max_margin"]
_NEGATIVES = [StrOptions({"all", "hard", "semi_hard"})]


class BaseAlignmentLoss(BaseEstimator, ABC):
    """Base of the losses, which hold parameters and build a torch module."""

    _parameter_constraints: ClassVar[dict[str, Any]] = {"negatives": _NEGATIVES}

    @abstractmethod
    def build(self, batch_size: int) -> nn.Module:
        """Return a new torch module that computes the loss.

        Parameters
        ----------
        batch_size : int
            Number of rows per step.

        Returns
        -------
        module : nn.Module
            Module with the signature of ``skmm.nets.ContrastiveLoss``: from the vectors of two
            modalities and two masks to a loss for each row.
        """


class InfoNCE(BaseAlignmentLoss):
    """InfoNCE loss: cross-entropy of finding the partner in the batch [1]_ [2]_.

    Parameters
    ----------
    temperature : float, default=0.1
        What similarities are divided by before the softmax. The initial value if
        ``learn_temperature``.
    learn_temperature : bool, default=True
        Whether the temperature is learned with the projections.
    negatives : {"all", "hard", "semi_hard"}, default="all"
        Which rows of the batch are negatives: ``"all"``; ``"hard"``, all of them weighted by
        their similarity to the query [3]_; ``"semi_hard"``, those less similar than the partner.

    References
    ----------
    .. [1] van den Oord, Li, Vinyals (2018), "Representation learning with contrastive predictive
       coding", arXiv:1807.03748.
    .. [2] Radford et al. (2021), "Learning transferable visual models from natural language
       supervision", ICML.
    .. [3] Robinson, Chuang, Sra, Jegelka (2021), "Contrastive learning with hard negative
       samples", ICLR.

    Examples
    --------
    >>> from skmm import ContrastiveAlignment
    >>> from skmm.alignment import InfoNCE
    >>> alignment = ContrastiveAlignment(loss=InfoNCE(temperature=0.05))
    >>> alignment.set_params(loss__temperature=0.2).loss
    InfoNCE(temperature=0.2)
    """

    _parameter_constraints: ClassVar[dict[str, Any]] = {
        **BaseAlignmentLoss._parameter_constraints,
        "temperature": POSITIVE_REAL,
        "learn_temperature": ["boolean"],
    }

    def __init__(
        self,
        *,
        temperature: float = 0.1,
        learn_temperature: bool = True,
        negatives: Negatives = "all",
    ):
        self.temperature = temperature
        self.learn_temperature = learn_temperature
        self.negatives = negatives

    def build(self, batch_size: int) -> nn.Module:
        """Return a new torch module that computes the loss.

        Parameters
        ----------
        batch_size : int
            Not used.

        Returns
        -------
        module : InfoNCELoss
            Module that returns the loss of each row.
        """
        self._validate_params()
        return InfoNCELoss(
            self.negatives,
            temperature=self.temperature,
            learn_temperature=self.learn_temperature,
        )


class SigLIP(BaseAlignmentLoss):
    """Sigmoid loss: binary cross-entropy of whether a pair of rows are partners [1]_.

    Parameters
    ----------
    temperature : float, default=0.1
        What similarities are divided by before the sigmoid. The initial value if
        ``learn_temperature``.
    learn_temperature : bool, default=True
        Whether the temperature is learned with the projections.
    bias : float or "auto", default="auto"
        Initial value of the learned bias. ``"auto"`` is the logarithm of the odds that a pair of
        rows of the batch are partners.
    negatives : {"all", "hard", "semi_hard"}, default="all"
        Which pairs that are not partners count: ``"all"``; ``"hard"``, all of them weighted by
        their similarity; ``"semi_hard"``, those less similar than the partners.

    References
    ----------
    .. [1] Zhai, Mustafa, Kolesnikov, Beyer (2023), "Sigmoid loss for language image
       pre-training", ICCV.

    Examples
    --------
    >>> from skmm import ContrastiveAlignment
    >>> from skmm.alignment import SigLIP
    >>> ContrastiveAlignment(loss=SigLIP(temperature=0.05)).get_params()["loss__bias"]
    'auto'
    """

    _parameter_constraints: ClassVar[dict[str, Any]] = {
        **BaseAlignmentLoss._parameter_constraints,
        "temperature": POSITIVE_REAL,
        "learn_temperature": ["boolean"],
        "bias": [Interval(Real, None, None, closed="neither"), StrOptions({"auto"})],
    }

    def __init__(
        self,
        *,
        temperature: float = 0.1,
        learn_temperature: bool = True,
        bias: float | Literal["auto"] = "auto",
        negatives: Negatives = "all",
    ):
        self.temperature = temperature
        self.learn_temperature = learn_temperature
        self.bias = bias
        self.negatives = negatives

    def build(self, batch_size: int) -> nn.Module:
        """Return a new torch module that computes the loss.

        Parameters
        ----------
        batch_size : int
            Number of rows per step: each row has one partner and ``batch_size - 1`` negatives.

        Returns
        -------
        module : SigLIPLoss
            Module that returns the loss of each row.
        """
        self._validate_params()
        if self.bias == "auto":
            # The weights of hard negatives sum to one.
            n_negative = 1 if self.negatives == "hard" else batch_size - 1
            bias = -math.log(max(n_negative, 1))
        else:
            bias = self.bias
        return SigLIPLoss(
            self.negatives,
            temperature=self.temperature,
            learn_temperature=self.learn_temperature,
            bias=bias,
        )


class Triplet(BaseAlignmentLoss):
    """Triplet loss: a margin between the squared distances to partner and negatives [1]_.

    Parameters
    ----------
    margin : float, default=0.2
        By how much the squared distance to a negative must exceed that to the partner for a loss
        of 0.
    negatives : {"all", "hard", "semi_hard"}, default="all"
        Which rows are negatives: ``"all"``, the mean over those within the margin; ``"hard"``,
        the most similar one; ``"semi_hard"``, the most similar one of those less similar than the
        partner.

    References
    ----------
    .. [1] Schroff, Kalenichenko, Philbin (2015), "FaceNet: a unified embedding for face
       recognition and clustering", CVPR.

    Examples
    --------
    >>> from skmm import ContrastiveAlignment
    >>> from skmm.alignment import Triplet
    >>> ContrastiveAlignment(loss=Triplet(margin=0.5, negatives="semi_hard")).loss.margin
    0.5
    """

    _parameter_constraints: ClassVar[dict[str, Any]] = {
        **BaseAlignmentLoss._parameter_constraints,
        "margin": POSITIVE_REAL,
    }

    def __init__(self, *, margin: float = 0.2, negatives: Negatives = "all"):
        self.margin = margin
        self.negatives = negatives

    def build(self, batch_size: int) -> nn.Module:
        """Return a new torch module that computes the loss.

        Parameters
        ----------
        batch_size : int
            Not used.

        Returns
        -------
        module : TripletLoss
            Module that returns the loss of each row.
        """
        self._validate_params()
        return TripletLoss(self.negatives, margin=self.margin)


class MaxMargin(BaseAlignmentLoss):
    """Max-margin loss: a margin between the cosines to partner and negatives [1]_.

    Parameters
    ----------
    margin : float, default=0.2
        By how much the cosine similarity to the partner must exceed that to a negative for a loss
        of 0.
    negatives : {"all", "hard", "semi_hard"}, default="all"
        Which rows are negatives: ``"all"``, the sum over all of them; ``"hard"``, the most similar
        one, as in [1]_; ``"semi_hard"``, the most similar one of those less similar than the
        partner.

    References
    ----------
    .. [1] Faghri, Fleet, Kiros, Fidler (2018), "VSE++: improving visual-semantic embeddings with
       hard negatives", BMVC.

    Examples
    --------
    >>> from skmm import ContrastiveAlignment
    >>> from skmm.alignment import MaxMargin
    >>> ContrastiveAlignment(loss=MaxMargin(negatives="hard")).loss
    MaxMargin(negatives='hard')
    """

    _parameter_constraints: ClassVar[dict[str, Any]] = {
        **BaseAlignmentLoss._parameter_constraints,
        "margin": POSITIVE_REAL,
    }

    def __init__(self, *, margin: float = 0.2, negatives: Negatives = "all"):
        self.margin = margin
        self.negatives = negatives

    def build(self, batch_size: int) -> nn.Module:
        """Return a new torch module that computes the loss.

        Parameters
        ----------
        batch_size : int
            Not used.

        Returns
        -------
        module : MaxMarginLoss
            Module that returns the loss of each row.
        """
        self._validate_params()
        return MaxMarginLoss(self.negatives, margin=self.margin)


LOSS_SHORTHANDS: dict[str, type[BaseAlignmentLoss]] = {
    "infonce": InfoNCE,
    "siglip": SigLIP,
    "triplet": Triplet,
    "max_margin": MaxMargin,
}


def loss_module(
    loss: BaseAlignmentLoss | nn.Module | LossShorthand, batch_size: int, owner: str
) -> nn.Module:
    """Return a new torch module for the parameter ``loss`` of an alignment.

    Parameters
    ----------
    loss : str, nn.Module or object with ``build``
        A module is copied, so that training does not change the parameter.
    batch_size : int
        Number of rows per step.
    owner : str
        Class of the estimator, for messages.

    Returns
    -------
    module : nn.Module
        Module that returns the loss of each row.
    """
    if isinstance(loss, type):
        raise TypeError(
            f"{owner}: loss must be an object, got the class {loss.__name__}. Write"
            f" {loss.__name__}()."
        )
    if isinstance(loss, nn.Module):
        return copy.deepcopy(loss)
    if isinstance(loss, str):
        loss = LOSS_SHORTHANDS[loss]()
    module = loss.build(batch_size)
    if not isinstance(module, nn.Module):
        raise TypeError(
            f"{owner}: the build method of loss {loss!r} must return an nn.Module, got {module!r}."
        )
    return module
