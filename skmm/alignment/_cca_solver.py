"""Solver of generalized canonical correlation analysis with missing modalities."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Self, TypeAlias

import numpy as np
import torch
from scipy import linalg
from sklearn.kernel_approximation import Nystroem
from torch import Tensor, nn

from skmm._environment._device import on_device, one_thread, resolve_device
from skmm._training._batches import Batch
from skmm.alignment._blocks import unpacked
from skmm.nets._correlation import CorrelationLoss, CorrelationNet

__all__ = [
    "DeepCCAModule",
    "FeatureMap",
    "FeatureSource",
    "KernelMap",
    "NetworkMap",
    "Solution",
    "as_given",
    "canonical_directions",
    "linked",
    "shared_by_pairs",
    "shrinkage",
    "variate_correlations",
]

# Rows at once: covariances are summed block by block, without a second copy of all features.
_BLOCK = 4096
# Fraction of the largest variance below which a direction is rounding of float32 features.
_SMALLEST_VARIANCE = 1e-10
# Fraction of the mean by which a network's outputs for equal rows differ between batch sizes.
_ROUNDING = 1e-6
_ROWS_FOR_SHRINKAGE = 5000


class FeatureSource(NamedTuple):
    """Features of one modality that are computed block by block.

    Parameters
    ----------
    features : callable
        From an array of row positions to their features, float64 (n_rows, n_features).
    present : ndarray of shape (n_samples,)
        Which rows have the modality. ``features`` is called for these only.
    """

    features: Callable[[np.ndarray], np.ndarray]
    present: np.ndarray


class Solution(NamedTuple):
    """Result of :func:`canonical_directions`.

    Parameters
    ----------
    means : dict of str to ndarray of shape (n_features,)
        Mean of the features of each modality, over the rows used.
    weights : dict of str to ndarray of shape (n_features, n_components)
        Weights from centered features to variates of about unit variance.
    ranks : dict of str to int
        Rank of the features of each modality.
    """

    means: dict[str, np.ndarray]
    weights: dict[str, np.ndarray]
    ranks: dict[str, int]


class _Moments:
    """Means and covariances of all modalities over the rows that have two or more of them.

    ``within`` holds unweighted sums of products. ``shared`` weights a row by one over the number
    of its modalities; see :func:`canonical_directions`.
    """

    def __init__(self, sources: Mapping[str, FeatureSource]):
        self.names = list(sources)
        present = np.column_stack([source.present for source in sources.values()])
        n_present = present.sum(axis=1)
        self.rows = np.flatnonzero(n_present >= 2)
        self.counts = dict(zip(self.names, present[self.rows].sum(axis=0), strict=True))
        self.means = self._sum_means(sources, present)
        self.within: dict[str, np.ndarray] = {}
        self.shared: dict[tuple[str, str], np.ndarray] = {}
        for rows in _blocks(self.rows):
            self._add(sources, rows, present[rows], 1.0 / n_present[rows])

    def _sum_means(
        self, sources: Mapping[str, FeatureSource], present: np.ndarray
    ) -> dict[str, np.ndarray]:
        sums: dict[str, np.ndarray] = {}
        for rows in _blocks(self.rows):
            for j, (name, source) in enumerate(sources.items()):
                has = rows[present[rows, j]]
                if len(has):
                    sums[name] = sums.get(name, 0.0) + source.features(has).sum(axis=0)
        return {name: total / self.counts[name] for name, total in sums.items()}

    def _add(
        self,
        sources: Mapping[str, FeatureSource],
        rows: np.ndarray,
        present: np.ndarray,
        weight: np.ndarray,
    ) -> None:
        centered = {}
        for j, (name, source) in enumerate(sources.items()):
            if name in self.means:
                values = np.zeros((len(rows), len(self.means[name])))
                values[present[:, j]] = source.features(rows[present[:, j]]) - self.means[name]
                centered[name] = values
                self.within[name] = self.within.get(name, 0.0) + values.T @ values
        for i, one in enumerate(centered):
            for other in list(centered)[i:]:
                product = (centered[one] * weight[:, None]).T @ centered[other]
                self.shared[one, other] = self.shared.get((one, other), 0.0) + product


def canonical_directions(
    sources: Mapping[str, FeatureSource],
    n_components: int | None,
    ridges: Mapping[str, Callable[[np.ndarray], np.ndarray]],
    *,
    largest: int,
) -> Solution:
    r"""Find the directions of each modality whose variates correlate with those of the others.

    This solves the MAXVAR problem: variates :math:`G` of unit variance that the features of all
    modalities predict best, each by its own regression. With :math:`K_i` the indicator of the
    rows that have modality :math:`i`, the solution is given by the leading singular vectors of

    .. math:: (\sum_i K_i)^{-1/2} [Q_1, Q_2, ...], \qquad Q_i = K_i X_i (X_i' K_i X_i)^{-1/2}

    which need the products of features with each other only. For two modalities without missing
    cells these are Hotelling's canonical variates.

    Parameters
    ----------
    sources : dict of str to FeatureSource
        Features of each modality.
    n_components : int or None
        Number of directions; None is as many as two modalities can share, at most ``largest``.
    ridges : dict of str to callable
        From the covariance of a modality to the regularized one, which normalizes its variates.
    largest : int
        Maximum number of directions for ``n_components=None``.

    Returns
    -------
    solution : Solution
        Means, weights and ranks.
    """
    moments = _Moments(sources)
    whitening, ranks = {}, {}
    for name in moments.names:
        count = moments.counts[name]
        covariance = _without_rounding(moments.within[name] / count, moments.means[name])
        ranks[name] = _rank(covariance)
        whitening[name] = _inverse_root(ridges[name](covariance)) / np.sqrt(count)
    limit = shared_by_pairs(ranks)
    n = min(limit, largest) if n_components is None else min(n_components, limit)
    if n == 0:
        return Solution(moments.means, {}, ranks)
    parts = {
        (one, other): whitening[one].T @ product @ whitening[other]
        for (one, other), product in moments.shared.items()
    }
    matrix = np.block(
        [
            [parts[a, b] if (a, b) in parts else parts[b, a].T for b in moments.names]
            for a in moments.names
        ]
    )
    size = len(matrix)
    _, vectors = linalg.eigh(matrix, subset_by_index=(size - n, size - 1))
    vectors = vectors[:, ::-1]
    weights, start = {}, 0
    for name in moments.names:
        part = vectors[start : start + whitening[name].shape[1]]
        start += len(part)
        # If all modalities were alike, each would have an equal part of a vector's unit length.
        scale = np.sqrt(moments.counts[name] * len(moments.names))
        weights[name] = whitening[name] @ part * scale
    signs = _signs(np.concatenate(list(weights.values())))
    weights = {name: weight * signs for name, weight in weights.items()}
    return Solution(moments.means, weights, ranks)


def linked(present: Mapping[str, np.ndarray]) -> set[str]:
    """Return the names of the modalities that chains of rows with both link to the first one."""
    names = list(present)
    found, reached = {names[0]}, [names[0]]
    while reached:
        own = present[reached.pop()]
        new = [n for n in names if n not in found and (own & present[n]).any()]
        found |= set(new)
        reached += new
    return found


def shared_by_pairs(ranks: Mapping[str, int]) -> int:
    """Return the maximum number of directions that two of the modalities can share."""
    return sorted(ranks.values())[-2]


def variate_correlations(
    variates: Callable[[str, np.ndarray], np.ndarray], present: Mapping[str, np.ndarray], n: int
) -> np.ndarray:
    """Compute the correlation of each component between modalities, the mean over all pairs.

    Parameters
    ----------
    variates : callable
        From a modality and an array of row positions to centered variates (n_rows, n).
    present : dict of str to ndarray of shape (n_samples,)
        Which rows have each modality.
    n : int
        Number of components.

    Returns
    -------
    correlations : ndarray of shape (n,)
        Over the rows that have both modalities. Pairs that no row has are left out of the mean.
    """
    found: list[np.ndarray] = []
    names = list(present)
    for i, one in enumerate(names):
        for other in names[i + 1 :]:
            both = np.flatnonzero(present[one] & present[other])
            if len(both) < 2:
                continue
            sums = np.zeros((5, n))
            for rows in _blocks(both):
                a, b = variates(one, rows), variates(other, rows)
                sums += [s.sum(axis=0) for s in (a, b, a * a, b * b, a * b)]
            mean_a, mean_b, a2, b2, ab = sums / len(both)
            variance = np.maximum((a2 - mean_a**2) * (b2 - mean_b**2), np.finfo(float).tiny)
            found.append((ab - mean_a * mean_b) / np.sqrt(variance))
    mean: np.ndarray = np.mean(found, axis=0)
    return mean


def shrinkage(source: FeatureSource) -> float:
    """Estimate Ledoit and Wolf's shrinkage of a covariance, from at most 5000 rows."""
    # Imported here, since the covariance module imports the graphical lasso and much else.
    from sklearn.covariance import ledoit_wolf_shrinkage

    rows = np.flatnonzero(source.present)
    n = len(rows)
    if n > _ROWS_FOR_SHRINKAGE:
        rows = rows[np.linspace(0, n - 1, _ROWS_FOR_SHRINKAGE).astype(int)]
    # The shrinkage is proportional to one over the number of rows.
    return float(ledoit_wolf_shrinkage(source.features(rows))) * len(rows) / n


def _blocks(rows: np.ndarray) -> Iterator[np.ndarray]:
    for start in range(0, len(rows), _BLOCK):
        yield rows[start : start + _BLOCK]


def _without_rounding(covariance: np.ndarray, mean: np.ndarray) -> np.ndarray:
    """Set the covariances of features to 0 that are constant up to the rounding of float32."""
    constant = np.diag(covariance) <= (_ROUNDING * np.abs(mean)) ** 2
    covariance[constant] = covariance[:, constant] = 0.0
    return covariance


def _rank(covariance: np.ndarray) -> int:
    variances = linalg.eigvalsh(covariance)
    return int((variances > _SMALLEST_VARIANCE * max(variances[-1], 0.0)).sum())


def _inverse_root(covariance: np.ndarray) -> np.ndarray:
    """Return A with ``A.T @ covariance @ A`` the identity, (n_features, rank)."""
    variances, directions = linalg.eigh(covariance)
    kept = variances > _SMALLEST_VARIANCE * max(variances[-1], 0.0)
    root: np.ndarray = directions[:, kept] / np.sqrt(variances[kept])
    return root


def _signs(weights: np.ndarray) -> np.ndarray:
    """Return the sign of the largest weight of each component, which makes signs repeatable."""
    largest = weights[np.abs(weights).argmax(axis=0), np.arange(weights.shape[1])]
    return np.where(largest < 0, -1.0, 1.0)


# --- Feature maps: from features (n_rows, n_features) to others, float64, that can be pickled ---

FeatureMap: TypeAlias = Callable[[np.ndarray], np.ndarray]


def as_given(values: np.ndarray) -> np.ndarray:
    """Return the features themselves as float64."""
    return values.astype(np.float64)


class KernelMap:
    """Features whose inner products approximate a kernel (Nystroem).

    Parameters
    ----------
    kernel : str
        Name of a kernel of scikit-learn.
    n_landmarks : int
        Maximum number of rows that span the features.
    seed : int
        Seed of the choice of these rows.
    **params : float or None
        Parameters of the kernel.
    """

    def __init__(self, kernel: str, n_landmarks: int, seed: int, **params: float | None):
        self.n_landmarks = n_landmarks
        # Arrays, even if scikit-learn is configured to return DataFrames.
        self._nystroem = Nystroem(kernel, random_state=seed, **params).set_output(
            transform="default"
        )

    def fit(self, values: np.ndarray) -> Self:
        """Choose the landmarks among these rows."""
        self._nystroem.set_params(n_components=min(self.n_landmarks, len(values)))
        # Not converted to float64, since only the landmarks are read.
        self._nystroem.fit(values)
        return self

    def __call__(self, values: np.ndarray) -> np.ndarray:
        features: np.ndarray = self._nystroem.transform(values.astype(np.float64))
        return features.astype(np.float64)


class NetworkMap:
    """Outputs of a modality's network.

    Parameters
    ----------
    network : nn.Module
        Trained network.
    device : str
        Device of the network.
    """

    def __init__(self, network: nn.Module, device: str):
        self.network = network
        self.device = device

    def __call__(self, values: np.ndarray) -> np.ndarray:
        on_device(self.network, resolve_device(self.device))
        place = next(self.network.parameters()).device  # the same one of several GPUs
        with one_thread(), torch.inference_mode():
            outputs: Tensor = self.network(torch.from_numpy(values).to(place))
        return outputs.cpu().numpy().astype(np.float64)

    def __getstate__(self) -> dict[str, Any]:
        self.network.cpu()  # so that the pickle can be loaded without a GPU
        return dict(self.__dict__)


class DeepCCAModule(nn.Module):
    """Networks of all modalities, and the correlation loss of their outputs.

    Parameters
    ----------
    n_features : sequence of int
        Number of features of each modality.
    n_components : int
        Number of outputs of each network.
    hidden_sizes : sequence of int
        Sizes of the hidden layers of each network.
    dropout : float
        Fraction of the hidden units that is zeroed in training.
    """

    def __init__(
        self,
        n_features: Sequence[int],
        n_components: int,
        *,
        hidden_sizes: Sequence[int],
        dropout: float,
    ):
        super().__init__()
        self.net = CorrelationNet(
            n_features, n_components, hidden_sizes=hidden_sizes, dropout=dropout
        )
        self.loss = CorrelationLoss(n_components)

    def forward(self, batch: Batch) -> Tensor:
        """Return the loss of the batch, repeated for each of its rows, (n_rows,)."""
        present, values = unpacked(batch)
        outputs, present = self.net(present, **values)
        # The precision of bfloat16 is too low to invert covariances.
        with torch.autocast(outputs.device.type, enabled=False):
            loss: Tensor = self.loss((outputs.float(), present), None)
        return loss.expand(len(present))
