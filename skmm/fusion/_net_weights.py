"""What a fitted joint fusion says about the weight of modalities and tokens in a row."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
import torch
from sklearn.utils.validation import check_is_fitted

from skmm._training._module import SEPARATOR, JointModule
from skmm.fusion._integrated_gradients import Integrated, integrate

__all__ = ["NetWeightsMixin"]


class NetWeightsMixin:
    """Tells the weights of the modalities in a joint fusion."""

    module_: JointModule
    _code: Any
    _threads: Callable[[], AbstractContextManager[Any]]
    _batches: Callable[[Any], Iterator[tuple[slice, dict[str, torch.Tensor], np.ndarray]]]
    _through: Callable[..., tuple[np.ndarray, np.ndarray]]

    def modality_weights(self, X: Any) -> np.ndarray:
        """Return the weight of each modality in each row: its gate, or the attention it gets.

        Parameters
        ----------
        X : DataFrame of shape (n_samples, n_columns)
            Cells; any row may lack any modality.

        Returns
        -------
        weights : ndarray of shape (n_samples, n_modalities)
            In the order of ``modalities_``; NaN where a modality is absent. A row sums to one over
            the others. Gates are averaged over the units; attention is rolled out over the layers
            (Abnar and Zuidema, 2020).

        Raises
        ------
        TypeError
            If the strategy has no weights. ``"gated"``, ``"cross_gated"``, ``"attention"`` and
            ``"bottleneck"`` do, and so does a module with a method ``weights(tokens, masks)``.
        """
        check_is_fitted(self, "module_")
        if not hasattr(self.module_.fusion, "weights"):
            raise TypeError(
                f"{type(self).__name__}: {type(self.module_.fusion).__name__} gives the"
                " modalities no weights. Take strategy='gated', 'cross_gated', 'attention' or"
                " 'bottleneck'; skmm.inspection.modality_shapley divides any predictions."
            )
        return self._through(X, self.module_.weights)[0].astype(np.float64)

    def token_weights(self, X: Any, modality: str) -> list[np.ndarray]:
        """Return the weight of each token of a modality: the attention that reaches the output.

        Parameters
        ----------
        X : DataFrame of shape (n_samples, n_columns)
            Cells; any row may lack any modality.
        modality : str
            Name of the modality.

        Returns
        -------
        weights : list of ndarray of shape (n_tokens,)
            One for each row, empty where it lacks the modality. Those of a row sum to one over
            all tokens of all modalities. Attention is rolled out over the layers (Abnar and
            Zuidema, 2020).

        Raises
        ------
        TypeError
            If the strategy has no attention. ``"attention"``, ``"bottleneck"`` and
            ``"cross_attention"`` do, and so does a module with a method
            ``token_weights(tokens, masks)``.
        """
        self._check_modality(modality)
        if not hasattr(self.module_.fusion, "token_weights"):
            raise TypeError(
                f"{type(self).__name__}: {type(self.module_.fusion).__name__} has no attention to"
                " tokens. Take strategy='attention', 'bottleneck' or 'cross_attention' with"
                " granularity='sequence'."
            )
        rows: list[np.ndarray] = []
        for _, batch, _ in self._batches(X):
            with self._threads(), torch.inference_mode():
                weights = self.module_.token_weights(**batch)[modality].cpu().numpy()
            rows += [row[~np.isnan(row)].astype(np.float64) for row in weights]
        return rows

    def token_gradients(
        self, X: Any, modality: str, *, target: int | None = None, n_steps: int = 64
    ) -> list[Integrated | None]:
        """Return integrated gradients of a modality (Sundararajan, Taly and Yan, 2017).

        Parameters
        ----------
        X : DataFrame of shape (n_samples, n_columns)
            Cells; any row may lack any modality.
        modality : str
            Name of the modality.
        target : int, default=None
            Number of the class, label or output that is explained; None takes the largest answer
            of each row.
        n_steps : int, default=64
            Steps of the integral.

        Returns
        -------
        gradients : list of Integrated or None
            One for each row, None where it lacks the modality: ``scores``, ndarray of shape
            (n_tokens,) or, over the pixels of a trained encoder, (height, width); ``prediction``
            and ``base``, the answer to the row and to the baseline, whose difference the scores
            sum to; ``target``, int. The baseline is the mean of standardised features, or zeros
            (grey pixels, embeddings of zero) in front of an encoder that is trained here.
        """
        self._check_modality(modality)
        rows: list[Integrated | None] = []
        for _, batch, _ in self._batches(X):
            there = batch[f"{modality}{SEPARATOR}present"]
            own = {name: tensor[there] for name, tensor in batch.items()}
            with self._threads():
                found = iter(
                    integrate(self.module_, self._code, own, modality, target, n_steps)
                    if bool(there.any())
                    else ()
                )
            rows += [next(found) if present else None for present in there.tolist()]
        return rows

    def _check_modality(self, modality: str) -> None:
        check_is_fitted(self, "module_")
        if modality not in self.module_.modalities:
            raise ValueError(
                f"{type(self).__name__} has no modality {modality!r}. Its modalities are"
                f" {self.module_.modalities}."
            )
