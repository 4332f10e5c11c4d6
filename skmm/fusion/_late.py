"""Late fusion: an estimator per modality, then a rule. What both tasks share."""

from abc import abstractmethod
from typing import Any, ClassVar, Self

import numpy as np
from sklearn.base import TransformerMixin, clone
from sklearn.model_selection import KFold, StratifiedKFold, check_cv
from sklearn.utils import check_random_state
from sklearn.utils.metadata_routing import MetadataRouter, MethodMapping, process_routing
from sklearn.utils.parallel import Parallel, delayed
from sklearn.utils.validation import check_is_fitted

from skmm._column import take_rows
from skmm._constraints import (
    HasMethods,
    StrOptions,
    check_feature_names_in,
    check_sample_weight,
)
from skmm.fusion._base import BaseFusion
from skmm.fusion._expert import Expert
from skmm.fusion._modalities import Modality, resolve_modalities
from skmm.fusion._rules import RULES, combine, learn_weights, stack_features

__all__ = ["BaseLateFusion"]


class BaseLateFusion(TransformerMixin, BaseFusion):
    """An estimator per modality, fitted where it is present, then a rule over their votes."""

    _parameter_constraints: ClassVar[dict[str, Any]] = {
        **BaseFusion._parameter_constraints,
        "estimator": [HasMethods(["fit", "predict"]), None],
        "rule": [StrOptions({*RULES, "stacking"})],
        "weights": ["array-like", None],
        "final_estimator": [HasMethods(["fit", "predict"]), None],
        "cv": ["cv_object"],
        "n_jobs": [int, None],
        "random_state": ["random_state"],
    }
    _classes: ClassVar[bool]  # whether votes are class probabilities

    def __init__(
        self,
        modalities: Any = "auto",
        *,
        estimator: Any = None,
        rule: str = "stacking",
        weights: Any = None,
        final_estimator: Any = None,
        cv: Any = 5,
        all_missing: str = "prior",
        n_jobs: int | None = None,
        random_state: Any = None,
    ):
        self.modalities = modalities
        self.estimator = estimator
        self.rule = rule
        self.weights = weights
        self.final_estimator = final_estimator
        self.cv = cv
        self.all_missing = all_missing
        self.n_jobs = n_jobs
        self.random_state = random_state

    # --- written by the task --------------------------------------------------------------

    @abstractmethod
    def _encode_target(self, X: Any, y: Any) -> np.ndarray:
        """Check ``y``; class indices or values."""

    @abstractmethod
    def _default_estimator(self, seed: int) -> Any:
        """Estimator of a modality, over standardised features."""

    @abstractmethod
    def _default_final(self) -> Any:
        """Estimator over the stacked votes."""

    @abstractmethod
    def _n_outputs(self) -> int:
        """Number of classes, 0 for regression."""

    @abstractmethod
    def _prior(self, y: np.ndarray, sample_weight: np.ndarray | None) -> np.ndarray:
        """Answer for a row without any modality."""

    @abstractmethod
    def _score_votes(self, y: np.ndarray, votes: np.ndarray) -> float:
        """Score of one modality's out-of-fold votes."""

    # --- fit --------------------------------------------------------------------------------

    def fit(self, X: Any, y: Any, sample_weight: Any = None, **fit_params: Any) -> Self:
        """Fit an estimator per modality, and the rule.

        Parameters
        ----------
        X : DataFrame of shape (n_samples, n_columns)
            Cells; any row may lack any modality.
        y : array-like of shape (n_samples,)
            Target.
        sample_weight : array-like of shape (n_samples,), default=None
            Weights of the rows.
        **fit_params : dict
            Metadata that is routed to the estimators.

        Returns
        -------
        self : object
            The fitted fusion.
        """
        self._validate_params()
        X = self._check_frame(X, reset=True)
        target = self._encode_target(X, y)
        routed = self._route(sample_weight, fit_params)
        if sample_weight is not None:
            sample_weight = check_sample_weight(sample_weight, X)
        modalities = resolve_modalities(self.modalities, X, type(self).__name__, predictors=True)
        seed = int(check_random_state(self.random_state).randint(2**31 - 1))
        experts = Parallel(n_jobs=self.n_jobs)(
            delayed(self._fit_expert)(m, X, target, sample_weight, routed, seed) for m in modalities
        )
        self._experts = [expert for expert in experts if expert.usable]
        self._blocks = [expert.block for expert in self._experts]
        if not self._experts:
            raise ValueError(
                f"{type(self).__name__} has nothing to learn from: every modality is absent in"
                " every training row."
            )
        self.modalities_ = [
            (e.name, e.block.transformer or e.block.middle, e.block.input_names)
            for e in self._experts
        ]
        self.estimators_ = {expert.name: expert.estimator for expert in self._experts}
        self._prior_ = self._prior(target, sample_weight)
        self._fit_rule(X, target, sample_weight, modalities, routed, seed)
        return self

    def _route(self, sample_weight: Any, fit_params: dict[str, Any]) -> dict[str, Any]:
        if not fit_params:
            return {}
        return dict(
            process_routing(self, "fit", sample_weight=sample_weight, **fit_params).estimator.fit
        )

    def _fit_expert(
        self,
        modality: Modality,
        X: Any,
        y: np.ndarray,
        sample_weight: np.ndarray | None,
        params: dict[str, Any],
        seed: int,
    ) -> Expert:
        given = self.estimator is not None
        estimator = self.estimator if given else self._default_estimator(seed)
        return Expert(modality, estimator, scales=not given).fit(
            X, y, classes=self._classes, sample_weight=sample_weight, params=params
        )

    def _fit_rule(
        self,
        X: Any,
        y: np.ndarray,
        sample_weight: np.ndarray | None,
        modalities: list[Modality],
        params: dict[str, Any],
        seed: int,
    ) -> None:
        self.weights_: np.ndarray | None = None
        self.final_estimator_: Any = None
        self.modality_scores_: dict[str, float] | None = None
        names = [expert.name for expert in self._experts]
        if self.rule == "weighted" and self.weights is not None:
            given = np.asarray(self.weights, dtype=float)
            if given.shape != (len(modalities),) or (given < 0).any() or not given.any():
                raise ValueError(
                    f"{type(self).__name__}: weights must be {len(modalities)} numbers that are"
                    f" not negative, one per modality, got {self.weights!r}."
                )
            kept = given[[m.name in names for m in modalities]]
            self.weights_ = kept / max(kept.sum(), 1e-300)
            return
        if self.rule not in ("weighted", "stacking"):
            return
        modalities = [m for m in modalities if m.name in names]
        votes = self._out_of_fold(X, y, sample_weight, modalities, params, seed)
        self.modality_scores_ = {
            name: self._score_votes(y[rows], votes[rows, m])
            for m, name in enumerate(names)
            if (rows := ~np.isnan(votes[:, m, 0])).any()
        }
        if self.rule == "weighted":
            self.weights_ = learn_weights(votes, y, sample_weight, classes=self._classes)
            return
        final = self._default_final() if self.final_estimator is None else self.final_estimator
        features = stack_features(votes, self._prior_, classes=self._classes)
        weight = {} if sample_weight is None else {"sample_weight": sample_weight}
        self.final_estimator_ = clone(final).fit(features, y, **weight)

    def _out_of_fold(
        self,
        X: Any,
        y: np.ndarray,
        sample_weight: np.ndarray | None,
        modalities: list[Modality],
        params: dict[str, Any],
        seed: int,
    ) -> np.ndarray:
        """Predict each row by experts that did not see it: (n_samples, n_modalities, n_outputs)."""
        folds = list(self._splitter(y).split(np.zeros(len(y)), y))

        def predict_fold(modality: Modality, train: np.ndarray, test: np.ndarray) -> np.ndarray:
            weight = None if sample_weight is None else sample_weight[train]
            own = {k: v[train] if np.shape(v)[:1] == (len(y),) else v for k, v in params.items()}
            expert = self._fit_expert(modality, take_rows(X, train), y[train], weight, own, seed)
            return expert.vote(take_rows(X, test), self._n_outputs(), first_choice=False)

        jobs = [(m, f) for m in range(len(modalities)) for f in range(len(folds))]
        results = Parallel(n_jobs=self.n_jobs)(
            delayed(predict_fold)(modalities[m], *folds[f]) for m, f in jobs
        )
        votes = np.full((len(y), len(modalities), max(self._n_outputs(), 1)), np.nan)
        for (m, f), result in zip(jobs, results, strict=True):
            votes[folds[f][1], m] = result
        return votes

    def _splitter(self, y: np.ndarray) -> Any:
        cv = self.cv
        if isinstance(cv, int | np.integer) or cv is None:
            # Fewer folds where a class or the whole set is small, at least two.
            most = int(np.bincount(y).min()) if self._classes else len(y)
            cv = max(2, min(5 if cv is None else cv, most))
            if self._classes and most >= 2:
                return StratifiedKFold(cv, shuffle=True, random_state=0)
            return KFold(cv, shuffle=True, random_state=0)
        return check_cv(cv, y, classifier=self._classes)

    # --- predict ----------------------------------------------------------------------------

    def _votes(self, X: Any) -> np.ndarray:
        check_is_fitted(self)
        X = self._check_frame(X, reset=False)
        first_choice = self.rule == "vote" and self._classes
        votes = np.stack(
            [e.vote(X, self._n_outputs(), first_choice=first_choice) for e in self._experts], axis=1
        )
        self._refuse_empty(~np.isnan(votes[:, :, 0]))
        return votes

    def _fused(self, X: Any, verb: str) -> np.ndarray:
        """Predictions of the rule: probabilities or values, (n_samples, n_outputs)."""
        votes = self._votes(X)
        empty = np.isnan(votes[:, :, 0]).all(axis=1)
        if self.final_estimator_ is None:
            return combine(votes, self.rule, self._prior_, self.weights_)
        features = stack_features(votes, self._prior_, classes=self._classes)
        fused = np.asarray(getattr(self.final_estimator_, verb)(features), dtype=float)
        fused = fused.reshape(len(features), -1)
        fused[empty] = self._prior_
        return fused

    def transform(self, X: Any) -> Any:
        """Return the votes of the modalities, in the form that stacking sees.

        Parameters
        ----------
        X : DataFrame of shape (n_samples, n_columns)
            Cells; any row may lack any modality.

        Returns
        -------
        features : ndarray of shape (n_samples, n_features_out)
            Votes (log-odds for classes), then a marker per modality that is 1 where the
            modality is absent.
        """
        return stack_features(self._votes(X), self._prior_, classes=self._classes)

    def get_feature_names_out(self, input_features: Any = None) -> np.ndarray:
        """Return the names of the columns of :meth:`transform`.

        Parameters
        ----------
        input_features : array-like of str, default=None
            Names of the input columns; must be those of ``fit`` if given.

        Returns
        -------
        names : ndarray of str
            ``<modality>__<class>`` or ``<modality>__prediction``, then ``<modality>__missing``.
        """
        check_is_fitted(self)
        check_feature_names_in(self, input_features)
        names = [expert.name for expert in self._experts]
        outputs = self._output_labels()
        votes = [f"{name}__{output}" for name in names for output in outputs]
        return np.asarray([*votes, *(f"{name}__missing" for name in names)], dtype=object)

    @abstractmethod
    def _output_labels(self) -> list[str]:
        """Names of the votes of one modality in :meth:`transform`."""

    def get_metadata_routing(self) -> MetadataRouter:
        """Return where metadata given to ``fit`` goes: to the modalities' estimator.

        Returns
        -------
        routing : MetadataRouter
            With the key ``estimator``.
        """
        router = MetadataRouter(owner=type(self).__name__).add_self_request(self)
        estimator = self._default_estimator(0) if self.estimator is None else self.estimator
        mapping = MethodMapping().add(caller="fit", callee="fit")
        return router.add(estimator=estimator, method_mapping=mapping)
