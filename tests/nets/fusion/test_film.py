"""Scale and shift of every token, against a loop over tokens."""

import pytest
import torch
import torch.nn.functional as F  # noqa: N812

from skmm.nets import FilmFusionModule


@pytest.mark.parametrize("condition", [None, "image", "table", "text"])
def test_formula(make_batch, n_features, condition):
    torch.manual_seed(0)
    fusion = FilmFusionModule(n_features, 4, condition=condition)
    tokens, masks = make_batch()
    first = condition or "image"  # in alphabetical order
    others = [name for name in ["image", "table", "text"] if name != first]
    for row in range(6):
        scales, shifts, parts = [1.0, 1.0], [0.0, 0.0], []
        kept = tokens[first][row][masks[first][row]]
        if len(kept):
            parts.append(fusion.project_condition(kept.mean(0)))
            for i in range(2):
                weight = fusion.modulators[i].weight
                scales[i] = 1.0 + weight[:4] @ parts[0]
                shifts[i] = weight[4:] @ parts[0]
        for i, name in enumerate(others):
            kept = tokens[name][row][masks[name][row]]
            if len(kept):
                units = [
                    F.gelu(scales[i] * fusion.projections[i](token) + shifts[i]) for token in kept
                ]
                parts.append(sum(units) / len(units))
        expected = sum(parts) / len(parts) if parts else torch.zeros(4)
        torch.testing.assert_close(fusion(tokens, masks)[row], expected, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("condition", ["a", "b"])
def test_either_modality_can_modulate(xor_accuracy, condition):
    assert xor_accuracy(FilmFusionModule, condition=condition) > 0.95


@pytest.mark.slow
def test_tokens_are_modulated_before_they_are_averaged(marked_word_accuracy):
    # The condition must modulate the words before their average; with the words as condition,
    # they are averaged first.
    assert marked_word_accuracy(FilmFusionModule, condition="a") > 0.95
    assert marked_word_accuracy(FilmFusionModule, condition="b") < 0.85


def test_condition_must_be_a_modality():
    with pytest.raises(ValueError, match=r"condition='audio' is none.*\['image', 'text'\]. Name"):
        FilmFusionModule({"text": 2, "image": 3}, 4, condition="audio")
