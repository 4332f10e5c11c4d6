"""Base of late fusion for both tasks: an estimator per modality, then a combination rule."""

import warnings
from abc import abstractmethod
from collections.abc import Iterable, Sequence
from typing import Any, ClassVar, Literal, Self, TypeAlias

import numpy as np
from numpy.typing import ArrayLike
from sklearn import get_config
from sklearn.base import TransformerMixin
from sklearn.model_selection import (
    BaseCrossValidator,
    BaseShuffleSplit,
    KFold,
    StratifiedKFold,
    check_cv,
)
from sklearn.utils import check_random_state
from sklearn.utils.metadata_routing import MetadataRouter, MethodMapping, process_routing
from sklearn.utils.parallel import Parallel, delayed
from sklearn.utils.validation import check_is_fitted

from skmm._compose._base import (
    BaseMultimodalEstimator,
    Columns,
    Modality,
    SupervisedEstimator,
    Transformer,
    is_predictor,
)
from skmm._compose._block import params_of_rows, seeded_clone
from skmm._compose._callbacks import CallbackSupportMixin, TaskReporter, with_callbacks
from skmm._compose._progress import timed
from skmm._constraints import (
    RANDOM_STATE,
    VERBOSE,
    HasMethods,
    RandomState,
    StrOptions,
    check_feature_names_in,
    check_sample_weight,
    refuse_unused,
)
from skmm._frame._column import take_rows
from skmm._frame._types import Frame
from skmm.exceptions import ModalityWarning
from skmm.fusion._modality_predictor import ModalityPredictor
from skmm.fusion._rules import RULES, combine, learn_weights, rule_weights, stack_features

__all__ = ["BaseLateFusion", "weighable"]

_Params: TypeAlias = dict[str, dict[str, Any]]  # fit parameters by modality
# Triples, in which a predictor may take the cells as they are.
_VotingModalities: TypeAlias = (
    Literal["auto"] | Sequence[tuple[str, Transformer | SupervisedEstimator | str, Columns]]
)
_Splitter: TypeAlias = BaseCrossValidator | BaseShuffleSplit


