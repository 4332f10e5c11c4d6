"""Training in a few seconds, to show that a backbone learns."""

import torch
from torch import nn


def accuracy_when_trained(model, train, test, *, steps, learning_rate=3e-3):
    """Train a backbone under a linear head; accuracy on the cells and labels of ``test``."""
    head = nn.Linear(model.width, 2)
    tensors, label = model.collate(train[0]), train[1]
    for rows, batch in _steps(model, head, tensors, len(label), steps, learning_rate):
        nn.functional.cross_entropy(head(model(**batch).pooled), label[rows]).backward()
    with torch.no_grad():
        predicted = head(model(**model.collate(test[0])).pooled).argmax(1)
    return (predicted == test[1]).float().mean().item()


def unexplained_when_trained(model, train, test, *, steps, learning_rate=3e-3):
    """Train a backbone to reconstruct; share of the targets' variance left on new cells."""
    tensors = model.collate(train)
    target = model.reconstruction_target(**tensors)
    decoder = nn.Linear(model.width, target.shape[1])
    for rows, batch in _steps(model, decoder, tensors, len(target), steps, learning_rate):
        nn.functional.mse_loss(decoder(model(**batch).pooled), target[rows]).backward()
    tensors = model.collate(test)
    expected = model.reconstruction_target(**tensors)
    with torch.no_grad():
        error = (decoder(model(**tensors).pooled) - expected).square().mean()
    return (error / (expected - target.mean(0)).square().mean()).item()


def _steps(model, head, tensors, n_rows, steps, learning_rate):
    """Give random batches of 64; the caller computes gradients, each is followed by a step."""
    parameters = [*model.parameters(), *head.parameters()]
    optimizer = torch.optim.Adam(parameters, lr=learning_rate)
    model.train()
    for _ in range(steps):
        rows = torch.randperm(n_rows)[:64]
        optimizer.zero_grad()
        yield rows, {key: value[rows] for key, value in tensors.items()}
        optimizer.step()
    model.eval()
