"""``check_fusion`` finds violations of the contract and names them."""

import numpy as np
import pandas as pd
import pytest

from skmm import EarlyFusion, LateFusionClassifier
from skmm.testing import check_fusion
from skmm.testing._encoder_checks import run_checks
from skmm.testing._fusion_case import FusionCase
from skmm.testing._fusion_checks import FUSION_CHECKS


def containing(*parts):
    """Return a pattern of messages that contain all parts, in any order."""
    return "(?s)" + "".join(f"(?=.*(?:{part}))" for part in parts)


class Interferes(EarlyFusion):
    """Interferes before ``fit`` and ``fit_transform``."""

    def fit(self, X, y=None, **params):
        self._interfere()
        return super().fit(X, y, **params)

    def fit_transform(self, X, y=None, **params):
        self._interfere()
        return super().fit_transform(X, y, **params)


class FitsTheGiven(Interferes):
    def _interfere(self):
        if isinstance(self.modalities, list) and hasattr(self.modalities[0][1], "fit"):
            self.modalities[0][1].fit(np.array([["a"], ["b"]], dtype=object))


class CentersRows(EarlyFusion):
    def transform(self, X):
        features = np.asarray(super().transform(X))
        return features - features.mean(axis=0)


class GivesNaN(EarlyFusion):
    def _side_by_side(self, values, **options):
        features = super()._side_by_side(values, **options)
        features[~values[0].present, 0] = np.nan
        return features


class UniformPrior(LateFusionClassifier):
    def predict_proba(self, X):
        proba = super().predict_proba(X)
        proba[pd.DataFrame(X).isna().all(axis=1).to_numpy()] = 1 / proba.shape[1]
        return proba


class KeepsDropped(Interferes):
    def _interfere(self):
        if any(transformer == "drop" for _, transformer, _ in self.modalities):
            self.modalities = [
                (name, "passthrough" if transformer == "drop" else transformer, columns)
                for name, transformer, columns in self.modalities
            ]


class SharesNames(EarlyFusion):
    def get_feature_names_out(self, input_features=None):
        names = super().get_feature_names_out(input_features)
        return np.array([name.partition("__")[2] for name in names], dtype=object)


class HidesParameters(EarlyFusion):
    def get_params(self, deep=True):
        return super().get_params(deep=False)


class SeedsNumpy(Interferes):
    def _interfere(self):
        np.random.seed(0)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("broken", "check", "message"),
    [
        (FitsTheGiven, "check_triples", "fits the transformer that it was given"),
        (KeepsDropped, "check_drop", "for a dropped modality than without it"),
        (HidesParameters, "check_parameters", "does not have 'words'"),
        (SharesNames, "check_feature_names", "two outputs the same name"),
        (SeedsNumpy, "check_input_and_seeds", "numpy's random generator"),
        (GivesNaN, "check_missing_at_fit_and_predict", "returns NaN for rows without a modality"),
        (UniformPrior, "check_row_without_any_modality", "does not give the prior"),
        (CentersRows, "check_rows_are_independent", "depends on the other rows"),
    ],
)
def test_violation_is_found(broken, check, message):
    fusion = broken(rule="mean") if broken is UniformPrior else broken()
    checks = [c for c in FUSION_CHECKS if c.__name__.startswith(check)]
    with pytest.raises(AssertionError, match=containing(broken.__name__, message, check)):
        run_checks(checks, FusionCase(fusion))
    with pytest.raises(AssertionError, match=broken.__name__):
        check_fusion(fusion)
