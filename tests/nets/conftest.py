"""Batches with missing modalities, and the data that only a product explains."""

import pytest
import torch

N_FEATURES = {"text": 3, "image": 5, "table": 2}


@pytest.fixture
def n_features():
    return dict(N_FEATURES)


@pytest.fixture
def make_batch():
    """Tokens and masks; rows 0, 1, 2 lack one modality each, row 3 has all, row 4 none."""

    def make(n_tokens=None, dtype=torch.float32, seed=0):
        n_tokens = n_tokens or {"text": 4, "image": 2, "table": 1}
        generator = torch.Generator().manual_seed(seed)
        tokens, masks = {}, {}
        for row, (name, width) in enumerate(N_FEATURES.items()):
            shape = (6, n_tokens[name])
            tokens[name] = torch.randn(*shape, width, generator=generator, dtype=dtype)
            mask = torch.rand(shape, generator=generator) < 0.7
            mask[:, 0] = True
            mask[row] = False
            mask[4] = False
            masks[name] = mask
        return tokens, masks

    return make


def xor_rows(n_rows):
    """Two modalities with a sign each; the label is the product of the signs."""
    signs = torch.randint(0, 2, (n_rows, 2)) * 2.0 - 1.0
    blocks = 0.3 * torch.randn(2, n_rows, 1, 4)
    blocks[:, :, 0, 0] += signs.T
    masks = {name: torch.ones(n_rows, 1, dtype=torch.bool) for name in "ab"}
    return dict(zip("ab", blocks, strict=True)), masks, (signs.prod(1) > 0).long()


@pytest.fixture
def xor_accuracy():
    """Accuracy on new rows of a fusion and a linear head trained on XOR."""

    def train(fusion_class, *, steps=150, **options):
        torch.manual_seed(0)
        tokens, masks, label = xor_rows(300)
        fusion = fusion_class({"a": 4, "b": 4}, 16, **options)
        head = torch.nn.Linear(16, 2)
        optimizer = torch.optim.Adam([*fusion.parameters(), *head.parameters()], lr=0.01)
        for _ in range(steps):
            optimizer.zero_grad()
            loss = torch.nn.functional.cross_entropy(head(fusion(tokens, masks)), label)
            loss.backward()
            optimizer.step()
        tokens, masks, label = xor_rows(1000)
        with torch.no_grad():
            predicted = head(fusion.eval()(tokens, masks)).argmax(1)
        return (predicted == label).float().mean().item()

    return train
