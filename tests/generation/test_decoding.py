"""Decoding: against all possible texts, and against the decoder without its cache."""

from itertools import product

import numpy as np
import pytest
import torch

from skmm.generation._decoding import beam, greedy, log_likelihood, nucleus
from skmm.nets._text_decoders import GRUDecoder, TokenLoss, TransformerDecoder

END, UNKNOWN = 0, 1


@pytest.fixture(params=["gru", "transformer"])
def make(request):
    """Return a function that makes an untrained decoder with peaked distributions, and a memory."""

    def make(n_tokens, n_rows=12, seed=0):
        torch.manual_seed(seed)
        kinds = {"gru": GRUDecoder, "transformer": TransformerDecoder}
        decoder = kinds[request.param](n_tokens, 16).eval().requires_grad_(False)
        # Large weights, so that a token depends on the memory and on all tokens before.
        for name, parameter in decoder.named_parameters():
            if parameter.ndim == 2 and "embedding" not in name:
                parameter.normal_(std=0.5)
        memory = 2 * torch.randn(n_rows, 3, 16)
        mask = torch.tensor([[True, True, False]]).expand(n_rows, 3)
        return decoder, memory, mask

    return make


def texts_of(ids):
    """Return the tokens of each row up to its end."""
    rows = [row.tolist() for row in ids]
    return [row[: row.index(END)] if END in row else row for row in rows]


def likelihood(decoder, memory, mask, texts, max_length):
    """Compute the log-likelihood of one text per row without a cache; cut texts have no end."""
    values = []
    for row, text in enumerate(texts):
        target = [*text, END][:max_length]
        ids = torch.tensor([[decoder.n_tokens, *target[:-1]]])
        logits = decoder(memory[[row]], mask[[row]], ids)
        steps = torch.log_softmax(logits[0], dim=1)
        values.append(sum(steps[i, token].item() for i, token in enumerate(target)))
    return np.array(values)


def test_greedy_is_greedy_without_a_cache(make):
    decoder, memory, mask = make(9)
    found = texts_of(greedy(decoder, memory, mask, max_length=8))
    assert len({len(text) for text in found}) > 1  # some end and some are cut
    for row, text in enumerate(found):
        ids = [decoder.n_tokens]
        for _ in range(8):
            logits = decoder(memory[[row]], mask[[row]], torch.tensor([ids]))[0, -1].clone()
            logits[UNKNOWN] = -torch.inf
            ids.append(int(logits.argmax()))
            if ids[-1] == END:
                break
        assert text == [i for i in ids[1:] if i != END]


@pytest.mark.parametrize("length_penalty", [0.0, 1.0, 2.0])
def test_a_wide_beam_finds_the_best_of_all_texts(make, length_penalty):
    decoder, memory, mask = make(5, n_rows=6)
    words, longest = [2, 3, 4], 3
    texts = [list(t) for n in range(longest + 1) for t in product(words, repeat=n)]
    values = np.stack(
        [likelihood(decoder, memory, mask, [text] * 6, longest) for text in texts], axis=1
    )
    lengths = np.array([len([*text, END][:longest]) for text in texts])
    best = (values / lengths**length_penalty).argmax(axis=1)
    found = texts_of(
        beam(decoder, memory, mask, max_length=longest, size=60, length_penalty=length_penalty)
    )
    assert found == [texts[i] for i in best]


def test_a_beam_of_one_is_greedy(make):
    decoder, memory, mask = make(9)
    found = beam(decoder, memory, mask, max_length=8, size=1, length_penalty=0.0)
    assert texts_of(found) == texts_of(greedy(decoder, memory, mask, max_length=8))


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_beam_search_finds_more_likely_texts_than_greedy_search(make, seed):
    decoder, memory, mask = make(20, n_rows=60, seed=seed)
    texts = texts_of(greedy(decoder, memory, mask, max_length=8))
    by_greed = likelihood(decoder, memory, mask, texts, 8)
    texts = texts_of(beam(decoder, memory, mask, max_length=8, size=8, length_penalty=0.0))
    by_beam = likelihood(decoder, memory, mask, texts, 8)
    assert by_beam.mean() > by_greed.mean() + 0.5
    assert (by_beam > by_greed - 1e-4).mean() > 0.9


def test_a_length_penalty_makes_longer_texts(make):
    decoder, memory, mask = make(20, n_rows=60)
    lengths = [
        sum(map(len, texts_of(beam(decoder, memory, mask, max_length=8, size=6, length_penalty=p))))
        for p in (0.0, 1.0, 3.0)
    ]
    assert lengths[0] < lengths[1] < lengths[2]


@pytest.mark.slow
def test_nucleus_sampling_follows_the_truncated_distribution(make):
    decoder, memory, mask = make(9, n_rows=1)
    n = 20_000
    draws = np.random.default_rng(0).random((n, 1))
    logits = decoder(memory, mask, torch.tensor([[9]]))[0, 0].double()
    logits[UNKNOWN] = -torch.inf
    for top_p, temperature in ((1.0, 1.0), (0.8, 1.0), (0.8, 2.0)):
        shares = torch.softmax(logits / temperature, 0).numpy()
        order = np.argsort(-shares)
        before = np.cumsum(shares[order]) - shares[order]
        kept = order[before < top_p]
        expected = np.zeros(9)
        expected[kept] = shares[kept] / shares[kept].sum()
        options = {"max_length": 1, "top_p": top_p, "temperature": temperature}
        ids = nucleus(decoder, memory.expand(n, -1, -1), mask.expand(n, -1), draws=draws, **options)
        found = np.bincount(ids[:, 0].numpy(), minlength=9) / n
        assert not found[expected == 0].any()
        np.testing.assert_allclose(found, expected, atol=5 * 0.5 / n**0.5)  # five deviations


def test_nucleus_at_its_limits_is_greedy(make):
    decoder, memory, mask = make(9)
    expected = texts_of(greedy(decoder, memory, mask, max_length=8))
    draws = np.random.default_rng(0).random((12, 8))
    for top_p, temperature in ((1e-9, 1.0), (1.0, 1e-4)):
        options = {"max_length": 8, "top_p": top_p, "temperature": temperature}
        assert texts_of(nucleus(decoder, memory, mask, draws=draws, **options)) == expected
    # The largest random number selects the last token that is kept, none after it.
    options = {"max_length": 8, "top_p": 1.0, "temperature": 1.0}
    largest = np.full((12, 8), np.nextafter(1.0, 0.0))
    ids = nucleus(decoder, memory, mask, draws=largest, **options)
    assert UNKNOWN not in ids


def test_log_likelihood_by_hand(make):
    decoder, memory, mask = make(9)
    texts = texts_of(greedy(decoder, memory, mask, max_length=8))
    longest = max(map(len, texts)) + 1
    ids = torch.zeros(len(texts), longest, dtype=torch.long)
    target = torch.full((len(texts), longest), TokenLoss.NOTHING)
    ids[:, 0] = decoder.n_tokens
    for row, text in enumerate(texts):
        target[row, : len(text) + 1] = torch.tensor([*text, END])
        ids[row, 1 : len(text) + 1] = torch.tensor(text, dtype=torch.long)
    found = log_likelihood(decoder(memory, mask, ids), target, TokenLoss.NOTHING)
    expected = likelihood(decoder, memory, mask, texts, 99)
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-4)
