"""Adversarial training of a rotation between two spaces: initial maps, training, refinement.

The training has its own loop instead of a ``Trainer``: two optimizers take turns, several maps are
trained side by side, each step pulls the maps back toward rotations, and there are no epochs, since
the rows of the two spaces are sampled independently.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from skmm.exceptions import ConvergenceError
from skmm.nets._adversary import Discriminator, OrthogonalMap

__all__ = ["AdversarialTraining", "FoundRotation", "Losses", "Whitening", "procrustes"]

_BLOCK = 4096
_SMALLEST_VARIANCE = 1e-10  # fraction of the largest: below it is rounding of float32 features
_FEW = 2000  # rows among which nearest neighbors are searched
_N_NEIGHBORS = 10  # whose mean similarity CSLS uses
_SMOOTHING = 0.1  # of the discriminator's labels
_D_STEPS = 2  # steps of the discriminator per step of the map
_D_LEARNING_RATE = 2e-3
_STEPS_PER_REPORT = 10
_BETAS = (0.5, 0.999)
# The result is ambiguous if another map is as good as the best one up to the first factor and
# agrees with it less than the second number (1 for equal maps).
_AS_GOOD = 1.02
_SAME_MAP = 0.8


class Whitening:
    """Leading principal components of a modality, scaled to variance 1.

    Parameters
    ----------
    values : ndarray of shape (n_rows, n_features)
        Features of the rows that have the modality.
    """

    def __init__(self, values: np.ndarray):
        n = len(values)
        self.mean = values.mean(axis=0, dtype=np.float64)
        total = np.zeros((values.shape[1], values.shape[1]))
        for start in range(0, n, _BLOCK):
            centered = values[start : start + _BLOCK] - self.mean
            total += centered.T @ centered
        variances, directions = np.linalg.eigh(total / n)
        variances, directions = variances[::-1], directions[:, ::-1]
        self.rank = int((variances > _SMALLEST_VARIANCE * max(variances[0], 0.0)).sum())
        self._deviations, self._directions = np.sqrt(variances[: self.rank]), directions

    def keep(self, n_components: int) -> None:
        """Keep the first ``n_components``."""
        # The sign of a component is arbitrary, so the largest weight is made positive.
        directions = self._directions[:, :n_components]
        largest = directions[np.abs(directions).argmax(axis=0), np.arange(n_components)]
        self._directions = directions * np.where(largest < 0, -1.0, 1.0)
        self._deviations = self._deviations[:n_components]

    def transform(self, values: np.ndarray) -> np.ndarray:
        """Return the components of features (n_rows, n_features)."""
        components: np.ndarray = (values - self.mean) @ (self._directions / self._deviations)
        return components

    def inverse_transform(self, components: np.ndarray) -> np.ndarray:
        """Return the features of components, with the components left out at their mean."""
        features: np.ndarray = self.mean + components * self._deviations @ self._directions.T
        return features


class Losses(NamedTuple):
    """Mean losses of a part of the training, over its steps and the initial rotations.

    Parameters
    ----------
    step : int
        Last step of the part, counted from 1.
    rotation : float
        Loss of the rotations: how well the discriminator tells their rows from the target's,
        and the distance of partners.
    discriminator : float
        Loss of the discriminator.
    """

    step: int
    rotation: float
    discriminator: float


class FoundRotation(NamedTuple):
    """The best rotation of a training without pairs.

    Parameters
    ----------
    rotation : ndarray of shape (n_components, n_components)
        From source to target, applied from the right.
    distance : float
        Mean distance from a rotated row to the nearest row of the target, and vice versa.
    usual_distance : float
        The same distance between two halves of the target.
    is_ambiguous : bool
        Whether a different rotation fits equally well.
    """

    rotation: np.ndarray
    distance: float
    usual_distance: float
    is_ambiguous: bool


class AdversarialTraining:
    """Find the rotation after which rows of one space are distributed like those of another.

    Parameters
    ----------
    max_iter : int
        Number of training steps of the maps.
    learning_rate : float
        Step size of the maps in the first step.
    batch_size : int
        Rows of each space per step.
    n_starts : int
        Number of maps that are trained at the same time, each against its own discriminator.
    orthogonality : float
        How far maps are pulled toward rotations after each step.
    hidden_sizes : tuple of int
        Sizes of the hidden layers of the discriminators.
    n_refinements : int
        Number of Procrustes steps over mutual neighbors, after the training without pairs.
    device : torch.device
        Device of the training.
    owner : str
        Class of the estimator, for messages.
    report : callable
        Called with the :class:`Losses` of each ten steps.
    """

    def __init__(
        self,
        *,
        max_iter: int,
        learning_rate: float,
        batch_size: int,
        n_starts: int,
        orthogonality: float,
        hidden_sizes: tuple[int, ...],
        n_refinements: int,
        device: torch.device,
        owner: str,
        report: Callable[[Losses], None],
    ):
        self.max_iter = max_iter
        self.learning_rate = learning_rate
        self.batch_size = batch_size
        self.n_starts = n_starts
        self.orthogonality = orthogonality
        self.hidden_sizes = hidden_sizes
        self.n_refinements = n_refinements
        self.device = device
        self.owner = owner
        self.report = report

    def without_pairs(self, source: np.ndarray, target: np.ndarray) -> FoundRotation:
        """Find the rotation from rows without known partners, with torch's current generator."""
        n, few_source, few_target = source.shape[1], _some(source), _some(target)
        starts = self._starts(few_source, few_target)
        maps = self._train(starts, source, target)
        maps = [self._refined(rotation, few_source, few_target) for rotation in maps]
        distances = [_chamfer(few_source @ rotation, few_target) for rotation in maps]
        best = int(np.argmin(distances))
        agreements = [float(np.trace(other.T @ maps[best])) / n for other in maps]
        return FoundRotation(
            maps[best],
            distances[best],
            _chamfer(few_target[::2], few_target[1::2]),
            any(
                distance <= _AS_GOOD * distances[best] and agreement < _SAME_MAP
                for distance, agreement in zip(distances, agreements, strict=True)
            ),
        )

    def _starts(self, source: np.ndarray, target: np.ndarray) -> np.ndarray:
        """Return the initial maps, (n_starts, n_components, n_components)."""
        matched = torch.from_numpy(_start_by_distances(source, target))
        starts, n = [matched], len(matched)
        for i in range(1, self.n_starts):
            if i % 2:  # a reflection: a nearly symmetric direction may be matched backwards
                across = torch.nn.functional.normalize(torch.randn(n, dtype=torch.float64), dim=0)
                starts.append(matched - 2 * matched @ torch.outer(across, across))
            else:
                starts.append(torch.linalg.qr(torch.randn(n, n, dtype=torch.float64))[0])
        return torch.stack(starts).numpy()

    def with_pairs(
        self, source: np.ndarray, target: np.ndarray, pairs: tuple[np.ndarray, np.ndarray], w: float
    ) -> np.ndarray:
        """Find the rotation with the help of ``pairs``, rows that are partners."""
        maps = self._train(procrustes(*pairs)[None], source, target, pairs, w)
        return maps[0]

    def _train(
        self,
        starts: np.ndarray,
        source: np.ndarray,
        target: np.ndarray,
        pairs: tuple[np.ndarray, np.ndarray] | None = None,
        pair_weight: float = 0.0,
    ) -> list[np.ndarray]:
        """Train a map from each initial one, and return them."""
        n_maps, n = len(starts), source.shape[1]
        maps = OrthogonalMap(torch.as_tensor(starts, dtype=torch.float32)).to(self.device)
        discriminator = Discriminator(n_maps, n, hidden_sizes=self.hidden_sizes).to(self.device)
        map_optimizer = torch.optim.Adam(maps.parameters(), lr=self.learning_rate, betas=_BETAS)
        optimizer = torch.optim.Adam(discriminator.parameters(), lr=_D_LEARNING_RATE, betas=_BETAS)
        sample_source, sample_target = self._sampler(source, n_maps), self._sampler(target, n_maps)
        known = [torch.as_tensor(p, dtype=torch.float32).to(self.device) for p in pairs or ()]
        truth = torch.cat([torch.zeros(self.batch_size), torch.ones(self.batch_size)])
        truth = (truth * (1 - 2 * _SMOOTHING) + _SMOOTHING).expand(n_maps, -1).to(self.device)
        losses: list[Tensor] = []  # of the rotations and the discriminator, per step
        for step in range(self.max_iter):
            for group in map_optimizer.param_groups:  # to 0, or the two networks would oscillate
                group["lr"] = self.learning_rate * (1 - step / self.max_iter)
            for _ in range(_D_STEPS):
                both = torch.cat([maps(sample_source()).detach(), sample_target()], dim=1)
                own_loss = _entropy(discriminator(both), truth)
                _step(optimizer, own_loss)
            scores = discriminator(maps(sample_source()))
            # The map is trained so that the discriminator takes its rows for rows of the target.
            loss = _entropy(scores, truth[:, self.batch_size :])
            if known:
                loss = loss + pair_weight * (maps(known[0][None]) - known[1]).square().mean()
            _step(map_optimizer, loss)
            maps.pull(self.orthogonality)
            losses.append(torch.stack([loss, own_loss]).detach() / n_maps)
            if len(losses) == _STEPS_PER_REPORT or step + 1 == self.max_iter:
                self.report(Losses(step + 1, *torch.stack(losses).mean(dim=0).tolist()))
                losses.clear()
        if not all(parameter.isfinite().all() for parameter in maps.parameters()):
            raise ConvergenceError(
                f"{self.owner}: the rotation diverged. Lower learning_rate, now"
                f" {self.learning_rate}, or orthogonality, now {self.orthogonality}."
            )
        return list(maps.rotations().cpu().numpy().astype(np.float64))

    def _sampler(self, values: np.ndarray, n_maps: int) -> Callable[[], Tensor]:
        """Return a function that samples rows for each map, (n_maps, batch_size, n_components)."""
        tensor = torch.as_tensor(values, dtype=torch.float32).to(self.device)

        def sample() -> Tensor:
            # On the CPU, so that the rows are the same on every device.
            return tensor[torch.randint(len(tensor), (n_maps, self.batch_size)).to(self.device)]

        return sample

    def _refined(self, rotation: np.ndarray, source: np.ndarray, target: np.ndarray) -> np.ndarray:
        """Fit the rotation to mutual nearest neighbors, ``n_refinements`` times."""
        for _ in range(self.n_refinements):
            own, found = _mutual_neighbors(source @ rotation, target)
            if len(own) < source.shape[1]:
                break
            rotation = procrustes(source[own], target[found])
        return rotation