class BaseLateFusion(CallbackSupportMixin, TransformerMixin, BaseMultimodalEstimator):
    """Base of the late fusions: an estimator per modality, and a rule that combines their votes."""

    _parameter_constraints: ClassVar[dict[str, Any]] = {
        **BaseMultimodalEstimator._parameter_constraints,
        "estimator": [HasMethods(["fit", "predict"]), None],
        "rule": [StrOptions({*RULES, "stacking"})],
        "weights": ["array-like", None],
        "final_estimator": [HasMethods(["fit", "predict"]), None],
        "cv": ["cv_object"],
        "n_jobs": [int, None],
        "random_state": RANDOM_STATE,
        "verbose": VERBOSE,
    }
    _classes: ClassVar[bool]  # whether votes are class probabilities

    def __init__(
        self,
        modalities: _VotingModalities = "auto",
        *,
        estimator: SupervisedEstimator | None = None,
        rule: Literal["stacking", "weighted", "mean", "vote", "max", "product"] = "stacking",
        weights: ArrayLike | None = None,
        final_estimator: SupervisedEstimator | None = None,
        cv: int | _Splitter | Iterable[tuple[np.ndarray, np.ndarray]] | None = 5,
        all_missing: Literal["prior", "raise"] = "prior",
        missing_columns: Literal["raise", "absent"] = "raise",
        n_jobs: int | None = None,
        random_state: RandomState = None,
        verbose: bool | int = 0,
    ):
        self.modalities = modalities
        self.estimator = estimator
        self.rule = rule
        self.weights = weights
        self.final_estimator = final_estimator
        self.cv = cv
        self.all_missing = all_missing
        self.missing_columns = missing_columns
        self.n_jobs = n_jobs
        self.random_state = random_state
        self.verbose = verbose

    # --- implemented by each task ---------------------------------------------------------

    @abstractmethod
    def _encode_target(self, X: Frame, y: ArrayLike) -> np.ndarray:
        """Check ``y`` and return class indices or values."""

    @abstractmethod
    def _default_estimator(self) -> SupervisedEstimator:
        """Return the default estimator of a modality, for standardized features."""

    @abstractmethod
    def _default_final(self) -> SupervisedEstimator:
        """Return the default estimator over the stacked votes."""

    @abstractmethod
    def _n_outputs(self) -> int:
        """Return the number of classes, 0 for regression."""

    @abstractmethod
    def _prior(self, y: np.ndarray, sample_weight: np.ndarray | None) -> np.ndarray:
        """Return the prediction for a row without any modality."""

    @abstractmethod
    def _target_spread(self, y: np.ndarray, sample_weight: np.ndarray | None) -> float:
        """Return the unit in which votes are stacked."""

    @abstractmethod
    def _score_votes(self, y: np.ndarray, votes: np.ndarray) -> float:
        """Return the score of the out-of-fold votes of one modality."""

    @abstractmethod
    def _ask_final(self, features: np.ndarray) -> np.ndarray:
        """Return the predictions of the final estimator, (n_samples, n_outputs)."""

    @abstractmethod
    def _output_labels(self) -> list[str]:
        """Return the names of the votes of one modality in :meth:`transform`."""

    # --- fit --------------------------------------------------------------------------------

    @with_callbacks
    def fit(
        self, X: Frame, y: ArrayLike, sample_weight: ArrayLike | None = None, **fit_params: Any
    ) -> Self:
        """Fit an estimator per modality, and the rule that combines them.

        Parameters
        ----------
        X : DataFrame of shape (n_samples, n_columns)
            Samples, one in each row. A row may lack any of the modalities.
        y : array-like of shape (n_samples,)
            Target.
        sample_weight : array-like of shape (n_samples,), default=None
            Weights of the rows, for the estimators of the modalities and for the rule. None weights
            all rows equally.
        **fit_params : dict
            Metadata that is routed to the estimators.

        Returns
        -------
        self : object
            The fitted fusion.
        """
        self._validate_params()
        if self.rule != "weighted":
            refuse_unused(self, ["weights"], f"with rule={self.rule!r}")
        if self.rule != "stacking":
            refuse_unused(self, ["final_estimator"], f"with rule={self.rule!r}")
        self._refuse_unrouted(fit_params)
        X = self._check_frame(X, reset=True)
        target = self._encode_target(X, y)
        weight = None if sample_weight is None else check_sample_weight(sample_weight, X)
        modalities = self._resolve(X, predictors=True)
        params = self._route(modalities, weight, fit_params)
        self._seed = int(check_random_state(self.random_state).randint(2**31 - 1))
        with TaskReporter(self, X, y, 2, "stage") as reporter:
            with reporter.task():
                self._fit_predictors(X, target, modalities, params)
            self._prior_ = self._prior(target, weight)
            self._spread = self._target_spread(target, weight)
            with reporter.task():
                self._fit_rule(X, target, weight, modalities, params)
        return self

    def _route(
        self,
        modalities: list[Modality],
        sample_weight: np.ndarray | None,
        fit_params: dict[str, Any],
    ) -> _Params:
        """Return the metadata for the ``fit`` of each modality's estimator."""
        if not get_config()["enable_metadata_routing"]:
            given = {} if sample_weight is None else {"sample_weight": sample_weight}
            return {m.name: given for m in modalities}
        if sample_weight is None and not fit_params:
            return {m.name: {} for m in modalities}
        routed = process_routing(self, "fit", sample_weight=sample_weight, **fit_params)
        return {
            m.name: dict(routed[m.name if is_predictor(m.transformer) else "estimator"].fit)
            for m in modalities
        }

    def _fit_predictors(
        self, X: Frame, y: np.ndarray, modalities: list[Modality], params: _Params
    ) -> None:
        def fit_all(modality: Modality) -> tuple[ModalityPredictor, np.ndarray]:
            with timed(self, f"fitting modality {modality.name!r} on all rows", self.verbose):
                return self._fit_predictor(modality, X, y, params[modality.name])

        fitted = Parallel(n_jobs=self.n_jobs)(delayed(fit_all)(m) for m in modalities)
        predictors = [predictor for predictor, _ in fitted]
        self._predictors = self._keep_usable(
            predictors, [predictor.flaw for predictor in predictors]
        )
        self._refuse_empty(np.column_stack([present for _, present in fitted]))
        for predictor in self._predictors:
            if predictor.saw_one_class:
                warnings.warn(
                    f"Modality {predictor.name!r} is present in rows of one class only and"
                    " always votes for it.",
                    ModalityWarning,
                    stacklevel=2,
                )
        self.modalities_ = [predictor.triple for predictor in self._predictors]
        self.estimators_ = {predictor.name: predictor.estimator for predictor in self._predictors}

    def _fit_predictor(
        self, modality: Modality, X: Frame, y: np.ndarray, params: dict[str, Any]
    ) -> tuple[ModalityPredictor, np.ndarray]:
        # Default estimators need features of one scale; an estimator of the user may scale them.
        scales = self.estimator is None
        estimator = self._default_estimator() if self.estimator is None else self.estimator
        predictor = ModalityPredictor(modality, estimator, scales=scales, seed=self._seed)
        return predictor, predictor.fit(X, y, params, classes=self._classes)

    def _fit_rule(
        self,
        X: Frame,
        y: np.ndarray,
        sample_weight: np.ndarray | None,
        modalities: list[Modality],
        params: _Params,
    ) -> None:
        self.weights_: np.ndarray | None = None
        self.final_estimator_: Any = None
        self.modality_scores_: dict[str, float] | None = None
        if self.rule == "weighted" and self.weights is not None:
            self.weights_ = self._given_weights(modalities)
        elif self.rule in ("weighted", "stacking"):
            self._learn_rule(X, y, sample_weight, modalities, params)

    def _learn_rule(
        self,
        X: Frame,
        y: np.ndarray,
        sample_weight: np.ndarray | None,
        modalities: list[Modality],
        params: _Params,
    ) -> None:
        """Learn weights or the final estimator from out-of-fold votes."""
        names = [predictor.name for predictor in self._predictors]
        votes = self._out_of_fold(X, y, [m for m in modalities if m.name in names], params)
        known = ~np.isnan(votes[:, :, 0])  # (n_samples, n_modalities)
        self.modality_scores_ = {
            name: self._score_votes(y[known[:, m]], votes[known[:, m], m])
            for m, name in enumerate(names)
            if known[:, m].any()
        }
        # Rows without any modality and rows that no fold predicts are not learned from.
        rows = np.flatnonzero(known.any(axis=1))
        if not len(rows) or (self._classes and len(np.unique(y[rows])) < len(np.unique(y))):
            rows = np.arange(len(y))
        votes, y = votes[rows], y[rows]
        weight = None if sample_weight is None else sample_weight[rows]
        if self.rule == "weighted":
            self.weights_ = learn_weights(votes, y, weight, classes=self._classes)
            return
        final = self._default_final() if self.final_estimator is None else self.final_estimator
        self.final_estimator_ = seeded_clone(final, self._seed)
        fit_params = {} if weight is None else {"sample_weight": weight}
        self.final_estimator_.fit(self._stacked(votes), y, **fit_params)

    def _given_weights(self, modalities: list[Modality]) -> np.ndarray:
        """Return the weights of the modalities in use, from one for each modality."""
        named = [name for name, _ in self._named_transformers] or [m.name for m in modalities]
        given = np.asarray(self.weights, dtype=float)
        wrong = given.shape != (len(named),) or not np.isfinite(given).all()
        if wrong or (given < 0).any() or not given.any():
            raise ValueError(
                f"{type(self).__name__}: weights must be {len(named)} numbers that are not"
                f" negative nor all zero, one for each of {named}, got {self.weights!r}."
            )
        used = {predictor.name for predictor in self._predictors}
        kept = given[[name in used for name in named]]
        return kept / kept.sum() if kept.any() else np.full(len(kept), 1 / len(kept))

    def _stacked(self, votes: np.ndarray) -> np.ndarray:
        return stack_features(votes, self._prior_, classes=self._classes, spread=self._spread)

    def _out_of_fold(
        self, X: Frame, y: np.ndarray, modalities: list[Modality], params: _Params
    ) -> np.ndarray:
        """Predict each row by estimators of other folds, (n_samples, n_modalities, n_outputs)."""
        folds = list(self._splitter(y).split(np.zeros(len(y)), y))

        def predict_fold(modality: Modality, fold: int) -> np.ndarray:
            train, test = folds[fold]
            own = params_of_rows(params[modality.name], train, len(y))
            message = f"fitting modality {modality.name!r} on fold {fold + 1} of {len(folds)}"
            with timed(self, message, self.verbose):
                predictor, _ = self._fit_predictor(modality, take_rows(X, train), y[train], own)
            return predictor.vote(take_rows(X, test), self._n_outputs(), first_choice=False)

        jobs = [(m, f) for m in range(len(modalities)) for f in range(len(folds))]
        results = Parallel(n_jobs=self.n_jobs)(
            delayed(predict_fold)(modalities[m], f) for m, f in jobs
        )
        votes = np.full((len(y), len(modalities), max(self._n_outputs(), 1)), np.nan)
        for (m, f), result in zip(jobs, results, strict=True):
            votes[folds[f][1], m] = result
        return votes

    def _splitter(self, y: np.ndarray) -> _Splitter:
        cv = self.cv
        if isinstance(cv, int | np.integer) or cv is None:
            # Fewer folds where a class or the whole data set is small, at least two.
            most = int(np.bincount(y).min()) if self._classes else len(y)
            cv = max(2, min(5 if cv is None else cv, most))
            if self._classes and most >= 2:
                return StratifiedKFold(cv, shuffle=True, random_state=0)
            return KFold(cv, shuffle=True, random_state=0)
        splitter: _Splitter = check_cv(cv, y, classifier=self._classes)
        return splitter

    # --- predict ----------------------------------------------------------------------------

    def _votes(self, X: Frame) -> np.ndarray:
        """Return the predictions of each modality, (n_samples, n_modalities, n_outputs)."""
        check_is_fitted(self, "estimators_")
        X = self._check_frame(X, reset=False)
        first_choice = self.rule == "vote" and self._classes
        votes = np.stack(
            [p.vote(X, self._n_outputs(), first_choice=first_choice) for p in self._predictors],
            axis=1,
        )
        self._refuse_empty(~np.isnan(votes[:, :, 0]))
        return votes

    def _fused(self, X: Frame) -> np.ndarray:
        """Return the predictions of the rule, (n_samples, n_outputs)."""
        votes = self._votes(X)
        if self.final_estimator_ is None:
            return combine(votes, self.rule, self._prior_, self.weights_)
        fused = self._ask_final(self._stacked(votes))
        fused[np.isnan(votes[:, :, 0]).all(axis=1)] = self._prior_
        return fused

    def transform(self, X: Frame) -> Any:
        """Return the votes of the modalities, as the final estimator of stacking receives them.

        Parameters
        ----------
        X : DataFrame of shape (n_samples, n_columns)
            Samples, one in each row. A row may lack any of the modalities.

        Returns
        -------
        features : ndarray of shape (n_samples, n_features_out)
            Votes (log-odds for classes, standardized values in regression; the prior where a
            modality is absent), then an indicator per modality that is 1 where it is absent.
        """
        return self._stacked(self._votes(X))

    def get_feature_names_out(self, input_features: ArrayLike | None = None) -> np.ndarray:
        """Return the names of the output features.

        Parameters
        ----------
        input_features : array-like of str, default=None
            Names of the input columns. They are only compared with those seen in ``fit``.

        Returns
        -------
        names : ndarray of str, of shape (n_features_out,)
            Names of the columns of :meth:`transform`: first ``<modality>__<class>`` or
            ``<modality>__prediction``, then ``<modality>__missing`` for the indicators.

        Raises
        ------
        ValueError
            If ``input_features`` are not the columns seen in ``fit``.
        """
        check_is_fitted(self)
        check_feature_names_in(self, input_features)
        names = [predictor.name for predictor in self._predictors]
        outputs = self._output_labels()
        votes = [f"{name}__{output}" for name in names for output in outputs]
        return np.asarray([*votes, *(f"{name}__missing" for name in names)], dtype=object)

    # --- weights ------------------------------------------------------------------------------

    def modality_weights(self, X: Frame) -> np.ndarray:
        """Return the weight of each modality's vote in each row.

        Parameters
        ----------
        X : DataFrame of shape (n_samples, n_columns)
            Samples, one in each row. A row may lack any of the modalities.

        Returns
        -------
        weights : ndarray of shape (n_samples, n_modalities)
            In the order of ``modalities_``; NaN where a modality is absent. A row sums to one over
            the others. With ``rule="stacking"`` a weight is proportional to the change of the final
            estimator's linear score when the vote is replaced by the prior.

        Raises
        ------
        TypeError
            With ``rule="max"``, or a final estimator without ``coef_``: they have no weights.
        """
        check_is_fitted(self, "estimators_")
        coefficients = getattr(self.final_estimator_, "coef_", None)
        if self.rule == "max" or (self.rule == "stacking" and coefficients is None):
            final = type(self.final_estimator_).__name__
            what = "rule='max'" if self.rule == "max" else f"a {final} as final_estimator_"
            raise TypeError(
                f"{type(self).__name__}: {what} gives the modalities no weights. Take another"
                " rule; skmm.inspection.modality_shapley divides any predictions."
            )
        votes = self._votes(X)
        weights = self.weights_
        if coefficients is not None:
            weights = self._moves(votes, np.atleast_2d(coefficients))
        return rule_weights(~np.isnan(votes[:, :, 0]), weights)

    def _moves(self, votes: np.ndarray, coefficients: np.ndarray) -> np.ndarray:
        """Return how much each vote changes the scores, (n_samples, n_modalities)."""
        n = votes.shape[1]
        # The last columns are the indicators of absent modalities.
        features, neutral = (
            self._stacked(v)[:, :-n] for v in (votes, np.full_like(votes[:1], np.nan))
        )
        shifts = (features - neutral).reshape(len(votes), n, -1)
        of_votes = coefficients[:, :-n].reshape(len(coefficients), n, -1)
        moves: np.ndarray = np.abs(np.einsum("nmk,omk->nmo", shifts, of_votes)).sum(axis=2)
        return moves

    # --- metadata ------------------------------------------------------------------------------

    def get_metadata_routing(self) -> MetadataRouter:
        """Return where metadata given to ``fit`` goes: to the modalities' estimators.

        Returns
        -------
        routing : MetadataRouter
            With the key ``estimator``, and the names of modalities whose classifier or
            regressor takes the cells as they are.
        """
        router = MetadataRouter(owner=type(self).__name__).add_self_request(self)
        mapping = MethodMapping().add(caller="fit", callee="fit")
        estimator = self._default_estimator() if self.estimator is None else self.estimator
        router.add(estimator=estimator, method_mapping=mapping)
        for name, transformer in self._named_transformers:
            if is_predictor(transformer):
                router.add(**{name: transformer}, method_mapping=mapping)
        return router


def weighable(estimator: Any) -> Any:
    """Request ``sample_weight`` for a default estimator under metadata routing."""
    if get_config()["enable_metadata_routing"]:
        estimator.set_fit_request(sample_weight=True)
    return estimator
