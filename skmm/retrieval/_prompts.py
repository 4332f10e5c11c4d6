"""Classes as texts, and the texts as vectors."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from skmm.retrieval._pair import present_rows
from skmm.retrieval._vectors import unit_vectors

__all__ = ["class_prompts", "mean_direction", "prompt_vectors"]


def class_prompts(prompts: Any, classes: Sequence[Any], owner: str) -> dict[Any, list[str]]:
    """Texts of each class.

    Parameters
    ----------
    prompts : str, list of str or mapping of class to str or list of str
        Templates in which ``{}`` stands for the class, or the texts themselves.
    classes : sequence
        Classes.
    owner : str
        Class that asks, for messages.
    """
    if isinstance(prompts, Mapping):
        lacking = [label for label in classes if label not in prompts]
        if lacking:
            raise ValueError(
                f"{owner}: prompts has no text for class {lacking[0]!r}. Give one, or leave the"
                " class out of classes."
            )
        found = {label: _listed(prompts[label]) for label in classes}
    else:
        templates = _listed(prompts)
        for template in templates:
            if isinstance(template, str) and "{}" not in template:
                raise ValueError(
                    f"{owner}: the template {template!r} has no {{}}, where the class goes. Put it"
                    " in, or give a dict from class to texts."
                )
        found = {
            label: [t.replace("{}", str(label)) if isinstance(t, str) else t for t in templates]
            for label in classes
        }
    for label, texts in found.items():
        if not texts or not all(isinstance(text, str) and text for text in texts):
            raise ValueError(
                f"{owner}: prompts of class {label!r} must be one or more texts that are not empty,"
                f" got {texts!r}."
            )
    return found


def _listed(texts: Any) -> list[Any]:
    return list(texts) if isinstance(texts, list | tuple) else [texts]


def prompt_vectors(
    alignment: Any, modality: str, column: str | None, texts: list[str], owner: str
) -> np.ndarray:
    """Unit vectors (n_texts, n_components) of texts, as cells of a modality."""
    column = _column_of(alignment, modality, owner) if column is None else column
    # Without a column's name the cells alone have to do.
    frame = texts if column is None else pd.DataFrame({column: texts})
    vectors = unit_vectors(alignment.transform_modality(frame, modality))
    if not present_rows(vectors).all():
        first = texts[int(np.flatnonzero(~present_rows(vectors))[0])]
        raise ValueError(
            f"{owner}: {type(alignment).__name__} gives no vector for the prompt {first!r}."
            f" prompt_modality={modality!r} has to be the one that holds texts."
        )
    return vectors


def _column_of(alignment: Any, modality: str, owner: str) -> str | None:
    """Name of the one column of a modality, None where the alignment knows no names."""
    if not hasattr(alignment, "feature_names_in_"):
        return None
    for attribute in ("transformers_", "modalities_", "modalities"):
        triples = getattr(alignment, attribute, None)
        for triple in triples if isinstance(triples, list | tuple) else ():
            if not isinstance(triple, list | tuple) or len(triple) != 3 or triple[0] != modality:
                continue
            columns = [triple[2]] if isinstance(triple[2], str) else triple[2]
            if not isinstance(columns, list) or not all(isinstance(c, str) for c in columns):
                continue
            if len(columns) == 1:
                return columns[0]
            raise ValueError(
                f"{owner}: modality {modality!r} has the columns {columns}. Say with prompt_column"
                " which of them takes the prompts."
            )
    return None


def mean_direction(vectors: Sequence[np.ndarray]) -> np.ndarray:
    """Unit vector of the mean over those that are there, (n, width); NaN where none is."""
    stacked = np.stack(vectors).astype(np.float64)
    present = np.isfinite(stacked[:, :, 0])  # (n_modalities, n): a vector is there or it is not
    total = np.where(present[:, :, None], stacked, 0.0).sum(axis=0)
    return unit_vectors(np.where(present.any(axis=0, keepdims=True).T, total, np.nan))
