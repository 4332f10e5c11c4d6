"""Synthetic views of a latent vector, which are passed through as features."""

import pytest

from skmm.datasets import make_paired_views


@pytest.fixture
def triples():
    """Return two views as modalities."""
    return [("left", "passthrough", ["view_0"]), ("right", "passthrough", ["view_1"])]


@pytest.fixture(scope="session")
def views():
    """Return a function ``views(seed, n)`` that makes a frame of two views once."""
    made = {}

    def get(seed=0, n=400, **options):
        key = (seed, n, *sorted(options.items()))
        if key not in made:
            made[key] = make_paired_views(n, noise=0.1, random_state=seed, **options).data
        return made[key].copy()

    return get
