"""Which coalitions of modalities are asked, and how their values become shares.

Shares and interactions are weighted sums of the values of coalitions, with weights that depend on
the number of modalities alone. So they are worked out before anything is predicted.
"""

from collections.abc import Callable
from math import factorial
from typing import NamedTuple

import numpy as np

__all__ = ["Coalitions", "all_coalitions", "choose_coalitions", "sampled_coalitions"]


class Coalitions(NamedTuple):
    """Coalitions, and the weights of their values.

    Attributes
    ----------
    members : ndarray of shape (n_coalitions, n_modalities), bool
        Who is in; the first is empty and the last one has them all.
    shares : ndarray of shape (n_modalities, n_coalitions)
        Weights in the Shapley value of each modality.
    interactions : ndarray of shape (n_modalities, n_modalities, n_coalitions)
        Weights in the interaction of each pair; zero on the diagonal.
    exact : bool
        Whether all coalitions are there.
    """

    members: np.ndarray
    shares: np.ndarray
    interactions: np.ndarray
    exact: bool


def choose_coalitions(n: int, limit: int, random: np.random.RandomState) -> Coalitions:
    """Choose all coalitions of ``n`` modalities, or a sample if they are more than ``limit``."""
    return all_coalitions(n) if 2**n <= limit else sampled_coalitions(n, limit, random)


def all_coalitions(n: int) -> Coalitions:
    """Give every coalition of ``n`` modalities."""
    members = (np.arange(2**n)[:, None] >> np.arange(n) & 1).astype(bool)
    sizes = members.sum(axis=1)
    # Of a modality that joins a coalition of this size, over all orders of joining.
    joins = np.array([factorial(s) * factorial(n - s - 1) / factorial(n) for s in range(n)])
    shares = np.where(members.T, joins[np.maximum(sizes - 1, 0)], -joins[np.minimum(sizes, n - 1)])
    interactions = np.zeros((n, n, 2**n))
    if n > 1:
        pairs = np.array(
            [factorial(s) * factorial(n - s - 2) / factorial(n - 1) for s in range(n - 1)]
        )
        for i in range(n):
            for j in range(n):
                own = members[:, i].astype(int) + members[:, j]
                sign = np.where(own == 1, -1.0, 1.0)
                interactions[i, j] = (i != j) * sign * pairs[np.clip(sizes - own, 0, n - 2)]
    return Coalitions(members, shares, interactions, exact=True)


def sampled_coalitions(n: int, limit: int, random: np.random.RandomState) -> Coalitions:
    """Give those met in random orders of joining; at least two, about ``limit`` at most.

    Orders come in sets in which every pair of modalities stands side by side once, each order
    with its reverse. A pair that joins one after the other is what its interaction is made of: of
    those before it, in a random order, its weights are the average.
    """
    seen: dict[bytes, int] = {}
    members: list[np.ndarray] = []

    def place(who: np.ndarray) -> int:
        if who.tobytes() not in seen:
            seen[who.tobytes()] = len(members)
            members.append(who.copy())
        return seen[who.tobytes()]

    shares: list[tuple[int, int, float]] = []  # modality, coalition, weight
    pairs: list[tuple[int, int, int, float]] = []
    place(np.zeros(n, dtype=bool))
    n_orders = n_sets = 0
    largest = 0  # coalitions that a set has added
    while not n_sets or len(members) + largest <= limit:
        before = len(members)
        for order, apart in _orders_of_all_pairs(n, random):
            _walk(order, apart, place, shares, pairs)
            n_orders += 1
        n_sets += 1
        largest = max(largest, len(members) - before)
        if len(members) == 2**n:
            break
    # The full one last.
    at = np.argsort([who.all() for who in members], kind="stable")
    to = np.argsort(at)
    share_weights = np.zeros((n, len(members)))
    for i, c, weight in shares:
        share_weights[i, to[c]] += weight / n_orders
    pair_weights = np.zeros((n, n, len(members)))
    for i, j, c, weight in pairs:  # a pair is there twice in a set, once in each direction
        pair_weights[i, j, to[c]] += weight / (2 * n_sets)
        pair_weights[j, i, to[c]] += weight / (2 * n_sets)
    return Coalitions(np.array(members)[at], share_weights, pair_weights, exact=False)


def _walk(
    order: np.ndarray,
    apart: int,
    place: Callable[[np.ndarray], int],
    shares: list[tuple[int, int, float]],
    pairs: list[tuple[int, int, int, float]],
) -> None:
    """Let modalities join in this order; ``apart`` is a step whose pair does not count, or -1."""
    who = np.zeros(len(order), dtype=bool)
    for step, i in enumerate(order):
        without = place(who)
        if step + 1 < len(order) and step != apart:
            j = order[step + 1]
            who[j] = True
            other = place(who)
            who[i] = True
            both = place(who)
            who[j] = False
            for coalition, weight in (
                (without, 1.0),
                (other, -1.0),
                (place(who), -1.0),
                (both, 1.0),
            ):
                pairs.append((i, j, coalition, weight))
        who[i] = True
        shares += [(i, without, -1.0), (i, place(who), 1.0)]


def _orders_of_all_pairs(n: int, random: np.random.RandomState) -> list[tuple[np.ndarray, int]]:
    """Return orders, each with its reverse, in which every pair stands side by side once.

    These are Walecki's zigzags, which split the complete graph of an even number of points into
    paths, over names in random order. An odd number gets one point more, which is taken out
    again: the two beside it then stand side by side a second time, and the step is returned, else
    -1. Those steps and their reverses are each place in an order once, so that the steps that
    count are at all places equally often.
    """
    names = random.permutation(n)
    even = n + n % 2
    orders = []
    for k in range(even // 2):
        zigzag = [(k + (step + 1) // 2 * (1 if step % 2 else -1)) % even for step in range(even)]
        apart = -1
        if even > n:
            taken = zigzag.index(n)
            zigzag.remove(n)
            apart = taken - 1 if taken < n else -1
        order = names[zigzag]
        orders += [(order, apart), (order[::-1], n - 2 - apart if apart >= 0 else -1)]
    return orders
