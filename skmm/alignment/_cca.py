"""Alignment by canonical correlation analysis."""

import math
import warnings
from collections.abc import Mapping, Sequence
from functools import partial
from numbers import Real
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from sklearn.metrics.pairwise import KERNEL_PARAMS, PAIRWISE_KERNEL_FUNCTIONS

from skmm._compose._base import Modalities
from skmm._constraints import (
    FRACTION,
    NON_NEGATIVE,
    POSITIVE_INT,
    POSITIVE_REAL,
    Interval,
    RandomState,
    StrOptions,
    refuse_unused,
)
from skmm._environment._device import resolve_device, seeded
from skmm._training._batches import dataset_of
from skmm._training._trainer import TrainedNetworkMixin, Trainer, TrainingDefaults
from skmm.alignment._blocks import BaseBlockAlignment, batch_of_blocks
from skmm.alignment._cca_solver import (
    DeepCCAModule,
    FeatureMap,
    FeatureSource,
    KernelMap,
    NetworkMap,
    as_given,
    canonical_directions,
    linked,
    shared_by_pairs,
    shrinkage,
    variate_correlations,
)
from skmm.exceptions import ModalityWarning
from skmm.nets._autoencoder import GivenLoss

__all__ = ["CCAAlignment"]

_LARGEST = 64  # components for n_components=None
_BLOCK = 4096  # rows that are projected together
# Fraction of the total variance of a kernel's features, as in Bach and Jordan (2002).
_KERNEL_RIDGE = 0.01
# Parameters of method="kernel" and of method="deep" only.
_KERNEL_OPTIONS = ("kernel", "gamma", "degree", "coef0", "n_landmarks")
_DEEP_OPTIONS = (
    "hidden_sizes",
    "dropout",
    "max_epochs",
    "trainer",
)


