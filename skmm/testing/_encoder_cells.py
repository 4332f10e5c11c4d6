"""Checks of an encoder with cells: containers, absent and opaque cells, other rows, stores."""

import tempfile
from typing import Any

import numpy as np
import torch
from sklearn.base import clone

from skmm._environment._optional import is_installed
from skmm.encoders import EmbeddingStore
from skmm.testing._compare import assert_close, raises
from skmm.testing._encoder_case import EncoderCase
from skmm.testing._toys import MISSING, to_polars, without

__all__ = [
    "CELL_CHECKS",
    "WORK_CHECKS",
]


def check_containers(case: EncoderCase) -> None:
    """The same cells in pandas, polars, numpy, a Series or a list give the same vectors."""
    others: dict[str, Any] = {"a numpy array": case.X.to_numpy(dtype=object)}
    if case.X.shape[1] == 1:
        cells = case.X.iloc[:, 0].astype(object)
        others |= {"a Series": case.X.iloc[:, 0], "a list of cells": list(cells)}
    if is_installed("polars"):
        others["a polars frame"] = to_polars(case.X)
    for name, X in others.items():
        vectors = np.asarray(case.fit(X).transform(X))
        sentence = f"{case} returns other vectors for {name} than for a pandas frame."
        if case.needs_training and case.params.get("random_state") is None:
            assert vectors.shape == case.vectors.shape, sentence
        else:
            assert_close(vectors, case.vectors, sentence)


def check_missing_cells(case: EncoderCase) -> None:
    """An absent cell is a row of NaN and has no token, in every spelling."""
    row = case.n - 2
    expected = case.vectors.copy()
    expected[row] = np.nan
    tokens, mask = case.fitted.transform_sequence(case.X)
    for spelling in MISSING:
        X = without(case.X, [row], by=spelling)
        spelled = f"{type(spelling).__name__} {spelling!r}"
        vectors = case.encode(X)
        assert np.isnan(vectors[row]).all(), (
            f"{case} gives values for a row whose cells are absent ({spelled}): absence must stay"
            " visible, as a row of NaN."
        )
        assert_close(vectors, expected, f"An absent cell ({spelled}) changes other rows of {case}.")
        its_tokens, its_mask = case.fitted.transform_sequence(X)
        assert not its_mask[row].any(), f"{case} gives a token for an absent cell ({spelled})."
        assert its_mask.any(axis=1).sum() == mask.any(axis=1).sum() - 1
        assert np.isfinite(its_tokens).all(), f"{case} gives NaN in tokens for an absent cell."
        after = case.fit(X).transform(X)
        assert np.isnan(np.asarray(after)[row]).all(), (
            f"{case} gives values for a row that was absent ({spelled}) when it was fitted."
        )
    if is_installed("polars"):
        vectors = case.encode(to_polars(without(case.X, [row])))
        assert_close(vectors, expected, f"{case} does not read a null of polars as absent.")
    nothing = without(case.X, range(case.n))
    assert np.isnan(case.encode(nothing)).all(), f"{case} gives values where every cell is absent."
    assert not case.fitted.transform_sequence(nothing)[1].any(), (
        f"{case} gives tokens where every cell is absent."
    )


def check_cells_absent_in_part(case: EncoderCase) -> None:
    """A row with some of its columns absent is encoded from the others."""
    if case.X.shape[1] == 1:
        return
    X = without(case.X, [1], columns=[case.X.columns[0]])
    vectors = case.encode(X)
    assert not np.isnan(vectors[1]).all(), f"{case} drops a row with one missing cell of several."
    kept = np.arange(case.n) != 1
    assert_close(vectors[kept], case.vectors[kept], f"An absent cell changes other rows of {case}.")
    assert case.fitted.transform_sequence(X)[1][1].any(), (
        f"{case} gives no token for a row in which one cell of several is missing."
    )


def check_rows_are_independent(case: EncoderCase) -> None:
    """The vector and tokens of a row depend neither on other rows nor on the batch size."""
    sentence = f"The vector of a row depends on the other rows that {case} is given."
    order = np.random.default_rng(0).permutation(case.n)
    fitted = case.fit(store=False) if "store" in case.params else case.fit()
    base = np.asarray(fitted.transform(case.X))
    tokens, mask = fitted.transform_sequence(case.X)
    assert_close(fitted.transform(case.X.iloc[order]), base[order], sentence)
    for rows in ([0], [case.n - 1], list(range(0, case.n, 2))):
        some = case.X.iloc[rows]
        assert_close(fitted.transform(some), base[rows], sentence)
        its_tokens, its_mask = fitted.transform_sequence(some)
        for i, row in enumerate(rows):
            assert_close(
                its_tokens[i][its_mask[i]],
                tokens[row][mask[row]],
                f"The tokens of a row depend on the other rows that {case} is given.",
            )
    if "batch_size" in case.params:
        fitted.set_params(batch_size=1)
        sentence = f"The vectors of {case} depend on batch_size."
        assert_close(fitted.transform(case.X), base, sentence)


