"""Joining side by side, against a loop over rows."""

import torch

from skmm.nets import ConcatFusionModule


def test_formula(make_batch, n_features):
    torch.manual_seed(0)
    fusion = ConcatFusionModule(n_features, 4)
    torch.nn.init.normal_(fusion.absent)
    tokens, masks = make_batch()
    rows = []
    for row in range(6):
        joined = []
        for i, name in enumerate(["image", "table", "text"]):
            kept = tokens[name][row][masks[name][row]]
            joined.append(fusion.projections[i](kept.mean(0)) if len(kept) else fusion.absent[i])
        rows.append(fusion.mix(torch.cat(joined)))
    torch.testing.assert_close(fusion(tokens, masks), torch.stack(rows), atol=1e-6, rtol=1e-5)


def test_absent_vector_is_learned(make_batch, n_features):
    fusion = ConcatFusionModule(n_features, 4)
    tokens, masks = make_batch()
    optimizer = torch.optim.SGD([fusion.absent], lr=0.1)
    fusion(tokens, masks).square().sum().backward()
    before = fusion.absent.detach().clone()
    optimizer.step()
    assert (fusion.absent != before).any(dim=1).all()
