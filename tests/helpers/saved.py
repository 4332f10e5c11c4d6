"""What an estimator answers, for comparisons before and after it was saved."""

import numpy as np
import torch

VERBS = ("transform", "transform_sequence", "predict_proba", "decision_function", "predict")


def answers(estimator, X):
    """Everything that an estimator says about rows, as a dict of arrays."""
    found = {}
    if hasattr(estimator, "kneighbors"):
        found["distances"], found["neighbors"] = estimator.kneighbors(X[["text"]], 3)
    for verb in VERBS:
        if hasattr(estimator, verb):
            collect(found, verb, getattr(estimator, verb)(X))
    return found


def collect(found, name, value):
    if isinstance(value, dict):
        for key, part in value.items():
            collect(found, f"{name}-{key}", part)
    elif isinstance(value, tuple | list):
        for i, part in enumerate(value):
            collect(found, f"{name}-{i}", part)
    else:
        array = np.asarray(value)
        if array.dtype == object and len(array) and isinstance(array[0], np.ndarray):
            found[f"{name}-shapes"] = np.array([str(cell.shape) for cell in array])
            array = np.concatenate([cell.ravel() for cell in array])
        found[name] = array.astype(str) if array.dtype == object else array


def assert_equal(found, expected):
    assert found.keys() == expected.keys() and expected
    for name, array in expected.items():
        if array.dtype.kind == "f":
            # Not to the last bit: sums round otherwise where an array lies otherwise in memory.
            np.testing.assert_allclose(found[name], array, rtol=1e-5, atol=1e-6, err_msg=name)
        else:
            np.testing.assert_array_equal(found[name], array, err_msg=name)


def modules_of(value, seen=None):
    """Networks that an object holds, however deep, without their parts."""
    seen = set() if seen is None else seen
    if id(value) in seen or isinstance(value, str | bytes | int | float | type | np.ndarray):
        return []
    seen.add(id(value))
    if isinstance(value, torch.nn.Module):
        return [value]
    if isinstance(value, dict):
        parts = list(value.values())
    elif isinstance(value, list | tuple | set):
        parts = list(value)
    elif type(value).__module__.partition(".")[0] in ("skmm", "sklearn"):
        parts = list(getattr(value, "__dict__", {}).values())
    else:
        return []
    return [module for part in parts for module in modules_of(part, seen)]
