"""Gates against the bimodal unit of Arevalo et al., and bidirectional gates against a loop."""

import pytest
import torch

from skmm.nets import CrossGatedFusionModule, GatedFusionModule


def test_two_modalities_are_the_units_of_the_paper():
    torch.manual_seed(0)
    fusion = GatedFusionModule({"t": 3, "v": 5}, 4)
    t, v = torch.randn(6, 3), torch.randn(6, 5)
    ones = torch.ones(6, 1, dtype=torch.bool)
    u_t, u_v = fusion.projections[0](t), fusion.projections[1](v)
    scores = fusion.gates(torch.cat([u_t, u_v], dim=1))
    z = torch.sigmoid(scores[:, :4] - scores[:, 4:])
    expected = z * torch.tanh(u_t) + (1 - z) * torch.tanh(u_v)
    got = fusion({"t": t[:, None], "v": v[:, None]}, {"t": ones, "v": ones})
    torch.testing.assert_close(got, expected)


def test_gated_formula_with_missing_modalities(make_batch, n_features):
    torch.manual_seed(0)
    fusion = GatedFusionModule(n_features, 4)
    tokens, masks = make_batch()
    fused, weights = fusion(tokens, masks), fusion.weights(tokens, masks)
    for row in range(6):
        parts, there = torch.zeros(3, 4), []
        for i, name in enumerate(["image", "table", "text"]):
            kept = tokens[name][row][masks[name][row]]
            if len(kept):
                parts[i] = fusion.projections[i](kept.mean(0))
                there.append(i)
        scores = fusion.gates(parts.flatten()).view(3, 4)
        expected, gates = torch.zeros(4), torch.zeros(3, 4)
        for i in there:
            gates[i] = scores[i].exp() / scores[there].exp().sum(0)
            expected = expected + gates[i] * torch.tanh(parts[i])
        torch.testing.assert_close(fused[row], expected, atol=1e-6, rtol=1e-5)
        torch.testing.assert_close(weights[row], gates.mean(1), atol=1e-6, rtol=1e-5)


@pytest.mark.slow
def test_gates_select_the_informative_modality():
    # "flag" indicates which of the two others holds the answer.
    torch.manual_seed(0)
    n = 256
    flag = torch.randint(0, 2, (n,))
    content = torch.randint(0, 2, (2, n))
    label = torch.where(flag == 0, content[0], content[1])
    sign = {"a": content[0] * 2.0 - 1, "b": content[1] * 2.0 - 1, "flag": flag * 2.0 - 1}
    tokens = {
        name: torch.cat([value[:, None], 0.1 * torch.randn(n, 3)], dim=1)[:, None]
        for name, value in sign.items()
    }
    masks = {name: torch.ones(n, 1, dtype=torch.bool) for name in sign}
    fusion = GatedFusionModule({name: 4 for name in sign}, 16)
    head = torch.nn.Linear(16, 2)
    optimizer = torch.optim.Adam([*fusion.parameters(), *head.parameters()], lr=0.01)
    for _ in range(200):
        optimizer.zero_grad()
        scores = head(fusion(tokens, masks))
        torch.nn.functional.cross_entropy(scores, label).backward()
        optimizer.step()
    assert (scores.argmax(1) == label).float().mean() > 0.95
    weights = fusion.weights(tokens, masks).detach()  # columns a, b, flag
    lean = weights[:, 0] - weights[:, 1]
    assert lean[flag == 0].mean() > lean[flag == 1].mean() + 0.05


NAMES = ["image", "table", "text"]


def test_cross_gated_formula_with_missing_modalities(make_batch, n_features):
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


@pytest.mark.slow
def test_either_direction_can_hold_the_answer(xor_accuracy):
    class OneWay(CrossGatedFusionModule):
        def __init__(self, *args, closed, **options):
            super().__init__(*args, **options)
            self.register_buffer("closed", torch.tensor(closed))

        def _fuse(self, tokens, masks):
            # Without input for the gates of one direction, the other one must suffice.
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