class CCAAlignment(TrainedNetworkMixin, BaseBlockAlignment):
    """Find directions of each modality along which the modalities are correlated.

    For two modalities this is canonical correlation analysis [1]_, for more its MAXVAR
    generalization [2]_, [3]_: variates that all modalities predict best. Except for
    ``method="deep"`` the solution is unique and nothing is trained; it is the baseline that a
    trained alignment should beat.

    Parameters
    ----------
    modalities : list of (name, transformer, columns) or "auto", default="auto"
        Two or more triples as in :class:`~skmm.fusion.EarlyFusion`.
    n_components : int or None, default=None
        Number of dimensions of the common space. None is the number of directions that two
        modalities can share, which is the second highest rank, at most 64.
    method : {"regularized", "cca", "kernel", "deep"}, default="regularized"
        Variant of the analysis:

        - ``"cca"``: without regularization; with fewer rows than features it finds correlations
          in noise;
        - ``"regularized"``: with a ridge on the covariance of each modality [4]_;
        - ``"kernel"``: of kernel features [5]_, exact up to ``n_landmarks`` rows and by the
          Nystroem approximation for more;
        - ``"deep"``: a network for each modality is trained to correlate their outputs [6]_,
          [7]_, which are then analyzed as by ``"regularized"``.
    regularization : float or "auto", default="auto"
        Weight of the ridge, in [0, 1]: a covariance ``C`` becomes ``(1 - r) C + r v I``, where
        ``v`` is the mean of its diagonal, or the sum for ``method="kernel"``. ``"auto"`` is the
        shrinkage of Ledoit and Wolf, and 0.01 for kernels. Not used by ``method="cca"``.
    correlation_power : float, default=1.0
        Variates are multiplied by this power of their correlation, so that directions of low
        correlation count less in the similarity of vectors [8]_. 0 leaves all at unit variance.
    kernel : str, default="rbf"
        Name in scikit-learn's ``PAIRWISE_KERNEL_FUNCTIONS``, for ``method="kernel"``. The kernel
        is computed on standardized features.
    gamma, degree, coef0 : float or None, default=None
        Parameters of the kernel. None is scikit-learn's default, for ``gamma`` one over the
        number of features. A parameter that ``kernel`` does not have is refused.
    n_landmarks : int, default=500
        Maximum number of rows that span the features of a kernel, for ``method="kernel"``. Time
        grows with its cube.
    hidden_sizes : tuple of int, default=(128,)
        Sizes of the hidden layers of each network, for ``method="deep"``.
    dropout : float, default=0.0
        Fraction of the hidden units that is zeroed in training, for ``method="deep"``. Dropout
        would add noise to the correlations of a batch, so the default is 0.
    max_epochs : int, default=None
        Maximum number of passes over the rows that have two modalities, for ``method="deep"``.
        None is the trainer's, 100.
    trainer : Trainer, default=None
        Options of the training, for ``method="deep"``: learning rates, batches, early stopping,
        callbacks. None is ``Trainer()``. ``set_params`` and searches reach its parameters by names
        such as ``trainer__learning_rate``, even if ``trainer`` is None. The loss is a correlation
        within a batch. Batches are therefore of equal size, at most ``batch_size`` rows, and
        ``accumulate`` above 1 raises ``ValueError``.
    all_missing : {"zeros", "raise"}, default="zeros"
        What a row without any modality gets: ``"zeros"`` gives a vector of zeros, ``"raise"``
        raises ``ModalityMissingError``.
    missing_columns : {"raise", "absent"}, default="raise"
        What happens if a column of the training frame is not in ``X``: ``"raise"`` raises
        ``ValueError``, ``"absent"`` treats the column as missing in every row.
    device : str, default="auto"
        Device of the networks of ``method="deep"``: ``"auto"``, ``"cpu"``, ``"cuda"``,
        ``"cuda:1"``.
    random_state : int, RandomState instance or None, default=None
        Seed of the landmarks of a kernel, and of the weights, the order of the rows, dropout and
        the held-out rows of ``method="deep"``.
    verbose : bool or int, default=0
        Whether to print a line per epoch, for ``method="deep"``.

    Attributes
    ----------
    modalities_ : list of (name, transformer, columns)
        The modalities used, with their fitted transformers.
    n_components_ : int
        Number of dimensions of the common space.
    correlations_ : ndarray of shape (n_components,)
        Correlation of each component between two modalities, over the training rows that have
        both; the mean over all pairs of modalities.
    module_ : nn.Module
        Trained networks. Only for ``method="deep"``.
    net_ : skorch.NeuralNet
        The skorch net that trained ``module_``. It is not part of a pickle.
        Only for ``method="deep"``.
    history_ : list of dict
        One dict per epoch, with ``epoch`` from 1, ``train_loss`` and, if rows are held out,
        ``valid_loss``. Only for ``method="deep"``.
    n_iter_ : int
        Number of epochs. Only for ``method="deep"``.
    n_features_in_ : int
        Number of columns seen in ``fit``.
    feature_names_in_ : ndarray of str
        Names of the columns seen in ``fit``. Defined only if ``X`` has column names.

    See Also
    --------
    ContrastiveAlignment : Trained to distinguish partners from other rows.

    Notes
    -----
    All rows with two modalities or more are used; missing modalities are left out of the sums,
    as in [9]_. Covariances are summed block by block, without a second copy of the features.

    References
    ----------
    .. [1] Hotelling (1936), "Relations between two sets of variates", Biometrika 28.
    .. [2] Carroll (1968), "Generalization of canonical correlation analysis to three or more sets
       of variables", APA convention.
    .. [3] Kettenring (1971), "Canonical analysis of several sets of variables", Biometrika 58.
    .. [4] Vinod (1976), "Canonical ridge and econometrics of joint production", J. Econometrics 4.
    .. [5] Hardoon, Szedmak, Shawe-Taylor (2004), "Canonical correlation analysis: an overview with
       application to learning methods", Neural Computation 16.
    .. [6] Andrew, Arora, Bilmes, Livescu (2013), "Deep canonical correlation analysis", ICML.
    .. [7] Benton et al. (2019), "Deep generalized canonical correlation analysis", RepL4NLP.
    .. [8] Gong, Ke, Isard, Lazebnik (2014), "A multi-view embedding space for modeling internet
       images, tags, and their semantics", IJCV 106.
    .. [9] van de Velden, Takane (2012), "Generalized canonical correlation analysis with missing
       values", Computational Statistics 27.

    Examples
    --------
    >>> import numpy as np
    >>> import pandas as pd
    >>> from skmm import CCAAlignment
    >>> rng = np.random.default_rng(0)
    >>> shared = rng.normal(size=(300, 2))
    >>> X = pd.DataFrame({
    ...     "audio": list(shared @ rng.normal(size=(2, 6)) + 0.1 * rng.normal(size=(300, 6))),
    ...     "scene": list(shared @ rng.normal(size=(2, 9)) + 0.1 * rng.normal(size=(300, 9))),
    ... })
    >>> alignment = CCAAlignment([
    ...     ("audio", "passthrough", ["audio"]), ("scene", "passthrough", ["scene"]),
    ... ], n_components=2).fit(X)
    >>> alignment.correlations_.round(1)
    array([1., 1.])
    >>> alignment.transform_modality(X[["audio"]], "audio").shape
    (300, 2)
    """

    module_: DeepCCAModule

    _parameter_constraints: ClassVar[dict[str, Any]] = {
        **BaseBlockAlignment._parameter_constraints,
        **TrainedNetworkMixin._training_constraints,
        "n_components": [*POSITIVE_INT, None],
        "method": [StrOptions({"cca", "regularized", "kernel", "deep"})],
        "regularization": [Interval(Real, 0, 1, closed="both"), StrOptions({"auto"})],
        "correlation_power": NON_NEGATIVE,
        "kernel": [StrOptions(set(PAIRWISE_KERNEL_FUNCTIONS))],
        "gamma": [*POSITIVE_REAL, None],
        "degree": [*POSITIVE_REAL, None],
        "coef0": [Interval(Real, None, None, closed="neither"), None],
        "n_landmarks": POSITIVE_INT,
        "hidden_sizes": [list, tuple],
        "dropout": FRACTION,
    }

    def __init__(
        self,
        modalities: Modalities = "auto",
        *,
        n_components: int | None = None,
        method: Literal["regularized", "cca", "kernel", "deep"] = "regularized",
        regularization: float | Literal["auto"] = "auto",
        correlation_power: float = 1.0,
        kernel: str = "rbf",
        gamma: float | None = None,
        degree: float | None = None,
        coef0: float | None = None,
        n_landmarks: int = 500,
        hidden_sizes: Sequence[int] = (128,),
        dropout: float = 0.0,
        max_epochs: int | None = None,
        trainer: Trainer | None = None,
        all_missing: Literal["zeros", "raise"] = "zeros",
        missing_columns: Literal["raise", "absent"] = "raise",
        device: str = "auto",
        random_state: RandomState = None,
        verbose: bool | int = 0,
    ):
        self.modalities = modalities
        self.n_components = n_components
        self.method = method
        self.regularization = regularization
        self.correlation_power = correlation_power
        self.kernel = kernel
        self.gamma = gamma
        self.degree = degree
        self.coef0 = coef0
        self.n_landmarks = n_landmarks
        self.hidden_sizes = hidden_sizes
        self.dropout = dropout
        self.max_epochs = max_epochs
        self.trainer = trainer
        self.all_missing = all_missing
        self.missing_columns = missing_columns
        self.device = device
        self.random_state = random_state
        self.verbose = verbose

    def _check_settings(self) -> None:
        reason = f"with method={self.method!r}"
        if self.method == "cca":
            refuse_unused(self, ["regularization"], reason)
        if self.method == "kernel":
            unused = {"gamma", "degree", "coef0"}.difference(KERNEL_PARAMS[self.kernel])
            refuse_unused(self, sorted(unused), f"with kernel={self.kernel!r}")
        else:
            refuse_unused(self, _KERNEL_OPTIONS, reason)
        if self.method == "deep":
            reason += ", whose loss is a correlation within a batch"
            self._checked_trainer().refuse_accumulate(reason)
        else:
            refuse_unused(self, _DEEP_OPTIONS, reason)

    def _training_defaults(self) -> TrainingDefaults:
        return TrainingDefaults(batch_size=1024, early_stopping=False)

    def _fit_blocks(
        self, blocks: dict[str, np.ndarray], present: dict[str, np.ndarray], y: np.ndarray | None
    ) -> None:
        self._refuse_apart(present)
        for name in ("module_", "net_", "history_", "n_iter_"):
            self.__dict__.pop(name, None)  # of an earlier fit, perhaps of another method
        self._maps = self._fit_maps(blocks, present)
        sources = {
            name: FeatureSource(partial(_mapped, self._maps[name], blocks[name]), present[name])
            for name in blocks
        }
        solution = canonical_directions(
            sources,
            self.n_components,
            {name: partial(self._ridged, self._share(own)) for name, own in sources.items()},
            largest=_LARGEST,
        )
        self._refuse_too_many(solution.ranks, present)
        self._means, self._weights = solution.means, solution.weights
        self.n_components_ = next(iter(self._weights.values())).shape[1]
        self.correlations_ = variate_correlations(
            lambda name, rows: self._variates(name, blocks[name][rows]), present, self.n_components_
        )

    # --- features of a modality, of a kernel or of a network ------------------------------------

    def _fit_maps(
        self, blocks: dict[str, np.ndarray], present: dict[str, np.ndarray]
    ) -> Mapping[str, FeatureMap]:
        """Return the map from each modality's features to those that are analyzed."""
        if self.method == "kernel":
            return self._fit_kernels(blocks, present)
        if self.method == "deep":
            return self._fit_networks(blocks, present)
        return dict.fromkeys(blocks, as_given)

    def _fit_kernels(
        self, blocks: dict[str, np.ndarray], present: dict[str, np.ndarray]
    ) -> dict[str, KernelMap]:
        seed = self._draw_seed()
        options = {"gamma": self.gamma, "degree": self.degree, "coef0": self.coef0}
        paired = np.sum(list(present.values()), axis=0) >= 2
        return {
            name: KernelMap(self.kernel, self.n_landmarks, seed, **options).fit(
                values[present[name] & paired]
            )
            for name, values in blocks.items()
        }

    def _fit_networks(
        self, blocks: dict[str, np.ndarray], present: dict[str, np.ndarray]
    ) -> dict[str, NetworkMap]:
        trainer, seed = self._checked_trainer(), self._draw_seed()
        batch, device = batch_of_blocks(blocks, present), resolve_device(self.device)
        no_target = torch.zeros(len(batch))  # the module itself returns losses
        rows = np.flatnonzero(batch.present().sum(axis=1) >= 2)
        held_out = trainer.hold_out(rows, None, self._training_defaults(), seed)
        rows = np.setdiff1d(rows, held_out)
        # Batches of equal size: the correlation within a small last batch would be noise.
        n_batches = math.ceil(len(rows) / trainer.rows_per_step(self._training_defaults()))
        widths = {name: values.shape[1] for name, values in blocks.items()}
        with seeded(seed):
            self.module_ = DeepCCAModule(
                list(widths.values()),
                self.n_components or min(shared_by_pairs(widths), _LARGEST),
                hidden_sizes=tuple(self.hidden_sizes),
                dropout=self.dropout,
            )
            self.history_ = []
            self._train(
                trainer,
                dataset_of(batch, no_target, rows, device),
                GivenLoss(),
                valid=dataset_of(batch, no_target, held_out, device) if len(held_out) else None,
                batch_size=math.ceil(len(rows) / n_batches),
            )
        networks = self.module_.net.networks
        return {
            name: NetworkMap(network, self.device)
            for name, network in zip(blocks, networks, strict=True)
        }

    # --- the ridge ------------------------------------------------------------------------------

    def _share(self, source: FeatureSource) -> float:
        """Return the weight of the ridge in the covariance of a modality."""
        if self.method == "cca":
            return 0.0
        if self.regularization != "auto":
            return float(self.regularization)
        return _KERNEL_RIDGE if self.method == "kernel" else shrinkage(source)

    def _ridged(self, share: float, covariance: np.ndarray) -> np.ndarray:
        """Add the ridge to a covariance."""
        variance = covariance.trace()
        if self.method != "kernel":
            variance /= len(covariance)
        ridged: np.ndarray = (1 - share) * covariance + share * variance * np.eye(len(covariance))
        return ridged

    # --- checks ---------------------------------------------------------------------------------

    def _refuse_apart(self, present: dict[str, np.ndarray]) -> None:
        """Refuse modalities that no chain of rows with both links to the first one."""
        apart = sorted(set(present) - linked(present))
        if apart:
            raise ValueError(
                f"{type(self).__name__}: no training row links modality {apart[0]!r} to"
                f" {next(iter(present))!r}, directly or by other modalities. Give rows that have"
                " both, or drop the modality."
            )

    def _refuse_too_many(self, ranks: dict[str, int], present: dict[str, np.ndarray]) -> None:
        """Refuse more components than there are directions, and warn of overfitting."""
        limit = shared_by_pairs(ranks)
        n_paired = int((np.sum(list(present.values()), axis=0) >= 2).sum())
        listed = ", ".join(f"{name!r} {rank}" for name, rank in ranks.items())
        if limit == 0 or (self.n_components or 1) > limit:
            raise ValueError(
                f"{type(self).__name__}: n_components={self.n_components} is more than the"
                f" {limit} directions that two modalities can share; their ranks over the"
                f" n_samples={n_paired} rows with two modalities are {listed}. Lower n_components,"
                " or give more rows or features."
            )
        if self.method == "cca" and sum(sorted(ranks.values())[-2:]) >= n_paired:
            warnings.warn(
                f"{type(self).__name__} with method='cca' has {n_paired} rows for modalities of"
                f" rank {listed}, so it finds a correlation of 1 in any noise. Use"
                " method='regularized', or reduce the features.",
                ModalityWarning,
                stacklevel=5,
            )

    # --- after fit ------------------------------------------------------------------------------

    def _variates(self, name: str, values: np.ndarray) -> np.ndarray:
        variates: np.ndarray = (self._maps[name](values) - self._means[name]) @ self._weights[name]
        return variates

    def _project(self, name: str, values: np.ndarray) -> np.ndarray:
        weight = np.clip(self.correlations_, 0.0, 1.0) ** self.correlation_power
        parts = [
            self._variates(name, values[start : start + _BLOCK]) * weight
            for start in range(0, len(values), _BLOCK)
        ]
        return np.concatenate(parts)


def _mapped(feature_map: FeatureMap, values: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Return the mapped features of some rows, float64."""
    return feature_map(values[rows])
