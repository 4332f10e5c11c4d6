"""The loss of a text: what each of its tokens was given."""

from torch import Tensor, nn
from torch.nn import functional

__all__ = ["TokenLoss"]


class TokenLoss(nn.Module):
    """Cross-entropy of the tokens, summed over a text and divided by a common length.

    So each token of a batch counts the same, in whatever batch it stands.

    Parameters
    ----------
    mean_length : float, default=1.0
        Mean number of tokens in a text.
    label_smoothing : float, default=0.0
        Share of the target that is spread over all tokens.

    Attributes
    ----------
    NOTHING : int
        Target behind the end of a text.

    Examples
    --------
    >>> import torch
    >>> from skmm.nets import TokenLoss
    >>> target = torch.tensor([[3, 0], [0, TokenLoss.NOTHING]])
    >>> TokenLoss()(torch.zeros(2, 2, 4), target)  # two tokens and one, of four possible
    tensor([2.7726, 1.3863])
    """

    NOTHING = -100

    def __init__(self, mean_length: float = 1.0, *, label_smoothing: float = 0.0):
        super().__init__()
        self.mean_length = mean_length
        self.label_smoothing = label_smoothing

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return the loss of each text.

        Parameters
        ----------
        logits : Tensor of shape (n_rows, n_steps, n_tokens)
            Of each place.
        target : Tensor of shape (n_rows, n_steps), int
            What stands there, ``NOTHING`` behind the end.

        Returns
        -------
        loss : Tensor of shape (n_rows,)
            Not negative.
        """
        losses = functional.cross_entropy(
            logits.transpose(1, 2),
            target,
            ignore_index=self.NOTHING,
            reduction="none",
            label_smoothing=self.label_smoothing if self.training else 0.0,
        )
        return losses.sum(dim=1) / self.mean_length
