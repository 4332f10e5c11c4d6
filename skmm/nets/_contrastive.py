"""Contrastive losses: vectors that match become more similar than vectors that do not.

A loss is called with the vectors of two modalities, of unit length and paired by row, and with two
masks of shape (n_rows, n_rows): ``positive[i, j]`` states that row ``j`` of the right side matches
row ``i`` of the left side, ``negative[i, j]`` that it does not; if both are False the pair is
ignored. The loss of a row is the mean of both directions. In each direction, a row (the anchor)
may have several positives.
"""

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn
from torch.nn import functional

__all__ = [
    "CONTRASTIVE_LOSSES",
    "ContrastiveLoss",
    "InfoNCELoss",
    "MaxMarginLoss",
    "PairwiseContrast",
    "SigLIPLoss",
    "TripletLoss",
]

NEGATIVES = ("all", "hard", "semi_hard")
# Replaces the similarity of pairs that are ignored; no sum of it is infinite.
_NONE = -1e9
_BIAS_PACE = 10.0
_LARGEST_SCALE = 100.0  # as in CLIP


class ContrastiveLoss(ABC, nn.Module):
    """Base class of the losses of contrastive alignment.

    A subclass implements ``_one_way(similarity, positive, negative)``. The arguments are matrices
    of shape (n_rows, n_rows) whose rows are anchors; it returns the loss of each anchor, a Tensor
    of shape (n_rows,). The loss of a row is the mean over both directions.

    Parameters
    ----------
    negatives : {"all", "hard", "semi_hard"}, default="all"
        Negatives that an anchor and its positive are compared with. A subclass defines the hard
        ones. Semi-hard are those less similar to the anchor than the positive, or the least
        similar one if there are none.

    Examples
    --------
    >>> import torch
    >>> from skmm.nets import ContrastiveLoss
    >>> class Distance(ContrastiveLoss):
    ...     def _one_way(self, similarity, positive, negative):
    ...         return (positive * (1 - similarity)).sum(dim=1)
    >>> Distance()(torch.eye(2), torch.eye(2).flip(0))
    tensor([1., 1.])
    """

    def __init__(self, negatives: str = "all"):
        super().__init__()
        if negatives not in NEGATIVES:
            raise ValueError(f"negatives must be one of {NEGATIVES}, got {negatives!r}.")
        self.negatives = negatives

    def forward(
        self,
        left: Tensor,
        right: Tensor,
        positive: Tensor | None = None,
        negative: Tensor | None = None,
    ) -> Tensor:
        """Compute the loss of each row.

        Parameters
        ----------
        left, right : Tensor of shape (n_rows, n_components)
            Vectors of unit length.
        positive, negative : BoolTensor of shape (n_rows, n_rows), default=None
            Which rows of ``right`` match a row of ``left``, and which do not. By default a row
            matches its partner and no other row.

        Returns
        -------
        loss : Tensor of shape (n_rows,)
            Mean of both directions: from left to right, and from right to left.
        """
        if positive is None:
            positive = torch.eye(len(left), dtype=torch.bool, device=left.device)
        if negative is None:
            negative = ~positive
        similarity = left @ right.T
        there = self._one_way(similarity, positive, negative)
        back = self._one_way(similarity.T, positive.T, negative.T)
        return (there + back) / 2

    @abstractmethod
    def _one_way(self, similarity: Tensor, positive: Tensor, negative: Tensor) -> Tensor:
        """Compute the loss of each anchor, (n_rows,); rows of the matrices are anchors."""

    @staticmethod
    def _in_order(similarity: Tensor, negative: Tensor) -> tuple[Tensor, Tensor]:
        """Sort negatives by similarity, and find where the semi-hard ones of each pair end.

        Both results have shape (n_rows, n_rows). The first is ``_NONE`` before the negatives
        begin; the second is the index of the most similar semi-hard negative.
        """
        n = len(similarity)
        ordered = torch.where(negative, similarity, _NONE).sort(dim=1).values.contiguous()
        first = n - negative.sum(dim=1, keepdim=True)
        below = torch.searchsorted(ordered, similarity.detach().contiguous()) - 1
        return ordered, below.maximum(first).clamp(max=n - 1)


def _over_positives(losses: Tensor, positive: Tensor) -> Tensor:
    """Average the losses (n_rows, n_rows) over the positives of each anchor, (n_rows,)."""
    return torch.where(positive, losses, 0.0).sum(dim=1) / positive.sum(dim=1).clamp(min=1)


