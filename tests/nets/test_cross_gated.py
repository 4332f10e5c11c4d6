"""Gates that go both ways, against a loop over ordered pairs."""

import torch

from skmm.nets import CrossGatedFusionModule

NAMES = ["image", "table", "text"]


def test_formula_with_missing_modalities(make_batch, n_features):
    torch.manual_seed(0)
    fusion = CrossGatedFusionModule(n_features, 4)
    torch.nn.init.normal_(fusion.bias)
    tokens, masks = make_batch()
    for row in range(6):
        parts = {}
        for i, name in enumerate(NAMES):
            kept = tokens[name][row][masks[name][row]]
            if len(kept):
                parts[i] = fusion.projections[i](kept.mean(0))
        passed = []
        for i, part in parts.items():
            score = fusion.bias[i]
            for (gated, gating), gate in zip(fusion.pairs, fusion.gates, strict=True):
                if gated == i and gating in parts:
                    score = score + gate.weight @ parts[gating]
            passed.append(torch.tanh(part) / (1 + torch.exp(-score)))
        expected = torch.stack(passed).mean(0) if passed else torch.zeros(4)
        torch.testing.assert_close(fusion(tokens, masks)[row], expected, atol=1e-6, rtol=1e-5)
    assert sorted(fusion.pairs) == [(i, j) for i in range(3) for j in range(3) if i != j]


def test_a_modality_does_not_gate_itself():
    # In units where the other modality shuts the gate, a modality is not heard at all.
    torch.manual_seed(0)
    fusion = CrossGatedFusionModule({"a": 3, "b": 3}, 8)
    tokens = {name: torch.randn(5, 1, 3) for name in "ab"}
    masks = {name: torch.ones(5, 1, dtype=torch.bool) for name in "ab"}
    with torch.no_grad():
        for gate in fusion.gates:
            gate.weight.zero_()
        fusion.bias[0], fusion.bias[1] = -200.0, 200.0  # shut for a, open for b
    expected = torch.tanh(fusion.projections[1](tokens["b"][:, 0])) / 2
    torch.testing.assert_close(fusion(tokens, masks), expected)


def test_either_direction_can_hold_the_answer(xor_accuracy):
    class OneWay(CrossGatedFusionModule):
        def __init__(self, *args, closed, **options):
            super().__init__(*args, **options)
            self.register_buffer("closed", torch.tensor(closed))

        def _fuse(self, tokens, masks):
            # The gates of one direction see nothing: the other has to do it alone.
            parameter = self.gates[int(self.closed)].weight
            with torch.no_grad():
                parameter.zero_()
            return super()._fuse(tokens, masks)

    for closed in (0, 1):
        assert xor_accuracy(OneWay, closed=closed) > 0.9


def test_weights_are_gates(make_batch, n_features):
    torch.manual_seed(0)
    fusion = CrossGatedFusionModule(n_features, 4)
    torch.nn.init.normal_(fusion.bias)
    tokens, masks = make_batch()
    weights = fusion.weights(tokens, masks)
    parts = [fusion.projections[i](tokens[n][3][masks[n][3]].mean(0)) for i, n in enumerate(NAMES)]
    gates = torch.zeros(3)
    for i in range(3):
        score = fusion.bias[i] + sum(
            gate.weight @ parts[j]
            for (gated, j), gate in zip(fusion.pairs, fusion.gates, strict=True)
            if gated == i
        )
        gates[i] = torch.sigmoid(score).mean()
    torch.testing.assert_close(weights[3], gates / gates.sum(), atol=1e-6, rtol=1e-5)
