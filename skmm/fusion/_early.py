"""Early fusion: the concatenated features of all modalities."""

from typing import Any, ClassVar, Literal, Self

import numpy as np
from numpy.typing import ArrayLike
from sklearn.base import TransformerMixin
from sklearn.utils import Tags, check_consistent_length
from sklearn.utils.metadata_routing import MetadataRouter, MethodMapping, process_routing
from sklearn.utils.validation import check_is_fitted

from skmm._compose._base import BaseMultimodalEstimator, Modalities
from skmm._compose._block import Block, BlockValues
from skmm._compose._callbacks import CallbackSupportMixin, TaskReporter, with_callbacks
from skmm._compose._progress import timed
from skmm._constraints import VERBOSE, StrOptions, check_feature_names_in
from skmm._frame._types import Frame

__all__ = ["EarlyFusion"]


class EarlyFusion(CallbackSupportMixin, TransformerMixin, BaseMultimodalEstimator):
    """Concatenate the features of all modalities.

    The transformer of a modality is fitted on, and applied to, the rows that have the modality.
    In other rows its features are replaced by their training means, and an indicator feature
    marks the row, so that the next estimator can learn from the absence itself.

    Parameters
    ----------
    modalities : list of (name, transformer, columns) or "auto", default="auto"
        As in ``ColumnTransformer``. ``transformer`` is any scikit-learn transformer or
        pipeline, ``"drop"``, ``"passthrough"`` (numbers, or cells that are vectors of one
        length), or a modality such as ``"image"`` or ``"text"`` for its default encoder.
        ``"auto"`` infers the modalities from the training frame.
    scaling : {"standard", "block", None}, default="standard"
        ``"standard"`` scales every feature to mean 0 and variance 1; ``"block"`` also divides it
        by the square root of the number of features of its modality, so that modalities of any
        width have the same total variance; None leaves the features unchanged.
    add_indicator : bool, default=True
        Whether to add, for each modality, a feature that is 1 in rows without the modality. It is
        also added for modalities that were present in all training rows.
    all_missing : {"mean", "raise"}, default="mean"
        What to do with a row without any modality: ``"mean"`` returns the mean of each feature
        over the training rows and sets all indicators, ``"raise"`` raises
        ``ModalityMissingError``.
    missing_columns : {"raise", "absent"}, default="raise"
        What happens if a column of the training frame is not in ``X``: ``"raise"`` raises
        ``ValueError``, ``"absent"`` treats the column as missing in every row.
    verbose : bool or int, default=0
        Whether to print, for each modality that is fitted, how long it took.

    Attributes
    ----------
    modalities_ : list of (name, transformer, columns)
        The modalities used, with their fitted transformers.
    n_features_in_ : int
        Number of columns seen in ``fit``.
    feature_names_in_ : ndarray of str
        Names of the columns seen in ``fit``. Defined only if ``X`` has column names.

    References
    ----------
    Baltrusaitis, Ahuja and Morency (2019), "Multimodal machine learning: a survey and
    taxonomy", TPAMI, section 6.1. Block scaling as in multiple factor analysis: Escofier and
    Pages (1994), Computational Statistics & Data Analysis.

    Examples
    --------
    >>> import pandas as pd
    >>> from skmm import EarlyFusion, TextEncoder
    >>> X = pd.DataFrame({"review": ["good", "bad", None, "good"], "stars": [5.0, 1.0, 4.0, 4.0]})
    >>> fusion = EarlyFusion([
    ...     ("text", TextEncoder("tfidf", n_components=2, random_state=0), ["review"]),
    ...     ("stars", "passthrough", ["stars"]),
    ... ])

    The third row has no review: its text features are the means, and the indicator is 1.

    >>> fusion.set_output(transform="pandas").fit_transform(X).iloc[2].round(1).to_dict()
    ... # doctest: +NORMALIZE_WHITESPACE
    {'text__review_0': 0.0, 'text__review_1': 0.0, 'text__missing': 1.0, 'stars__stars': 0.3,
     'stars__missing': 0.0}
    """

    _parameter_constraints: ClassVar[dict[str, Any]] = {
        **BaseMultimodalEstimator._parameter_constraints,
        "scaling": [StrOptions({"standard", "block"}), None],
        "add_indicator": ["boolean"],
        "all_missing": [StrOptions({"mean", "raise"})],
        "verbose": VERBOSE,
    }

    def __init__(
        self,
        modalities: Modalities = "auto",
        *,
        scaling: Literal["standard", "block"] | None = "standard",
        add_indicator: bool = True,
        all_missing: Literal["mean", "raise"] = "mean",
        missing_columns: Literal["raise", "absent"] = "raise",
        verbose: bool | int = 0,
    ):
        self.modalities = modalities
        self.scaling = scaling
        self.add_indicator = add_indicator
        self.all_missing = all_missing
        self.missing_columns = missing_columns
        self.verbose = verbose

    @with_callbacks
    def fit(self, X: Frame, y: ArrayLike | None = None, **fit_params: Any) -> Self:
        """Fit every modality's transformer and the scaling of its features.

        Parameters
        ----------
        X : DataFrame of shape (n_samples, n_columns)
            Samples, one in each row. A row may lack any of the modalities.
        y : array-like of shape (n_samples,), default=None
            Target, passed to the transformers.
        **fit_params : dict
            Metadata that is routed to the transformers.

        Returns
        -------
        self : object
            The fitted fusion.
        """
        self._fit(X, y, fit_params)
        return self

    @with_callbacks
    def fit_transform(self, X: Frame, y: ArrayLike | None = None, **fit_params: Any) -> Any:
        """Fit the fusion and transform the same frame.

        Parameters
        ----------
        X : DataFrame of shape (n_samples, n_columns)
            Samples, one in each row. A row may lack any of the modalities.
        y : array-like of shape (n_samples,), default=None
            Target, passed to the transformers.
        **fit_params : dict
            Metadata that is routed to the transformers.

        Returns
        -------
        features : ndarray of shape (n_samples, n_features_out)
            Features of all modalities, as in :meth:`transform`.
        """
        return self._side_by_side(self._fit(X, y, fit_params))

    def _fit(self, X: Frame, y: ArrayLike | None, fit_params: dict[str, Any]) -> list[BlockValues]:
        self._validate_params()
        self._refuse_unrouted(fit_params)
        X = self._check_frame(X, reset=True)
        target = None if y is None else np.asarray(y)
        check_consistent_length(X, target)
        routed = process_routing(self, "fit", **fit_params) if fit_params else {}
        blocks = [Block(modality) for modality in self._resolve(X)]
        values = []
        with TaskReporter(self, X, target, len(blocks), "modality") as reporter:
            for block in blocks:
                message = f"fitting modality {block.name!r}"
                with reporter.task(), timed(self, message, self.verbose):
                    params = routed[block.name].fit_transform if block.name in routed else {}
                    values.append(block.fit_transform(X, target, params))
        self._blocks = self._keep_usable(blocks, [value.flaw for value in values])
        self.modalities_ = [block.triple for block in self._blocks]
        values = [value for value in values if not value.flaw]
        self._refuse_empty(np.column_stack([value.present for value in values]))
        return values

    def transform(self, X: Frame) -> Any:
        """Return the concatenated features of all modalities.

        Parameters
        ----------
        X : DataFrame of shape (n_samples, n_columns)
            Samples, one in each row. A row may lack any of the modalities.

        Returns
        -------
        features : ndarray of shape (n_samples, n_features_out)
            Features of all modalities, without NaN: float32, or float64 if the features of a
            modality are float64.
        """
        check_is_fitted(self)
        X = self._check_frame(X, reset=False)
        values = [block.transform(X) for block in self._blocks]
        self._refuse_empty(np.column_stack([value.present for value in values]))
        return self._side_by_side(values)

    def get_feature_names_out(self, input_features: ArrayLike | None = None) -> np.ndarray:
        """Return the names of the output features.

        Parameters
        ----------
        input_features : array-like of str, default=None
            Names of the input columns. They are only compared with those seen in ``fit``.

        Returns
        -------
        names : ndarray of str, of shape (n_features_out,)
            Names of the columns of :meth:`transform`. For each modality in turn these are
            ``<modality>__<feature>`` and, with ``add_indicator=True``, ``<modality>__missing``.

        Raises
        ------
        ValueError
            If ``input_features`` are not the columns seen in ``fit``.
        """
        check_is_fitted(self)
        check_feature_names_in(self, input_features)
        names: list[str] = []
        for block in self._blocks:
            names += block.names_out()
            if self.add_indicator:
                names.append(f"{block.name}__missing")
        return np.asarray(names, dtype=object)

    def get_metadata_routing(self) -> MetadataRouter:
        """Return where metadata given to ``fit`` goes: to the modalities' transformers.

        Returns
        -------
        routing : MetadataRouter
            Keyed by modality.
        """
        router = MetadataRouter(owner=type(self).__name__)
        mapping = MethodMapping()
        for caller in ("fit", "fit_transform"):
            mapping.add(caller=caller, callee="fit_transform")
        for name, transformer in self._named_transformers:
            if not isinstance(transformer, str):
                router.add(**{name: transformer}, method_mapping=mapping)
        return router

    def _side_by_side(self, values: list[BlockValues]) -> np.ndarray:
        parts = []
        for value, block in zip(values, self._blocks, strict=True):
            features = np.where(np.isnan(value.values), block.mean, value.values)
            if self.scaling:
                features = (features - block.mean) / block.deviation
            if self.scaling == "block":
                features = features / np.sqrt(block.n_features)
            parts.append(features)
            if self.add_indicator:
                parts.append(~value.present[:, None])
        # float32 as the encoders give it, unless a modality brings more than that.
        dtype = np.result_type(*(value.values.dtype for value in values))
        return np.concatenate(parts, axis=1, dtype=dtype, casting="unsafe")

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = []
        return tags