class _Tempered(ContrastiveLoss):
    """Base class of losses that divide similarities by a temperature."""

    def __init__(self, negatives: str, temperature: float, learn_temperature: bool):
        super().__init__(negatives)
        if not temperature > 0:
            raise ValueError(f"temperature must be above 0, got {temperature!r}.")
        self.first_scale = 1.0 / temperature
        # Learned as a factor, so that weight decay pulls it toward its initial value.
        self.log_factor = nn.Parameter(torch.zeros(()), requires_grad=learn_temperature)

    @property
    def scale(self) -> Tensor:
        """One divided by the temperature."""
        scale = self.first_scale * self.log_factor.exp()
        return scale.clamp(max=max(_LARGEST_SCALE, self.first_scale))

    @property
    def temperature(self) -> float:
        """Current temperature."""
        return 1.0 / float(self.scale.detach())

    @staticmethod
    def _weights(logits: Tensor, negative: Tensor) -> Tensor:
        """Return weights of an anchor's negatives, proportional to ``exp(logit)``, of sum 1."""
        shares = torch.where(negative, logits.detach(), _NONE).softmax(dim=1)
        return torch.where(negative, shares, 0.0)


class InfoNCELoss(_Tempered):
    """Cross-entropy of finding the partner among the negatives [1]_, in both directions [2]_.

    The loss of an anchor and its positive is
    ``-log(exp(s_p / t) / (exp(s_p / t) + sum_n exp(s_n / t)))``, averaged over the positives of the
    anchor. Other positives are not part of the denominator [3]_.

    Parameters
    ----------
    negatives : {"all", "hard", "semi_hard"}, default="all"
        Negatives of the sum; ``"hard"`` weights them by ``exp(s_n / t)``, 1 on average [4]_.
    temperature : float, default=0.07
        Initial temperature, which similarities are divided by before the softmax.
    learn_temperature : bool, default=True
        Whether the temperature is learned; a learned one does not fall below 0.01.

    References
    ----------
    .. [1] van den Oord, Li, Vinyals (2018), "Representation learning with contrastive predictive
       coding", arXiv:1807.03748.
    .. [2] Radford et al. (2021), "Learning transferable visual models from natural language
       supervision", ICML.
    .. [3] Feeney, Hughes (2023), "SINCERE: supervised information noise-contrastive estimation
       revisited", arXiv:2309.14277.
    .. [4] Robinson, Chuang, Sra, Jegelka (2021), "Contrastive learning with hard negative
       samples", ICLR.

    Examples
    --------
    >>> import torch
    >>> from skmm.nets._contrastive import InfoNCELoss
    >>> vectors = torch.eye(2)
    >>> InfoNCELoss(temperature=1.0)(vectors, vectors).detach()  # log(1 + exp(-1))
    tensor([0.3133, 0.3133])
    """

    def __init__(
        self,
        negatives: str = "all",
        *,
        temperature: float = 0.07,
        learn_temperature: bool = True,
    ):
        super().__init__(negatives, temperature, learn_temperature)

    def _one_way(self, similarity: Tensor, positive: Tensor, negative: Tensor) -> Tensor:
        scaled = similarity * self.scale
        if self.negatives == "semi_hard":
            ordered, last = self._in_order(scaled, negative)
            against = ordered.logcumsumexp(dim=1).gather(1, last)
        else:
            among = torch.where(negative, scaled, _NONE)
            if self.negatives == "hard":
                weights = self._weights(scaled, negative) * negative.sum(dim=1, keepdim=True)
                among = among + weights.clamp(min=1e-9).log()
            against = among.logsumexp(dim=1, keepdim=True)
        return _over_positives(functional.softplus(against - scaled), positive)