def check_labels_do_not_matter(case: EncoderCase) -> None:
    """Equal cells have equal vectors: repeated, under another index or another column name."""
    rows = [0, 2, 0, 1, 2]
    twice = case.X.iloc[rows]  # index labels repeat too
    assert_close(
        case.encode(twice), case.vectors[rows], f"{case} gives equal cells different vectors."
    )
    numbered = case.X.reset_index(drop=True)
    assert_close(
        case.encode(numbered), case.vectors, f"The index of a frame changes the vectors of {case}."
    )
    renamed = numbered.rename(columns={name: f"other_{name}" for name in numbered.columns})
    if not case.needs_training or case.params.get("random_state") is not None:
        assert_close(
            case.fit(renamed).transform(renamed),
            case.vectors,
            f"The name of a column changes the vectors of {case}.",
        )


def check_sequence(case: EncoderCase) -> None:
    """``transform_sequence`` returns tokens and a mask of the present ones."""
    sequence = case.fitted.transform_sequence(case.X)
    assert isinstance(sequence, tuple) and len(sequence) == 2, (
        f"{case}.transform_sequence must return a pair (tokens, mask)."
    )
    tokens, mask = sequence
    assert tokens.ndim == 3 and len(tokens) == case.n and tokens.dtype == np.float32, (
        f"Tokens of {case} must be float32 (n_samples, n_tokens, n_outputs), got {tokens.dtype}"
        f" {tokens.shape}."
    )
    assert mask.dtype == bool and mask.shape == tokens.shape[:2], (
        f"The mask of {case} must be bool {tokens.shape[:2]}, got {mask.dtype} {mask.shape}."
    )
    assert mask.any(axis=1).all(), f"{case} gives no token for a present cell."
    assert np.isfinite(tokens).all(), f"Tokens of {case} hold NaN or infinity."
    assert not tokens[~mask].any(), f"Tokens of {case} are not zero where the mask is False."
    assert tokens[mask].any(), f"All tokens of {case} are zero."


class Opaque:
    """An object that no encoder supports."""


def check_opaque_cells(case: EncoderCase) -> None:
    """A cell of a wrong type raises an error that names its column and row."""
    column = str(case.X.columns[0])
    for cell in (Opaque(), {"a": 1}):
        X = without(case.X, [2], columns=[column], by=cell)
        raises(
            lambda X=X: case.fitted.transform(X),  # type: ignore[misc]
            (TypeError, ValueError),
            f"{case} must refuse a cell of type {type(cell).__name__}.",
            naming=(column, "row2"),
        )


def check_wrong_containers(case: EncoderCase) -> None:
    """Objects that are not tables of cells are refused."""
    sentence = f"{case} must refuse an X that is not a table of cells."
    for X in ("a text", {"a": [1, 2]}, 3):
        raises(lambda X=X: case.fit(X), (TypeError, ValueError), sentence)  # type: ignore[misc]


CELL_CHECKS = [
    check_containers,
    check_missing_cells,
    check_cells_absent_in_part,
    check_rows_are_independent,
    check_labels_do_not_matter,
    check_sequence,
    check_opaque_cells,
    check_wrong_containers,
]

# --- Checks of the store, and of a network that a fusion trains ---

# Other values of parameters; those that an encoder refuses are skipped.
_VARIATIONS: tuple[dict[str, Any], ...] = (
    {"pooling": "max"},
    {"pooling": "mean"},
    {"pooling": "cls"},
    {"normalize": True},
    {"normalize": False},
    {"max_length": 3},
    {"image_size": 12},
    {"n_frames": 2},
    {"temporal_pooling": "max"},
    {"n_components": 2},
    {"dtype": "bfloat16"},
)


def check_store(case: EncoderCase) -> None:
    """Stored embeddings are not encoded again, and are never used for other parameters."""
    if "store" not in case.params:
        return
    with tempfile.TemporaryDirectory() as folder:
        store = EmbeddingStore(folder)
        try:
            _check_kept(case, store, folder)
            _check_never_wrong(case, folder)
        finally:
            store.close()


def _check_kept(case: EncoderCase, store: EmbeddingStore, folder: str) -> None:
    try:
        first = case.fit(store=folder).transform(case.X)
    except ValueError as error:
        if "store=" in str(error):  # refused by an encoder that stores nothing
            return
        raise
    encoded = store.stats()["encoded"]
    if store.stats()["n_embeddings"] == 0:
        return  # a network that is trained differs after every fit
    frames = {
        "the same frame": case.X,
        "rows in another order, some twice": case.X.iloc[[*range(case.n)[::-1], 0, 1]],
        "another index": case.X.reset_index(drop=True),
    }
    for name, X in frames.items():
        again = case.fit(store=folder).transform(X)
        more = store.stats()["encoded"] - encoded
        assert more == 0, f"A clone of {case} encodes {more} stored cells again: {name}."
        assert np.isfinite(np.asarray(again)).all()
    assert_close(
        case.fit(store=folder).transform(case.X),
        first,
        f"{case} returns other vectors from the store than when it encoded them.",
    )


