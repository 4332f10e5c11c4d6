"""Decoders of series and their loss: independence of the batch, and sums by hand."""

import pytest
import torch

from skmm.nets._series_decoders import GRUSeriesDecoder, SeriesLoss, TransformerSeriesDecoder


def test_loss_equals_a_loop():
    torch.manual_seed(0)
    outputs, target = torch.randn(3, 7, 2, requires_grad=True), torch.randn(3, 9, 2)
    target[0, 4:] = target[1, 3, 1] = target[:, 0, 1] = torch.nan
    target[:, 7:] = torch.nan
    losses = SeriesLoss(5.0)(outputs, target)
    for row in range(3):
        expected = (outputs[row, 0, 0] - target[row, 0, 0]).item() ** 2
        for step in range(1, 7):
            for channel in range(2):
                truth = target[row, step, channel].item()
                if truth == truth:
                    expected += (outputs[row, step, channel].item() - truth) ** 2 / 5.0
        assert losses[row].item() == pytest.approx(expected, rel=1e-5)
    losses.sum().backward()
    assert torch.isfinite(outputs.grad).all()
    assert (outputs.grad[torch.isnan(target[:, :7])] == 0).all()


@pytest.mark.parametrize("cls", [TransformerSeriesDecoder, GRUSeriesDecoder])
@pytest.mark.parametrize("position", ["steps", "share"])
def test_a_series_does_not_depend_on_its_batch(cls, position):
    torch.manual_seed(0)
    decoder = cls(3, 8, position=position).eval()
    torch.nn.init.normal_(decoder.scale.weight, std=0.1)
    memory, mask = torch.randn(2, 4, 8), torch.tensor([[True] * 4, [True, True, False, False]])
    together = decoder(memory, mask, torch.tensor([9, 5]))
    assert together.shape == (2, 9, 3)
    alone = decoder(memory[1:, :2], mask[1:, :2], torch.tensor([5]))
    torch.testing.assert_close(together[1, :5], alone[0], rtol=1e-4, atol=1e-5)
    moved = decoder(memory[1:, :2].flip(1), mask[1:, :2], torch.tensor([5]))
    torch.testing.assert_close(moved, alone, rtol=1e-4, atol=1e-5)  # a set, not a sequence
    longer = decoder(memory[1:, :2], mask[1:, :2], torch.tensor([6]))
    same_start = torch.allclose(longer[0, 0], alone[0, 0], atol=1e-5)
    assert same_start or cls is TransformerSeriesDecoder  # whose steps attend to later ones


def test_a_width_that_is_no_multiple_of_heads_is_refused():
    with pytest.raises(
        ValueError, match="width of at least 2 that is a multiple of n_heads, got 6"
    ):
        TransformerSeriesDecoder(1, 6)


def test_height_and_level_are_put_in():
    torch.manual_seed(0)
    decoder = GRUSeriesDecoder(2, 8).eval()
    memory, mask, lengths = torch.randn(1, 3, 8), torch.ones(1, 3).bool(), torch.tensor([4])
    before = decoder(memory, mask, lengths)
    torch.testing.assert_close(before, decoder.shapes(memory, mask, lengths))
    with torch.no_grad():
        decoder.scale.bias.copy_(torch.tensor([0.0, 1.0, 5.0, 7.0]))
    expected = before * torch.tensor([0.0, 1.0]).exp()
    after = decoder(memory, mask, lengths)
    torch.testing.assert_close(after, expected + torch.tensor([5.0, 7.0]))