class SigLIPLoss(_Tempered):
    """Binary cross-entropy of each pair, by a sigmoid [1]_.

    The loss of an anchor is ``sum_p softplus(-(s_p / t + b)) + sum_n softplus(s_n / t + b)``. With
    semi-hard negatives, the second sum is averaged over the positives.

    Parameters
    ----------
    negatives : {"all", "hard", "semi_hard"}, default="all"
        Negatives of the sum; ``"hard"`` makes it a mean, weighted by ``exp(s_n / t)``.
    temperature : float, default=0.1
        Initial temperature, which similarities are divided by before the sigmoid.
    learn_temperature : bool, default=True
        Whether the temperature is learned; a learned one does not fall below 0.01.
    bias : float, default=-10.0
        Initial value of the learned bias. It should be near the log-odds that a pair matches;
        otherwise all vectors collapse to one point in the first steps.

    References
    ----------
    .. [1] Zhai, Mustafa, Kolesnikov, Beyer (2023), "Sigmoid loss for language image pre-training",
       ICCV.

    Examples
    --------
    >>> import torch
    >>> from skmm.nets._contrastive import SigLIPLoss
    >>> vectors = torch.eye(2)
    >>> SigLIPLoss(temperature=1.0, bias=0.0)(vectors, vectors).detach()
    tensor([1.0064, 1.0064])
    """

    def __init__(
        self,
        negatives: str = "all",
        *,
        temperature: float = 0.1,
        learn_temperature: bool = True,
        bias: float = -10.0,
    ):
        super().__init__(negatives, temperature, learn_temperature)
        self.first_bias = bias
        # An offset, for weight decay; scaled, because a bias changes more than weights do.
        self.offset = nn.Parameter(torch.zeros(()))

    @property
    def bias(self) -> Tensor:
        """Current bias."""
        return self.first_bias + _BIAS_PACE * self.offset

    def _one_way(self, similarity: Tensor, positive: Tensor, negative: Tensor) -> Tensor:
        logits = similarity * self.scale + self.bias
        belongs = torch.where(positive, functional.softplus(-logits), 0.0).sum(dim=1)
        if self.negatives == "semi_hard":
            ordered, last = self._in_order(logits, negative)
            against = functional.softplus(ordered).cumsum(dim=1).gather(1, last)
            return belongs + _over_positives(against, positive)
        against = torch.where(negative, functional.softplus(logits), 0.0)
        if self.negatives == "hard":
            against = against * self._weights(logits, negative)
        return belongs + against.sum(dim=1)


class _Hinged(ContrastiveLoss):
    """Base class of losses that are zero if the positive leads a negative by a margin."""

    slope = 1.0  # of the loss in the similarity

    def __init__(self, negatives: str, margin: float):
        super().__init__(negatives)
        if not margin > 0:
            raise ValueError(f"margin must be above 0, got {margin!r}.")
        self.margin = margin

    def _one_way(self, similarity: Tensor, positive: Tensor, negative: Tensor) -> Tensor:
        if self.negatives == "all":
            return _over_positives(self._of_all(*self._hinges(similarity, negative)), positive)
        if self.negatives == "hard":
            chosen = torch.where(negative, similarity, _NONE).amax(dim=1, keepdim=True)
        else:
            ordered, last = self._in_order(similarity, negative)
            chosen = ordered.gather(1, last)
        losses = (self.margin - self.slope * (similarity - chosen)).clamp(min=0)
        return _over_positives(losses, positive)

    def _hinges(self, similarity: Tensor, negative: Tensor) -> tuple[Tensor, Tensor]:
        """Return the sum of each pair's hinges over the negatives, and how many are positive.

        Computed by cumulative sums over sorted negatives; comparing each pair with each negative
        would take time cubic in the number of rows.
        """
        n = len(similarity)
        ordered = torch.where(negative, similarity, _NONE).sort(dim=1).values.contiguous()
        counted = torch.where(ordered > _NONE, ordered, 0.0)
        zero = counted.new_zeros(n, 1)
        # Sums of the k largest, for k from 0 to n.
        largest = torch.cat([zero, counted.flip(1).cumsum(dim=1)], dim=1)
        enough = (similarity - self.margin / self.slope).detach().contiguous()
        n_active = n - torch.searchsorted(ordered, enough, right=True)
        total = largest.gather(1, n_active) - n_active * similarity
        return self.slope * total + n_active * self.margin, n_active

    @abstractmethod
    def _of_all(self, total: Tensor, n_active: Tensor) -> Tensor:
        """Compute the loss of each pair from the sum and the number of its positive hinges."""


