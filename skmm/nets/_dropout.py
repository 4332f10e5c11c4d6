"""Rows that lose whole modalities in training, so that none is indispensable."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

__all__ = ["ModalityDropout"]


class ModalityDropout(nn.Module):
    """Hide whole modalities of a row at random while training, never the last one it has.

    A network trained so keeps working when a modality is missing that training never lacked,
    and cannot lean on the strongest one alone [1]_. In evaluation nothing is hidden.

    Parameters
    ----------
    p : float, default=0.1
        Probability that a present modality of a row is hidden, in [0, 1]. Where all would go,
        one of them, drawn at random, stays.

    References
    ----------
    .. [1] Neverova, Wolf, Taylor, Nebout, "ModDrop: adaptive multi-modal gesture recognition",
       IEEE TPAMI 2016.

    Examples
    --------
    >>> import torch
    >>> from skmm.nets import ModalityDropout
    >>> masks = {"image": torch.ones(1000, 1).bool(), "text": torch.ones(1000, 1).bool()}
    >>> hidden = ModalityDropout(0.5)(masks)
    >>> bool((hidden["image"] | hidden["text"]).all())
    True
    >>> ModalityDropout(0.5).eval()(masks)["text"].all()
    tensor(True)
    """

    def __init__(self, p: float = 0.1):
        super().__init__()
        if not 0.0 <= p <= 1.0:
            raise ValueError(f"{type(self).__name__}: p must be in [0, 1], got {p}.")
        self.p = p

    def forward(self, masks: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Hide modalities.

        Parameters
        ----------
        masks : dict of str to BoolTensor of shape (n_rows, n_tokens)
            True where the token exists; left as it is.

        Returns
        -------
        masks : dict of str to BoolTensor of shape (n_rows, n_tokens)
            With all of the hidden modality's tokens False.
        """
        if not self.training or self.p == 0.0:
            return dict(masks)
        names = sorted(masks)  # the order of the dictionary must not change what is drawn
        present = torch.stack([masks[name].any(dim=1) for name in names], dim=1)
        luck = torch.rand(present.shape, device=present.device).masked_fill(~present, -1.0)
        # The luckiest present modality of a row stays whatever its luck.
        luckiest = luck == luck.amax(dim=1, keepdim=True)
        keep = (luck >= self.p) | luckiest
        return {name: masks[name] & keep[:, [i]] for i, name in enumerate(names)}
