"""Batches with missing modalities, and data that only a product or a single token explains."""

import pytest
import torch

from skmm.nets import BottleneckFusionModule

N_FEATURES = {"text": 3, "image": 5, "table": 2}


@pytest.fixture
def n_features():
    return dict(N_FEATURES)


@pytest.fixture
def make_batch():
    """Return tokens and masks; rows 0, 1, 2 miss one modality each, row 3 has all, row 4 none."""

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
    """Return two modalities with a sign each; the label is the product of the signs."""
    signs = torch.randint(0, 2, (n_rows, 2)) * 2.0 - 1.0
    blocks = 0.3 * torch.randn(2, n_rows, 1, 4)
    blocks[:, :, 0, 0] += signs.T
    masks = {name: torch.ones(n_rows, 1, dtype=torch.bool) for name in "ab"}
    return dict(zip("ab", blocks, strict=True)), masks, (signs.prod(1) > 0).long()


def marked_word_rows(n_rows, n_words=3):
    """Return words with a binary answer each; the label is that of the word the image marks."""
    label = torch.randint(0, 2, (n_rows,))
    marked = torch.randint(0, n_words, (n_rows,))
    keys = torch.stack([torch.eye(n_words)[torch.randperm(n_words)] for _ in range(n_rows)])
    answers = torch.randint(0, 2, (n_rows, n_words))
    answers = torch.where(keys.argmax(-1) == marked[:, None], label[:, None], answers)
    words = torch.cat([keys, (answers * 2.0 - 1)[..., None]], dim=-1)
    tokens = {"a": torch.eye(n_words)[marked][:, None], "b": words}
    masks = {name: torch.ones(t.shape[:2], dtype=torch.bool) for name, t in tokens.items()}
    return tokens, masks, label


def accuracy_on_new_rows(rows, fusion, n_components, *, steps=75, lr=0.02):
    """Train a fusion and a linear head on 300 rows, and return the accuracy on new ones."""
    tokens, masks, label = rows(300)
    head = torch.nn.Linear(n_components, 2)
    if isinstance(fusion, BottleneckFusionModule):  # needs a smaller learning rate
        steps, lr = 2 * steps, lr / 2
    optimizer = torch.optim.Adam([*fusion.parameters(), *head.parameters()], lr=lr)
    for _ in range(steps):
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(head(fusion(tokens, masks)), label)
        loss.backward()
        optimizer.step()
    tokens, masks, label = rows(1000)
    with torch.no_grad():
        predicted = head(fusion.eval()(tokens, masks)).argmax(1)
    return (predicted == label).float().mean().item()


@pytest.fixture
def xor_accuracy():
    """Return the accuracy on new rows of a fusion and a linear head trained on XOR."""

    def train(fusion_class, *, n_components=16, **options):
        torch.manual_seed(0)
        fusion = fusion_class({"a": 4, "b": 4}, n_components, **options)
        return accuracy_on_new_rows(xor_rows, fusion, n_components)

    return train


@pytest.fixture
def marked_word_accuracy():
    """Return the accuracy on new rows where the answer is that of one word, marked by an image."""

    def train(fusion_class, **options):
        torch.manual_seed(0)
        fusion = fusion_class({"a": 3, "b": 4}, 16, **options)
        return accuracy_on_new_rows(marked_word_rows, fusion, 16, steps=110)

    return train