def procrustes(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Solve the orthogonal Procrustes problem: rotate the rows of one matrix onto another's.

    Parameters
    ----------
    source, target : ndarray of shape (n_rows, n_components)
        Matrices whose rows are partners.

    Returns
    -------
    rotation : ndarray of shape (n_components, n_components)
        Orthogonal matrix that brings ``source @ rotation`` nearest to ``target``.

    References
    ----------
    Schönemann (1966), "A generalized solution of the orthogonal Procrustes problem",
    Psychometrika 31.
    """
    left, _, right = np.linalg.svd(source.T @ target)
    rotation: np.ndarray = left @ right
    return rotation


def _step(optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
    """Take a step of an optimizer."""
    optimizer.zero_grad()
    torch.autograd.backward(loss)
    optimizer.step()


def _entropy(scores: Tensor, truth: Tensor) -> Tensor:
    """Compute the cross-entropy, its mean over rows and its sum over maps."""
    return binary_cross_entropy_with_logits(scores, truth, reduction="sum") / truth.shape[1]


def _some(values: np.ndarray) -> np.ndarray:
    """Sample at most ``_FEW`` rows with torch's generator."""
    if len(values) <= _FEW:
        return values
    chosen: np.ndarray = values[np.sort(torch.randperm(len(values))[:_FEW].numpy())]
    return chosen


def _start_by_distances(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Match rows by their distances to all other rows, which are invariant to rotations.

    After Artetxe, Labaka and Agirre (2018), "A robust self-learning method for fully unsupervised
    cross-lingual mappings of word embeddings", ACL.
    """
    own, found = _mutual(-torch.cdist(_distance_profile(source), _distance_profile(target)))
    return procrustes(source[own], target[found])


def _distance_profile(values: np.ndarray) -> Tensor:
    """Compute quantiles of the distances of each row to all, and to the center, (n_rows, 65)."""
    tensor = torch.from_numpy(values)
    distances = torch.cdist(tensor, tensor).sort(dim=1)[0]
    chosen = torch.linspace(0, len(tensor) - 1, 64).long()
    return torch.cat([distances[:, chosen], tensor.norm(dim=1, keepdim=True)], dim=1)


def _mutual_neighbors(source: np.ndarray, target: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return mutual nearest neighbors by cross-domain similarity local scaling (CSLS).

    The similarity of two rows is reduced by their mean similarity to their nearest neighbors, so
    that no row is the neighbor of all others. It is the negative squared distance rather than the
    cosine, since the length of a vector matters here.
    """
    similarity = -0.5 * torch.cdist(torch.from_numpy(source), torch.from_numpy(target)).square()
    k = min(_N_NEIGHBORS, *similarity.shape)
    usual_source = similarity.topk(k, dim=1)[0].mean(dim=1, keepdim=True)
    usual_target = similarity.topk(k, dim=0)[0].mean(dim=0, keepdim=True)
    return _mutual(2 * similarity - usual_source - usual_target)


def _mutual(similarity: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Return the rows and columns of a matrix that are each other's maximum."""
    found, back = similarity.argmax(dim=1), similarity.argmax(dim=0)
    own = torch.arange(len(found))
    mutual = back[found] == own
    return own[mutual].numpy(), found[mutual].numpy()


def _chamfer(one: np.ndarray, other: np.ndarray) -> float:
    """Compute the mean distance to the nearest row of the other matrix, in both directions."""
    distances = torch.cdist(torch.from_numpy(one), torch.from_numpy(other))
    nearest = distances.amin(dim=1).mean() + distances.amin(dim=0).mean()
    return float(nearest) / 2
