"""What is asked of an encoder's work: stored once and never wrongly, trained under a head."""

import tempfile
from typing import Any

import numpy as np
import torch
from sklearn.base import clone

from skmm.encoders import EmbeddingStore
from skmm.testing._compare import assert_close
from skmm.testing._encoder_case import EncoderCase
from skmm.testing._toys import without

__all__ = ["WORK_CHECKS"]

# Other values of parameters that encoders have; one that an encoder refuses is passed over.
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
    """What is kept is not encoded again, and nothing else is taken for it."""
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
    first = case.fit(store=folder).transform(case.X)
    encoded = store.stats()["encoded"]
    if store.stats()["n_embeddings"] == 0:
        return  # a network that is trained here is another one at every fit
    frames = {
        "the same frame": case.X,
        "rows in another order, some twice": case.X.iloc[[*range(case.n)[::-1], 0, 1]],
        "another index": case.X.reset_index(drop=True),
    }
    for name, X in frames.items():
        again = case.fit(store=folder).transform(X)
        more = store.stats()["encoded"] - encoded
        assert more == 0, f"A clone of {case} encodes {more} cells anew that are kept: {name}."
        assert np.isfinite(np.asarray(again)).all()
    assert_close(
        case.fit(store=folder).transform(case.X),
        first,
        f"{case} gives other vectors from the store than when it encoded them.",
    )


def _check_never_wrong(case: EncoderCase, folder: str) -> None:
    if case.needs_training and case.params.get("random_state") is None:
        return  # two fits are two networks
    for variation in ({}, *_VARIATIONS):
        if not set(variation) <= set(case.params):
            continue
        results = []
        for store in (folder, False):
            try:
                encoder = case.fit(store=store, **variation)
                features = np.asarray(encoder.transform(case.X))
                results.append((features, *encoder.transform_sequence(case.X)))
            except (ValueError, TypeError):  # this encoder has no such value
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
    """A network that is to be trained can stand under somebody else's head."""
    if not case.needs_training:
        return
    for verb in ("start_training", "training_tensors", "end_training"):
        assert hasattr(case.encoder, verb), f"{case}.needs_training, but it has no {verb}."
    X = without(case.X, [1])
    encoder = clone(case.encoder)
    torch_state = torch.get_rng_state()
    try:
        network = encoder.start_training(X, case.y)
        tensors = encoder.training_tensors(X)
        _check_gradients(case, network, tensors)
        network.eval()
        _check_tensors(case, encoder, network, tensors)
    finally:
        torch.set_rng_state(torch_state)


def _check_gradients(case: EncoderCase, network: Any, tensors: dict[str, torch.Tensor]) -> None:
    for name, tensor in tensors.items():
        assert len(tensor) == case.n, f"The tensor {name!r} of {case} has not one row per row of X."
    tokens, mask, pooled = network.train()(**tensors)
    width = network.width
    assert pooled.shape == (case.n, width) and tokens.shape == (*mask.shape, width), (
        f"The network of {case} has width {width} and gives tokens {tuple(tokens.shape)}, mask"
        f" {tuple(mask.shape)}, pooled {tuple(pooled.shape)}."
    )
    assert not mask[1].any(), f"The network of {case} gives a token for an absent cell."
    assert mask[0].any(), f"The network of {case} gives no token for a cell that is there."
    assert torch.isfinite(pooled).all(), f"The network of {case} gives NaN for an absent cell."
    # Something in which each output counts differently: a sum may be constant under a norm.
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


def _check_tensors(
    case: EncoderCase, encoder: Any, network: Any, tensors: dict[str, torch.Tensor]
) -> None:
    with torch.no_grad():
        pooled = network(**tensors).pooled
        rows = torch.tensor([case.n - 1, 1, 0])
        part = network(**{name: tensor[rows] for name, tensor in tensors.items()}).pooled
        nothing = encoder.training_tensors(without(case.X, range(case.n)))
        empty = network(**nothing)
    assert_close(
        part, pooled[rows], f"The network of {case} makes a row depend on the others of its batch."
    )
    assert not empty.mask.any() and torch.isfinite(empty.pooled).all(), (
        f"The network of {case} cannot take a frame in which every cell is absent."
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
            f"{case}.transform is not what the network that was handed back gives.",
        )


WORK_CHECKS = [check_store, check_training]
