"""A tokenizer and transformer for the columns of a table, trained from scratch."""

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from numpy.typing import ArrayLike
from torch import Tensor, nn

from skmm.backbones._base import Backbone, Encoded

__all__ = ["FeatureTokens"]

_MISSING = 0
_UNKNOWN = 1
_N_SPECIAL = 2


class FeatureTokens(Backbone):
    """Feature tokenizer and transformer for tables, trained from scratch.

    Each column is a token [1]_: the product of a number and a learned vector, or the learned
    vector of a category, plus a learned vector of the column. Transformer layers then let the
    columns of a row attend to each other. Missing cells are masked. Weights are sampled from
    torch's global generator.

    Parameters
    ----------
    n_numbers : int
        Number of numeric columns. They should be on a common scale, such as mean 0 and variance
        1.
    cardinalities : sequence of int, default=()
        Number of known categories of each categorical column.
    n_components : int, default=64
        Length of the tokens and of the pooled vector, a multiple of ``n_heads`` if there are
        layers.
    n_layers : int, default=1
        Number of transformer layers; with 0 the columns do not interact.
    n_heads : int, default=4
        Number of attention heads.
    dropout : float, default=0.0
        Dropout rate of the transformer layers, in [0, 1].

    Attributes
    ----------
    width : int
        ``n_components``. Tokens are the columns, numeric ones first. The pooled vector is the
        mean of the tokens that are not missing, or zeros if all are.

    References
    ----------
    .. [1] Gorishniy, Rubachev, Khrulkov, Babenko, "Revisiting deep learning models for tabular
       data", NeurIPS 2021.

    Examples
    --------
    Two numeric columns, with a missing number in the second row, and one of three categories:

    >>> from skmm.backbones._column_tokens import FeatureTokens
    >>> model = FeatureTokens(2, cardinalities=[3], n_components=16)
    >>> encoded = model(**model.collate([[0.5, -1.0, 4], [float("nan"), 2.0, 2]]))
    >>> encoded.tokens.shape, encoded.pooled.shape
    (torch.Size([2, 3, 16]), torch.Size([2, 16]))
    >>> encoded.mask
    tensor([[ True,  True,  True],
            [False,  True,  True]])
    """

    offsets: Tensor

    def __init__(
        self,
        n_numbers: int,
        *,
        cardinalities: Sequence[int] = (),
        n_components: int = 64,
        n_layers: int = 1,
        n_heads: int = 4,
        dropout: float = 0.0,
    ):
        super().__init__()
        self.n_numbers = n_numbers
        self.cardinalities = tuple(int(n) for n in cardinalities)
        n_columns = n_numbers + len(self.cardinalities)
        if n_columns == 0:
            raise ValueError(f"{type(self).__name__} needs at least one column.")
        if n_layers and n_components % n_heads:
            raise ValueError(
                f"{type(self).__name__}: n_components={n_components} is not a multiple of"
                f" n_heads={n_heads}. Choose n_components={-(-n_components // n_heads) * n_heads}"
                " or another n_heads."
            )
        self.width = n_components
        # Initialized as in the paper: entries of a token have a variance of about 1 / width.
        bound = n_components**-0.5
        self.slopes = nn.Parameter(torch.empty(n_numbers, n_components).uniform_(-bound, bound))
        self.columns = nn.Parameter(torch.empty(n_columns, n_components).uniform_(-bound, bound))
        # One embedding table for all columns; the rows of a column start at its offset.
        sizes = [n + _N_SPECIAL for n in self.cardinalities]
        self.categories = nn.Embedding(sum(sizes), n_components)
        nn.init.uniform_(self.categories.weight, -bound, bound)
        offsets = torch.tensor([sum(sizes[:j]) for j in range(len(sizes))], dtype=torch.int64)
        self.register_buffer("offsets", offsets, persistent=False)
        self.layers = nn.ModuleList(
            nn.TransformerEncoderLayer(
                n_components,
                n_heads,
                dim_feedforward=2 * n_components,
                dropout=dropout,
                activation="gelu",
                batch_first=True,
                norm_first=True,
            )
            for _ in range(n_layers)
        )
        self.norm = nn.LayerNorm(n_components) if n_layers else nn.Identity()

    def collate(self, cells: ArrayLike) -> dict[str, Tensor]:
        """Split rows into numbers and categories.

        Parameters
        ----------
        cells : array-like of shape (n_cells, n_numbers + n_categories)
            Rows: numbers, NaN where missing, then indices of categories: 0 or NaN where missing,
            1 for an unknown category, 2 and more for the known ones.

        Returns
        -------
        tensors : dict of str to Tensor
            ``numbers``, float32 of shape (n_cells, n_numbers), and ``categories``, int64 of
            shape (n_cells, n_categories).
        """
        rows = np.asarray(cells, dtype=np.float64)
        rows = rows.reshape(len(rows), self.n_numbers + len(self.cardinalities))
        indices = np.nan_to_num(rows[:, self.n_numbers :], nan=_MISSING)
        return {
            "numbers": torch.from_numpy(rows[:, : self.n_numbers].astype(np.float32)),
            "categories": torch.from_numpy(indices.astype(np.int64)),
        }

    def forward(self, *, numbers: Tensor, categories: Tensor) -> Encoded:
        """Encode rows of a table.

        Parameters
        ----------
        numbers : Tensor of shape (n_cells, n_numbers)
            Floats, NaN where missing.
        categories : Tensor of shape (n_cells, n_categories), int64
            Indices: 0 where missing, 1 for an unknown category, 2 and more for the known ones.

        Returns
        -------
        encoded : Encoded
            One token per column, masked where the cell is missing.
        """
        mask = torch.cat([~torch.isnan(numbers), categories != _MISSING], dim=1)
        numbers = torch.where(mask[:, : self.n_numbers], numbers, 0.0).to(self.slopes.dtype)
        by_number = numbers.unsqueeze(-1) * self.slopes
        by_category = self.categories(categories + self.offsets)
        tokens = torch.cat([by_number, by_category], dim=1) + self.columns
        # Rows without any cell attend to all columns: their output is masked and must not be NaN.
        absent = ~mask & mask.any(dim=1, keepdim=True)
        for layer in self.layers if len(tokens) else ():  # attention fails on an empty batch
            tokens = layer(tokens, src_key_padding_mask=absent)
        tokens = self.norm(tokens)
        total = torch.where(mask.unsqueeze(-1), tokens, 0.0).sum(dim=1)
        return Encoded(tokens, mask, total / mask.sum(dim=1, keepdim=True).clamp(min=1))

    def reconstruction_target(self, *, numbers: Tensor, categories: Tensor) -> Tensor:
        """Return the values of the row.

        Parameters
        ----------
        numbers : Tensor of shape (n_cells, n_numbers)
            Output of ``collate``.
        categories : Tensor of shape (n_cells, n_categories), int64
            Output of ``collate``.

        Returns
        -------
        target : Tensor of shape (n_cells, n_targets)
            Numbers, 0 where missing, then the one-hot encoding of each categorical column, zeros
            where missing; its first entry is for unknown categories.
        """
        parts = [torch.where(torch.isnan(numbers), 0.0, numbers)]
        for j, cardinality in enumerate(self.cardinalities):
            one_hot = F.one_hot(categories[:, j], cardinality + _N_SPECIAL)
            parts.append(one_hot[:, _UNKNOWN:].to(numbers.dtype))
        return torch.cat(parts, dim=1)
