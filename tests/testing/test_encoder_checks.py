"""``check_encoder`` finds violations of the contract and names them."""

import itertools
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from skmm import ImageEncoder, ModuleEncoder, TextEncoder
from skmm.encoders._base import BaseEncoder, TokenSequence
from skmm.exceptions import CellTypeError
from skmm.readers import read_text
from skmm.readers._source import with_position
from skmm.testing import check_encoder
from skmm.testing._encoder_case import EncoderCase
from skmm.testing._encoder_checks import ENCODER_CHECKS, run_checks
from skmm.testing._instances import cells_of


class Lengths(BaseEncoder):
    """Encode a text by its numbers of letters and spaces."""

    modality = "text"
    _parameter_constraints = {"scale": [float], "random_state": ["random_state"]}

    def __init__(self, scale=1.0, random_state=0):
        self.scale = scale
        self.random_state = random_state

    def _fit_columns(self, columns, y):
        self.n_outputs_ = 2 * len(columns)

    def _vector(self, cell):
        text = read_text(cell)
        return [self.scale * len(text), self.scale * text.count(" ")]

    def _encode_columns(self, columns):
        features = np.full((len(columns[0].values), 2 * len(columns)), np.nan, np.float32)
        for c, column in enumerate(columns):
            for row in np.flatnonzero(~column.missing):
                try:
                    features[row, 2 * c : 2 * c + 2] = self._vector(column.values[row])
                except CellTypeError as error:
                    raise with_position(
                        error, column=column.name, row=column.labels[row]
                    ) from error
        return features

    def _encode_sequence(self, columns):
        features = self._encode_columns(columns).reshape(-1, len(columns), 2)
        mask = ~np.column_stack([column.missing for column in columns])
        return TokenSequence(np.nan_to_num(features), mask)

    def _output_names(self, names):
        return [f"{name}_{what}" for name in names for what in ("letters", "spaces")]


def test_custom_encoder_passes():
    check_encoder(Lengths())


class LoadsInInit(Lengths):
    def __init__(self, scale=1.0, random_state=0):
        super().__init__(scale, random_state)
        self.weights = np.ones(3)


class ValidatesInInit(Lengths):
    def __init__(self, scale=1.0, random_state=0):
        super().__init__(float(scale), random_state)


class EmptyForMissing(Lengths):
    def _encode_columns(self, columns):
        return np.nan_to_num(super()._encode_columns(columns))


class MissesOneSpelling(Lengths):
    def _encode_columns(self, columns):
        features = super()._encode_columns(columns)
        features[[cell is pd.NaT for cell in columns[0].values]] = 0.0
        return features


class TokensForMissing(Lengths):
    def _encode_sequence(self, columns):
        tokens, mask = super()._encode_sequence(columns)
        return TokenSequence(tokens, np.ones_like(mask))


class DependsOnBatch(Lengths):
    def _encode_columns(self, columns):
        features = super()._encode_columns(columns)
        return features - np.nanmean(features, axis=0) if len(features) > 1 else features


class DependsOnPosition(Lengths):
    def _encode_columns(self, columns):
        features = super()._encode_columns(columns)
        return features + np.arange(len(features), dtype=np.float32)[:, None]


class DependsOnIndex(Lengths):
    def _encode_columns(self, columns):
        features = super()._encode_columns(columns)
        return features + np.array([[len(str(label))] for label in columns[0].labels], np.float32)


class ChangesInput(Lengths):
    def transform(self, X):
        if isinstance(X, pd.DataFrame):
            X.iloc[0, 0] = "changed"
        return super().transform(X)


class SharesItsMemory(Lengths):
    def _encode_columns(self, columns):
        features = super()._encode_columns(columns)
        self._last = getattr(self, "_last", features)
        return self._last if self._last.shape == features.shape else features


class AcceptsAnything(Lengths):
    def _vector(self, cell):
        return super()._vector(str(cell))


class Anonymous(Lengths):
    def _encode_columns(self, columns):
        try:
            return super()._encode_columns(columns)
        except CellTypeError:
            raise CellTypeError("some cell is wrong") from None


class Doubles(Lengths):
    def _encode_columns(self, columns):
        return super()._encode_columns(columns).astype(np.float64)


class SameNames(Lengths):
    def get_feature_names_out(self, input_features=None):
        return np.array(["x"] * len(super().get_feature_names_out(input_features)), dtype=object)


class SeedsTorch(Lengths):
    def _fit_columns(self, columns, y):
        torch.manual_seed(0)
        super()._fit_columns(columns, y)


class IgnoresItsSeed(Lengths):
    n_fits = itertools.count()

    def _fit_columns(self, columns, y):
        super()._fit_columns(columns, y)
        self._noise = torch.rand(1, generator=torch.Generator().manual_seed(next(self.n_fits)))

    def _vector(self, cell):
        return [value + float(self._noise) for value in super()._vector(cell)]


class ForgetsInPickle(Lengths):
    def __getstate__(self):
        return {**super().__getstate__(), "scale": 2.0}


class TakesAnyColumns(Lengths):
    def _check_columns(self, X, *, reset):
        return super()._check_columns(X, reset=True)


class NeedsNoFit(Lengths):
    def __sklearn_is_fitted__(self):
        return True


class LearnsInClone(Lengths):
    def __sklearn_clone__(self):
        copy = type(self)(**self.get_params())
        if hasattr(self, "n_outputs_"):
            copy.n_outputs_ = self.n_outputs_
        return copy


