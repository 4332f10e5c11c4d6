"""Joint fusion for values."""

from typing import Any, Self

import numpy as np
import torch
from sklearn.base import RegressorMixin
from sklearn.utils import Tags
from torch import Tensor, nn

from skmm.fusion._joint import BaseJointFusion
from skmm.fusion._target import regression_target

__all__ = ["JointFusionRegressor"]


class JointFusionRegressor(RegressorMixin, BaseJointFusion):
    """Train one network over all modalities to predict one or several values.

    Features of frozen encoders, tables and passed-through columns are standardised and go in
    as they are, encoded once. An encoder whose model is trained from scratch (``"cnn"``,
    ``"gru"``, ``"tokens"``, a module of your own) is trained with the network, from the raw
    cells. Absent modalities are masked: whatever stands in their place cannot reach the
    output. The target is standardised for training.

    Parameters
    ----------
    modalities : list of (name, transformer, columns) or "auto", default="auto"
        As in ``ColumnTransformer``. ``transformer`` is any scikit-learn transformer or
        pipeline, ``"drop"``, ``"passthrough"`` (numbers, or cells that are vectors of one
        length), or a modality such as ``"image"`` or ``"text"`` for its default encoder.
        ``"auto"`` infers the modalities from the training frame.
    strategy : str, nn.Module or callable, default="concat"
        How modalities are fused: ``"concat"``, ``"mean"``, ``"max"``, ``"gated"`` [1]_,
        ``"attention"`` [2]_, ``"low_rank"`` [3]_, a class or function called as
        ``strategy(n_features, n_components, dropout=..., **strategy_params)``, or an
        ``nn.Module``; see :class:`JointFusionClassifier`.
    strategy_params : dict, default=None
        Further arguments of the strategy.
    n_components : int, default=128
        Width of the fused representation.
    n_heads : int, default=4
        Attention heads of ``"attention"``.
    n_layers : int, default=1
        Layers of ``"attention"``.
    rank : int, default=8
        Rank of ``"low_rank"``.
    dropout : float, default=0.3
        Share of hidden units that is zeroed in training.
    modality_dropout : float, default=0.1
        Probability that a row loses a modality in training; never the last one it has.
    max_epochs : int, default=100
        Most passes over the training rows.
    batch_size : int, default=32
        Rows per step.
    learning_rate : float or "auto", default="auto"
        Step size of AdamW. ``"auto"`` is 3e-4 for ``"attention"``, whose layers want small
        steps, else 1e-3.
    weight_decay : float, default=1e-2
        Decoupled weight decay of AdamW.
    early_stopping : bool, default=True
        Whether to hold out a part of the training rows, stop when its loss no longer falls,
        and go back to the best epoch. With fewer than 40 rows nothing is held out.
    validation_fraction : float, default=0.1
        Share of the rows held out.
    n_iter_no_change : int, default=10
        Epochs without a better loss after which training stops.
    callbacks : list of skorch callbacks, default=None
        Added to the training; copies are used.
    all_missing : {"prior", "raise"}, default="prior"
        A row that lacks every modality gets the mean of the training target, or
        ``ModalityMissingError`` is raised.
    warm_start : bool, default=False
        Whether a second ``fit`` goes on with the fitted transformers and weights.
    device : str, default="auto"
        Where the network is trained: ``"auto"``, ``"cpu"``, ``"cuda"``, ``"cuda:1"``.
    random_state : int, RandomState instance or None, default=None
        Seed of weights, order, dropout and the held-out part.
    verbose : bool or int, default=0
        Whether to print a line an epoch.

    Attributes
    ----------
    modalities_ : list of (name, transformer, columns)
        Fitted transformers, those trained with the network included.
    module_ : nn.Module
        Trained network.
    net_ : skorch.NeuralNet
        What trained it; not in a pickle.
    history_ : list of dict
        ``train_loss`` and ``valid_loss`` of every epoch.
    n_iter_ : int
        Number of epochs.
    n_features_in_ : int
        Number of columns seen in ``fit``.
    feature_names_in_ : ndarray of str
        Names of the columns seen in ``fit``, if it saw names.

    References
    ----------
    .. [1] Arevalo et al. (2017), "Gated multimodal units for information fusion", ICLR workshop.
    .. [2] Vaswani et al. (2017), "Attention is all you need", NeurIPS.
    .. [3] Liu et al. (2018), "Efficient low-rank multimodal fusion with modality-specific
       factors", ACL.

    Examples
    --------
    >>> from skmm import JointFusionRegressor, TextEncoder
    >>> from skmm.datasets import make_multimodal_regression
    >>> X, y = make_multimodal_regression(n_samples=200, missing=0.1, random_state=0)
    >>> fusion = JointFusionRegressor(
    ...     [("text", TextEncoder("tfidf", n_components=16), ["text"]),
    ...      ("table", "tabular", ["tabular_number_0", "tabular_number_1"])],
    ...     max_epochs=5, random_state=0,
    ... )
    >>> fusion.fit(X, y).predict(X).shape
    (200,)
    """

    def __init__(
        self,
        modalities: Any = "auto",
        *,
        strategy: Any = "concat",
        strategy_params: dict[str, Any] | None = None,
        n_components: int = 128,
        n_heads: int = 4,
        n_layers: int = 1,
        rank: int = 8,
        dropout: float = 0.3,
        modality_dropout: float = 0.1,
        max_epochs: int = 100,
        batch_size: int = 32,
        learning_rate: float | str = "auto",
        weight_decay: float = 1e-2,
        early_stopping: bool = True,
        validation_fraction: float = 0.1,
        n_iter_no_change: int = 10,
        callbacks: Any = None,
        all_missing: str = "prior",
        warm_start: bool = False,
        device: str = "auto",
        random_state: Any = None,
        verbose: Any = 0,
    ):
        self.modalities = modalities
        self.strategy = strategy
        self.strategy_params = strategy_params
        self.n_components = n_components
        self.n_heads = n_heads
        self.n_layers = n_layers
        self.rank = rank
        self.dropout = dropout
        self.modality_dropout = modality_dropout
        self.max_epochs = max_epochs
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.n_iter_no_change = n_iter_no_change
        self.callbacks = callbacks
        self.all_missing = all_missing
        self.warm_start = warm_start
        self.device = device
        self.random_state = random_state
        self.verbose = verbose

    def partial_fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Train one more epoch on the rows given.

        The first call fits the transformers and the scale of the target, on its rows.

        Parameters
        ----------
        X : DataFrame of shape (n_samples, n_columns)
            Cells; any row may lack any modality.
        y : array-like of shape (n_samples,) or (n_samples, n_targets)
            Values.
        sample_weight : array-like of shape (n_samples,), default=None
            Weights of the rows in the loss.

        Returns
        -------
        self : object
            The fitted fusion.
        """
        return self._fit_one_epoch(X, y, sample_weight)

    def predict(self, X: Any) -> np.ndarray:
        """Predict values.

        Parameters
        ----------
        X : DataFrame of shape (n_samples, n_columns)
            Cells; any row may lack any modality.

        Returns
        -------
        values : ndarray of shape (n_samples,) or (n_samples, n_targets)
            Predictions, in the shape that ``y`` had.
        """
        outputs, empty = self._outputs(X)
        outputs[empty] = 0.0  # the mean of the training target
        values = outputs * self._y_scale + self._y_mean
        return values[:, 0] if self._y_is_1d else values

    def _encode_target(self, X: Any, y: Any, *, anew: bool, classes: Any = None) -> np.ndarray:
        y = regression_target(X, y, type(self).__name__, multi_output=True)
        target = y.reshape(len(y), -1)
        if not anew and target.shape[1] != len(self._y_mean):
            raise ValueError(
                f"{type(self).__name__}: y has {target.shape[1]} targets, but had"
                f" {len(self._y_mean)} before. Give as many, or fit anew."
            )
        self._y_is_1d = y.ndim == 1
        return target

    def _learn_target(self, target: np.ndarray, sample_weight: np.ndarray | None) -> None:
        # In units of the largest, for the square of 1e200 is no number.
        largest = np.abs(target).max(axis=0)
        unit = np.where(largest > 0, largest, 1.0)
        mean = np.average(target / unit, axis=0, weights=sample_weight)
        variance = np.average((target / unit - mean) ** 2, axis=0, weights=sample_weight)
        constant = np.sqrt(variance) <= 10 * np.finfo(np.float64).eps * np.abs(mean)
        self._y_mean = mean * unit
        self._y_scale = np.where(constant, 1.0, np.sqrt(variance) * unit)

    def _target_as_given(self, target: np.ndarray) -> np.ndarray:
        return target[:, 0] if self._y_is_1d else target

    def _target_tensor(self, target: np.ndarray) -> Tensor:
        # The scale belongs to the weights of the net: a net that goes on keeps it.
        standardised = (target - self._y_mean) / self._y_scale
        return torch.as_tensor(standardised, dtype=torch.float32)

    def _n_net_outputs(self) -> int:
        return len(self._y_mean)

    def _criterion(self) -> nn.Module:
        return nn.MSELoss(reduction="none")

    def _strata(self, target: np.ndarray) -> np.ndarray | None:
        return None

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags
