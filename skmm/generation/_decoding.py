"""Decoding: how the tokens of a text are chosen from the probabilities of each next token."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from numbers import Real
from typing import Any, ClassVar, Literal, TypeAlias

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from skmm._constraints import NON_NEGATIVE, POSITIVE_INT, POSITIVE_REAL, Interval
from skmm.generation._base import BaseMethod
from skmm.generation._text_targets import TextTokenizer
from skmm.nets._text_decoders import TextDecoder

__all__ = [
    "DECODINGS",
    "BaseDecoding",
    "BeamSearch",
    "Decoding",
    "GreedySearch",
    "NucleusSampling",
    "beam",
    "greedy",
    "log_likelihood",
    "nucleus",
    "resolve_decoding",
    "sample_tokens",
]

_END, _UNKNOWN = TextTokenizer.END, TextTokenizer.UNKNOWN


# --- Decoding methods, as parameters ---


class BaseDecoding(BaseMethod, ABC):
    """Base of the decoding methods."""

    is_random: ClassVar[bool] = False

    @abstractmethod
    def decode(
        self,
        decoder: TextDecoder,
        memory: Tensor,
        mask: Tensor,
        *,
        max_length: int,
        prefix: Tensor | None = None,
        draws: np.ndarray | None = None,
    ) -> Tensor:
        """Return the token ids of a text for each row, as :func:`greedy` does.

        ``draws``, (n_rows, max_length) uniform on [0, 1), is given if ``is_random``.
        """


class GreedySearch(BaseDecoding):
    """Choose the most likely token at each step.

    A ``decoding`` of the caption generators, with the shorthand ``"greedy"``.

    See Also
    --------
    BeamSearch : Find more likely texts.

    Examples
    --------
    >>> from skmm import CaptionGenerator
    >>> from skmm.generation import GreedySearch
    >>> CaptionGenerator(decoding=GreedySearch()).decoding
    GreedySearch()
    """

    def decode(
        self,
        decoder: TextDecoder,
        memory: Tensor,
        mask: Tensor,
        *,
        max_length: int,
        prefix: Tensor | None = None,
        draws: np.ndarray | None = None,
    ) -> Tensor:
        """Return the ids of a text for each row.

        Parameters
        ----------
        decoder, memory, mask, max_length, prefix : object
            As in :func:`greedy`.
        draws : None
            Not used.

        Returns
        -------
        ids : Tensor of shape (n_rows, n_steps), int
            Texts, padded with the id of the end.
        """
        return greedy(decoder, memory, mask, max_length=max_length, prefix=prefix)


class BeamSearch(BaseDecoding):
    """Keep the most likely partial texts at each step, and choose the most likely complete one.

    A ``decoding`` of the caption generators, with the shorthand ``"beam"``.

    Parameters
    ----------
    beam_size : int, default=5
        Number of partial texts that are kept.
    length_penalty : float, default=0.0
        Exponent of the number of tokens by which log-likelihoods are divided before they are
        compared. 0 favors short texts, 1 compares the mean log-likelihood of a token.

    See Also
    --------
    NucleusSampling : Sample texts that vary.

    Examples
    --------
    >>> from skmm import CaptionGenerator
    >>> from skmm.generation import BeamSearch
    >>> captions = CaptionGenerator(decoding=BeamSearch(beam_size=3))
    >>> captions.set_params(decoding__length_penalty=1.0).decoding
    BeamSearch(beam_size=3, length_penalty=1.0)
    """

    _parameter_constraints: ClassVar[dict[str, Any]] = {
        "beam_size": POSITIVE_INT,
        "length_penalty": NON_NEGATIVE,
    }

    def __init__(self, beam_size: int = 5, *, length_penalty: float = 0.0):
        self.beam_size = beam_size
        self.length_penalty = length_penalty

    def decode(
        self,
        decoder: TextDecoder,
        memory: Tensor,
        mask: Tensor,
        *,
        max_length: int,
        prefix: Tensor | None = None,
        draws: np.ndarray | None = None,
    ) -> Tensor:
        """Return the ids of a text for each row.

        Parameters
        ----------
        decoder, memory, mask, max_length, prefix : object
            As in :func:`greedy`.
        draws : None
            Not used.

        Returns
        -------
        ids : Tensor of shape (n_rows, n_steps), int
            Texts, padded with the id of the end.
        """
        return beam(
            decoder,
            memory,
            mask,
            max_length=max_length,
            size=self.beam_size,
            length_penalty=self.length_penalty,
            prefix=prefix,
        )


class NucleusSampling(BaseDecoding):
    """Sample each token among the most likely ones, up to a total probability [1]_.

    A ``decoding`` of the caption generators, with the shorthand ``"nucleus"``. The samples depend
    on the ``random_state`` of the generator.

    Parameters
    ----------
    top_p : float, default=0.9
        Total probability of the tokens to sample from, in (0, 1].
    temperature : float, default=1.0
        What the logits are divided by before the softmax. Below 1 likely tokens become more
        likely, above 1 less.

    See Also
    --------
    GreedySearch : Choose the most likely token at each step.

    References
    ----------
    .. [1] Holtzman, Buys, Du, Forbes, Choi (2020), "The curious case of neural text
       degeneration", ICLR.

    Examples
    --------
    >>> from skmm import CaptionGenerator
    >>> from skmm.generation import NucleusSampling
    >>> CaptionGenerator(decoding=NucleusSampling(0.8)).decoding.temperature
    1.0
    """

    is_random = True

    _parameter_constraints: ClassVar[dict[str, Any]] = {
        "top_p": [Interval(Real, 0, 1, closed="right")],
        "temperature": POSITIVE_REAL,
    }

    def __init__(self, top_p: float = 0.9, *, temperature: float = 1.0):
        self.top_p = top_p
        self.temperature = temperature

    def decode(
        self,
        decoder: TextDecoder,
        memory: Tensor,
        mask: Tensor,
        *,
        max_length: int,
        prefix: Tensor | None = None,
        draws: np.ndarray | None = None,
    ) -> Tensor:
        """Return the ids of a text for each row.

        Parameters
        ----------
        decoder, memory, mask, max_length, prefix : object
            As in :func:`greedy`.
        draws : ndarray of shape (n_rows, max_length)
            Random numbers, uniform on [0, 1), one for each token.

        Returns
        -------
        ids : Tensor of shape (n_rows, n_steps), int
            Texts, padded with the id of the end.
        """
        if draws is None:
            raise ValueError("NucleusSampling.decode needs draws of shape (n_rows, max_length).")
        return nucleus(
            decoder,
            memory,
            mask,
            max_length=max_length,
            top_p=self.top_p,
            temperature=self.temperature,
            draws=draws,
            prefix=prefix,
        )

    def sample(self, logits: Tensor, draws: np.ndarray) -> Tensor:
        """Sample a token for each row.

        Parameters
        ----------
        logits : Tensor of shape (n_rows, n_tokens)
            Logits of the next token.
        draws : ndarray of shape (n_rows,)
            Random numbers, uniform on [0, 1).

        Returns
        -------
        ids : Tensor of shape (n_rows,), int
            Token ids, on the device of the logits.
        """
        return sample_tokens(logits, draws, top_p=self.top_p, temperature=self.temperature)


DECODINGS: dict[str, type[BaseMethod]] = {
    "greedy": GreedySearch,
    "beam": BeamSearch,
    "nucleus": NucleusSampling,
}
Decoding: TypeAlias = Literal["greedy", "beam", "nucleus"] | BaseDecoding


def resolve_decoding(decoding: str | BaseDecoding) -> BaseDecoding:
    """Return the decoding method that a parameter names or is, with validated parameters."""
    chosen = DECODINGS[decoding]() if isinstance(decoding, str) else decoding
    assert isinstance(chosen, BaseDecoding)
    return chosen.check()


# --- Decoding with a decoder, step by step ---


def greedy(
    decoder: TextDecoder,
    memory: Tensor,
    mask: Tensor,
    *,
    max_length: int,
    prefix: Tensor | None = None,
) -> Tensor:
    """Choose the most likely token at each step.

    Parameters
    ----------
    decoder : TextDecoder
        Trained decoder.
    memory : Tensor of shape (n_rows, n_memory, width)
        Vectors that the decoder attends to.
    mask : BoolTensor of shape (n_rows, n_memory)
        Which vectors of the memory exist.
    max_length : int
        Maximum length of a text in tokens.
    prefix : Tensor of shape (n_rows, n_prefix), int, default=None
        Ids of the tokens that precede each text, padded with negative numbers.

    Returns
    -------
    ids : Tensor of shape (n_rows, n_steps), int
        Texts, padded with the id of the end.
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
    """Sample each token among the most likely ones, up to a total probability of ``top_p``.

    Parameters
    ----------
    decoder, memory, mask, max_length : object
        As in :func:`greedy`.
    top_p : float
        Total probability of the tokens to sample from, in (0, 1].
    temperature : float
        What the logits are divided by before the softmax.
    draws : ndarray of shape (n_rows, max_length)
        Random numbers, uniform on [0, 1), one for each token.
    prefix : Tensor, default=None
        As in :func:`greedy`.

    Returns
    -------
    ids : Tensor of shape (n_rows, n_steps), int
        As in :func:`greedy`.
    """
    chance = torch.as_tensor(draws, dtype=torch.float64, device="cpu")

    def choose(step: int, logits: Tensor) -> Tensor:
        return sample_tokens(logits, chance[:, step], top_p=top_p, temperature=temperature)

    return _step_by_step(decoder, (memory, mask, prefix), max_length, choose)


