"""Point clouds to vectors."""

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
from skmm.encoders._cell_encoder import CellEncoder, OnError
from skmm.encoders._engines._base import BackboneEngine, Engine, Runtime
from skmm.encoders._pass import Place, first_readable
from skmm.encoders._store._store import StoreLike
from skmm.exceptions import CellTypeError
from skmm.readers._points import digest_points, load_points, read_points

__all__ = ["PointCloudEncoder"]

# Raised when code of ours changes what a descriptor is.
_FORMAT = 1


class PointCloudEncoder(CellEncoder):
    """Encode point clouds by their geometry or with a small network.

    A cell is an array or list of lists ``(n_points, 3 + n_features)``: x, y and z of each point,
    then any further numbers (intensity, color). Or it is a path or the bytes of a file: NPY,
    text with a point a line, and with the extra ``points`` PLY, PCD, OBJ, OFF and STL; their
    format is told from their content. A mesh stands for ``n_points`` points of its surface.

    Clouds may differ in their number of points, not in their number of features. The order of
    the points never matters. A point with a NaN or an infinite value is left out, as sensors
    write them where nothing came back; a cloud without any other point is unreadable.

    Parameters
    ----------
    model : {"geometric", "pointnet"} or nn.Module, default="geometric"
        What looks at the cloud:

        - ``"geometric"``: statistics of the neighborhoods of its points at several scales, the
          distribution of the distances between them, its extents. Nothing is trained.
        - ``"pointnet"``: a PointNet with its alignment nets, trained from scratch: inside a joint
          fusion with its head, alone with ``y`` through a linear head that is then dropped, or
          without ``y`` by reconstructing how the points are spread along many directions.
        - an ``nn.Module``, trained like ``"pointnet"``: from floats ``(n, n_points, 3 +
          n_features)`` to ``(n, width)`` or ``(n, n_tokens, width)``. Of clouds with fewer
          points it sees some several times.
    n_points : int, default=1024
        How many points of a cloud are looked at: all of a smaller one, and of a larger one as
        many as this, chosen by their content, so they are the same ones in whatever order. The
        time of ``"geometric"``, and of ``rotation_invariant``, grows with its square.
    rotation_invariant : bool, default=False
        Whether vectors stay the same when a cloud is turned, to be used where its direction means
        nothing. ``"geometric"`` then leaves out what turns with it. A network is given, in place
        of the coordinates of a point, its distance from the center and 18 numbers on its
        neighborhood. Features count as they are: leave out normals, which turn.
    center : bool, default=True
        Whether the position of a cloud is left out.
    scale : bool, default=True
        Whether the size of a cloud is left out, its root mean square radius.
    use_features : bool, default=True
        Whether columns after the third are used. False takes clouds with any of them.
    n_components : int, default=128
        Width of the vectors of ``"pointnet"``. That of ``"geometric"`` follows from the other
        parameters and the features.
    max_epochs : int, default=30
        Passes over the training clouds when a network is trained alone.
    learning_rate : float, default=1e-3
        Step size when a network is trained alone.
    batch_size : int, default=32
        Clouds that go through the model at once.
    on_error : {"raise", "missing"}, default="raise"
        What to do with an unreadable cloud: raise ``MediaDecodeError`` with its row and column,
        or warn and count it as absent.
    device : str, default="auto"
        Where the model runs: ``"auto"``, ``"cpu"``, ``"cuda"``, ``"cuda:1"``.
    store : path, EmbeddingStore, False or None, default=None
        Where vectors of ``"geometric"`` are kept; see :func:`skmm.set_config`.
    random_state : int, RandomState instance or None, default=None
        Seed of what is trained here. ``"geometric"`` draws nothing.
    verbose : bool or int, default=0
        Whether to report progress.

    Attributes
    ----------
    n_outputs_ : int
        Width of the result.
    n_point_features_ : int
        Columns after the third, of the first readable cloud seen in ``fit``; 0 if there is none.
    checkpoint_ : None
        There are no pretrained weights.
    loss_curve_ : list of float
        Mean loss of every epoch, if a network was trained alone.
    n_features_in_ : int
        Number of columns seen in ``fit``.
    feature_names_in_ : ndarray of str
        Names of the columns seen in ``fit``, if it saw names.

    Notes
    -----
    As a sequence (``transform_sequence``) a cloud is one token a point of ``"pointnet"``, at most
    ``n_points`` of them and in no order of meaning; of ``"geometric"`` it is a single token.

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

    Clouds of any size; the absent one stays absent, and the order of points does not matter.

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
    # Half precision has no digits for the difference of two points that are near each other.
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
        learning_rate: float = 1e-3,
        batch_size: int = 32,
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
        self.on_error = on_error
        self.device = device
        self.store = store
        self.random_state = random_state
        self.verbose = verbose

    @property
    def _is_from_scratch(self) -> bool:
        return isinstance(self.model, nn.Module) or self.model == "pointnet"

    def _without_effect(self) -> dict[str, str]:
        idle = ["store"] if self._is_from_scratch else ["max_epochs", "learning_rate"]
        if self.model != "pointnet":
            idle.append("n_components")
        return dict.fromkeys(idle, "model")

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
        """Take the number of features of the first readable cloud for that of all."""
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
    """A descriptor, which has parameters and no weights.

    Parameters
    ----------
    **parameters : int or bool
        Parameters of ``PointDescriptor``; all of them are required.
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
