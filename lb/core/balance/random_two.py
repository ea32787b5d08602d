"""Power of two choices: draw two lanes by weight, take the one with less in flight for its weight.

Two draws are enough: the longest queue then grows like log log n instead of log n / log log n. Source: Mitzenmacher,
The Power of Two Choices in Randomized Load Balancing, 2001. Workers cannot see each other's requests; "the least of
all" would make all of them rush to the same idle lane, two draws do not. The name is `random two least_conn` in nginx,
`random(2)` in HAProxy; both compare in_flight / weight as done here.
"""

from __future__ import annotations

import random
from collections.abc import Collection, Sequence
from typing import TypeVar

from lb.core.balance.alias_table import AliasTable
from lb.core.balance.policy import Balancer, Member

L = TypeVar("L", bound=Member)


class RandomTwo(Balancer[L]):
    """The better of two lanes drawn by weight."""

    __slots__ = ("_lanes", "_table", "_weights")

    def __init__(self, members: Sequence[tuple[L, float]], rng: random.Random, offset: int | None = None) -> None:
        self._lanes = [lane for lane, _ in members]
        self._weights = [weight for _, weight in members]
        self._table = AliasTable(self._weights, rng)

    def pick(self, key: int = 0, avoid: Collection[L] = (), now: float = 0.0) -> L | None:
        lanes = self._lanes
        if len(lanes) == 1:
            return lanes[0]
        i, j = self._table.draw_two()
        first, second = lanes[i], lanes[j]
        if avoid:
            if first in avoid:
                return self._elsewhere(avoid) if second in avoid else second
            if second in avoid:
                return first
        weights = self._weights
        return first if first.in_flight * weights[j] <= second.in_flight * weights[i] else second

    def _elsewhere(self, avoid: Collection[L]) -> L:
        """Rare: both draws were tried before. The least loaded of the other lanes, else of all."""
        both = list(zip(self._lanes, self._weights, strict=True))
        untried = [(lane, weight) for lane, weight in both if lane not in avoid] or both
        return min(untried, key=lambda member: (member[0].in_flight / member[1], -member[1]))[0]
