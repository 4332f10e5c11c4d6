"""Generalised canonical correlation analysis of features that some rows lack: the algebra."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple, Self

import numpy as np
import torch
from scipy import linalg
from sklearn.kernel_approximation import Nystroem

from skmm._environment._device import on_device, one_thread, resolve_device, seeded
from skmm._training._net import TensorDataset, make_net
from skmm.nets import CorrelationLoss, CorrelationNet

__all__ = [
    "KernelMap",
    "NetworkMap",
    "View",
    "as_given",
    "canonical_directions",
    "linked",
    "shared_by_pairs",
    "shrinkage",
    "variate_correlations",
]

# Rows at once: covariances grow block by block, so that no second copy of all features is made.
_BLOCK = 4096
# Of the largest variance: below it a direction is rounding of float32 features.
_SMALLEST_VARIANCE = 1e-10
_ROWS_FOR_SHRINKAGE = 5000


class View(NamedTuple):
    """Features of one modality, as the algebra takes them.

    Parameters
    ----------
    features : callable
        From an array of rows to their features, float64 (n_rows, n_features).
    present : ndarray of shape (n_samples,)
        Which rows have the modality; of the others no features are asked for.
    """

    features: Callable[[np.ndarray], np.ndarray]
    present: np.ndarray


class Solution(NamedTuple):
    """What :func:`canonical_directions` finds.

    Parameters
    ----------
    means : dict of str to ndarray of shape (n_features,)
        Of the features of each modality, over the rows used.
    weights : dict of str to ndarray of shape (n_features, n_components)
        From centred features to variates, of about unit variance.
    ranks : dict of str to int
        Directions in which the features of a modality vary.
    """

    means: dict[str, np.ndarray]
    weights: dict[str, np.ndarray]
    ranks: dict[str, int]


class _Moments:
    """Means and covariances of all modalities over the rows that have two of them or more.

    ``within`` are plain sums of squares. ``shared`` weights a row by one over the number of
    modalities that it has; see :func:`canonical_directions`.
    """

    def __init__(self, views: Mapping[str, View]):
        self.names = list(views)
        present = np.column_stack([view.present for view in views.values()])
        n_present = present.sum(axis=1)
        self.rows = np.flatnonzero(n_present >= 2)
        self.counts = dict(zip(self.names, present[self.rows].sum(axis=0), strict=True))
        self.means = self._sum_means(views, present)
        self.within: dict[str, np.ndarray] = {}
        self.shared: dict[tuple[str, str], np.ndarray] = {}
        for rows in _blocks(self.rows):
            self._add(views, rows, present[rows], 1.0 / n_present[rows])

    def _sum_means(self, views: Mapping[str, View], present: np.ndarray) -> dict[str, np.ndarray]:
        sums: dict[str, np.ndarray] = {}
        for rows in _blocks(self.rows):
            for j, (name, view) in enumerate(views.items()):
                has = rows[present[rows, j]]
                if len(has):
                    sums[name] = sums.get(name, 0.0) + view.features(has).sum(axis=0)
        return {name: total / self.counts[name] for name, total in sums.items()}

    def _add(
        self, views: Mapping[str, View], rows: np.ndarray, present: np.ndarray, weight: np.ndarray
    ) -> None:
        centred = {}
        for j, (name, view) in enumerate(views.items()):
            if name in self.means:
                values = np.zeros((len(rows), len(self.means[name])))
                values[present[:, j]] = view.features(rows[present[:, j]]) - self.means[name]
                centred[name] = values
                self.within[name] = self.within.get(name, 0.0) + values.T @ values
        for i, one in enumerate(centred):
            for other in list(centred)[i:]:
                product = (centred[one] * weight[:, None]).T @ centred[other]
                self.shared[one, other] = self.shared.get((one, other), 0.0) + product


def canonical_directions(
    views: Mapping[str, View],
    n_components: int | None,
    ridges: Mapping[str, Callable[[np.ndarray], np.ndarray]],
    *,
    largest: int,
) -> Solution:
    r"""Find the directions of each modality whose variates go along with those of the others.

    The MAXVAR problem: variates :math:`G` of unit variance that the features of all modalities
    predict best, each by its own regression. With :math:`K_i` the indicator of the rows that have
    modality :math:`i` it asks for the leading singular vectors of

    .. math:: (\sum_i K_i)^{-1/2} [Q_1, Q_2, ...], \qquad Q_i = K_i X_i (X_i' K_i X_i)^{-1/2}

    so only the products of features among each other are needed. Without absent cells and for two
    modalities these are Hotelling's canonical variates.

    Parameters
    ----------
    views : dict of str to View
        Modalities.
    n_components : int or None
        How many; None is as many as two modalities can share, at most ``largest``.
    ridges : dict of str to callable
        From the covariance of a modality to the one that its variates are normalised by.
    largest : int
        What None is at most.

    Returns
    -------
    solution : Solution
        Means, weights and ranks.
    """
    moments = _Moments(views)
    whitening, ranks = {}, {}
    for name in moments.names:
        count = moments.counts[name]
        covariance = moments.within[name] / count
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
        # Were all modalities alike, each would hold an equal part of a vector's unit length.
        scale = np.sqrt(moments.counts[name] * len(moments.names))
        weights[name] = whitening[name] @ part * scale
    signs = _signs(np.concatenate(list(weights.values())))
    weights = {name: weight * signs for name, weight in weights.items()}
    return Solution(moments.means, weights, ranks)


def linked(present: Mapping[str, np.ndarray]) -> set[str]:
    """Names of the modalities that chains of rows with both link to the first one."""
    names = list(present)
    found, reached = {names[0]}, [names[0]]
    while reached:
        own = present[reached.pop()]
        new = [n for n in names if n not in found and (own & present[n]).any()]
        found |= set(new)
        reached += new
    return found


def shared_by_pairs(ranks: Mapping[str, int]) -> int:
    """How many directions two of the modalities can share at most."""
    return sorted(ranks.values())[-2]


def variate_correlations(
    variates: Callable[[str, np.ndarray], np.ndarray], present: Mapping[str, np.ndarray], n: int
) -> np.ndarray:
    """Correlation of each component between two modalities, its mean over the pairs.

    Parameters
    ----------
    variates : callable
        From a modality and an array of rows to centred variates (n_rows, n).
    present : dict of str to ndarray of shape (n_samples,)
        Which rows have each modality.
    n : int
        Number of components.

    Returns
    -------
    correlations : ndarray of shape (n,)
        Over the rows that have both; pairs that no row has do not count.
    """
    found = []
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
    return np.mean(found, axis=0)


def shrinkage(view: View) -> float:
    """Ledoit and Wolf's share of the identity in a covariance, from a part of many rows."""
    # Imported here: the covariance module brings the graphical lasso and all it needs.
    from sklearn.covariance import ledoit_wolf_shrinkage

    rows = np.flatnonzero(view.present)
    n = len(rows)
    if n > _ROWS_FOR_SHRINKAGE:
        rows = rows[np.linspace(0, n - 1, _ROWS_FOR_SHRINKAGE).astype(int)]
    # It goes down as one over the number of rows.
    return float(ledoit_wolf_shrinkage(view.features(rows))) * len(rows) / n


def _blocks(rows: np.ndarray) -> Iterator[np.ndarray]:
    for start in range(0, len(rows), _BLOCK):
        yield rows[start : start + _BLOCK]


def _rank(covariance: np.ndarray) -> int:
    variances = linalg.eigvalsh(covariance)
    return int((variances > _SMALLEST_VARIANCE * max(variances[-1], 0.0)).sum())


def _inverse_root(covariance: np.ndarray) -> np.ndarray:
    """Return A with ``A.T @ covariance @ A`` the identity, (n_features, rank)."""
    variances, directions = linalg.eigh(covariance)
    kept = variances > _SMALLEST_VARIANCE * max(variances[-1], 0.0)
    return directions[:, kept] / np.sqrt(variances[kept])


def _signs(weights: np.ndarray) -> np.ndarray:
    """Sign of the largest weight of each component: what makes it positive, and repeats."""
    largest = weights[np.abs(weights).argmax(axis=0), np.arange(weights.shape[1])]
    return np.where(largest < 0, -1.0, 1.0)


# --- Features that a canonical correlation analysis takes in place of a modality's own ---


def as_given(values: np.ndarray) -> np.ndarray:
    """Features as they are, float64."""
    return values.astype(np.float64)


class KernelMap:
    """Features whose inner products are a kernel, on the span of some rows.

    Parameters
    ----------
    kernel : str
        Name of scikit-learn's.
    n_landmarks : int
        Rows that span them, at most.
    seed : int
        Draws these rows.
    **params : float or None
        Parameters of the kernel.
    """

    def __init__(self, kernel: str, n_landmarks: int, seed: int, **params: Any):
        self.n_landmarks = n_landmarks
        # Arrays, whatever scikit-learn is configured to give.
        self._nystroem = Nystroem(kernel, random_state=seed, **params).set_output(
            transform="default"
        )

    def fit(self, values: np.ndarray) -> Self:
        """Choose the landmarks among these rows."""
        self._nystroem.set_params(n_components=min(self.n_landmarks, len(values)))
        # Only landmarks are looked at, so the rest is not brought to float64.
        self._nystroem.fit(values)
        return self

    def __call__(self, values: np.ndarray) -> np.ndarray:
        return self._nystroem.transform(values.astype(np.float64)).astype(np.float64)


class NetworkMap:
    """Outputs of a modality's network.

    Parameters
    ----------
    network : nn.Module
        Trained.
    device : str
        Where it computes.
    """

    def __init__(self, network: torch.nn.Module, device: str):
        self.network = network
        self.device = device

    @classmethod
    def train(
        cls,
        blocks: Mapping[str, np.ndarray],
        present: Mapping[str, np.ndarray],
        n_outputs: int,
        *,
        hidden_sizes: tuple[int, ...],
        dropout: float,
        max_epochs: int,
        batch_size: int,
        learning_rate: float,
        weight_decay: float,
        device: str,
        seed: int,
    ) -> dict[str, Any]:
        """Train the networks of all modalities together; returns a map for each.

        Parameters
        ----------
        blocks, present : dict of str to ndarray
            As ``_fit_blocks`` gets them.
        n_outputs : int
            Outputs of each network.
        hidden_sizes, dropout, max_epochs, batch_size, learning_rate, weight_decay : object
            As in :class:`CCAAlignment`.
        device : str
            As in :class:`CCAAlignment`.
        seed : int
            Draws weights and the order of rows.
        """
        place = resolve_device(device)
        mask = np.column_stack(list(present.values()))
        rows = np.flatnonzero(mask.sum(axis=1) >= 2)
        tensors = {"present": torch.from_numpy(mask[rows]).to(place)}
        for i, values in enumerate(blocks.values()):
            tensors[f"values_{i}"] = torch.from_numpy(values[rows]).to(place)
        # Of equal size: the correlation of a small last batch would be noise.
        n_batches = -(-len(rows) // batch_size)
        with seeded(seed), one_thread():
            module = CorrelationNet(
                [values.shape[1] for values in blocks.values()],
                n_outputs,
                hidden_sizes=hidden_sizes,
                dropout=dropout,
            )
            net = make_net(
                module,
                CorrelationLoss(n_outputs),
                valid=None,
                max_epochs=max_epochs,
                batch_size=-(-len(rows) // n_batches),
                learning_rate=learning_rate,
                weight_decay=weight_decay,
                n_iter_no_change=1,
                callbacks=[],
                device=place,
                verbose=0,
            )
            net.train(TensorDataset(tensors, torch.zeros(len(rows), device=place)))
        module.eval().cpu()
        return {
            name: cls(network, device)
            for name, network in zip(blocks, module.networks, strict=True)
        }

    def __call__(self, values: np.ndarray) -> np.ndarray:
        on_device(self.network, resolve_device(self.device))
        place = next(self.network.parameters()).device  # of several GPUs, the same one
        with one_thread(), torch.inference_mode():
            outputs = self.network(torch.from_numpy(values).to(place))
        return outputs.cpu().numpy().astype(np.float64)

    def __getstate__(self) -> dict[str, Any]:
        self.network.cpu()  # the pickle opens on a machine without the GPU
        return dict(self.__dict__)
