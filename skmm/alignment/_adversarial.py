"""Alignment by adversarial training of rotations."""

import warnings
from collections.abc import Sequence
from functools import partial
from numbers import Integral, Real
from typing import Any, ClassVar, Literal

import numpy as np
from sklearn.exceptions import ConvergenceWarning

from skmm._compose._base import Modalities
from skmm._constraints import (
    BATCH_SIZE,
    DEVICE,
    LEARNING_RATE,
    NON_NEGATIVE,
    POSITIVE_INT,
    RANDOM_STATE,
    VERBOSE,
    Interval,
    RandomState,
    StrOptions,
    refuse_unused,
)
from skmm._environment._device import one_thread, resolve_device, seeded
from skmm.alignment._adversarial_training import (
    AdversarialTraining,
    FoundRotation,
    Losses,
    Whitening,
)
from skmm.alignment._blocks import BaseDecodingAlignment

__all__ = ["AdversarialAlignment"]

_LARGEST = 64  # components for n_components=None
_LEARNING_RATE = 0.01  # of learning_rate="auto"
_PRINT_EVERY = 100  # steps
# Times the usual distance between rows of the target: beyond it the distributions differ.
_TOO_FAR = 1.15


class AdversarialAlignment(BaseDecodingAlignment):
    """Rotate the space of each modality onto that of a target by adversarial training.

    Each modality is reduced to its leading principal components, scaled to variance 1. A rotation
    of these is trained against a discriminator that learns to distinguish rotated rows from rows
    of the target [1]_, [2]_. With ``paired=False`` the training does not use which rows are
    partners, so that two separate collections can be aligned, such as images and recordings,
    provided that they are samples of the same population.

    Parameters
    ----------
    modalities : list of (name, transformer, columns) or "auto", default="auto"
        Two or more triples as in :class:`~skmm.fusion.EarlyFusion`.
    n_components : int or None, default=None
        Number of principal components of each modality, and of dimensions of the common space.
        None is the lowest rank of any modality over the training rows, at most 64.
    target : str or None, default=None
        Name of the modality whose space the others are rotated onto. None is the first one.
    paired : bool, default=True
        Whether rows that have both modalities are used as partners. ``False`` needs at least some
        hundred rows of each modality, whose distribution must not be symmetric.
    pair_weight : float, default=1.0
        Weight of the squared distance of partners relative to the adversarial loss, for
        ``paired=True``.
    max_iter : int, default=600
        Number of training steps of each rotation; the discriminator takes two steps for each.
    learning_rate : float or "auto", default="auto"
        Step size of the rotation in the first step, from which it decreases linearly to 0.
        ``"auto"`` is 0.01.
    batch_size : int, default=128
        Rows of each modality per step.
    n_init : int, default=8
        Number of initial rotations, for ``paired=False``: the first one matches rows by their
        distances to all others [3]_, the others are reflections of it and random rotations. The
        one whose rows are nearest to those of the target after training is kept.
    orthogonality : float, default=0.1
        How far each step pulls the map back toward an orthogonal matrix, in [0, 0.5] [1]_.
    hidden_sizes : tuple of int, default=(64, 64)
        Sizes of the hidden layers of the discriminator.
    n_refinements : int, default=5
        Number of Procrustes steps after the training, for ``paired=False``: each fits the rotation
        to the rows that are mutual nearest neighbors by CSLS [1]_.
    all_missing : {"zeros", "raise"}, default="zeros"
        What a row without any modality gets: ``"zeros"`` gives a vector of zeros, ``"raise"``
        raises ``ModalityMissingError``.
    missing_columns : {"raise", "absent"}, default="raise"
        What happens if a column of the training frame is not in ``X``: ``"raise"`` raises
        ``ValueError``, ``"absent"`` treats the column as missing in every row.
    device : str, default="auto"
        Device of the training: ``"auto"``, ``"cpu"``, ``"cuda"``, ``"cuda:1"``.
    random_state : int, RandomState instance or None, default=None
        Seed of initial rotations, weights and batches.
    verbose : bool or int, default=0
        Whether to print the losses, a line every 100 steps.

    Attributes
    ----------
    modalities_ : list of (name, transformer, columns)
        The modalities used, with their fitted transformers.
    rotations_ : dict of str to ndarray of shape (n_components, n_components)
        Rotation of each modality, which its components are multiplied by from the right. That of
        the target is the identity.
    history_ : list of dict
        Mean losses of each ten steps: ``modality``, ``step`` (the last of the ten), ``train_loss``
        of the rotation and ``discriminator_loss``. Modalities come one after the other.
    n_iter_ : int
        Number of training steps of each rotation.
    n_components_ : int
        Number of dimensions of the common space.
    n_features_in_ : int
        Number of columns seen in ``fit``.
    feature_names_in_ : ndarray of str
        Names of the columns seen in ``fit``. Defined only if ``X`` has column names.

    See Also
    --------
    CCAAlignment : A linear map of each modality, learned from pairs.

    Notes
    -----
    Without pairs, a rotation can only be found from the shape of the two distributions. If these
    are symmetric, as normal distributions are, several rotations fit equally well. A
    ``ConvergenceWarning`` is raised if two initial rotations end in different ones that fit
    equally well, and if no rotation brings the two distributions together.

    References
    ----------
    .. [1] Lample, Conneau, Ranzato, Denoyer, Jégou (2018), "Word translation without parallel
       data", ICLR.
    .. [2] Ganin et al. (2016), "Domain-adversarial training of neural networks", JMLR 17.
    .. [3] Artetxe, Labaka, Agirre (2018), "A robust self-learning method for fully unsupervised
       cross-lingual mappings of word embeddings", ACL.

    Examples
    --------
    Recordings of 500 objects and scenes of 500 others, without any pair:

    >>> import numpy as np
    >>> import pandas as pd
    >>> from skmm import AdversarialAlignment
    >>> rng = np.random.default_rng(0)
    >>> latent = rng.normal(size=(6, 3))[rng.choice(6, size=1000, p=[.3, .2, .2, .1, .1, .1])]
    >>> latent += 0.2 * rng.normal(size=(1000, 3))
    >>> audio, scene = latent @ rng.normal(size=(3, 5)), latent @ rng.normal(size=(3, 4))
    >>> X = pd.DataFrame({
    ...     "audio": [*audio[:500], *[None] * 500], "scene": [*[None] * 500, *scene[500:]],
    ... })
    >>> alignment = AdversarialAlignment([
    ...     ("scene", "passthrough", ["scene"]), ("audio", "passthrough", ["audio"]),
    ... ], n_components=3, paired=False, max_iter=200, random_state=0).fit(X)
    >>> pairs = pd.DataFrame({"audio": list(audio[:100]), "scene": list(scene[:100])})

    The mean cosine similarity of partners:

    >>> vectors = [alignment.transform_modality(pairs, name) for name in ("audio", "scene")]
    >>> bool((vectors[0] * vectors[1]).sum(axis=1).mean() > 0.9)
    True
    """

    _parameter_constraints: ClassVar[dict[str, Any]] = {
        **BaseDecodingAlignment._parameter_constraints,
        "n_components": [*POSITIVE_INT, None],
        "target": [str, None],
        "paired": ["boolean"],
        "pair_weight": NON_NEGATIVE,
        "max_iter": POSITIVE_INT,
        "learning_rate": [StrOptions({"auto"}), *LEARNING_RATE],
        "batch_size": BATCH_SIZE,
        "n_init": POSITIVE_INT,
        "orthogonality": [Interval(Real, 0, 0.5, closed="both")],
        "hidden_sizes": [list, tuple],
        "n_refinements": [Interval(Integral, 0, None, closed="left")],
        "device": DEVICE,
        "random_state": RANDOM_STATE,
        "verbose": VERBOSE,
    }

    def __init__(
        self,
        modalities: Modalities = "auto",
        *,
        n_components: int | None = None,
        target: str | None = None,
        paired: bool = True,
        pair_weight: float = 1.0,
        max_iter: int = 600,
        learning_rate: float | Literal["auto"] = "auto",
        batch_size: int = 128,
        n_init: int = 8,
        orthogonality: float = 0.1,
        hidden_sizes: Sequence[int] = (64, 64),
        n_refinements: int = 5,
        all_missing: Literal["zeros", "raise"] = "zeros",
        missing_columns: Literal["raise", "absent"] = "raise",
        device: str = "auto",
        random_state: RandomState = None,
        verbose: bool | int = 0,
    ):
        self.modalities = modalities
        self.n_components = n_components
        self.target = target
        self.paired = paired
        self.pair_weight = pair_weight
        self.max_iter = max_iter
        self.learning_rate = learning_rate
        self.batch_size = batch_size
        self.n_init = n_init
        self.orthogonality = orthogonality
        self.hidden_sizes = hidden_sizes
        self.n_refinements = n_refinements
        self.all_missing = all_missing
        self.missing_columns = missing_columns
        self.device = device
        self.random_state = random_state
        self.verbose = verbose

    @property
    def _needs_pairs(self) -> bool:
        return self.paired

    def _check_settings(self) -> None:
        if self.paired:
            refuse_unused(self, ["n_init", "n_refinements"], "with paired=True")
        else:
            refuse_unused(self, ["pair_weight"], "with paired=False")

    def _fit_blocks(
        self, blocks: dict[str, np.ndarray], present: dict[str, np.ndarray], y: np.ndarray | None
    ) -> None:
        target, seed = self._target(list(blocks)), self._draw_seed()
        self._refuse_unlinked(target, present)
        self._whitenings = {name: Whitening(blocks[name][present[name]]) for name in blocks}
        self.n_components_ = self._n_directions()
        components = {}
        for name, whitening in self._whitenings.items():
            whitening.keep(self.n_components_)
            components[name] = np.zeros((len(present[name]), self.n_components_))
            components[name][present[name]] = whitening.transform(blocks[name][present[name]])
        self.rotations_: dict[str, np.ndarray] = {}
        self.history_: list[dict[str, str | float]] = []
        for i, name in enumerate(blocks):
            if name == target:
                self.rotations_[name] = np.eye(self.n_components_)
                continue
            with seeded((seed + i) % 2**31), one_thread():
                self.rotations_[name] = self._rotation(name, target, components, present)
        self.n_iter_ = self.max_iter

    def _rotation(
        self,
        name: str,
        target: str,
        components: dict[str, np.ndarray],
        present: dict[str, np.ndarray],
    ) -> np.ndarray:
        """Find the rotation of one modality's components onto those of the target."""
        training = AdversarialTraining(
            max_iter=self.max_iter,
            learning_rate=_LEARNING_RATE if self.learning_rate == "auto" else self.learning_rate,
            batch_size=self.batch_size,
            n_starts=self.n_init,
            orthogonality=self.orthogonality,
            hidden_sizes=tuple(self.hidden_sizes),
            n_refinements=self.n_refinements,
            device=resolve_device(self.device),
            owner=type(self).__name__,
            report=partial(self._record, name),
        )
        own, goal = components[name][present[name]], components[target][present[target]]
        if self.paired:
            both = present[name] & present[target]
            pairs = components[name][both], components[target][both]
            return training.with_pairs(own, goal, pairs, self.pair_weight)
        found = training.without_pairs(own, goal)
        self._warn(name, target, found)
        return found.rotation

    def _record(self, modality: str, losses: Losses) -> None:
        """Keep the losses of a part of the training, and print them every 100 steps."""
        self.history_.append(
            {
                "modality": modality,
                "step": losses.step,
                "train_loss": losses.rotation,
                "discriminator_loss": losses.discriminator,
            }
        )
        if self.verbose and (losses.step % _PRINT_EVERY == 0 or losses.step == self.max_iter):
            print(
                f"{type(self).__name__}, {modality!r}: step {losses.step} of {self.max_iter},"
                f" train_loss {losses.rotation:.4f},"
                f" discriminator_loss {losses.discriminator:.4f}",
                flush=True,
            )

    # --- checks ---------------------------------------------------------------------------------

    def _target(self, names: list[str]) -> str:
        """Return the name of the target modality."""
        if self.target is None:
            return names[0]
        if self.target not in names:
            raise ValueError(
                f"{type(self).__name__}: target={self.target!r} is no usable modality. Give one of"
                f" {', '.join(map(repr, names))}."
            )
        return self.target

    def _refuse_unlinked(self, target: str, present: dict[str, np.ndarray]) -> None:
        """Refuse a modality that has no pairs with the target, with ``paired=True``."""
        for name, mask in present.items():
            n_both = int((mask & present[target]).sum())
            if self.paired and n_both < 2:
                raise ValueError(
                    f"{type(self).__name__}: paired=True needs training rows that have modality"
                    f" {name!r} together with the target {target!r}, got {n_both}. Choose another"
                    " target, or set paired=False."
                )

    def _n_directions(self) -> int:
        """Return the number of components, and refuse more than there are."""
        ranks = {name: whitening.rank for name, whitening in self._whitenings.items()}
        limit = min(ranks.values())
        if limit == 0 or (self.n_components or 1) > limit:
            listed = ", ".join(f"{name!r} {rank}" for name, rank in ranks.items())
            raise ValueError(
                f"{type(self).__name__}: n_components={self.n_components} is more than the rank of"
                f" some modality; the ranks over the training rows are {listed}."
                " Lower n_components, or give more rows or features."
            )
        return self.n_components or min(limit, _LARGEST)

    def _warn(self, name: str, target: str, found: FoundRotation) -> None:
        """Warn of a rotation that does not fit, or of several that do."""
        message = None
        if found.distance > _TOO_FAR * found.usual_distance:
            message = (
                f"no rotation brought modality {name!r} onto {target!r}: the mean distance of"
                f" rotated rows to the nearest row of the target is {found.distance:.3g}, against"
                f" {found.usual_distance:.3g} within the target. Raise n_init or max_iter, lower"
                " n_components, or set paired=True if rows are partners."
            )
        elif found.is_ambiguous:
            message = (
                f"two different rotations of modality {name!r} fit {target!r} equally well. Lower"
                " n_components, give more rows, or set paired=True if rows are partners."
            )
        if message:
            warnings.warn(f"{type(self).__name__}: {message}", ConvergenceWarning, stacklevel=6)

    # --- after fit ------------------------------------------------------------------------------

    def _project(self, name: str, values: np.ndarray) -> np.ndarray:
        vectors: np.ndarray = self._whitenings[name].transform(values) @ self.rotations_[name]
        return vectors

    def _predict_block(
        self, modality: str, blocks: dict[str, np.ndarray], present: dict[str, np.ndarray]
    ) -> np.ndarray:
        vectors = np.stack([self._project(name, values) for name, values in blocks.items()])
        mask = np.stack(list(present.values()))[:, :, None]
        mean = np.where(mask, vectors, 0.0).sum(axis=0) / mask.sum(axis=0)
        # The inverse of a rotation is its transpose.
        return self._whitenings[modality].inverse_transform(mean @ self.rotations_[modality].T)
