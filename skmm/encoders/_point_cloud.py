"""Encoder of point clouds."""

import copy
import json
from collections.abc import Sequence
from functools import partial
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import nn

from skmm._constraints import (
    BATCH_SIZE,
    DEVICE,
    LEARNING_RATE,
    NON_NEGATIVE,
    ON_ERROR,
    POSITIVE_INT,
    RANDOM_STATE,
    STORE,
    VERBOSE,
    RandomState,
    StrOptions,
)
from skmm._frame._column import Column
from skmm.backbones import Backbone
from skmm.backbones._point_descriptor import PointDescriptor
from skmm.backbones._pointnet import PointCloudInputs, PointNet
from skmm.backbones._user_module import PointCloudModule
from skmm.encoders._cell_encoder import CellEncoder, LearningRate, OnError
from skmm.encoders._engines._base import BackboneEngine, Engine, Runtime
from skmm.encoders._pass import Place, first_readable
from skmm.encoders._store._store import StoreLike
from skmm.exceptions import CellTypeError
from skmm.readers._points import digest_points, load_points, read_points

__all__ = ["PointCloudEncoder"]

# To be raised with every change of the code that changes the descriptor.
_FORMAT = 1


class PointCloudEncoder(CellEncoder):
    """Encode point clouds by their geometry or with a small network.

    A cell is an array or list of lists ``(n_points, 3 + n_features)``: x, y and z of each point,
    then any further numbers (intensity, color). Or it is a path or the bytes of a file: NPY,
    text with one point per line, and with the extra ``points`` PLY, PCD, OBJ, OFF and STL; the
    format is detected from the content. A mesh is replaced by ``n_points`` points of its surface.

    Clouds may differ in their number of points, not in their number of features. The order of
    the points does not matter. Points with a NaN or an infinite value, which sensors write where
    they measured nothing, are dropped; a cloud without any other point is unreadable.

    Parameters
    ----------
    model : {"geometric", "pointnet"} or nn.Module, default="geometric"
        Model of the cloud:

        - ``"geometric"``: statistics of the neighborhoods of its points at several scales, the
          distribution of the distances between points, and its extents. Nothing is trained.
        - ``"pointnet"``: a PointNet with its alignment networks, trained from scratch: in a
          joint fusion together with its head, alone with ``y`` through a linear head that is
          then dropped, or without ``y`` by reconstructing the distribution of the points along
          many directions.
        - an ``nn.Module``, trained like ``"pointnet"``: from floats ``(n, n_points, 3 +
          n_features)`` to ``(n, n_outputs)`` or ``(n, n_tokens, n_outputs)``. Clouds with fewer
          points have some of them repeated.
    n_points : int, default=1024
        Largest number of points of a cloud. A larger cloud is subsampled by the content of its
        points, independently of their order. The time of ``"geometric"``, and of
        ``rotation_invariant``, grows with the square of ``n_points``.
    rotation_invariant : bool, default=False
        Whether vectors do not change when a cloud is rotated, for data in which the orientation
        has no meaning. ``"geometric"`` then omits the statistics that depend on it. A network
        receives, instead of the coordinates of a point, its distance from the center and 18
        numbers that describe its neighborhood. Features are used unchanged: leave out normals,
        which rotate with the cloud.
    center : bool, default=True
        Whether to subtract the center of a cloud, so that its position has no effect.
    scale : bool, default=True
        Whether to divide a cloud by its root mean square radius, so that its size has no effect.
    use_features : bool, default=True
        Whether to use the columns after the third. False accepts clouds with different numbers
        of them.
    n_components : int, default=128
        Width of the vectors of ``"pointnet"``; that of ``"geometric"`` follows from the other
        parameters and the number of features.
    max_epochs : int, default=30
        Passes over the training clouds when a network is trained alone.
    learning_rate : float or "auto", default="auto"
        Step size of Adam when a network is trained alone. ``"auto"`` is 1e-3.
    batch_size : int, default=32
        Number of clouds per batch.
    warmup : float, default=0
        Epochs in which the step sizes grow linearly from zero, such as 1 or 0.5.
    early_stopping : bool, default=False
        Whether to hold out 10 % of the training clouds when a network is trained alone,
        stop after 10 epochs without a lower loss on them and keep the weights of the best epoch.
        With fewer than 40 clouds nothing is held out.
    on_error : {"raise", "missing"}, default="raise"
        What to do with an unreadable cloud: raise ``MediaDecodeError`` with its row and column,
        or warn and count it as absent.
    device : str, default="auto"
        Where the model runs: ``"auto"``, ``"cpu"``, ``"cuda"``, ``"cuda:1"``.
    store : path, EmbeddingStore, False or None, default=None
        Where the vectors of ``"geometric"`` are stored: a folder, a store, False for nowhere, or
        None for the store of :func:`skmm.set_config`.
    random_state : int, RandomState instance or None, default=None
        Seed of the training. ``"geometric"`` is deterministic.
    verbose : bool or int, default=0
        Whether to report progress.

    Attributes
    ----------
    n_outputs_ : int
        Number of output features.
    n_point_features_ : int
        Number of features: columns after the third of the first readable cloud seen in ``fit``.
        It is 0 without ``use_features`` or without a readable cloud.
    checkpoint_ : None
        There are no pretrained weights.
    history_ : list of dict
        One dict per epoch, with ``epoch`` from 1, ``train_loss`` and, if cells are held out,
        ``valid_loss``. Defined only if the encoder's own ``fit`` trained a network.
    n_features_in_ : int
        Number of columns seen in ``fit``.
    feature_names_in_ : ndarray of str
        Names of the columns seen in ``fit``, if ``X`` has names.

    Notes
    -----
    As a sequence (``transform_sequence``) a cloud has one token per point for ``"pointnet"``, at
    most ``n_points`` in an arbitrary order, and a single token for ``"geometric"``.

    References
    ----------
    Weinmann, Jutzi, Hinz and Mallet (2015), "Semantic point cloud interpretation based on optimal
    neighborhoods, relevant features and efficient classifiers", ISPRS Journal. Osada,
    Funkhouser, Chazelle and Dobkin (2002), "Shape distributions", ACM Transactions on Graphics.
    Qi, Su, Mo and Guibas (2017), "PointNet", CVPR.

    Examples
    --------
    >>> import numpy as np
    >>> import pandas as pd
    >>> from skmm import PointCloudEncoder
    >>> rng = np.random.default_rng(0)
    >>> clouds = [rng.normal(size=(n, 3)) for n in (300, 120, 1)]
    >>> X = pd.DataFrame({"scan": [*clouds, None, clouds[0][::-1]]})

    Clouds of any size; the row of the absent one is NaN, and the order of points has no effect.

    >>> encoder = PointCloudEncoder(rotation_invariant=True)
    >>> features = encoder.fit_transform(X)
    >>> features.shape
    (5, 118)
    >>> np.isnan(features).any(axis=1).tolist()
    [False, False, False, True, False]
    >>> np.allclose(features[0], features[4])
    True
    """

    modality: ClassVar[str] = "pointcloud"
    takes_numbers: ClassVar[bool] = False
    # Half precision cannot represent the difference of two points that are close together.
    dtype = "float32"
    _parameter_constraints: ClassVar[dict[str, Any]] = {
        "model": [StrOptions({"geometric", "pointnet"}), nn.Module],
        "n_points": POSITIVE_INT,
        "rotation_invariant": ["boolean"],
        "center": ["boolean"],
        "scale": ["boolean"],
        "use_features": ["boolean"],
        "n_components": POSITIVE_INT,
        "max_epochs": POSITIVE_INT,
        "learning_rate": LEARNING_RATE,
        "batch_size": BATCH_SIZE,
        "warmup": NON_NEGATIVE,
        "early_stopping": ["boolean"],
        "on_error": ON_ERROR,
        "device": DEVICE,
        "store": STORE,
        "random_state": RANDOM_STATE,
        "verbose": VERBOSE,
    }

    def __init__(
        self,
        model: Literal["geometric", "pointnet"] | nn.Module = "geometric",
        *,
        n_points: int = 1024,
        rotation_invariant: bool = False,
        center: bool = True,
        scale: bool = True,
        use_features: bool = True,
        n_components: int = 128,
        max_epochs: int = 30,
        learning_rate: LearningRate = "auto",
        batch_size: int = 32,
        warmup: float = 0,
        early_stopping: bool = False,
        on_error: OnError = "raise",
        device: str = "auto",
        store: StoreLike = None,
        random_state: RandomState = None,
        verbose: bool | int = 0,
    ):
        self.model = model
        self.n_points = n_points
        self.rotation_invariant = rotation_invariant
        self.center = center
        self.scale = scale
        self.use_features = use_features
        self.n_components = n_components
        self.max_epochs = max_epochs
        self.learning_rate = learning_rate
        self.batch_size = batch_size
        self.warmup = warmup
        self.early_stopping = early_stopping
        self.on_error = on_error
        self.device = device
        self.store = store
        self.random_state = random_state
        self.verbose = verbose

    @property
    def _is_from_scratch(self) -> bool:
        return isinstance(self.model, nn.Module) or self.model == "pointnet"

    def _unused_parameters(self) -> dict[str, str]:
        unused = super()._unused_parameters()
        if self._is_from_scratch:
            unused["store"] = "model"
        if self.model != "pointnet":
            unused["n_components"] = "model"
        return unused

    def _make_engine(self, columns: list[Column]) -> Engine:
        self._learn_n_features(columns)
        return _GeometricEngine(
            n_features=self.n_point_features_, n_points=self.n_points, **self._invariances()
        )

    def _make_backbone(self, cells: Sequence[np.ndarray]) -> Backbone:
        inputs = PointCloudInputs(n_points=self.n_points, **self._invariances()).fit(cells)
        if isinstance(self.model, nn.Module):
            # A copy: training must not touch the parameter.
            network = PointCloudModule(copy.deepcopy(self.model), inputs)
            network.measure(cells[0])
            return network
        return PointNet(inputs, n_components=self.n_components)

    def _invariances(self) -> dict[str, bool]:
        names = ("rotation_invariant", "center", "scale")
        return {name: bool(getattr(self, name)) for name in names}

    def _training_cells(self, columns: list[Column]) -> tuple[list[Any], list[Place]]:
        self._learn_n_features(columns)
        return super()._training_cells(columns)

    def _learn_n_features(self, columns: list[Column]) -> None:
        """Store the number of features of the first readable cloud."""
        first = first_readable(columns, partial(read_points, n_surface=self.n_points))
        has_features = self.use_features and first is not None
        self.n_point_features_ = first.shape[1] - 3 if has_features else 0

    def _read(self, cell: object) -> np.ndarray:
        return self._checked(read_points(cell, n_surface=self.n_points))

    def _digest(self, cell: object) -> bytes:
        return digest_points(cell)

    def _read_with_digest(self, cell: object) -> tuple[bytes, np.ndarray]:
        digest, cloud = load_points(cell, n_surface=self.n_points)
        return digest, self._checked(cloud)

    def _reading(self) -> dict[str, Any]:
        return {"n_surface": int(self.n_points), "use_features": bool(self.use_features)}

    def _checked(self, cloud: np.ndarray) -> np.ndarray:
        if not self.use_features:
            return cloud[:, :3]
        if cloud.shape[1] != 3 + self.n_point_features_:
            raise CellTypeError(
                f"A point cloud of shape {cloud.shape} does not fit the first training cell, whose"
                f" points have {3 + self.n_point_features_} values. Use use_features=False to take"
                " x, y and z alone."
            )
        return cloud


class _GeometricEngine(BackboneEngine):
    """Geometric descriptor, which has parameters and no weights.

    Parameters
    ----------
    **parameters : int or bool
        All parameters of ``PointDescriptor``.
    """

    def __init__(self, **parameters: int | bool):
        self.parameters: dict[str, Any] = {
            name: value if isinstance(value, bool) else int(value)
            for name, value in parameters.items()
        }
        self.descriptor = PointDescriptor(**self.parameters)
        self.n_outputs = self.descriptor.width

    def fingerprint(self, runtime: Runtime) -> str | None:
        facts = {
            "format": _FORMAT,
            "model": "geometric",
            **self.parameters,
            "torch": torch.__version__.split("+")[0].rsplit(".", 1)[0],
        }
        return json.dumps(facts, sort_keys=True)

    def backbone_on(self, runtime: Runtime) -> PointDescriptor:
        return self.descriptor
