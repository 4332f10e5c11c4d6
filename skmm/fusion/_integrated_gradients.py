"""Integrated gradients through a joint net: from its tokens, or from what an encoder reads."""

import threading
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook

from skmm._training._batches import Batch, EncoderInputs
from skmm._training._module import JointModule
from skmm.fusion._targets import JointTarget

__all__ = ["Integrated", "integrate"]

_N_MOVES = 2  # more only crowd the places
_SPREAD = 0.3
_GRAY = 127.5  # pixels are numbers from 0 to 255


class Integrated(NamedTuple):
    """Integrated gradients of one row.

    Attributes
    ----------
    scores : ndarray of shape (n_tokens,) or (height, width)
        They sum to ``prediction - base``, but for the steps of the integral.
    prediction, base : float
        Answer to the row, and with the modality at its baseline.
    target : int
        Which answer.
    """

    scores: np.ndarray
    prediction: float
    base: float
    target: int


def integrate(
    module: JointModule,
    meaning: JointTarget,
    batch: Batch,
    modality: str,
    target: int | None,
    n_steps: int,
) -> list[Integrated]:
    """Integrate gradients of the answers to some rows, all of which have the modality.

    Parameters
    ----------
    module : JointModule
        Trained, in evaluation mode.
    meaning : JointTarget
        What outputs mean.
    batch : Batch
        Rows.
    modality : str
        Along which way is integrated.
    target : int or None
        Number of the answer; None takes the largest of each row.
    n_steps : int
        At how many places gradients are taken; more where more happens.
    """
    at = _way(module, batch, modality)
    n_rows = len(batch)

    def answers(shares: Tensor) -> tuple[Tensor, Tensor]:
        tokens, known, point = at(shares)
        return meaning.answers(module.head(module.fuse(tokens, known))), point

    # cuDNN's recurrent layers have no gradient outside training.
    with torch.enable_grad(), torch.backends.cudnn.flags(enabled=False):
        first, full = (own.detach() for own in answers(torch.ones(n_rows)))
        best = first.argmax(dim=1) if target is None else torch.full_like(first[:, 0], target)
        chosen = best.to(torch.int64)[:, None]

        def answer(shares: Tensor) -> Tensor:
            with torch.no_grad():
                return answers(shares)[0].gather(1, chosen)[:, 0]

        total, knots = torch.zeros_like(full), _knots(answer, n_rows, n_steps)
        for left, right in zip(knots.T[:-1], knots.T[1:], strict=True):
            middle, point = answers((left + right) / 2)
            (slope,) = torch.autograd.grad(middle.gather(1, chosen).sum(), point)
            total += _beside(right - left, slope) * slope
        base, start = (own.detach() for own in answers(torch.zeros(n_rows)))
    scores = (full - start) * total
    scores = scores.sum(dim=1) if scores.ndim == 4 else scores.flatten(start_dim=2).sum(dim=2)
    mask = None if scores.ndim > 2 else _existing(module, batch, modality, scores.shape[1])
    return [
        Integrated(
            (own if mask is None else own[mask[i]]).cpu().numpy().astype(np.float64),
            float(first[i, chosen[i, 0]]),
            float(base[i, chosen[i, 0]]),
            int(chosen[i, 0]),
        )
        for i, own in enumerate(scores)
    ]


def _knots(answer: Callable[[Tensor], Tensor], n_rows: int, n_steps: int) -> Tensor:
    """Places along the way of each row, (n_rows, n_steps + 1), from 0 to 1.

    Nearly all of the change may happen in a thousandth of the way, behind a normalization or where
    a probability jumps. So the places are moved until about the same happens between any two of
    them; a part of them stays spread, to meet what was not seen.
    """
    first = np.union1d(np.linspace(0, 1, n_steps + 1), np.geomspace(1e-6, 1, n_steps))
    knots = np.tile(first, (n_rows, 1))
    for _ in range(_N_MOVES):
        seen = torch.stack([answer(_column(own)) for own in knots.T], dim=1).cpu().numpy()
        change = np.abs(np.diff(seen, axis=1))
        change = change / np.maximum(change.sum(axis=1, keepdims=True), 1e-12)
        mass = np.cumsum(change + _SPREAD / change.shape[1], axis=1)
        mass = np.column_stack([np.zeros(n_rows), mass / mass[:, -1:]])
        wanted = np.linspace(0, 1, n_steps + 1)
        knots = np.stack([np.interp(wanted, m, own) for m, own in zip(mass, knots, strict=True)])
    return torch.as_tensor(knots, dtype=torch.float32)


