"""Joint fusion for classes."""

from typing import Any, ClassVar, Self

import numpy as np
import torch
from scipy.special import softmax
from sklearn.base import ClassifierMixin
from sklearn.utils.class_weight import compute_class_weight, compute_sample_weight
from torch import Tensor, nn

from skmm._constraints import StrOptions
from skmm.fusion._joint import BaseJointFusion
from skmm.fusion._target import class_indices

__all__ = ["JointFusionClassifier"]


class JointFusionClassifier(ClassifierMixin, BaseJointFusion):
    """Train one network over all modalities to classify.

    Features of frozen encoders, tables and passed-through columns are standardised and go in
    as they are, encoded once. An encoder whose model is trained from scratch (``"cnn"``,
    ``"gru"``, ``"tokens"``, a module of your own) is trained with the network, from the raw
    cells. Absent modalities are masked: whatever stands in their place cannot reach the
    output. Modality dropout hides modalities in training, so that a row may lack any of them
    at prediction, also one that training never lacked.

    Parameters
    ----------
    modalities : list of (name, transformer, columns) or "auto", default="auto"
        As in ``ColumnTransformer``. ``transformer`` is any scikit-learn transformer or
        pipeline, ``"drop"``, ``"passthrough"`` (numbers, or cells that are vectors of one
        length), or a modality such as ``"image"`` or ``"text"`` for its default encoder.
        ``"auto"`` infers the modalities from the training frame.
    strategy : str, nn.Module or callable, default="concat"
        How modalities are fused:

        - ``"concat"``: projected, side by side, then a hidden layer;
        - ``"mean"``, ``"max"``: projected into one space, then the mean or maximum of those
          that are present;
        - ``"gated"``: gated multimodal unit [1]_;
        - ``"attention"``: a transformer over modality tokens [2]_;
        - ``"low_rank"``: low-rank tensor fusion [3]_, all products across modalities;
        - a class or function called as ``strategy(n_features, n_components, dropout=...,
          **strategy_params)``, or an ``nn.Module``, of which a copy is trained; from
          dictionaries of tokens and masks to ``(n, n_components)``, see ``skmm.nets``.
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
    dropout : float, default=0.2
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
    class_weight : dict, "balanced" or None, default=None
        Weights of the classes in the loss.
    callbacks : list of skorch callbacks, default=None
        Added to the training; copies are used.
    all_missing : {"prior", "raise"}, default="prior"
        A row that lacks every modality gets the share of each class in training, or
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
    classes_ : ndarray of shape (n_classes,)
        Classes.
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
    >>> from skmm import JointFusionClassifier, TextEncoder
    >>> from skmm.datasets import make_multimodal_classification
    >>> X, y = make_multimodal_classification(n_samples=200, missing=0.1, random_state=0)
    >>> fusion = JointFusionClassifier(
    ...     [("text", TextEncoder("tfidf", n_components=16), ["text"]),
    ...      ("table", "tabular", ["tabular_number_0", "tabular_number_1"])],
    ...     strategy="gated", max_epochs=5, random_state=0,
    ... )
    >>> fusion.fit(X, y).predict_proba(X).shape
    (200, 2)
    """

    classes_: np.ndarray
    _parameter_constraints: ClassVar[dict[str, Any]] = {
        **BaseJointFusion._parameter_constraints,
        "class_weight": [dict, StrOptions({"balanced"}), None],
    }

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
        dropout: float = 0.2,
        modality_dropout: float = 0.1,
        max_epochs: int = 100,
        batch_size: int = 32,
        learning_rate: float | str = "auto",
        weight_decay: float = 1e-2,
        early_stopping: bool = True,
        validation_fraction: float = 0.1,
        n_iter_no_change: int = 10,
        class_weight: Any = None,
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
        self.class_weight = class_weight
        self.callbacks = callbacks
        self.all_missing = all_missing
        self.warm_start = warm_start
        self.device = device
        self.random_state = random_state
        self.verbose = verbose

    def partial_fit(self, X: Any, y: Any, classes: Any = None, sample_weight: Any = None) -> Self:
        """Train one more epoch on the rows given.

        The first call fits the transformers, on its rows.

        Parameters
        ----------
        X : DataFrame of shape (n_samples, n_columns)
            Cells; any row may lack any modality.
        y : array-like of shape (n_samples,)
            Classes.
        classes : array-like of shape (n_classes,), default=None
            All classes there will be; needed in the first call if its ``y`` lacks some.
        sample_weight : array-like of shape (n_samples,), default=None
            Weights of the rows in the loss.

        Returns
        -------
        self : object
            The fitted fusion.
        """
        if self.class_weight == "balanced":
            raise ValueError(
                f"{type(self).__name__}: class_weight='balanced' needs all rows at once. Give"
                " partial_fit a dict of weights."
            )
        return self._fit_one_epoch(X, y, sample_weight, classes)

    def predict(self, X: Any) -> np.ndarray:
        """Predict classes.

        Parameters
        ----------
        X : DataFrame of shape (n_samples, n_columns)
            Cells; any row may lack any modality.

        Returns
        -------
        classes : ndarray of shape (n_samples,)
            Most probable class.
        """
        best = self.predict_proba(X).argmax(axis=1)
        return self.classes_[best]

    def predict_proba(self, X: Any) -> np.ndarray:
        """Predict probabilities.

        Parameters
        ----------
        X : DataFrame of shape (n_samples, n_columns)
            Cells; any row may lack any modality.

        Returns
        -------
        probabilities : ndarray of shape (n_samples, n_classes)
            In the order of ``classes_``.
        """
        outputs, empty = self._outputs(X)
        probabilities = softmax(outputs, axis=1)
        probabilities[empty] = self._prior
        return probabilities

    def _encode_target(self, X: Any, y: Any, *, anew: bool, classes: Any = None) -> np.ndarray:
        owner = type(self).__name__
        announced = None if classes is None else np.unique(classes)
        if not anew and announced is not None and not np.array_equal(announced, self.classes_):
            raise ValueError(
                f"{owner}: classes are {announced.tolist()}, but were {self.classes_.tolist()}"
                " before. Leave them out, or fit anew."
            )
        known = announced if anew else self.classes_
        self.classes_, indices = class_indices(X, y, owner, known=known)
        return indices

    def _learn_target(self, target: np.ndarray, sample_weight: np.ndarray | None) -> None:
        shares = np.bincount(target, weights=sample_weight, minlength=len(self.classes_))
        self._prior = shares / shares.sum()

    def _loss_weights(
        self, target: np.ndarray, sample_weight: np.ndarray | None
    ) -> np.ndarray | None:
        if self.class_weight is None:
            return sample_weight
        if isinstance(self.class_weight, dict):
            by_class = compute_class_weight(
                self.class_weight, classes=self.classes_, y=self.classes_[target]
            )
            weights = by_class[target]
        else:
            weights = compute_sample_weight(self.class_weight, target)
        return weights if sample_weight is None else weights * sample_weight

    def _target_as_given(self, target: np.ndarray) -> np.ndarray:
        return self.classes_[target]

    def _target_tensor(self, target: np.ndarray) -> Tensor:
        return torch.as_tensor(target, dtype=torch.int64)

    def _n_net_outputs(self) -> int:
        return len(self.classes_)

    def _criterion(self) -> nn.Module:
        return nn.CrossEntropyLoss(reduction="none")

    def _strata(self, target: np.ndarray) -> np.ndarray | None:
        return target