def sample_tokens(
    logits: Tensor, chance: Tensor | ArrayLike, *, top_p: float, temperature: float
) -> Tensor:
    """Sample one token per row among the most likely ones, up to a probability of ``top_p``.

    Parameters
    ----------
    logits : Tensor of shape (n_rows, n_tokens)
        Logits of the next token.
    chance : array-like of shape (n_rows,)
        Random numbers, uniform on [0, 1).
    top_p, temperature : float
        As in :func:`nucleus`.

    Returns
    -------
    ids : Tensor of shape (n_rows,), int
        Token ids, on the device of the logits.
    """
    # On the CPU in double precision, so that every device samples the same from equal logits.
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
    choose: Callable[[int, Tensor], Tensor],
) -> Tensor:
    state = decoder.start_after(*given)
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
    """Return the logits with that of the unknown token, which is no text, set to -inf."""
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
    """Keep the most likely partial texts at each step; return the most likely complete one.

    Parameters
    ----------
    decoder, memory, mask, max_length : object
        As in :func:`greedy`.
    size : int
        Number of partial texts of a row that are kept.
    length_penalty : float
        Exponent of the number of tokens by which log-likelihoods are divided.
    prefix : Tensor, default=None
        As in :func:`greedy`.

    Returns
    -------
    ids : Tensor of shape (n_rows, n_steps), int
        As in :func:`greedy`.
    """
    n_rows, device = len(memory), memory.device
    rows = torch.arange(n_rows, device=device).repeat_interleave(size)
    state = decoder.start_after(memory, mask, prefix).take(rows)
    ids = torch.full((n_rows * size,), decoder.n_tokens, device=device)
    # All partial texts are equal at first, so only one of them may be extended.
    scores = torch.full((n_rows, size), -torch.inf, device=device)
    scores[:, 0] = 0.0
    lengths = torch.zeros(n_rows, size, device=device)
    ended = torch.zeros(n_rows, size, dtype=torch.bool, device=device)
    written = torch.zeros(n_rows, size, 0, dtype=torch.long, device=device)
    first = torch.arange(n_rows, device=device)[:, None] * size
    for _ in range(max_length):
        logits, state = decoder.advance(ids[:, None], state)
        # The softmax includes the unknown token, as in training.
        steps = torch.log_softmax(logits[:, 0].float(), dim=1)
        steps[:, _UNKNOWN] = -torch.inf
        steps = steps.view(n_rows, size, -1)
        # A complete text is extended only by its end, at no cost.
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
        # Sorted by score. Without a length penalty a longer text is never more likely.
        done = ended | scores.isneginf()  # there may be fewer texts than `size`
        if bool(done.all()) or (length_penalty == 0 and bool(ended[:, 0].all())):
            break
    return written[:, 0]


def log_likelihood(logits: Tensor, target: Tensor, nothing: int) -> Tensor:
    """Return the log-likelihood of each text, (n_rows,) float64.

    Parameters
    ----------
    logits : Tensor of shape (n_rows, n_steps, n_tokens)
        Logits of the token at each position.
    target : Tensor of shape (n_rows, n_steps), int
        Ids of the tokens.
    nothing : int
        Padding of the target.
    """
    exists = target != nothing
    chosen = target.clamp(min=0)[..., None]
    steps = torch.log_softmax(logits.double(), dim=2).gather(2, chosen)[..., 0]
    return torch.where(exists, steps, 0.0).sum(dim=1)
