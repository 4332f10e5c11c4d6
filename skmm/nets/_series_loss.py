"""The loss of a series: its known values and its length."""

import torch
from torch import Tensor, nn

__all__ = ["SeriesLoss"]


class SeriesLoss(nn.Module):
    """Squared error of the known values, summed over a series, and that of its length.

    The sum is divided by a common number, so that each value of a batch counts the same, in
    whatever series it stands.

    Parameters
    ----------
    mean_known : float, default=1.0
        Mean number of known values in a series.

    Examples
    --------
    Two series of one channel, in front of each its length; the second one has a gap and ends:

    >>> import torch
    >>> from skmm.nets import SeriesLoss
    >>> nothing = torch.nan
    >>> target = torch.tensor([[0.0, 1.0, 2.0, 3.0], [1.0, nothing, 2.0, nothing]])
    >>> SeriesLoss(2.0)(torch.zeros(2, 4, 1), target[:, :, None])
    tensor([7., 3.])
    """

    def __init__(self, mean_known: float = 1.0):
        super().__init__()
        self.mean_known = mean_known

    def forward(self, outputs: Tensor, target: Tensor) -> Tensor:
        """Return the loss of each series.

        Parameters
        ----------
        outputs : Tensor of shape (n_rows, 1 + n_steps, n_channels)
            Lengths, in the first channel of the first place, and series.
        target : Tensor of shape (n_rows, 1 + at least n_steps, n_channels)
            The same, NaN where nothing is known. Beyond ``n_steps`` nothing is.

        Returns
        -------
        loss : Tensor of shape (n_rows,)
            Not negative.
        """
        target = target[:, : outputs.shape[1]]
        known = ~torch.isnan(target)
        # Not a product with the mask: its gradient would be NaN where the target is.
        errors = torch.where(known, outputs - torch.where(known, target, 0.0), 0.0) ** 2
        return errors[:, 1:].sum(dim=(1, 2)) / self.mean_known + errors[:, 0].sum(dim=1)
