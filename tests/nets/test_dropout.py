"""Which modalities are hidden, how often, and that one is always kept."""

import pytest
import torch

from skmm.nets import ModalityDropout


@pytest.fixture
def masks():
    torch.manual_seed(0)
    masks = {name: torch.ones(8000, 2, dtype=torch.bool) for name in "abc"}
    masks["a"][2000:4000] = False  # two left
    masks["b"][3000:4000] = False  # one left
    masks["c"][:, 1] = False
    for mask in masks.values():
        mask[7000:] = False  # none
    return masks


@pytest.mark.parametrize("p", [0.1, 0.5, 1.0])
def test_never_the_last_one_and_never_a_new_one(masks, p):
    hidden = ModalityDropout(p)(masks)
    before = torch.stack([masks[name].any(1) for name in "abc"])
    after = torch.stack([hidden[name].any(1) for name in "abc"])
    assert torch.equal(before.any(0), after.any(0))
    assert not (after & ~before).any()
    for name in "abc":  # whole modalities: the tokens of one that stays are untouched
        stays = hidden[name].any(1)
        assert torch.equal(hidden[name][stays], masks[name][stays])


@pytest.mark.parametrize("p", [0.1, 0.5])
def test_rate(masks, p):
    hidden = ModalityDropout(p)(masks)
    rows = slice(0, 2000)  # all three there
    # A modality is hidden with probability p, unless all would be and it is the one kept.
    expected = p - p**3 / 3
    for name in "abc":
        rate = 1 - hidden[name].any(1)[rows].float().mean()
        assert rate == pytest.approx(expected, abs=0.04)
    assert hidden["c"].any(1)[3000:4000].all()  # the only one there


def test_all_but_one_at_rate_one(masks):
    hidden = ModalityDropout(1.0)(masks)
    count = sum(hidden[name].any(1).int() for name in "abc")
    assert (count[:7000] == 1).all()
    share = hidden["a"].any(1)[:2000].float().mean()
    assert share == pytest.approx(1 / 3, abs=0.04)


def test_evaluation_and_zero_hide_nothing(masks):
    for layer in (ModalityDropout(0.9).eval(), ModalityDropout(0.0)):
        hidden = layer(masks)
        assert all(torch.equal(hidden[name], masks[name]) for name in "abc")


def test_input_is_left_alone_and_order_does_not_matter(masks):
    copies = {name: mask.clone() for name, mask in masks.items()}
    layer = ModalityDropout(0.5)
    torch.manual_seed(3)
    first = layer(masks)
    torch.manual_seed(3)
    second = layer(dict(reversed(masks.items())))
    for name in "abc":
        assert torch.equal(masks[name], copies[name])
        assert torch.equal(first[name], second[name])


@pytest.mark.parametrize("p", [-0.1, 1.1])
def test_rate_out_of_range(p):
    with pytest.raises(ValueError, match=r"ModalityDropout: p must be in \[0, 1\]"):
        ModalityDropout(p)
