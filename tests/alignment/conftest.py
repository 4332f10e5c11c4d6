"""Made views of a hidden vector, as numbers that pass through."""

import pytest

from skmm.datasets import make_paired_views


@pytest.fixture
def triples():
    """Two views as modalities."""
    return [("left", "passthrough", ["view_0"]), ("right", "passthrough", ["view_1"])]


@pytest.fixture(scope="session")
def views():
    """``views(seed, n)`` is a frame of two views, made once."""
    made = {}

    def get(seed=0, n=400, **options):
        key = (seed, n, *sorted(options.items()))
        if key not in made:
            made[key] = make_paired_views(n, noise=0.1, random_state=seed, **options).data
        return made[key].copy()

    return get
