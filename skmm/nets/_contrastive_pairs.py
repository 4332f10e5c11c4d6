"""A contrastive loss over all pairs of modalities of a batch of rows."""

import torch
from torch import Tensor, nn

from skmm.nets._contrastive import ContrastiveLoss

__all__ = ["PairwiseContrast"]


class PairwiseContrast(nn.Module):
    """A contrastive loss over every pair of modalities, for the rows that have both.

    What holds the same is no negative: rows whose cells of either modality are equal in content
    are left out of each other's comparison. Rows of one class belong to each other.

    Parameters
    ----------
    loss : ContrastiveLoss
        Of one pair.
    """

    def __init__(self, loss: ContrastiveLoss):
        super().__init__()
        self.loss = loss

    def forward(self, vectors: Tensor, target: Tensor) -> Tensor:
        """Return the loss of each row, (n_rows,), whose mean is the sum over pairs of their means.

        Parameters
        ----------
        vectors : Tensor of shape (n_rows, n_modalities, n_components)
            Of unit length; what stands where a modality is absent is not looked at.
        target : Tensor of shape (n_rows, n_modalities + 1), int64
            What the row holds of each modality, as a number that equal contents share, -1 where
            it is absent; and its class, -1 where that is not known.
        """
        n_rows, n_modalities, _ = vectors.shape
        # Zero, with a gradient, where there is no pair; whatever stands in what is absent.
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
        return self.loss(left, right, positive, ~positive & ~same)


def _equal(codes: Tensor) -> Tensor:
    return codes[:, None] == codes[None, :]
