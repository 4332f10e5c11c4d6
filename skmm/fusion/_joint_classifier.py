"""Joint fusion for classification."""

from collections.abc import Mapping
from typing import Any, ClassVar, Literal, Self

import numpy as np
from numpy.typing import ArrayLike
from sklearn.base import ClassifierMixin
from sklearn.utils import Tags
from sklearn.utils.metaestimators import available_if
from torch import nn

from skmm._compose._base import Modalities
from skmm._constraints import RandomState, StrOptions
from skmm._frame._types import Frame
from skmm._training._trainer import Trainer
from skmm.fusion._joint import BaseJointFusion, Classes
from skmm.fusion._strategies import StrategyLike
from skmm.fusion._targets import ClassTarget, ClassWeight, LabelTarget, is_indicator
from skmm.nets._losses import LOSSES

__all__ = ["JointFusionClassifier"]


def has_probabilities(fusion: "JointFusionClassifier") -> bool:
    """Return whether the loss gives probabilities; raise AttributeError otherwise."""
    if has_margins(fusion):
        raise AttributeError(
            f"{type(fusion).__name__} gives no probabilities with loss='max_margin': its margins"
            " are none. Wrap it in sklearn.calibration.CalibratedClassifierCV, or use another loss."
        )
    return True


def has_margins(fusion: "JointFusionClassifier") -> bool:
    """Return whether the outputs are margins."""
    return isinstance(fusion.loss, str) and fusion.loss == "max_margin"


