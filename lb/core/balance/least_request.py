"""Least requests in flight, in proportion to weight: the lowest in_flight / weight (nginx: least_conn, HAProxy:
leastconn). Lanes that are alike take turns by weighted round robin, so an idle pool is not served by its first lane.

Up to `ALL` lanes the answer is exact. In larger pools the best of `SAMPLE` lanes drawn by weight is taken. That is
within a few percent of exact in simulation, and the cost of a pick stays flat.
"""

from __future__ import annotations

import random
from collections.abc import Collection, Sequence
from typing import Final, TypeVar

from lb.core.balance.alias_table import AliasTable
from lb.core.balance.policy import Balancer, Member
from lb.core.balance.round_robin import sequence

#: Lanes that are all looked at.
ALL = 16
#: Lanes looked at in a larger pool.
SAMPLE: Final = 6

L = TypeVar("L", bound=Member)


class LeastRequest(Balancer[L]):
    """The lane with the least in flight for its weight."""

    __slots__ = ("_first", "_members", "_ring", "_table", "_turns")

    def __init__(self, members: Sequence[tuple[L, float]], rng: random.Random, offset: int | None = None) -> None:
        total = sum([weight for _, weight in members], 0.0)
        begin = rng.random() if offset is None else (offset % total) / total
        self._members = list(members)
        self._ring = self._members * 2  # a window of it is the members from any first one on
        self._first = 0
        self._table = AliasTable([weight for _, weight in members], rng)
        self._turns = sequence([(member, member[1]) for member in members], begin)

    def pick(self, key: int = 0, avoid: Collection[L] = (), now: float = 0.0) -> L | None:
        turn = next(self._turns)
        if not avoid and not turn[0].in_flight:
            return turn[0]  # no lane has less than 0 in flight
        members = self._members
        count = len(members)
        if count <= ALL:
            first = self._first
            candidates = self._ring[first : first + count]
        else:
            draw = self._table.draw
            candidates = [members[draw()] for _ in range(SAMPLE)]
        if avoid:
            candidates = [turn, *candidates]
            untried = [member for member in candidates if member[0] not in avoid]
            untried = untried or [member for member in members if member[0] not in avoid] or candidates
            turn, candidates = untried[0], untried
        best, weight = turn
        load = best.in_flight / weight
        for lane, weight in candidates:
            if lane.in_flight < load * weight:
                best, load = lane, lane.in_flight / weight
        if best is not turn[0]:
            # The first of the least loaded in this order: begin behind it next time, so that ties are shared out.
            self._first = (self._first + 1) % count
        return best