class PandasOnly(Lengths):
    def _check_columns(self, X, *, reset):
        if not isinstance(X, pd.DataFrame):
            raise TypeError("Give a pandas frame.")
        return super()._check_columns(X, reset=reset)


def containing(*parts):
    """Return a pattern of messages that contain all parts, in any order."""
    return "(?s)" + "".join(f"(?=.*(?:{part}))" for part in parts)


BROKEN = [
    (LoadsInInit, "check_init_only_stores", "sets .*weights.*, which are not parameters"),
    (ValidatesInInit, "check_init_only_stores", "validates its parameters"),
    (LearnsInClone, "check_clone", "has .*n_outputs_"),
    (NeedsNoFit, "check_needs_fit", "must raise NotFittedError"),
    (Doubles, "check_output", "gives float64"),
    (SameNames, "check_feature_names", "two outputs the same name"),
    (TakesAnyColumns, "check_columns", "must refuse columns with other names"),
    (ForgetsInPickle, "check_pickle", "something else after a pickle"),
    (ChangesInput, "check_input_is_left_alone", "changes its input frame"),
    (SharesItsMemory, "check_input_is_left_alone", "changes later outputs"),
    (SeedsTorch, "check_seeds", "torch's random generator"),
    (IgnoresItsSeed, "check_seeds", "other vectors for the same random_state"),
    (PandasOnly, "check_containers", "Give a pandas frame"),
    (EmptyForMissing, "check_missing_cells", "absence must stay visible"),
    (MissesOneSpelling, "check_missing_cells", "absent .NaTType NaT"),
    (TokensForMissing, "check_missing_cells", "a token for an absent cell"),
    (DependsOnBatch, "check_rows_are_independent", "depends on the other rows"),
    (DependsOnPosition, "check_rows_are_independent", "depends on the other rows"),
    (DependsOnIndex, "check_labels_do_not_matter", "The index of a frame changes"),
    (AcceptsAnything, "check_opaque_cells", "must refuse a cell of type Opaque"),
    (Anonymous, "check_opaque_cells", "does not name"),
]


@pytest.mark.parametrize(
    ("broken", "check", "message"), BROKEN, ids=lambda v: getattr(v, "__name__", None)
)
def test_violation_is_found(broken, check, message):
    """The responsible check fails with a message about the violation."""
    checks = [c for c in ENCODER_CHECKS if c.__name__ == check]
    assert len(checks) == 1
    with pytest.raises(AssertionError, match=containing(broken.__name__, message, check)):
        run_checks(checks, EncoderCase(broken()))
    with pytest.raises(AssertionError, match=broken.__name__):
        check_encoder(broken())


@pytest.mark.slow
def test_store_that_ignores_a_parameter_is_found(tiny_bert, monkeypatch):
    def fingerprint(self, runtime):
        return f"{self.identity['digest']}|{runtime.dtype}"

    monkeypatch.setattr(
        "skmm.encoders._engines._pretrained.PretrainedEngine.fingerprint", fingerprint
    )
    with pytest.raises(AssertionError, match=r"'pooling'.*belong to other parameters.*check_store"):
        check_encoder(TextEncoder(tiny_bert))


@pytest.mark.slow
def test_store_that_keeps_nothing_is_found(tiny_bert, monkeypatch):
    from skmm.encoders._engines._pretrained import PretrainedEngine

    honest = PretrainedEngine.fingerprint
    calls = iter(range(10_000))
    monkeypatch.setattr(
        PretrainedEngine,
        "fingerprint",
        lambda self, runtime: honest(self, runtime) + str(next(calls)),
    )
    with pytest.raises(AssertionError, match="encodes 8 stored cells again"):
        check_encoder(TextEncoder(tiny_bert))


class IdleWeights(ImageEncoder):
    def start_training(self, X, y=None):
        network = super().start_training(X, y)
        network.idle = nn.Parameter(torch.ones(1))
        return network


class AbsentIsPresent(ImageEncoder):
    def training_tensors(self, X):
        inputs = super().training_tensors(X)
        columns = (replace(c, present=c.present | True) for c in inputs.columns)
        return replace(inputs, columns=tuple(columns))


class DiscardsTraining(ImageEncoder):
    def end_training(self, network):
        nn.init.normal_(network.backbone.stem.weight)
        return super().end_training(network)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (IdleWeights, "idle of the network .* gets no gradient"),
        (AbsentIsPresent, "gives a token for an absent cell"),
        (DiscardsTraining, "differs from the output of the trained network"),
    ],
)
def test_faulty_training_is_found(broken, message):
    with pytest.raises(AssertionError, match=containing(message, "check_training")):
        check_encoder(broken("cnn", n_components=8, image_size=16, max_epochs=1, random_state=0))


def test_cells_are_required():
    encoder = ModuleEncoder(nn.Linear(4, 2))
    with pytest.raises(ValueError, match="no toy cells of modality 'module'. Give X, a DataFrame"):
        check_encoder(encoder)
    for X in ([1, 2, 3, 4], cells_of(encoder).iloc[:2], cells_of(encoder).assign(value=None)):
        with pytest.raises(ValueError, match="at least four rows without missing cells"):
            check_encoder(encoder, X)


def test_every_error_becomes_an_assertion_error():
    class Raises(Lengths):
        def _vector(self, cell):
            raise ZeroDivisionError("oh")

    with pytest.raises(AssertionError, match="Raises raised ZeroDivisionError in check_.*: oh"):
        check_encoder(Raises())
