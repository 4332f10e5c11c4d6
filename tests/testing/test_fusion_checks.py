"""Our contract of fusions finds what breaks it, and says it in a sentence."""

import numpy as np
import pandas as pd
import pytest

from skmm import EarlyFusion, LateFusionClassifier
from skmm.testing import check_fusion
from skmm.testing._encoder_checks import run_checks
from skmm.testing._fusion_case import FusionCase
from skmm.testing._fusion_checks import FUSION_CHECKS


def tells(*parts):
    """Pattern of a message that holds all the parts, in any order."""
    return "(?s)" + "".join(f"(?=.*(?:{part}))" for part in parts)


class Meddles(EarlyFusion):
    """Does something before it is fitted, by either verb."""

    def fit(self, X, y=None, **params):
        self._meddle()
        return super().fit(X, y, **params)

    def fit_transform(self, X, y=None, **params):
        self._meddle()
        return super().fit_transform(X, y, **params)


class FitsTheGiven(Meddles):
    def _meddle(self):
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


class EvenOdds(LateFusionClassifier):
    def predict_proba(self, X):
        odds = super().predict_proba(X)
        odds[pd.DataFrame(X).isna().all(axis=1).to_numpy()] = 1 / odds.shape[1]
        return odds


class KeepsDropped(Meddles):
    def _meddle(self):
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


class SeedsNumpy(Meddles):
    def _meddle(self):
        np.random.seed(0)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("broken", "check", "message"),
    [
        (FitsTheGiven, "check_triples", "fits the transformer that it was given"),
        (KeepsDropped, "check_drop", "for a modality that is 'drop' than for none"),
        (HidesParameters, "check_parameters", "does not have 'words'"),
        (SharesNames, "check_feature_names", "two outputs the same name"),
        (SeedsNumpy, "check_input_and_seeds", "numpy's random generator"),
        (GivesNaN, "check_missing_at_fit_and_predict", "gives NaN for rows that lack"),
        (EvenOdds, "check_row_without_any_modality", "does not give the prior"),
        (CentersRows, "check_rows_are_independent", "depends on the other rows"),
    ],
)
def test_check_fusion_finds(broken, check, message):
    fusion = broken(rule="mean") if broken is EvenOdds else broken()
    checks = [c for c in FUSION_CHECKS if c.__name__.startswith(check)]
    with pytest.raises(AssertionError, match=tells(broken.__name__, message, check)):
        run_checks(checks, FusionCase(fusion))
    with pytest.raises(AssertionError, match=broken.__name__):
        check_fusion(fusion)
