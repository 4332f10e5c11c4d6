# Why there are stubs at all: see sklearn/__init__.pyi.
from typing import Any

import numpy as np

class InputTags:
    one_d_array: bool
    two_d_array: bool
    three_d_array: bool
    sparse: bool
    categorical: bool
    string: bool
    dict: bool
    positive_only: bool
    allow_nan: bool
    pairwise: bool

class TargetTags:
    required: bool
    one_d_labels: bool
    two_d_labels: bool
    positive_only: bool
    multi_output: bool
    single_output: bool

class TransformerTags:
    preserves_dtype: list[str]

class ClassifierTags:
    poor_score: bool
    multi_class: bool
    multi_label: bool
    def __init__(
        self, poor_score: bool = False, multi_class: bool = True, multi_label: bool = False
    ) -> None: ...

class RegressorTags:
    poor_score: bool

class Tags:
    estimator_type: str | None
    target_tags: TargetTags
    # None where the estimator has no such role; which one it has, its mixins say, not its type.
    transformer_tags: Any
    classifier_tags: Any
    regressor_tags: Any
    array_api_support: bool
    no_validation: bool
    non_deterministic: bool
    requires_fit: bool
    input_tags: InputTags

class Bunch(dict[str, Any]):
    def __getattr__(self, name: str) -> Any: ...
    def __setattr__(self, name: str, value: Any) -> None: ...

def check_consistent_length(*arrays: object) -> None: ...
def check_random_state(seed: int | np.random.RandomState | None) -> np.random.RandomState: ...
def column_or_1d(y: object, *, warn: bool = False) -> np.ndarray: ...
def estimator_html_repr(estimator: object) -> str: ...
def get_tags(estimator: object) -> Tags: ...
def __getattr__(name: str) -> Any: ...