def _column(places: np.ndarray) -> Tensor:
    return torch.as_tensor(places, dtype=torch.float32)


# Tokens, masks, and what is varied.
_Point: TypeAlias = tuple[dict[str, Tensor], dict[str, Tensor], Tensor]
_Way: TypeAlias = Callable[[Tensor], _Point]


def _way(module: JointModule, batch: Batch, modality: str) -> _Way:
    """Points between the baseline and the row: tokens and masks there, and what is varied."""
    encoders, own = module.encoders, batch.modalities[modality]
    if not isinstance(own, EncoderInputs):
        with torch.no_grad():
            tokens, known = encoders.gather(batch)
        # Clones: tensors of an inference are no part of a graph.
        whole = torch.where(known[modality][..., None], tokens[modality], 0.0).clone()

        def of_tokens(shares: Tensor) -> _Point:
            point = (_beside(shares, whole) * whole).requires_grad_()
            return {**tokens, modality: point}, known, point

        return of_tokens
    read_by_encoder: Any = own.inputs
    if len(read_by_encoder.columns) > 1:
        raise ValueError(
            f"Modality {modality!r} has several columns, which one trained encoder reads. Gradients"
            " are followed to one column: give each a modality of its own."
        )
    (column,) = read_by_encoder.columns
    key = _numbers_read(column.inputs)
    if key is None:
        return _from_embedding(module, batch, modality)
    pixels = column.inputs[key].dtype == torch.uint8
    read = column.inputs[key].to(torch.float32)
    start = torch.full_like(read, _GRAY if pixels else 0.0)

    def of_inputs(shares: Tensor) -> _Point:
        point = (start + _beside(shares, read) * (read - start)).requires_grad_()
        varied = replace(column, inputs={**column.inputs, key: point})
        inputs = replace(own, inputs=replace(read_by_encoder, columns=(varied,)))
        tokens, known = encoders.gather(batch.with_modalities({modality: inputs}))
        return tokens, known, point

    return of_inputs


def _beside(shares: Tensor, values: Tensor) -> Tensor:
    """A number for each row, in a shape and on the device that multiplies ``values``."""
    return shares.to(values.device, values.dtype).view(-1, *[1] * (values.ndim - 1))


def _numbers_read(inputs: Mapping[str, Tensor]) -> str | None:
    """Name of the tensor of numbers that an encoder reads, if it does not read words."""
    numbers = (torch.uint8, torch.int8, torch.float32, torch.float16, torch.bfloat16, torch.float64)
    for name, tensor in inputs.items():
        if tensor.ndim > 2 and tensor.dtype in numbers:
            return name
    return None


def _from_embedding(module: JointModule, batch: Batch, modality: str) -> _Way:
    """From embeddings of zero to those of the words, the first that the encoder looks up."""
    encoder, thread = module.encoders.network_of(modality), threading.get_ident()

    def of_words(shares: Tensor) -> _Point:
        points: list[Tensor] = []
        inside: list[bool] = []

        def scale(layer: nn.Module, _: object, output: Tensor) -> Tensor | None:
            ours = inside and not points and threading.get_ident() == thread
            if not ours or not isinstance(layer, nn.Embedding):
                return None
            points.append((_beside(shares, output) * output.detach()).requires_grad_())
            return points[0]

        # A checkpoint that is trained on is no child of its encoder, so any module is listened to.
        handles = [
            encoder.register_forward_pre_hook(lambda *_: inside.append(True)),
            encoder.register_forward_hook(lambda *_: inside.clear()),
            register_module_forward_hook(scale),  # type: ignore[arg-type]  # it may return one
        ]
        try:
            tokens, known = module.encoders.gather(batch)
        finally:
            for handle in handles:
                handle.remove()
        if not points:
            raise TypeError(
                f"The encoder of modality {modality!r} reads neither numbers nor embedded words,"
                " and no gradient can be followed to them. Take method='occlusion'."
            )
        return tokens, known, points[0]

    return of_words


def _existing(module: JointModule, batch: Batch, modality: str, n: int) -> Tensor | None:
    """Which of the ``n`` tokens exist, (n_rows, n_tokens); None where numbers were varied."""
    own = batch.modalities[modality]
    with torch.no_grad():
        if isinstance(own, EncoderInputs):
            mask = module.encoders.network_of(modality)(own.inputs).mask
        else:
            mask = module.encoders.gather(batch)[1][modality]
    return mask if mask is not None and mask.shape[1] == n else None
