"""Joint fusion for several tasks at once, whose targets may be missing."""

from collections.abc import Mapping
from numbers import Real
from typing import Any, ClassVar, Literal, Self, cast

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from sklearn.utils import Tags
from sklearn.utils.metaestimators import available_if
from torch import nn

from skmm._compose._base import Modalities
from skmm._constraints import (
    NON_NEGATIVE,
    RandomState,
    StrOptions,
    check_sample_weight,
    refuse_unused,
)
from skmm._frame._types import Frame
from skmm._training._trainer import Trainer
from skmm.fusion._joint import BaseJointFusion, Classes
from skmm.fusion._multitask_targets import (
    LossWeights,
    MultiTaskTarget,
    TaskKind,
    resolve_tasks,
    score_task,
    task_columns,
)
from skmm.fusion._strategies import StrategyLike
from skmm.fusion._targets import ClassTarget, ClassWeight
from skmm.nets._task_loss import GradNormWeights

__all__ = ["JointFusionMultiTask"]


def _has_classes(fusion: "JointFusionMultiTask") -> bool:
    """Whether a task is a classification."""
    tasks = getattr(fusion, "tasks_", fusion.tasks)
    return isinstance(tasks, str) or "classification" in tasks.values()


class JointFusionMultiTask(BaseJointFusion):
    """Train one network over all modalities for several tasks, some of whose targets are missing.

    ``y`` is a DataFrame with a column for each task. The tasks share all but the last layer, so
    that a task with few targets can learn from one with many. Any or all targets of a row may be
    missing and are then left out of the loss. By default all tasks have the same weight, however
    many rows have their targets; ``loss_weights`` changes it. Modalities are handled as in
    :class:`JointFusionClassifier`; their transformers are fitted without ``y``.

    Early stopping monitors the weighted sum of the losses of the tasks in the held-out rows, with
    equal weights if the weights are learned.

    Parameters
    ----------
    modalities : list of (name, transformer, columns) or "auto", default="auto"
        As in ``ColumnTransformer``. ``transformer`` is any scikit-learn transformer or
        pipeline, ``"drop"``, ``"passthrough"`` (numbers, or cells that are vectors of one
        length), or a modality such as ``"image"`` or ``"text"`` for its default encoder.
        ``"auto"`` infers the modalities from the training frame.
    tasks : dict of name to {"classification", "regression"}, or "auto", default="auto"
        Columns of ``y`` that are predicted; others are ignored. ``"auto"`` predicts all columns,
        numeric ones by regression.
    strategy : str, FusionStrategy, nn.Module or callable, default="concat"
        How modalities are fused: by a name such as ``"attention"``, an object with options such as
        ``AttentionFusion(n_heads=8)`` of ``skmm.fusion``, or a module; see
        :class:`JointFusionClassifier`.
    granularity : {"pooled", "sequence"}, default="pooled"
        Whether the network receives one vector of a modality or a sequence of its words, patches
        and the like; see :class:`JointFusionClassifier`.
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
        What replaces a modality that is absent in a row or hidden by modality dropout: nothing, a
        learned token, a prediction from the others, or zeros; see
        :class:`JointFusionClassifier`.
    balance : {"gradient", "auxiliary"} or None, default=None
        How to keep a modality that is learned quickly from stopping the learning of the others:
        ``"gradient"`` shortens the steps of the leading modality [3]_,
        ``"auxiliary"`` adds the loss of a head for each modality [4]_; see
        :class:`JointFusionClassifier`. Each such head predicts all tasks; its loss weighs them as
        the network's does, without training these weights. The score that compares the modalities
        is the mean of ``exp(-loss)`` over the tasks whose target a row has.
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
    loss_weights : {"equal", "uncertainty", "gradnorm"} or dict, default="equal"
        Weights of the tasks in the sum of their losses: 1 each; learned, by the noise of each
        task [1]_; adapted after each batch, so that the tasks' gradients at the shared weights
        have like norms [2]_; or a dict from tasks to numbers, 1 for those it does not name.
    gradnorm_alpha : float, default=1.5
        Of ``"gradnorm"``: how much more a task pulls whose loss lags behind; 0 for equal norms.
    loss : dict of task to str or nn.Module, default=None
        Losses of tasks that should not have cross-entropy or squared error; those of
        :class:`JointFusionClassifier` and :class:`JointFusionRegressor`.
    loss_params : dict of task to dict, default=None
        Parameters of losses that are strings, such as ``{"mood": {"gamma": 1.0}}``.
    class_weight : dict of task to class_weight, "balanced" or None, default=None
        Weights of the classes of each task, or ``"balanced"`` for all of them.
    warm_start : bool, default=False
        Whether a second ``fit`` continues with the fitted transformers and weights.
    all_missing : {"prior", "raise"}, default="prior"
        What a row without any modality gets: ``"prior"`` is the share of each class and the mean
        of each value in training, ``"raise"`` raises ``ModalityMissingError``.
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
    tasks_ : dict of name to {"classification", "regression"}
        Tasks, those of ``"auto"`` written out.
    task_classes_ : dict of name to ndarray of shape (n_classes,)
        Classes of the classifications.
    loss_weights_ : dict of name to float
        Weights of the tasks at the end of the training.
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
    .. [1] Kendall, Gal, Cipolla (2018), "Multi-task learning using uncertainty to weigh losses for
       scene geometry and semantics", CVPR.
    .. [2] Chen, Badrinarayanan, Lee, Rabinovich (2018), "GradNorm: gradient normalization for
       adaptive loss balancing in deep multitask networks", ICML.
    .. [3] Peng, Wei, Deng, Wang, Hu (2022), "Balanced multimodal learning via on-the-fly gradient
       modulation", CVPR.
    .. [4] Wang, Tran, Feiszli (2020), "What makes training multi-modal classification networks
       hard?", CVPR.

    Examples
    --------
    >>> import pandas as pd
    >>> from skmm import JointFusionMultiTask, TextEncoder
    >>> from skmm.datasets import make_multimodal_classification
    >>> X, y = make_multimodal_classification(n_samples=200, missing_rate=0.1, random_state=0)
    >>> targets = pd.DataFrame({"mood": y, "stars": 2.0 * y}, index=X.index)
    >>> targets.loc[X.index[:150], "mood"] = None  # few rows have both
    >>> fusion = JointFusionMultiTask(
    ...     [("text", TextEncoder("tfidf", n_components=16), ["text"]),
    ...      ("table", "tabular", ["tabular_number_0", "tabular_number_1"])],
    ...     tasks={"mood": "classification", "stars": "regression"},
    ...     max_epochs=5, random_state=0,
    ... )
    >>> list(fusion.fit(X, targets).predict(X).columns)
    ['mood', 'stars']
    """

    _target: MultiTaskTarget
    tasks_: dict[Any, TaskKind]
    task_classes_: dict[Any, np.ndarray]

    _parameter_constraints: ClassVar[dict[str, Any]] = {
        **BaseJointFusion._parameter_constraints,
        "tasks": [dict, StrOptions({"auto"})],
        "loss_weights": [dict, StrOptions({"equal", "uncertainty", "gradnorm"})],
        "gradnorm_alpha": NON_NEGATIVE,
        "loss": [dict, None],
        "class_weight": [dict, StrOptions({"balanced"}), None],
    }

    def __init__(
        self,
        modalities: Modalities = "auto",
        *,
        tasks: Mapping[Any, TaskKind] | Literal["auto"] = "auto",
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
        loss_weights: LossWeights = "equal",
        gradnorm_alpha: float = 1.5,
        loss: Mapping[Any, str | nn.Module] | None = None,
        loss_params: Mapping[Any, Mapping[str, Any]] | None = None,
        class_weight: Mapping[Any, ClassWeight | None] | Literal["balanced"] | None = None,
        warm_start: bool = False,
        all_missing: Literal["prior", "raise"] = "prior",
        missing_columns: Literal["raise", "absent"] = "raise",
        device: str = "auto",
        random_state: RandomState = None,
        verbose: bool | int = 0,
    ):
        self.modalities = modalities
        self.tasks = tasks
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
        self.loss_weights = loss_weights
        self.gradnorm_alpha = gradnorm_alpha
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
        classes: Mapping[Any, ArrayLike] | None = None,
        sample_weight: ArrayLike | None = None,
    ) -> Self:
        """Train for one epoch on the given rows.

        If the estimator is not fitted, the transformers and the standardization of the targets are
        first fitted to the given rows. Later calls do not fit them again.
        No rows are held out, and ``max_epochs`` has no effect.

        Consecutive calls continue with the same optimizer: its state and the parameters of
        ``trainer`` are those of the first of them. The first call after ``fit`` or after unpickling
        starts a new optimizer.

        Parameters
        ----------
        X : DataFrame of shape (n_samples, n_columns)
            Samples, one in each row. A row may lack any of the modalities.
        y : DataFrame of shape (n_samples, n_tasks)
            Targets; any may be missing.
        classes : dict of name to array-like of shape (n_classes,), default=None
            All classes of each task that any call may contain. Required in the first call if its
            ``y`` does not contain all of them. Later calls can leave it out.
        sample_weight : array-like of shape (n_samples,), default=None
            Weights of the rows in the loss, finite and not negative. None gives each row weight 1.

        Returns
        -------
        self : object
            The fitted fusion.
        """
        wanted = self.class_weight
        if "balanced" in (wanted.values() if isinstance(wanted, dict) else [wanted]):
            raise ValueError(
                f"{type(self).__name__}: class_weight='balanced' needs all rows at once. Give"
                " partial_fit weights."
            )
        return self._fit_one_epoch(X, y, sample_weight, classes)

    def predict(self, X: Frame) -> pd.DataFrame:
        """Predict the targets.

        Parameters
        ----------
        X : DataFrame of shape (n_samples, n_columns)
            Samples, one in each row. A row may lack any of the modalities.

        Returns
        -------
        targets : DataFrame of shape (n_samples, n_tasks)
            Most probable classes and values, with the index of ``X`` if that is a pandas frame.
        """
        outputs, empty = self._outputs(X)
        parts = self._target.split(outputs)
        columns = [task.decide(parts[name], empty) for name, task in self._target.targets.items()]
        index = X.index if isinstance(X, pd.DataFrame) else pd.RangeIndex(len(outputs))
        # By position first: names of tasks may be anything.
        frame = pd.DataFrame(dict(enumerate(columns)), index=index)
        frame.columns = pd.Index(list(self.tasks_), tupleize_cols=False)
        return frame

    @available_if(_has_classes)
    def predict_proba(self, X: Frame) -> dict[Any, np.ndarray]:
        """Predict the probabilities of the classifications; not there without one.

        Parameters
        ----------
        X : DataFrame of shape (n_samples, n_columns)
            Samples, one in each row. A row may lack any of the modalities.

        Returns
        -------
        probabilities : dict of name to ndarray of shape (n_samples, n_classes)
            In the order of ``task_classes_``; without the tasks whose loss is ``"max_margin"``.
        """
        outputs, empty = self._outputs(X)
        parts = self._target.split(outputs)
        return {
            name: task.probabilities(parts[name], empty)
            for name, task in self._target.targets.items()
            if isinstance(task, ClassTarget) and task.has_probabilities
        }

    def score(self, X: Frame, y: ArrayLike, sample_weight: ArrayLike | None = None) -> float:
        """Return the mean over tasks of accuracy and R2.

        A task is scored on the rows that have its target. One with no such row, or a regression
        with only one, is left out of the mean.

        Parameters
        ----------
        X : DataFrame of shape (n_samples, n_columns)
            Samples, one in each row. A row may lack any of the modalities.
        y : DataFrame of shape (n_samples, n_tasks)
            Targets; any may be missing.
        sample_weight : array-like of shape (n_samples,), default=None
            Weights of the rows.

        Returns
        -------
        score : float
            At most 1.
        """
        predicted = self.predict(X)
        columns = task_columns(X, y, self.tasks_, type(self).__name__)
        weights = None if sample_weight is None else check_sample_weight(sample_weight, X)
        scores = [
            score_task(kind, columns[name], predicted.iloc[:, k].to_numpy(), weights)
            for k, (name, kind) in enumerate(self.tasks_.items())
        ]
        if all(score is None for score in scores):
            raise ValueError(
                f"{type(self).__name__}: y has too few targets to score any task. Give rows that"
                " have some."
            )
        return float(np.mean([score for score in scores if score is not None]))

    # --- targets and weights of rows and of tasks ------------------------------------------------

    def _encode_target(
        self, X: Frame, y: ArrayLike, *, first: bool, classes: Classes | None = None
    ) -> np.ndarray:
        owner = type(self).__name__
        columns = task_columns(X, y, self.tasks if first else self.tasks_, owner)
        tasks = resolve_tasks(self.tasks, columns, owner) if first else self.tasks_
        for parameter in ("loss", "loss_params", "loss_weights", "class_weight"):
            given = getattr(self, parameter)
            strange = (
                [name for name in given if name not in tasks] if isinstance(given, dict) else []
            )
            if strange:
                raise ValueError(
                    f"{owner}: {parameter} names {strange[0]!r}, which is no task. The tasks are"
                    f" {list(tasks)}."
                )
        self._check_loss_weights(owner)
        if self.loss_weights != "gradnorm":
            refuse_unused(self, ["gradnorm_alpha"], "without loss_weights='gradnorm'")
        target = MultiTaskTarget(owner, tasks) if first else self._target
        target.set_losses(self.loss or {}, self.loss_params or {})
        by_task = cast("Mapping[Any, ArrayLike]", classes or {})
        encoded = target.encode(columns, first=first, classes=by_task)
        self._target, self.tasks_ = target, tasks
        self.task_classes_ = {
            name: own.classes
            for name, own in target.targets.items()
            if isinstance(own, ClassTarget)
        }
        return encoded

    def _check_loss_weights(self, owner: str) -> None:
        if not isinstance(self.loss_weights, dict):
            return
        for name, weight in self.loss_weights.items():
            number = float(weight) if isinstance(weight, Real) else np.nan
            if not 0 <= number < np.inf:
                raise ValueError(
                    f"{owner}: the weight of task {name!r} in loss_weights is {weight!r}. Give a"
                    " number that is at least 0."
                )

    def _loss_weights(
        self, target: np.ndarray, sample_weight: np.ndarray | None
    ) -> np.ndarray | None:
        self._target.set_class_weight(target, self.class_weight)
        known = ~np.isnan(target).all(axis=1)
        if known.all():
            return sample_weight
        # A row without any target has nothing to teach.
        weights: np.ndarray = known * (1.0 if sample_weight is None else sample_weight)
        return weights

    def _criterion(self) -> nn.Module:
        criterion = self._target.criterion(self.loss_weights, self.gradnorm_alpha)
        if isinstance(criterion.balance, GradNormWeights):
            shared = list(self.module_.fusion.parameters())
            criterion.balance.watch(shared or self.module_.encoders.networks.parameters())
        return criterion

    def _train_on(self, *args: Any, **training: Any) -> None:
        super()._train_on(*args, **training)
        balance = self.net_.criterion_.balance
        state = balance.state_dict()
        self._target.balance_state = {key: value.detach().cpu() for key, value in state.items()}
        weights = balance.current().cpu().tolist()
        self.loss_weights_ = dict(zip(self.tasks_, weights, strict=True))

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.target_tags.required = True
        tags.target_tags.multi_output = True
        return tags
