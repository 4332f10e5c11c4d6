"""How a text is chosen from what a decoder gives each next token."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from skmm.generation._text_targets import TextTokenizer
from skmm.nets import TextDecoder

__all__ = ["beam", "drawn", "greedy", "log_likelihood", "nucleus"]

_END, _UNKNOWN = TextTokenizer.END, TextTokenizer.UNKNOWN


def greedy(
    decoder: TextDecoder,
    memory: Tensor,
    mask: Tensor,
    *,
    max_length: int,
    prefix: Tensor | None = None,
) -> Tensor:
    """Take the likeliest token, each time.

    Parameters
    ----------
    decoder : TextDecoder
        Trained.
    memory : Tensor of shape (n_rows, n_memory, width)
        What is looked at.
    mask : BoolTensor of shape (n_rows, n_memory)
        True where it exists.
    max_length : int
        Most tokens of a text.
    prefix : Tensor of shape (n_rows, n_prefix), int, default=None
        Ids of what stands in front of each text, negative behind its end.

    Returns
    -------
    ids : Tensor of shape (n_rows, n_steps), int
        Texts, the end's id behind each that has ended.
    """
    given = (memory, mask, prefix)
    return _step_by_step(decoder, given, max_length, lambda _, logits: logits.argmax(dim=1))


def nucleus(
    decoder: TextDecoder,
    memory: Tensor,
    mask: Tensor,
    *,
    max_length: int,
    top_p: float,
    temperature: float,
    draws: np.ndarray,
    prefix: Tensor | None = None,
) -> Tensor:
    """Draw each token among the likeliest that together have a probability of ``top_p``.

    Parameters
    ----------
    decoder, memory, mask, max_length : object
        As in :func:`greedy`.
    top_p : float
        In (0, 1].
    temperature : float
        Logits are divided by it.
    draws : ndarray of shape (n_rows, max_length)
        Uniform on [0, 1): what decides each token.
    prefix : Tensor, default=None
        As in :func:`greedy`.

    Returns
    -------
    ids : Tensor of shape (n_rows, n_steps), int
        As of :func:`greedy`.
    """
    chance = torch.as_tensor(draws, dtype=torch.float64, device="cpu")

    def choose(step: int, logits: Tensor) -> Tensor:
        return drawn(logits, chance[:, step], top_p=top_p, temperature=temperature)

    return _step_by_step(decoder, (memory, mask, prefix), max_length, choose)


def drawn(logits: Tensor, chance: Any, *, top_p: float, temperature: float) -> Tensor:
    """Draw one token a row among the likeliest that together have a probability of ``top_p``.

    Parameters
    ----------
    logits : Tensor of shape (n_rows, n_tokens)
        Of each token.
    chance : array-like of shape (n_rows,)
        Uniform on [0, 1): what decides.
    top_p, temperature : float
        As in :func:`nucleus`.

    Returns
    -------
    ids : Tensor of shape (n_rows,), int
        Where the logits are.
    """
    # On the CPU in double precision: the same draw on every device, up to its logits.
    shares = torch.softmax(logits.double().cpu() / temperature, dim=1)
    shares, order = shares.sort(dim=1, descending=True, stable=True)
    total = shares.cumsum(dim=1)
    kept = (total - shares < top_p) & (shares > 0)
    kept[:, 0] = True
    total = torch.where(kept, shares, 0.0).cumsum(dim=1)
    goal = torch.as_tensor(chance, dtype=torch.float64)[:, None] * total[:, [-1]]
    place = (total <= goal).sum(dim=1, keepdim=True)
    place = place.minimum(kept.sum(dim=1, keepdim=True) - 1)
    return order.gather(1, place)[:, 0].to(logits.device)


def _step_by_step(
    decoder: TextDecoder,
    given: tuple[Tensor, Tensor, Tensor | None],
    max_length: int,
    choose: Any,
) -> Tensor:
    state = decoder.start_behind(*given)
    n_rows, device = len(given[0]), given[0].device
    ids = torch.full((n_rows,), decoder.n_tokens, device=device)
    ended = torch.zeros(n_rows, dtype=torch.bool, device=device)
    written = []
    for step in range(max_length):
        logits, state = decoder.advance(ids[:, None], state)
        ids = torch.where(ended, _END, choose(step, _writable(logits[:, 0])))
        ended = ended | (ids == _END)
        written.append(ids)
        if bool(ended.all()):
            break
    return torch.stack(written, dim=1)


def _writable(logits: Tensor) -> Tensor:
    """Logits without that of the unknown token, which stands for no text."""
    logits = logits.float().clone()
    logits[:, _UNKNOWN] = -torch.inf
    return logits


def beam(
    decoder: TextDecoder,
    memory: Tensor,
    mask: Tensor,
    *,
    max_length: int,
    size: int,
    length_penalty: float,
    prefix: Tensor | None = None,
) -> Tensor:
    """Keep the likeliest beginnings at each step, and return the likeliest text of those left.

    Parameters
    ----------
    decoder, memory, mask, max_length : object
        As in :func:`greedy`.
    size : int
        How many beginnings of a row are kept.
    length_penalty : float
        Log-likelihoods are compared divided by the number of tokens to this power.
    prefix : Tensor, default=None
        As in :func:`greedy`.

    Returns
    -------
    ids : Tensor of shape (n_rows, n_steps), int
        As of :func:`greedy`.
    """
    n_rows, device = len(memory), memory.device
    rows = torch.arange(n_rows, device=device).repeat_interleave(size)
    state = decoder.start_behind(memory, mask, prefix).take(rows)
    ids = torch.full((n_rows * size,), decoder.n_tokens, device=device)
    # All beginnings are alike at first: only one of them counts.
    scores = torch.full((n_rows, size), -torch.inf, device=device)
    scores[:, 0] = 0.0
    lengths = torch.zeros(n_rows, size, device=device)
    ended = torch.zeros(n_rows, size, dtype=torch.bool, device=device)
    written = torch.zeros(n_rows, size, 0, dtype=torch.long, device=device)
    first = torch.arange(n_rows, device=device)[:, None] * size
    for _ in range(max_length):
        logits, state = decoder.advance(ids[:, None], state)
        # The likelihood is that of the model, which knows of the unknown token.
        steps = torch.log_softmax(logits[:, 0].float(), dim=1)
        steps[:, _UNKNOWN] = -torch.inf
        steps = steps.unflatten(0, (n_rows, size))
        # What has ended goes on in one way, at no cost.
        steps = torch.where(ended[..., None], -torch.inf, steps)
        steps[..., _END] = torch.where(ended, 0.0, steps[..., _END])
        longer = lengths + ~ended
        total = scores[..., None] + steps
        ranks = total / longer[..., None] ** length_penalty
        best = ranks.flatten(1).topk(size, dim=1).indices
        parents, tokens = best // decoder.n_tokens, best % decoder.n_tokens
        scores = total.flatten(1).gather(1, best)
        lengths = longer.gather(1, parents)
        ended = ended.gather(1, parents) | (tokens == _END)
        before = written.gather(1, parents[..., None].expand(-1, -1, written.shape[2]))
        written = torch.cat([before, tokens[..., None]], dim=2)
        state = state.take_past((first + parents).flatten())
        ids = tokens.flatten()
        # The best comes first; what is longer is never likelier.
        done = ended | scores.isneginf()  # fewer texts than `size` can be written
        if bool(done.all()) or (length_penalty == 0 and bool(ended[:, 0].all())):
            break
    return written[:, 0]


def log_likelihood(logits: Tensor, target: Tensor, nothing: int) -> Tensor:
    """Return the log-likelihood of each text, (n_rows,) float64.

    Parameters
    ----------
    logits : Tensor of shape (n_rows, n_steps, n_tokens)
        Of each place.
    target : Tensor of shape (n_rows, n_steps), int
        What stands there.
    nothing : int
        Target behind the end of a text.
    """
    exists = target != nothing
    chosen = target.clamp(min=0)[..., None]
    steps = torch.log_softmax(logits.double(), dim=2).gather(2, chosen)[..., 0]
    return torch.where(exists, steps, 0.0).sum(dim=1)
