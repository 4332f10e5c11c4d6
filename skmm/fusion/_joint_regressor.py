"""Joint fusion for regression."""

from collections.abc import Mapping
from typing import Any, ClassVar, Literal, Self

import numpy as np
from numpy.typing import ArrayLike
from sklearn.base import RegressorMixin
from sklearn.utils import Tags
from torch import nn

from skmm._compose._base import Modalities
from skmm._constraints import RandomState, StrOptions
from skmm._frame._types import Frame
from skmm._training._trainer import Trainer
from skmm.fusion._joint import BaseJointFusion, Classes
from skmm.fusion._strategies import StrategyLike
from skmm.fusion._targets import ValueTarget
from skmm.nets._losses import LOSSES

__all__ = ["JointFusionRegressor"]


class JointFusionRegressor(RegressorMixin, BaseJointFusion):
    """Train one network over all modalities to predict one or several values.

    The features of frozen encoders, other transformers and passed-through columns are computed once
    and standardized.
    An encoder whose model is trained, from scratch (``"cnn"``, ``"gru"``, ``"tokens"``, your own
    module) or by its ``fine_tune``, is trained together with the network, on the raw cells.

    By default an absent modality is masked: its values do not affect the output. Modality dropout
    hides modalities at random in training. This prepares the network for rows without a modality,
    even for one that all training rows have. The target is standardized for training;
    predictions have its original unit.

    Parameters
    ----------
    modalities : list of (name, transformer, columns) or "auto", default="auto"
        As in ``ColumnTransformer``. ``transformer`` is any scikit-learn transformer or
        pipeline, ``"drop"``, ``"passthrough"`` (numbers, or cells that are vectors of one
        length), or a modality such as ``"image"`` or ``"text"`` for its default encoder.
        ``"auto"`` infers the modalities from the training frame.
    strategy : str, FusionStrategy, nn.Module or callable, default="concat"
        How modalities are fused: ``"concat"``, ``"mean"``, ``"max"``, ``"sum"``, ``"gated"`` [1]_,
        ``"cross_gated"``, ``"attention"`` [2]_, ``"cross_attention"``, ``"bottleneck"``,
        ``"low_rank"`` [3]_, ``"bilinear"``, ``"film"``; an object with options, such as
        ``AttentionFusion(n_heads=8)`` of ``skmm.fusion``; an ``nn.Module``, or a class or function
        that makes one; see :class:`JointFusionClassifier`.
    granularity : {"pooled", "sequence"}, default="pooled"
        What the network receives of a modality: ``"pooled"`` is one vector; ``"sequence"`` is the
        vectors of its words, patches, frames, segments or points if its encoder returns them, and
        one vector otherwise (pipelines, numbers). Strategies without attention average the
        sequence, so choose ``"attention"``, ``"cross_attention"`` or ``"bottleneck"``. Sequences
        of all training rows are kept on the device, float32 of shape (rows, longest sequence,
        width of a token): 10,000 rows of 200 words of 384 numbers take 3 GB.
    max_tokens : int, default=None
        With ``granularity="sequence"``, the maximum number of tokens of each modality in a row,
        chosen evenly over the sequence, with its first and last token. None keeps all tokens.
    n_components : int, default=128
        Width of the fused representation.
    dropout : float, default=0.2
        Fraction of the hidden units that is zeroed in training.
    modality_dropout : float, default=0.1
        Probability that a modality of a row is hidden in training. At least one modality of the row
        is kept.
    missing : {"mask", "token", "impute", "zero"}, default="mask"
        What replaces a modality that is absent in a row or hidden by modality dropout:

        - ``"mask"``: nothing. The network ignores the modality;
        - ``"token"``: a learned vector of the modality, treated as present [4]_;
        - ``"impute"``: its mean token, predicted by a small network from the modalities that are
          present [5]_. The mean squared error over rows that have both is added to the loss, with
          weight 1, and trains that network only;
        - ``"zero"``: zeros, the mean of standardized features, treated as present.
    balance : {"gradient", "auxiliary"} or None, default=None
        How to keep a modality that is learned quickly from stopping the learning of the others:
        ``"gradient"`` shortens the steps of the leading modality [7]_,
        ``"auxiliary"`` adds the loss of a head for each modality [8]_; see
        :class:`JointFusionClassifier`. The score that compares the modalities is
        ``exp(-loss)``: for a squared error, ``exp(-r ** 2)`` with the residual ``r`` in standard
        deviations of the target.
    balance_params : dict, default=None
        ``alpha`` (1.0) and ``noise`` (0.0) of ``"gradient"``, ``weight`` (1.0) of ``"auxiliary"``;
        see :class:`JointFusionClassifier`.
    max_epochs : int, default=None
        Maximum number of passes over the training rows. It overrides ``max_epochs`` of the
        trainer, 100 by default; None uses that of the trainer.
    trainer : Trainer, default=None
        Options of the training: learning rates, batches, early stopping, callbacks. None is
        ``Trainer()``. ``set_params`` and searches reach its parameters by names such as
        ``trainer__learning_rate``, even if ``trainer`` is None.
    loss : {"squared_error", "huber", "absolute_error"} or nn.Module, default="squared_error"
        Loss that the training minimizes, on the standardized target. ``"huber"`` is
        linear beyond its parameter ``delta`` (1.0, in standard deviations of the target) [6]_.
        An ``nn.Module`` is copied. It is called with outputs and target, both of shape
        ``(n_samples, n_targets)``, and returns a loss for each row or for each number
        (``reduction="none"``).
    loss_params : dict, default=None
        Parameters of a ``loss`` that is a string, such as ``{"delta": 0.5}`` for ``"huber"``.
    warm_start : bool, default=False
        Whether a second ``fit`` continues with the fitted transformers and weights.
    all_missing : {"prior", "raise"}, default="prior"
        What a row without any modality gets: ``"prior"`` is the mean of the training target,
        ``"raise"`` raises ``ModalityMissingError``.
    missing_columns : {"raise", "absent"}, default="raise"
        What happens if a column of the training frame is not in ``X``: ``"raise"`` raises
        ``ValueError``, ``"absent"`` treats the column as missing in every row.
    device : str, default="auto"
        Device of the network: ``"auto"``, ``"cpu"``, ``"cuda"``, ``"cuda:1"``.
    random_state : int, RandomState instance or None, default=None
        Seed of the initial weights, the order of the rows, dropout and the held-out rows.
    verbose : bool or int, default=0
        Whether to print a line for each epoch.

    Attributes
    ----------
    modalities_ : list of (name, transformer, columns)
        The modalities used, with their fitted transformers; transformers that are trained with
        the network are included.
    module_ : nn.Module
        Trained network.
    net_ : skorch.NeuralNet
        The skorch net that trained ``module_``. It is not part of a pickle.
    history_ : list of dict
        One dict per epoch, with ``epoch`` from 1, ``train_loss`` and, if rows are held out,
        ``valid_loss``.
    n_iter_ : int
        Number of epochs trained.
    n_features_in_ : int
        Number of columns seen in ``fit``.
    feature_names_in_ : ndarray of str
        Names of the columns seen in ``fit``. Defined only if ``X`` has column names.

    See Also
    --------
    JointFusionClassifier : The same network for classes, with a full list of the strategies.
    JointFusionMultiTask : One network for several targets, any of which may be missing.
    LateFusionRegressor : One regressor per modality, without a joint network.

    References
    ----------
    .. [1] Arevalo et al. (2017), "Gated multimodal units for information fusion", ICLR workshop.
    .. [2] Vaswani et al. (2017), "Attention is all you need", NeurIPS.
    .. [3] Liu et al. (2018), "Efficient low-rank multimodal fusion with modality-specific
       factors", ACL.
    .. [4] Ramazanova, Pardo, Alwassel, Ghanem (2024), "Exploring missing modality in multimodal
       egocentric datasets", arXiv:2401.11470.
    .. [5] Zhao, Li, Jin (2021), "Missing modality imagination network for emotion recognition with
       uncertain missing modalities", ACL. Here one network replaces the cascade of the paper,
       without its cycle consistency.
    .. [6] Huber (1964), "Robust estimation of a location parameter", Annals of Mathematical
       Statistics 35.
    .. [7] Peng, Wei, Deng, Wang, Hu (2022), "Balanced multimodal learning via on-the-fly gradient
       modulation", CVPR. The paper treats classification only.
    .. [8] Wang, Tran, Feiszli (2020), "What makes training multi-modal classification networks
       hard?", CVPR. Here one given weight holds for all heads.

    Examples
    --------
    >>> from skmm import JointFusionRegressor, TextEncoder
    >>> from skmm.datasets import make_multimodal_regression
    >>> X, y = make_multimodal_regression(n_samples=200, missing_rate=0.1, random_state=0)
    >>> fusion = JointFusionRegressor(
    ...     [("text", TextEncoder("tfidf", n_components=16), ["text"]),
    ...      ("table", "tabular", ["tabular_number_0", "tabular_number_1"])],
    ...     max_epochs=5, random_state=0,
    ... )
    >>> fusion.fit(X, y).predict(X).shape
    (200,)
    """

    _target: ValueTarget

    _parameter_constraints: ClassVar[dict[str, Any]] = {
        **BaseJointFusion._parameter_constraints,
        "loss": [StrOptions(set(LOSSES["values"])), nn.Module],
    }

    def __init__(
        self,
        modalities: Modalities = "auto",
        *,
        strategy: StrategyLike = "concat",
        granularity: Literal["pooled", "sequence"] = "pooled",
        max_tokens: int | None = None,
        n_components: int = 128,
        dropout: float = 0.2,
        modality_dropout: float = 0.1,
        missing: Literal["mask", "token", "impute", "zero"] = "mask",
        balance: Literal["gradient", "auxiliary"] | None = None,
        balance_params: Mapping[str, float] | None = None,
        max_epochs: int | None = None,
        trainer: Trainer | None = None,
        loss: str | nn.Module = "squared_error",
        loss_params: Mapping[str, Any] | None = None,
        warm_start: bool = False,
        all_missing: Literal["prior", "raise"] = "prior",
        missing_columns: Literal["raise", "absent"] = "raise",
        device: str = "auto",
        random_state: RandomState = None,
        verbose: bool | int = 0,
    ):
        self.modalities = modalities
        self.strategy = strategy
        self.granularity = granularity
        self.max_tokens = max_tokens
        self.n_components = n_components
        self.dropout = dropout
        self.modality_dropout = modality_dropout
        self.missing = missing
        self.balance = balance
        self.balance_params = balance_params
        self.max_epochs = max_epochs
        self.trainer = trainer
        self.loss = loss
        self.loss_params = loss_params
        self.warm_start = warm_start
        self.all_missing = all_missing
        self.missing_columns = missing_columns
        self.device = device
        self.random_state = random_state
        self.verbose = verbose

    def partial_fit(self, X: Frame, y: ArrayLike, sample_weight: ArrayLike | None = None) -> Self:
        """Train for one epoch on the given rows.

        If the estimator is not fitted, the transformers and the standardization of the target are
        first fitted to the given rows. Later calls do not fit them again.
        No rows are held out, and ``max_epochs`` has no effect.

        Consecutive calls continue with the same optimizer: its state and the parameters of
        ``trainer`` are those of the first of them. The first call after ``fit`` or after unpickling
        starts a new optimizer.

        Parameters
        ----------
        X : DataFrame of shape (n_samples, n_columns)
            Samples, one in each row. A row may lack any of the modalities.
        y : array-like of shape (n_samples,) or (n_samples, n_targets)
            Target values, with as many targets in each call.
        sample_weight : array-like of shape (n_samples,), default=None
            Weights of the rows in the loss, finite and not negative. None gives each row weight 1.

        Returns
        -------
        self : object
            The fitted fusion.

        Raises
        ------
        ValueError
            If the columns of ``X`` or the number of targets differ from those of the first call.
        """
        return self._fit_one_epoch(X, y, sample_weight)

    def predict(self, X: Frame) -> np.ndarray:
        """Predict the target of each row.

        Parameters
        ----------
        X : DataFrame of shape (n_samples, n_columns)
            Samples, one in each row. A row may lack any of the modalities.

        Returns
        -------
        values : ndarray of shape (n_samples,) or (n_samples, n_targets)
            Predicted values, in the shape that ``y`` had. A row without any modality gets the mean
            of the training target.
        """
        outputs, empty = self._outputs(X)
        return self._target.decide(outputs, empty)

    def _encode_target(
        self, X: Frame, y: ArrayLike, *, first: bool, classes: Classes | None = None
    ) -> np.ndarray:
        target = ValueTarget(type(self).__name__) if first else self._target
        target.set_loss(self.loss, self.loss_params)
        encoded = target.encode(X, y, first=first)
        self._target = target
        return encoded

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags
