"""Modules that meet other workers and note who computes on how many torch threads.

Lives in a file of its own, because worker processes have to import it.
"""

import os
import threading
import time

import torch
from counting import CountingModule, lines
from sklearn.base import clone
from torch import nn


def note(log, what):
    """Append a line: process, Python thread, torch's threads, what."""
    handle = os.open(str(log), os.O_CREAT | os.O_APPEND | os.O_WRONLY)
    worker = f"{os.getpid()}:{threading.get_ident()}"
    os.write(handle, f"{worker} {torch.get_num_threads()} {what}\n".encode())
    os.close(handle)


def notes(log):
    """Lines as (worker, torch threads, what), in the order of time."""
    return [(w, int(n), what) for w, n, what in (line.split() for line in lines(log))]


class MeetingModule(CountingModule):
    """Counts cells, and continues with a batch when another worker has done as many as itself.

    For the first one it waits as long as it may take to start, and fails if there is none. Later
    it hardly waits: there may be no batch left for the other one. Nobody waits over a single cell:
    it is the one by which an encoder learns the width, and all workers begin with it.
    """

    def __init__(self, log, *, first_wait=60.0, wait=0.2):
        super().__init__(log)
        self.meetings = f"{log}.meetings"
        self.first_wait = first_wait
        self.wait = wait

    def forward(self, x):
        if len(x) == 1:
            return super().forward(x)
        note(self.meetings, "encode")
        me = f"{os.getpid()}:{threading.get_ident()}"
        start = time.monotonic()
        while True:
            workers = [worker for worker, _, _ in notes(self.meetings)]
            mine, others = workers.count(me), len(workers) - workers.count(me)
            waited = time.monotonic() - start
            if others >= mine or (others and waited > self.wait):
                return super().forward(x)
            if waited > self.first_wait:
                raise RuntimeError(f"no other worker encodes, after {waited:.0f} s")
            time.sleep(0.002)


class NotingStrategy(nn.Module):
    """A joint fusion strategy that notes on how many threads it computes."""

    def __init__(self, n_features, n_components, *, log="", dropout=0.0):
        super().__init__()
        self.log = log
        self.names = sorted(n_features)
        self.maps = nn.ModuleList(nn.Linear(n_features[name], n_components) for name in self.names)

    def forward(self, tokens, masks):
        note(self.log, "train" if self.training else "predict")
        parts = [
            torch.where(masks[name].unsqueeze(-1), layer(tokens[name].nan_to_num()), 0.0).sum(1)
            for name, layer in zip(self.names, self.maps, strict=True)
        ]
        return torch.stack(parts).sum(0)


def encode_and_train(encoder, model, X, y):
    """What a worker does: a function that it can import."""
    features = clone(encoder).fit_transform(X[["cell"]])
    return features, clone(model).fit(X, y).predict_proba(X)
