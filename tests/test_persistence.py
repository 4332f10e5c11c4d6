"""Every public estimator comes back from a file as it went in.

By pickle, by joblib (compressed, and as read-only maps of the file), by skops where it takes the
estimator, and in another process. What cannot be had is in one table, with the reason.
"""

import io
import pickle
from functools import cache

import joblib
import numpy as np
import pytest
import torch
from processes import run
from representatives import one_of_each_engine
from saved import answers, assert_equal, modules_of
from sklearn.utils.validation import check_is_fitted

from skmm import ImageEncoder, LateFusionClassifier, TextEncoder
from skmm.alignment import PretrainedAlignment
from skmm.exceptions import CheckpointError
from skmm.retrieval import CrossModalRetriever, PrototypeClassifier, ZeroShotClassifier
from skmm.testing import all_estimators
from skmm.testing._encoder_case import EncoderCase
from skmm.testing._fusion_case import FusionCase
from skmm.testing._instances import PRETRAINED, cells_of, fit_pretrained, instances_of
from skmm.testing._toys import fusion_frame, toy_cells, toy_rows

CLASSES = dict(all_estimators())
INSTANCES = {name: instances_of(cls) for name, cls in CLASSES.items()}
CASES = [
    (name, instances.index(instance))
    for name, instances in INSTANCES.items()
    for instance in one_of_each_engine(instances)
]

# Why skops does not take an estimator. Every other case makes the whole way.
TORCH = "holds a network, and skops builds no tensors"
FRAME = "keeps the rows that it searches, and skops takes no DataFrame"
NOT_BY_SKOPS = {
    ("AudioEncoder", 0): TORCH,
    ("AutoencoderAlignment", 0): TORCH,
    ("CCAAlignment", 0): TORCH,
    ("CaptionGenerator", 0): TORCH,
    ("ContrastiveAlignment", 0): TORCH,
    ("CrossModalRetriever", 0): FRAME,
    ("ImageEncoder", 0): TORCH,
    **{("ImageGenerator", i): TORCH for i in (0, 1)},
    ("JointFusionClassifier", 0): TORCH,
    ("JointFusionMultiTask", 0): TORCH,
    ("JointFusionRegressor", 0): TORCH,
    ("ModuleEncoder", 0): TORCH,
    ("PointCloudEncoder", 0): TORCH,
    ("QuestionAnswerer", 0): TORCH,
    ("SeriesGenerator", 0): TORCH,
    ("TabularEncoder", 0): TORCH,
    ("TextEncoder", 0): TORCH,
    **{("TimeSeriesEncoder", i): TORCH for i in (0, 3)},
    ("VideoEncoder", 0): TORCH,
}


@cache
def fitted(name, i):
    """A fitted instance, rows to ask it about, and what it answers. Not to be changed."""
    instance = instances_of(CLASSES[name])[i]
    if isinstance(instance, PrototypeClassifier):
        frame, classes, _ = fusion_frame()
        X = frame[["a", "b"]].fillna(0.0)
        instance.fit(X, classes)
    elif isinstance(instance, CrossModalRetriever | ZeroShotClassifier):
        X, y = toy_rows()
        instance.fit(X, y)
    elif isinstance(instance, PRETRAINED):
        instance, X = fit_pretrained(instance)
    elif hasattr(instance, "modalities"):
        case = FusionCase(instance)
        instance, X = case.fit(), case.X
    else:
        case = EncoderCase(instance, cells_of(instance))
        instance, X = case.fit(), case.X
    return instance, X, answers(instance, X)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "i"), CASES)
def test_pickle(name, i):
    estimator, X, expected = fitted(name, i)
    loaded = pickle.loads(pickle.dumps(estimator))
    assert_equal(answers(loaded, X), expected)
    # And once more: what was loaded and used is saved like what was fitted.
    assert_equal(answers(pickle.loads(pickle.dumps(loaded)), X), expected)


@pytest.fixture
def every_warning():
    """Of a read-only array torch warns once a process, and the test that meets it is by chance."""
    torch.set_warn_always(True)
    yield
    torch.set_warn_always(False)


@pytest.mark.slow
@pytest.mark.usefixtures("every_warning")
@pytest.mark.parametrize(("name", "i"), CASES)
def test_joblib_as_read_only_maps_of_the_file(name, i, tmp_path):
    estimator, X, expected = fitted(name, i)
    joblib.dump(estimator, tmp_path / "estimator.joblib")
    loaded = joblib.load(tmp_path / "estimator.joblib", mmap_mode="r")
    assert_equal(answers(loaded, X), expected)


@pytest.mark.slow
def test_in_another_process(tmp_path):
    for name, i in CASES:
        joblib.dump(fitted(name, i), tmp_path / f"{name}-{i}.joblib", compress=3)
    code = """
        import joblib
        from pathlib import Path
        from saved import answers, assert_equal

        paths = sorted(Path(sys.argv[1]).glob("*.joblib"))
        for path in paths:
            estimator, X, expected = joblib.load(path)
            try:
                assert_equal(answers(estimator, X), expected)
            except Exception as error:
                raise AssertionError(path.stem) from error
        print(len(paths))
    """
    assert int(run(code, arguments=[tmp_path])) == len(CASES)


def test_unfitted_stays_unfitted():
    for cls in CLASSES.values():
        for instance in instances_of(cls):
            loaded = pickle.loads(pickle.dumps(instance))
            assert repr(loaded) == repr(instance)
            with pytest.raises(Exception, match="not fitted"):
                check_is_fitted(loaded)