class JointFusionClassifier(ClassifierMixin, BaseJointFusion):
    """Train one network over all modalities to classify.

    ``y`` holds a class for each row, or is a matrix of 0 and 1 that says which labels a row has
    (sigmoid outputs; scored as everywhere in scikit-learn by rows that are right in every label).

    The features of frozen encoders, other transformers and passed-through columns are computed once
    and standardized.
    An encoder whose model is trained, from scratch (``"cnn"``, ``"gru"``, ``"tokens"``, your own
    module) or by its ``fine_tune``, is trained together with the network, on the raw cells.

    By default an absent modality is masked: its values do not affect the output. Modality dropout
    hides modalities at random in training. This prepares the network for rows without a modality,
    even for one that all training rows have.

    Parameters
    ----------
    modalities : list of (name, transformer, columns) or "auto", default="auto"
        As in ``ColumnTransformer``. ``transformer`` is any scikit-learn transformer or
        pipeline, ``"drop"``, ``"passthrough"`` (numbers, or cells that are vectors of one
        length), or a modality such as ``"image"`` or ``"text"`` for its default encoder.
        ``"auto"`` infers the modalities from the training frame.
    strategy : str, FusionStrategy, nn.Module or callable, default="concat"
        How modalities are fused:

        - ``"concat"``: projected, side by side, then a hidden layer;
        - ``"mean"``, ``"max"``, ``"sum"`` of those present, projected into one space;
        - ``"gated"``: gated multimodal unit [1]_; ``"cross_gated"``: gated by each other;
        - ``"attention"``: a transformer over modality tokens [2]_; ``"cross_attention"``: every
          modality attends to every other; ``"bottleneck"``: through a few shared tokens;
        - ``"low_rank"``: low-rank tensor fusion [3]_, all products across modalities;
          ``"bilinear"``: products of pairs; ``"film"``: one modality modulates the others;
        - an object of ``skmm.fusion``, such as ``AttentionFusion(n_heads=8)``: each of the names
          above is an object with default options, ``"attention"`` for ``AttentionFusion()``. A
          search reaches the options of an object, as ``strategy__n_heads``. One of your own is a
          subclass of ``FusionStrategy``;
        - an ``nn.Module``, of which a copy is trained, or a class or function that makes one,
          called as ``strategy(n_features, n_components, dropout=...)``: from dictionaries of
          tokens and masks to ``(n, n_components)``, see ``skmm.nets``.
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
        How to keep a modality that is learned quickly from stopping the learning of the others.
        Both modes use in training a linear head for each modality, over its projection alone,
        which rows without the modality do not affect:

        - ``"gradient"``: in each batch the score of a modality is the mean of ``exp(-loss)`` of
          its head, with cross-entropy the probability of the truth, and its ratio is that score
          to the mean score of the others. Where that is above 1, the step of its own projection
          and encoder is multiplied by ``1 - tanh(alpha * ratio)`` [10]_. The step is
          scaled and not the gradient, whose scale AdamW removes. The losses of the heads train
          only the heads;
        - ``"auxiliary"``: the losses of the heads are added to the loss and also train the
          projections and encoders [11]_.

        ``train_loss`` includes the losses of the heads. Your own strategy is balanced if it has a
        method ``own_layers``, see ``skmm.nets.FusionModule``, or if encoders are trained.
    balance_params : dict, default=None
        Options of ``"gradient"``: ``alpha`` (1.0), how strongly a leading modality is slowed down,
        and ``noise`` (0.0), standard deviation of the noise added to the gradients of the
        modalities' own networks, relative to that of the gradients (1 in the paper). Option of
        ``"auxiliary"``: ``weight`` (1.0) of the losses of the heads.
    max_epochs : int, default=None
        Maximum number of passes over the training rows. It overrides ``max_epochs`` of the
        trainer, 100 by default; None uses that of the trainer.
    trainer : Trainer, default=None
        Options of the training: learning rates, batches, early stopping, callbacks. None is
        ``Trainer()``. ``set_params`` and searches reach its parameters by names such as
        ``trainer__learning_rate``, even if ``trainer`` is None.
    loss : str or nn.Module, default="cross_entropy"
        Loss that the training minimizes:

        - ``"cross_entropy"``;
        - ``"focal"``: cross-entropy in which rows that are predicted well count less [6]_;
          parameter ``gamma`` (2.0);
        - ``"label_smoothing"``: cross-entropy with smoothed targets [7]_; parameter ``smoothing``
          (0.1);
        - ``"max_margin"``: hinge loss between the true class and the best other class [8]_;
          parameter ``margin`` (1.0). It gives scores by ``decision_function`` and no
          probabilities;
        - ``"ordinal"``: ordered classes, by one score with thresholds [9]_; parameter ``order``, a
          list of the classes from lowest to highest, required unless classes are numbers;
        - an ``nn.Module``, which is copied. It is called with outputs ``(n_samples, n_classes)``
          before softmax and class indices ``(n_samples,)``, or with outputs
          ``(n_samples, n_labels)`` before sigmoid and labels of the same shape. It returns a loss
          for each row (``reduction="none"``).
    loss_params : dict, default=None
        Parameters of a ``loss`` that is a string, such as ``{"gamma": 1.0}`` for ``"focal"``.
    class_weight : dict, "balanced" or None, default=None
        Weights of the classes in the loss. For labels, a dict from positions of labels to weights,
        or ``"balanced"``: of each label, presence and absence weigh the same in sum.
    warm_start : bool, default=False
        Whether a second ``fit`` continues with the fitted transformers and weights.
    all_missing : {"prior", "raise"}, default="prior"
        What a row without any modality gets: ``"prior"`` is the share of each class in
        training, ``"raise"`` raises ``ModalityMissingError``.
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
    classes_ : ndarray of shape (n_classes,)
        Class labels; for a matrix of labels their positions.
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
    .. [6] Lin, Goyal, Girshick, He, Dollár (2017), "Focal loss for dense object detection", ICCV.
    .. [7] Szegedy, Vanhoucke, Ioffe, Shlens, Wojna (2016), "Rethinking the Inception architecture
       for computer vision", CVPR.
    .. [8] Crammer, Singer (2001), "On the algorithmic implementation of multiclass kernel-based
       vector machines", JMLR 2.
    .. [9] McCullagh (1980), "Regression models for ordinal data", JRSS B 42.
    .. [10] Peng, Wei, Deng, Wang, Hu (2022), "Balanced multimodal learning via on-the-fly gradient
       modulation", CVPR. Here each modality has a head of its own, not a part of
       one linear head.
    .. [11] Wang, Tran, Feiszli (2020), "What makes training multi-modal classification networks
       hard?", CVPR. Here one given weight holds for all heads.

    Examples
    --------
    >>> from skmm import JointFusionClassifier, TextEncoder
    >>> from skmm.datasets import make_multimodal_classification
    >>> X, y = make_multimodal_classification(n_samples=200, missing_rate=0.1, random_state=0)
    >>> fusion = JointFusionClassifier(
    ...     [("text", TextEncoder("tfidf", n_components=16), ["text"]),
    ...      ("table", "tabular", ["tabular_number_0", "tabular_number_1"])],
    ...     strategy="gated", max_epochs=5, random_state=0,
    ... )
    >>> fusion.fit(X, y).predict_proba(X).shape
    (200, 2)
    """

    _target: ClassTarget | LabelTarget
    classes_: np.ndarray

    _parameter_constraints: ClassVar[dict[str, Any]] = {
        **BaseJointFusion._parameter_constraints,
        "class_weight": [dict, StrOptions({"balanced"}), None],
        "loss": [StrOptions(set(LOSSES["classes"])), nn.Module],
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
        loss: str | nn.Module = "cross_entropy",
        loss_params: Mapping[str, Any] | None = None,
        class_weight: ClassWeight | None = None,
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
        self.class_weight = class_weight
        self.warm_start = warm_start
        self.all_missing = all_missing
        self.missing_columns = missing_columns
        self.device = device
        self.random_state = random_state
        self.verbose = verbose

    def partial_fit(
        self,
        X: Frame,
        y: ArrayLike,
        classes: ArrayLike | None = None,
        sample_weight: ArrayLike | None = None,
    ) -> Self:
        """Train for one epoch on the given rows.

        If the estimator is not fitted, the transformers are first fitted to the given rows. Later
        calls do not fit them again.
        No rows are held out, and ``max_epochs`` has no effect.

        Consecutive calls continue with the same optimizer: its state and the parameters of
        ``trainer`` are those of the first of them. The first call after ``fit`` or after unpickling
        starts a new optimizer.

        Parameters
        ----------
        X : DataFrame of shape (n_samples, n_columns)
            Samples, one in each row. A row may lack any of the modalities.
        y : array-like of shape (n_samples,) or (n_samples, n_labels)
            Class of each row, or a matrix of 0 and 1 that says which labels each row has.
        classes : array-like of shape (n_classes,), default=None
            All classes that any call may contain. Required in the first call if its ``y`` does not
            contain all of them. Later calls can leave it out.
        sample_weight : array-like of shape (n_samples,), default=None
            Weights of the rows in the loss, finite and not negative. None gives each row weight 1.

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

    def predict(self, X: Frame) -> np.ndarray:
        """Predict the class or the labels of each row.

        Parameters
        ----------
        X : DataFrame of shape (n_samples, n_columns)
            Samples, one in each row. A row may lack any of the modalities.

        Returns
        -------
        classes : ndarray of shape (n_samples,) or (n_samples, n_labels)
            Most probable class of each row; for labels, 1 where a label is more probable than not.
        """
        outputs, empty = self._outputs(X)
        return self._target.decide(outputs, empty)

    @available_if(has_probabilities)
    def predict_proba(self, X: Frame) -> np.ndarray:
        """Predict probabilities; not there with ``loss="max_margin"``.

        Parameters
        ----------
        X : DataFrame of shape (n_samples, n_columns)
            Samples, one in each row. A row may lack any of the modalities.

        Returns
        -------
        probabilities : ndarray of shape (n_samples, n_classes)
            In the order of ``classes_``. Those of labels do not add up to 1.
        """
        outputs, empty = self._outputs(X)
        return self._target.probabilities(outputs, empty)

    @available_if(has_margins)
    def decision_function(self, X: Frame) -> np.ndarray:
        """Score the classes; only there with ``loss="max_margin"``.

        Parameters
        ----------
        X : DataFrame of shape (n_samples, n_columns)
            Samples, one in each row. A row may lack any of the modalities.

        Returns
        -------
        scores : ndarray of shape (n_samples,), (n_samples, n_classes) or (n_samples, n_labels)
            For two classes, the margin of the second. A row without any modality has the
            logarithm of each class's share in training.
        """
        outputs, empty = self._outputs(X)
        return self._target.margins(outputs, empty)

    # --- target and weights of the rows --------------------------------------------------------

    def _encode_target(
        self, X: Frame, y: ArrayLike, *, first: bool, classes: Classes | None = None
    ) -> np.ndarray:
        kind = LabelTarget if is_indicator(y) else ClassTarget
        target = kind(type(self).__name__) if first else self._target
        target.set_loss(self.loss, self.loss_params)
        known = None if classes is None else np.asarray(classes)
        encoded = target.encode(X, y, first=first, classes=known)
        self._target, self.classes_ = target, target.classes
        return encoded

    def _loss_weights(
        self, target: np.ndarray, sample_weight: np.ndarray | None
    ) -> np.ndarray | None:
        if isinstance(self._target, LabelTarget):
            self._target.set_class_weight(target, self.class_weight)
            return sample_weight
        if self.class_weight is None:
            return sample_weight
        weights: np.ndarray = self._target.class_weights(target, self.class_weight)[target]
        return weights if sample_weight is None else weights * sample_weight

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_label = True
        return tags