def _check_never_wrong(case: EncoderCase, folder: str) -> None:
    if case.needs_training and case.params.get("random_state") is None:
        return  # two fits give two networks
    for variation in ({}, *_VARIATIONS):
        if not set(variation) <= set(case.params):
            continue
        results = []
        for store in (folder, False):
            try:
                encoder = case.fit(store=store, **variation)
                features = np.asarray(encoder.transform(case.X))
                results.append((features, *encoder.transform_sequence(case.X)))
            except (ValueError, TypeError):  # refused by this encoder
                break
        if len(results) < 2:
            continue
        for kept, fresh in zip(*results, strict=True):
            assert_close(
                kept,
                fresh,
                f"With {variation or 'its own parameters'} {case} takes vectors from the store"
                " that belong to other parameters.",
            )


def check_training(case: EncoderCase) -> None:
    """A network with ``needs_training`` can be trained together with the head of a fusion."""
    if not case.needs_training:
        return
    for verb in ("start_training", "training_tensors", "end_training"):
        assert hasattr(case.encoder, verb), f"{case}.needs_training, but it has no {verb}."
    X = without(case.X, [1])
    encoder = clone(case.encoder)
    torch_state = torch.get_rng_state()
    try:
        network = encoder.start_training(X, case.y)
        inputs = encoder.training_tensors(X)
        _check_gradients(case, network, inputs)
        network.eval()
        _check_inputs(case, encoder, network, inputs)
    finally:
        torch.set_rng_state(torch_state)


def _check_gradients(case: EncoderCase, network: Any, inputs: Any) -> None:
    assert len(inputs) == case.n, f"{case}.training_tensors has another number of rows than X."
    present = inputs.present
    assert present.dtype == torch.bool and present.shape == (case.n,), (
        f"What {case}.training_tensors gives must have present, bool ({case.n},), got"
        f" {present.dtype} {tuple(present.shape)}."
    )
    tokens, mask, pooled = network.train()(inputs)
    width = network.width
    assert pooled.shape == (case.n, width) and tokens.shape == (*mask.shape, width), (
        f"The network of {case} has width {width} and gives tokens {tuple(tokens.shape)}, mask"
        f" {tuple(mask.shape)}, pooled {tuple(pooled.shape)}."
    )
    assert not mask[1].any(), f"The network of {case} gives a token for an absent cell."
    assert mask[0].any(), f"The network of {case} gives no token for a present cell."
    assert torch.isfinite(pooled).all(), f"The network of {case} gives NaN for an absent cell."
    # A loss in which each output has its own weight: after a norm, a plain sum may be constant.
    weights = torch.linspace(1.0, 2.0, width)
    loss = (weights * pooled.tanh()).sum() + (weights * tokens[mask].tanh()).sum()
    loss.backward()
    trained = [(name, p) for name, p in network.named_parameters() if p.requires_grad]
    assert trained, f"The network of {case} has nothing to train."
    for name, parameter in trained:
        assert parameter.grad is not None, f"{name} of the network of {case} gets no gradient."
        assert torch.isfinite(parameter.grad).all(), (
            f"{name} of the network of {case} gets a gradient of NaN or infinity."
        )
    moved = [name for name, p in trained if p.grad is not None and p.grad.any()]
    assert moved, f"Every gradient of the network of {case} is zero."
    network.zero_grad()


def _check_inputs(case: EncoderCase, encoder: Any, network: Any, inputs: Any) -> None:
    with torch.no_grad():
        pooled = network(inputs.to("cpu")).pooled
        rows = torch.tensor([case.n - 1, 1, 0])
        part = network(inputs.rows(rows)).pooled
        first = network(inputs.rows(slice(0, 2))).pooled
        nothing = encoder.training_tensors(without(case.X, range(case.n)))
        empty = network(nothing)
    sentence = f"The network of {case} makes a row depend on the others of its batch."
    assert_close(part, pooled[rows], sentence)
    assert_close(first, pooled[:2], sentence)
    assert not nothing.present.any(), f"{case} says that absent cells are present."
    assert not empty.mask.any() and torch.isfinite(empty.pooled).all(), (
        f"The network of {case} does not accept a frame in which every cell is absent."
    )
    done = encoder.end_training(network)
    X = without(case.X, [1])
    features = np.asarray(done.transform(X))
    assert np.isnan(features[1]).all(), f"{case} gives values for an absent cell after training."
    if features.shape[1] == network.width:
        kept = np.arange(case.n) != 1
        assert_close(
            features[kept],
            pooled.numpy()[kept],
            f"{case}.transform differs from the output of the trained network.",
        )


WORK_CHECKS = [check_store, check_training]