class TripletLoss(_Hinged):
    """Triplet loss: the anchor should be nearer to its positive than to a negative [1]_.

    The loss is ``max(0, margin + d(a, p) - d(a, n))`` with squared distances ``d``. For all
    negatives it is the mean over those with a loss above zero [2]_.

    Parameters
    ----------
    negatives : {"all", "hard", "semi_hard"}, default="semi_hard"
        Negatives that are compared; of the hard or semi-hard ones, the most similar.
    margin : float, default=0.2
        Difference of squared distances from which on the loss is 0.

    References
    ----------
    .. [1] Schroff, Kalenichenko, Philbin (2015), "FaceNet: a unified embedding for face
       recognition and clustering", CVPR.
    .. [2] Hermans, Beyer, Leibe (2017), "In defense of the triplet loss for person
       re-identification", arXiv:1703.07737.

    Examples
    --------
    >>> import torch
    >>> from skmm.nets._contrastive import TripletLoss
    >>> TripletLoss(margin=0.2)(torch.eye(2), torch.eye(2).flip(0))
    tensor([2.2000, 2.2000])
    """

    slope = 2.0  # the squared distance of unit vectors is 2 - 2 * similarity

    def __init__(self, negatives: str = "semi_hard", *, margin: float = 0.2):
        super().__init__(negatives, margin)

    def _of_all(self, total: Tensor, n_active: Tensor) -> Tensor:
        return total / n_active.clamp(min=1)


class MaxMarginLoss(_Hinged):
    """Hinge loss of the similarities of the positive and the hardest negative [1]_.

    The loss is ``max(0, margin - s_p + s_n)`` for the hardest negative, or the sum over all.

    Parameters
    ----------
    negatives : {"all", "hard", "semi_hard"}, default="hard"
        Negatives that are compared; of the hard or semi-hard ones, the most similar.
    margin : float, default=0.2
        Difference of cosine similarities from which on the loss is 0.

    References
    ----------
    .. [1] Faghri, Fleet, Kiros, Fidler (2018), "VSE++: improving visual-semantic embeddings with
       hard negatives", BMVC.

    Examples
    --------
    >>> import torch
    >>> from skmm.nets._contrastive import MaxMarginLoss
    >>> MaxMarginLoss(margin=0.2)(torch.eye(2), torch.eye(2).flip(0))
    tensor([1.2000, 1.2000])
    """

    def __init__(self, negatives: str = "hard", *, margin: float = 0.2):
        super().__init__(negatives, margin)

    def _of_all(self, total: Tensor, n_active: Tensor) -> Tensor:
        return total


CONTRASTIVE_LOSSES: dict[str, type[ContrastiveLoss]] = {
    "infonce": InfoNCELoss,
    "siglip": SigLIPLoss,
    "triplet": TripletLoss,
    "max_margin": MaxMarginLoss,
}


class PairwiseContrast(nn.Module):
    """Contrastive loss over all pairs of modalities, for the rows that have both.

    Rows with equal content in either modality are not negatives of each other. Rows of one class
    are positives of each other.

    Parameters
    ----------
    loss : ContrastiveLoss
        Loss of one pair of modalities.
    """

    def __init__(self, loss: ContrastiveLoss):
        super().__init__()
        self.loss = loss

    def forward(self, vectors: Tensor, target: Tensor) -> Tensor:
        """Return the loss of each row, (n_rows,); the mean is the sum over pairs of their means.

        Parameters
        ----------
        vectors : Tensor of shape (n_rows, n_modalities, n_components)
            Vectors of unit length; values of absent modalities are ignored.
        target : Tensor of shape (n_rows, n_modalities + 1), int64
            Number of the content of each modality, equal for equal contents, -1 where it is
            absent; and the class, -1 where it is unknown.
        """
        n_rows, n_modalities, _ = vectors.shape
        # Zero, with a gradient, for rows without a pair; absent modalities may hold NaN.
        losses = torch.nan_to_num(0.0 * vectors.sum(dim=(1, 2)))
        for a in range(n_modalities):
            for b in range(a + 1, n_modalities):
                rows = ((target[:, a] >= 0) & (target[:, b] >= 0)).nonzero().squeeze(1)
                if len(rows):
                    own = self._of_pair(vectors[rows, a], vectors[rows, b], target[rows], a, b)
                    losses = losses.index_add(0, rows, own * (n_rows / len(rows)))
        return losses

    def _of_pair(self, left: Tensor, right: Tensor, target: Tensor, a: int, b: int) -> Tensor:
        same = _equal(target[:, a]) | _equal(target[:, b])
        known = target[:, -1] >= 0
        positive = torch.eye(len(target), dtype=torch.bool, device=target.device)
        positive = positive | (_equal(target[:, -1]) & known[:, None])
        losses: Tensor = self.loss(left, right, positive, ~positive & ~same)
        return losses


def _equal(labels: Tensor) -> Tensor:
    return labels[:, None] == labels[None, :]
