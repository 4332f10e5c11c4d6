"""Synthetic data sets: raw cells of several modalities, generated from known latents."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import pandas as pd
from sklearn.utils import Bunch, check_random_state

from skmm.datasets._latent import (
    KINDS,
    PATTERNS,
    Factor,
    Groups,
    Latents,
    check_choice,
    check_integer,
    check_rates,
    check_real,
    plan_factors,
    sample_latents,
    sample_missing,
    show,
)

__all__ = [
    "Modalities",
    "build_dataset",
    "make_multimodal_classification",
    "make_multimodal_regression",
]


Modalities = Sequence[str] | Mapping[str, str]


def make_multimodal_classification(
    n_samples: int = 200,
    *,
    modalities: Modalities = ("text", "image", "tabular"),
    n_classes: int = 2,
    redundant: float = 0.4,
    shared: Groups = 0.0,
    private: Groups | None = None,
    synergy: Groups = 0.0,
    n_nuisance: int = 1,
    noise: float | Mapping[str, float] = 0.1,
    target_noise: float = 0.0,
    missing_rate: float | Mapping[str, float] = 0.0,
    missing_pattern: Literal["random", "never_all", "train_complete", "dependent"] = "random",
    image_size: int = 16,
    return_latent: bool = False,
    random_state: int | np.random.RandomState | None = None,
) -> tuple[pd.DataFrame, np.ndarray] | Bunch:
    r"""Generate a multimodal classification problem with chosen information per modality.

    Each row is generated from latent factors. The score of a class is a sum of factors,

    .. math:: s = \sum_f \sqrt{\mathrm{share}_f}\, z_f , \qquad \sum_f \mathrm{share}_f = 1 ,

    and the row's class is the one with the highest score (the sign of a single score if there
    are two classes). The raw cells of a modality encode some of the factors and are independent
    of the others, so the best score that a subset of modalities allows is known: see *Notes*.

    Parameters
    ----------
    n_samples : int, default=200
        Number of rows.
    modalities : sequence of str or dict of str to str, default=("text", "image", "tabular")
        The kinds, or names with their kinds, as in ``{"review": "text", "photo": "image"}``.

        - ``"text"``: a column of texts. Seven words encode each latent; each word is of its
          high or its low pole, and the number of words of the high pole grows with the latent.
          Filler words are added.
        - ``"image"``: a column of uint8 arrays (image_size, image_size, 3). The brightness of a
          colored blob or of colored stripes encodes each latent.
        - ``"tabular"``: columns ``<name>_number_<i>`` and ``<name>_category_<i>``, one for each
          latent (a category is one of eight bins), and an uninformative column of each kind.
        - ``"vector"``: a column of float32 arrays (16,), such as precomputed embeddings; longer
          with more than 16 latents.
        - ``"timeseries"``: a column of float32 arrays (64,), longer with more than 16 latents.
          The amplitude of a sine wave encodes each latent.

    n_classes : int, default=2
        Number of classes, about equally frequent.
    redundant : float, default=0.4
        Share of the score that every modality encodes.
    shared : float or dict of tuple to float, default=0.0
        Share of the score that a group of modalities encodes, as in
        ``{("text", "image"): 0.2}``. A float is split equally among all pairs.
    private : float, dict of str to float or None, default=None
        Share of the score that a single modality encodes, as in ``{"text": 0.5, "image": 0.1}``.
        A float is split equally among the modalities. None means the remainder of 1.
    synergy : float or dict of tuple to float, default=0.0
        Share of the score that a group of modalities encodes only jointly: each modality has a
        random sign, and the factor is the product of the signs (an exclusive or). A float is
        split equally among all pairs.
    n_nuisance : int, default=1
        Number of latents in each modality that are independent of the target.
    noise : float or dict of str to float, default=0.1
        Standard deviation of the noise added to the latents, which have standard deviation 1,
        before a modality encodes them. Modalities missing from a dict have 0.
    target_noise : float, default=0.0
        Standard deviation of the noise added to the scores, which have standard deviation 1.
    missing_rate : float or dict of str to float, default=0.0
        Exact share of missing cells per modality, rounded to a number of rows. Modalities
        missing from a dict have 0. A tabular modality is missing as a whole.
    missing_pattern : {"random", "never_all", "train_complete", "dependent"}, default="random"
        Which cells are missing.

        - ``"random"``: any, independently for each modality; a row may have no modality.
        - ``"never_all"``: any, but each row keeps at least one modality.
        - ``"train_complete"``: none in the first half of the rows, and ``missing_rate`` in the
          second half, so that ``X[: n_samples // 2]`` is a complete training set.
        - ``"dependent"``: the odds of a missing cell increase with the target, by a factor of 20
          from the lowest class to the highest.

    image_size : int, default=16
        Height and width of the images in pixels, from 4 to 512.
    return_latent : bool, default=False
        If True, return a Bunch that includes the latents instead of ``(X, y)``.
    random_state : int, RandomState instance or None, default=None
        Determines all random numbers. Pass an int for the same data in every process.
        The cells do not depend on ``missing_rate`` and ``missing_pattern``.

    Returns
    -------
    X : DataFrame of shape (n_samples, n_columns)
        Raw cells; a missing cell is None or NaN.
    y : ndarray of shape (n_samples,)
        Classes from 0 to ``n_classes - 1``.
    dataset : :class:`~sklearn.utils.Bunch`
        If ``return_latent=True``, instead of ``(X, y)``:

        - ``data``, ``target``: X and y;
        - ``frame``: DataFrame, ``data`` and the target;
        - ``feature_names``: list of str, the columns of ``data``;
        - ``modalities``: dict of column to kind;
        - ``columns``: dict of modality to list of its columns;
        - ``latent``: DataFrame of shape (n_samples, n_latents), the latents without noise;
        - ``seen``: dict of modality to list of the latents that its cells encode;
        - ``information``: dict of modality to the share of the score that it encodes alone;
        - ``scores``: ndarray of shape (n_samples, n_scores), without target noise;
        - ``absent``: DataFrame of bool, shape (n_samples, n_modalities).

    See Also
    --------
    make_multimodal_regression : Generate a regression problem in the same way.
    load_glyphs : Real data: characters as images, names and properties.

    Notes
    -----
    With ``redundant=0``, a modality without private or shared factors is uninformative, and a
    model of it alone scores at chance level. With ``redundant=1`` all modalities encode the same
    information about the target. With two classes, the accuracy of a linear model of the share
    *r* of the score is at most

    .. math:: 1 - \frac{1}{\pi} \arccos \sqrt{\frac{r}
        {(1 + \mathrm{noise}^2) (1 + \mathrm{target\_noise}^2)}}

    where *r* is the entry of ``information`` for a single modality. The cells do not encode the
    latents exactly: word counts and bins lose 3 to 6 percent of a latent's variance.

    Examples
    --------
    >>> from skmm.datasets import make_multimodal_classification
    >>> X, y = make_multimodal_classification(
    ...     100, modalities={"review": "text", "photo": "image"}, missing_rate={"photo": 0.3},
    ...     random_state=0,
    ... )
    >>> X.columns.tolist(), X["photo"].iloc[1].shape, int(X["photo"].isna().sum())
    (['review', 'photo'], (16, 16, 3), 30)
    >>> truth = make_multimodal_classification(
    ...     redundant=0.2, private={"text": 0.5, "image": 0.3}, random_state=0, return_latent=True
    ... )
    >>> {name: round(share, 2) for name, share in truth.information.items()}
    {'text': 0.7, 'image': 0.5, 'tabular': 0.2}
    """
    function = "make_multimodal_classification"
    n_classes = check_integer(function, "n_classes", n_classes, 2)
    dataset = build_dataset(
        function,
        n_samples,
        modalities,
        # A single score separates two classes.
        n_outputs=1 if n_classes == 2 else n_classes,
        is_classification=True,
        shares={"redundant": redundant, "shared": shared, "private": private, "synergy": synergy},
        n_nuisance=n_nuisance,
        noise=noise,
        target_noise=target_noise,
        missing_rate=missing_rate,
        missing_pattern=missing_pattern,
        image_size=image_size,
        random_state=random_state,
    )
    return dataset if return_latent else (dataset.data, dataset.target)


def make_multimodal_regression(
    n_samples: int = 200,
    *,
    modalities: Modalities = ("text", "image", "tabular"),
    n_targets: int = 1,
    redundant: float = 0.4,
    shared: Groups = 0.0,
    private: Groups | None = None,
    synergy: Groups = 0.0,
    n_nuisance: int = 1,
    noise: float | Mapping[str, float] = 0.1,
    target_noise: float = 0.0,
    missing_rate: float | Mapping[str, float] = 0.0,
    missing_pattern: Literal["random", "never_all", "train_complete", "dependent"] = "random",
    image_size: int = 16,
    return_latent: bool = False,
    random_state: int | np.random.RandomState | None = None,
) -> tuple[pd.DataFrame, np.ndarray] | Bunch:
    r"""Generate a multimodal regression problem with chosen information per modality.

    Each row is generated from latent factors. The target is their weighted sum,

    .. math:: y = \sum_f \sqrt{\mathrm{share}_f}\, z_f + \mathrm{target\_noise}\, \varepsilon ,
        \qquad \sum_f \mathrm{share}_f = 1 .

    The raw cells of a modality encode some of the factors and are independent of the others, so
    the best score that a subset of modalities allows is known: see *Notes*.

    Parameters
    ----------
    n_samples : int, default=200
        Number of rows.
    modalities : sequence of str or dict of str to str, default=("text", "image", "tabular")
        The kinds, or names with their kinds: ``"text"``, ``"image"``, ``"tabular"``, ``"vector"``,
        ``"timeseries"``. See `make_multimodal_classification` for their cells.
    n_targets : int, default=1
        Number of targets. Each target has its own factors.
    redundant : float, default=0.4
        Share of the target's variance that every modality encodes.
    shared : float or dict of tuple to float, default=0.0
        Share of the variance that a group of modalities encodes, as in
        ``{("text", "image"): 0.2}``. A float is split equally among all pairs.
    private : float, dict of str to float or None, default=None
        Share of the variance that a single modality encodes, as in
        ``{"text": 0.5, "image": 0.1}``. A float is split equally among the modalities. None
        means the remainder of 1.
    synergy : float or dict of tuple to float, default=0.0
        Share of the variance that a group of modalities encodes only jointly: each modality has
        a random sign, and the factor is the product of the signs. A float is split equally among
        all pairs.
    n_nuisance : int, default=1
        Number of latents in each modality that are independent of the target.
    noise : float or dict of str to float, default=0.1
        Standard deviation of the noise added to the latents, which have standard deviation 1,
        before a modality encodes them. Modalities missing from a dict have 0.
    target_noise : float, default=0.0
        Standard deviation of the noise added to the target, which has standard deviation 1.
    missing_rate : float or dict of str to float, default=0.0
        Exact share of missing cells per modality, rounded to a number of rows. Modalities
        missing from a dict have 0. A tabular modality is missing as a whole.
    missing_pattern : {"random", "never_all", "train_complete", "dependent"}, default="random"
        Which cells are missing: any; any, but each row keeps at least one modality; none in the
        first half of the rows; or with odds that increase with the (first) target, by a factor
        of 20 from the lowest to the highest.
    image_size : int, default=16
        Height and width of the images in pixels, from 4 to 512.
    return_latent : bool, default=False
        If True, return a Bunch that includes the latents instead of ``(X, y)``.
    random_state : int, RandomState instance or None, default=None
        Determines all random numbers. Pass an int for the same data in every process.
        The cells do not depend on ``missing_rate`` and ``missing_pattern``.

    Returns
    -------
    X : DataFrame of shape (n_samples, n_columns)
        Raw cells; a missing cell is None or NaN.
    y : ndarray of shape (n_samples,) or (n_samples, n_targets)
        Targets.
    dataset : :class:`~sklearn.utils.Bunch`
        If ``return_latent=True``, instead of ``(X, y)``; its keys are those of
        `make_multimodal_classification`.

    See Also
    --------
    make_multimodal_classification : Generate a classification problem in the same way.

    Notes
    -----
    The score of a linear model of the share *r* of the target is at most

    .. math:: R^2 = \frac{r}{(1 + \mathrm{noise}^2) (1 + \mathrm{target\_noise}^2)}

    where *r* is the entry of ``information`` for a single modality. For all modalities together
    *r* is the sum of all shares except synergy; several modalities also average their noise.
    The cells do not encode the latents exactly: word counts and bins lose 3 to 6 percent of a
    latent's variance.

    Examples
    --------
    >>> from skmm.datasets import make_multimodal_regression
    >>> X, y = make_multimodal_regression(100, modalities=("text", "vector"), random_state=0)
    >>> X.columns.tolist(), X["vector"].iloc[0].shape, y.shape
    (['text', 'vector'], (16,), (100,))
    """
    function = "make_multimodal_regression"
    dataset = build_dataset(
        function,
        n_samples,
        modalities,
        n_outputs=check_integer(function, "n_targets", n_targets, 1),
        is_classification=False,
        shares={"redundant": redundant, "shared": shared, "private": private, "synergy": synergy},
        n_nuisance=n_nuisance,
        noise=noise,
        target_noise=target_noise,
        missing_rate=missing_rate,
        missing_pattern=missing_pattern,
        image_size=image_size,
        random_state=random_state,
    )
    return dataset if return_latent else (dataset.data, dataset.target)


# --- Generation: arguments, latents, target, missing cells, cells ---


def build_dataset(
    function: str,
    n_samples: int,
    modalities: Modalities,
    *,
    n_outputs: int,
    is_classification: bool,
    shares: dict[str, Any],
    n_nuisance: int,
    noise: float | Mapping[str, float],
    target_noise: float,
    missing_rate: float | Mapping[str, float],
    missing_pattern: str,
    image_size: int,
    random_state: int | np.random.RandomState | None,
) -> Bunch:
    """Check the arguments and generate latents, target, missing cells and cells.

    The parameters are those of `make_multimodal_classification`; ``n_outputs`` is the number
    of scores, ``shares`` holds the arguments of `plan_factors`.
    """
    n_samples = check_integer(function, "n_samples", n_samples, 1)
    n_nuisance = check_integer(function, "n_nuisance", n_nuisance, 0)
    image_size = check_integer(function, "image_size", image_size, 4, 512)
    target_noise = check_real(function, "target_noise", target_noise, 0)
    check_choice(function, "missing_pattern", missing_pattern, PATTERNS)
    kinds = _check_modalities(function, modalities)
    names = tuple(kinds)
    factors = plan_factors(function, names, **shares)
    noises = _check_noise(function, noise, names)
    rates = check_rates(function, missing_rate, names, missing_pattern)

    # Each part has its own random generator, so that no part depends on another's options.
    seeds = check_random_state(random_state).randint(2**31 - 1, size=3 + len(names))
    streams = [np.random.RandomState(seed) for seed in seeds]
    latents = sample_latents(factors, names, n_samples, n_outputs, n_nuisance, streams[0])
    y = latents.scores + target_noise * streams[1].standard_normal(latents.scores.shape)
    if is_classification:
        y = (y[:, 0] > 0).astype(int) if n_outputs == 1 else y.argmax(axis=1)
    elif n_outputs == 1:
        y = y[:, 0]
    absent = sample_missing(missing_pattern, rates, y, streams[2])

    cells: dict[str, pd.Series] = {}
    columns: dict[str, list[str]] = {}
    for position, (name, kind) in enumerate(kinds.items()):
        view = _view(latents, name, noises[name], streams[3 + position])
        shown = show(kind, name, view, image_size, streams[3 + position])
        columns[name] = list(shown)
        for column, values in shown.items():
            if column in cells:
                raise ValueError(
                    f"{function}: two modalities have the column {column!r}. Give one of them"
                    " another name."
                )
            values.iloc[np.flatnonzero(absent[:, position])] = None  # NaN, in a column of numbers
            cells[column] = values
    return _bunch(kinds, pd.DataFrame(cells), y, columns, latents, factors, absent)


def _check_modalities(function: str, modalities: object) -> dict[str, str]:
    """Return the names and kinds of the modalities, in order."""
    if isinstance(modalities, str) or not isinstance(modalities, Mapping | Sequence):
        raise TypeError(
            f"{function}: modalities must be a sequence of kinds or a dict of names to kinds, got"
            f" {modalities!r}."
        )
    if not modalities:
        raise ValueError(f"{function}: modalities is empty. Name at least one of {list(KINDS)}.")
    if isinstance(modalities, Mapping):
        kinds = dict(modalities)
    else:
        kinds = {kind: kind for kind in modalities}
        if len(kinds) < len(modalities):
            raise ValueError(
                f"{function}: modalities names a kind twice, got {list(modalities)}. Pass a dict"
                " with two names, as in {'title': 'text', 'review': 'text'}."
            )
    for name, kind in kinds.items():
        if not isinstance(name, str):
            raise TypeError(f"{function}: names of modalities must be str, got {name!r}.")
        check_choice(function, f"the kind of modality {name!r}", kind, KINDS)
    return kinds


def _check_noise(function: str, noise: object, names: tuple[str, ...]) -> dict[str, float]:
    """Return the noise of every modality."""
    if not isinstance(noise, Mapping):
        return dict.fromkeys(names, check_real(function, "noise", noise, 0))
    for name in noise:
        if name not in names:
            raise ValueError(
                f"{function}: noise names the modality {name!r}, which is not one of {list(names)}."
            )
    return {
        name: check_real(function, f"noise[{name!r}]", noise.get(name, 0.0), 0) for name in names
    }


def _view(latents: Latents, name: str, noise: float, rng: np.random.RandomState) -> np.ndarray:
    """Return the latents of a modality with its noise, scaled to unit variance."""
    n_samples = len(latents.scores)
    seen = [latents.columns[column] for column in latents.seen[name]]
    view = np.column_stack(seen) if seen else np.empty((n_samples, 0))
    return np.asarray((view + noise * rng.standard_normal(view.shape)) / np.sqrt(1 + noise**2))


def _bunch(
    kinds: dict[str, str],
    X: pd.DataFrame,
    y: np.ndarray,
    columns: dict[str, list[str]],
    latents: Latents,
    factors: list[Factor],
    absent: np.ndarray,
) -> Bunch:
    """Return the data set with the latents from which it was generated."""
    targets = ["target"] if y.ndim == 1 else [f"target_{i}" for i in range(y.shape[1])]
    return Bunch(
        data=X,
        target=y,
        frame=pd.concat([X, pd.DataFrame(y, columns=targets, index=X.index)], axis=1),
        feature_names=list(X.columns),
        modalities={column: kinds[name] for name in kinds for column in columns[name]},
        columns=columns,
        latent=pd.DataFrame(latents.columns),
        seen=latents.seen,
        information={
            name: sum(f.share for f in factors if name in f.viewers and f.kind != "synergy")
            for name in kinds
        },
        scores=latents.scores,
        absent=pd.DataFrame(absent, columns=list(kinds)),
    )