# ---- skops ---------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(("name", "i"), CASES)
def test_skops(name, i):
    skops = pytest.importorskip("skops.io", reason="skops is not installed")
    estimator, X, expected = fitted(name, i)
    if (name, i) in NOT_BY_SKOPS:
        with pytest.raises((RuntimeError, TypeError)):
            skops.dumps(estimator)
        return
    data = skops.dumps(estimator)
    types = skops.get_untrusted_types(data=data)
    # What has to be trusted can be read: classes of skmm, and what the user brought along.
    assert types and all(t.startswith(("skmm.", "pathlib.", "torch.nn.modules.")) for t in types)
    assert any(t.endswith(f".{name}") for t in types)
    with pytest.raises(Exception, match="Untrusted types"):
        skops.loads(data)
    assert_equal(answers(skops.loads(data, trusted=types), X), expected)


def test_table_of_skops_names_what_is_there():
    assert set(NOT_BY_SKOPS) <= set(CASES)
    assert len(NOT_BY_SKOPS) < len(CASES)


# ---- weights -------------------------------------------------------------------------------


def other_weights(folder):
    file = folder / "model.safetensors"
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)


@pytest.mark.slow
@pytest.mark.parametrize("where", ["encoder", "fusion", "alignment"])
@pytest.mark.parametrize("kind", ["pickle", "skops"])
def test_pretrained(where, kind, copied_checkpoint):
    """The weights are not in the file; those of fit are needed, and others are refused."""
    skops = pytest.importorskip("skops.io", reason="skops is not installed")
    folder = copied_checkpoint("clip")
    if where == "fusion":
        X, y, _ = fusion_frame()
        words = ("words", TextEncoder(str(folder)), ["text"])
        estimator = LateFusionClassifier([words, ("numbers", "passthrough", ["a", "b"])], cv=2)
        estimator.fit(X, y)
    else:
        X = toy_cells("image")
        cls = ImageEncoder if where == "encoder" else PretrainedAlignment
        estimator = cls(str(folder)).fit(X)
    expected = answers(estimator, X)
    if kind == "pickle":
        data = pickle.dumps(estimator)
        load = pickle.loads
    else:
        data = skops.dumps(estimator)
        types = skops.get_untrusted_types(data=data)
        load = lambda data: skops.loads(data, trusted=types)  # noqa: E731
    weights = (folder / "model.safetensors").stat().st_size
    assert where == "fusion" or len(pickle.dumps(estimator)) < weights / 4
    assert_equal(answers(load(data), X), expected)
    other_weights(folder)
    with pytest.raises(CheckpointError, match="fitted with other weights"):
        answers(load(data), X.iloc[::-1])


# ---- from a GPU to the CPU -----------------------------------------------------------------


def devices_in(data):
    """Devices of all tensors in a pickle."""
    found = set()

    class Unpickler(pickle.Unpickler):
        def find_class(self, module, name):
            value = super().find_class(module, name)
            if name in ("_rebuild_tensor_v2", "_rebuild_meta_tensor_no_storage"):
                return lambda *args: found.add(str((t := value(*args)).device)) or t
            return value

    Unpickler(io.BytesIO(data)).load()
    return found


WITH_NETWORK = [case for case in CASES if NOT_BY_SKOPS.get(case) == TORCH]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "i"), WITH_NETWORK)
@pytest.mark.parametrize("used", [False, True], ids=["fitted", "loaded"])
def test_a_pickle_is_made_on_the_cpu(name, i, used):
    """A network on another device is brought back first, also if it was loaded and then used.

    The other device is torch's "meta", which has no values: bringing it back fails, and a pickle
    that forgot to would succeed.
    """
    estimator, X, _ = fitted(name, i)
    estimator = pickle.loads(pickle.dumps(estimator))
    if not used:
        # As fitted: with the net that trained it, where there is one.
        original = fitted(name, i)[0]
        if hasattr(original, "net_"):
            estimator.net_ = original.net_
    assert devices_in(pickle.dumps(estimator)) <= {"cpu"}
    networks = modules_of({k: v for k, v in vars(estimator).items() if k != "net_"})
    params = [id(m) for m in modules_of(list(estimator.get_params(deep=False).values()))]
    networks = [m for m in networks if id(m) not in params and any(True for _ in m.parameters())]
    if not networks:
        pytest.skip("its network has no weights of its own")
    for network in networks:
        network.to("meta")
    with pytest.raises(NotImplementedError, match="Cannot copy out of meta tensor"):
        pickle.dumps(estimator)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize(("name", "i"), WITH_NETWORK)
def test_trained_on_a_gpu_used_on_the_cpu(name, i, tmp_path):
    instance = instances_of(CLASSES[name])[i]
    if "device" not in instance.get_params():
        pytest.skip("it has no device")
    instance.set_params(device="cuda")
    is_fusion = hasattr(instance, "modalities")
    case = FusionCase(instance) if is_fusion else EncoderCase(instance, cells_of(instance))
    estimator = case.fit()
    expected = answers(estimator, case.X)
    data = pickle.dumps(estimator)
    assert devices_in(data) <= {"cpu"}
    loaded = pickle.loads(data).set_params(device="cpu")
    found = answers(loaded, case.X)
    for key, array in expected.items():
        if array.dtype.kind == "f":
            np.testing.assert_allclose(found[key], array, rtol=1e-2, atol=1e-3)
