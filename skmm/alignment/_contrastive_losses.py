"""Losses of a contrastive alignment, each with its own parameters.

They hold parameters and are searched as ``loss__temperature``; what computes is a torch module
that they build, from ``skmm.nets``.
"""

import copy
import math
from abc import ABC, abstractmethod
from numbers import Real
from typing import Any, ClassVar, Literal, TypeAlias

from sklearn.base import BaseEstimator
from torch import nn

from skmm._constraints import POSITIVE_REAL, Interval, StrOptions
from skmm.nets import InfoNCELoss, MaxMarginLoss, SigLIPLoss, TripletLoss

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
    """Base of the losses: parameters, and the torch module that they build."""

    _parameter_constraints: ClassVar[dict[str, Any]] = {"negatives": _NEGATIVES}

    @abstractmethod
    def build(self, batch_size: int) -> nn.Module:
        """Return a new torch module that computes the loss.

        Parameters
        ----------
        batch_size : int
            Rows per step.

        Returns
        -------
        module : nn.Module
            Called with the vectors of two modalities and two masks, as
            ``skmm.nets.ContrastiveLoss`` is; gives a loss for each row.
        """


class InfoNCE(BaseAlignmentLoss):
    """Cross-entropy of finding the partner in the batch [1]_ [2]_.

    Parameters
    ----------
    temperature : float, default=0.1
        Similarities are divided by it; where it begins, or what it is.
    learn_temperature : bool, default=True
        Whether it is learned with the projections; else it stays.
    negatives : {"all", "hard", "semi_hard"}, default="all"
        Which rows of the batch the partner has to be found among: all of them; all, weighted by
        how similar they are to the asking side [3]_; or those less similar than the partner.

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
        module : skmm.nets.InfoNCELoss
            The loss of each row.
        """
        self._validate_params()
        return InfoNCELoss(
            self.negatives,
            temperature=self.temperature,
            learn_temperature=self.learn_temperature,
        )


class SigLIP(BaseAlignmentLoss):
    """Each pair on its own: does it belong together or not, by a sigmoid [1]_.

    Parameters
    ----------
    temperature : float, default=0.1
        Similarities are divided by it; where it begins, or what it is.
    learn_temperature : bool, default=True
        Whether it is learned with the projections; else it stays.
    bias : float or "auto", default="auto"
        Where the learned bias begins; ``"auto"`` is the logarithm of the odds that a pair of the
        batch belongs together.
    negatives : {"all", "hard", "semi_hard"}, default="all"
        Which pairs that do not belong together count: all of them; all, weighted by how similar
        they are; or those less similar than the pair that does.

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
            Rows per step: of them, one belongs to a row and the others do not.

        Returns
        -------
        module : skmm.nets.SigLIPLoss
            The loss of each row.
        """
        self._validate_params()
        if self.bias == "auto":
            # Weights of the hard negatives sum to one.
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
    """A row is nearer to its partner than to another row, by a margin of squared distance [1]_.

    Parameters
    ----------
    margin : float, default=0.2
        Difference of squared distances that is enough.
    negatives : {"all", "hard", "semi_hard"}, default="all"
        Which other rows: the mean over all of them that are not yet far enough; the most similar
        one; or the most similar one that is less similar than the partner.

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
        module : skmm.nets.TripletLoss
            The loss of each row.
        """
        self._validate_params()
        return TripletLoss(self.negatives, margin=self.margin)


class MaxMargin(BaseAlignmentLoss):
    """A row is more similar to its partner than to other rows, by a margin of cosines [1]_.

    Parameters
    ----------
    margin : float, default=0.2
        Lead in cosine similarity that is enough.
    negatives : {"all", "hard", "semi_hard"}, default="all"
        Which other rows: the sum over all of them; the most similar one, as in [1]_; or the most
        similar one that is less similar than the partner.

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
        module : skmm.nets.MaxMarginLoss
            The loss of each row.
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
    """Return a new torch module for what ``loss`` of an alignment may be.

    Parameters
    ----------
    loss : str, nn.Module or object with ``build``
        A module is copied, so that what it learns stays out of the parameter.
    batch_size : int
        Rows per step.
    owner : str
        Class that asks, for messages.

    Returns
    -------
    module : nn.Module
        The loss of each row.
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
