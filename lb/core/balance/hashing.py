"""Consistent hashing: one key keeps its lane while the lane is there, and few keys move when lanes come or go.

- `ring` (ketama, as in nginx's `hash … consistent`, HAProxy and Envoy): each lane owns points on a circle, a key
  belongs to the next point. Only a leaving lane's keys move. The points of a lane vary in how much they cover. With 160
  of them a lane's share is within about 8 % of its weight (one standard deviation). Pools of more than 128 lanes get
  fewer points each, so maglev suits them better.
- `maglev` (Eisenbud et al., Maglev: A Fast and Reliable Software Network Load Balancer, 2016): lanes fill a table in
  turns, each in its own order. Shares are within about 1 % and a pick is one look-up; when a lane leaves, a few keys of
  the other lanes move as well. Weights as in Envoy: a lane takes its turn when its weight has added up to one.

The key is an integer made by `hash_key`. It is the same in every worker and after every restart, which Python's own
`hash` of bytes is not. A retry goes to the next other lane: on along the circle, or down the table.
"""

from __future__ import annotations

import random
from bisect import bisect_right
from collections.abc import Collection, Iterator, Sequence
from functools import lru_cache
from hashlib import blake2b
from itertools import chain, islice
from typing import Final, TypeVar
from zlib import crc32

from lb.core.balance.policy import Balancer, Member

#: Points of a lane of average weight on the ring (ketama and nginx: 160)…
POINTS: Final = 160
#: …while the pool is not larger than this. A pool twice as large gives each lane half as many, so that building takes
#: milliseconds only. Fewer points are the first ones of more, so most keys stay when the pool crosses a border.
POINTS_LANES: Final = 128
#: Table sizes (primes). The larger one serves pools of more than `SMALL_LANES`.
SMALL_TABLE, LARGE_TABLE = 4099, 16411
SMALL_LANES: Final = 40

_MASK: Final = (1 << 64) - 1

L = TypeVar("L", bound=Member)


def hash_key(data: bytes) -> int:
    """A well mixed 64-bit key of `data`: CRC-32, then the finaliser of splitmix64 (about 0.3 µs).

    Not for secrets: a client can find keys that collide, and gains only that they share a target.
    """
    x = (crc32(data) + 0x9E3779B97F4A7C15) & _MASK
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & _MASK
    return x ^ (x >> 31)


@lru_cache(maxsize=4096)
def _points(name: str, count: int) -> tuple[int, ...]:
    """The first `count` points of a lane on the circle of 2**64; kept, since a rotation changes few lanes."""
    points: list[int] = []
    block = 0
    while len(points) < count:
        digest = blake2b(f"{name}#{block}".encode()).digest()  # 64 bytes: eight points
        points += [int.from_bytes(digest[i : i + 8], "little") for i in range(0, 64, 8)]
        block += 1
    return tuple(points[:count])


def _name(id: str) -> str:
    """The hashed part of a lane: its address, so that a pool that is renamed keeps its clients where they are."""
    return id.split("/", 2)[-1]


def _others(owners: Sequence[L], at: int, avoid: Collection[L]) -> Iterator[L]:
    """The owners from `at` on, once round, without the lanes to avoid."""
    for lane in chain(islice(owners, at, None), islice(owners, at)):
        if lane not in avoid:
            yield lane


class Ring(Balancer[L]):
    """The owner of the next point at or after the key."""

    needs_key = True
    __slots__ = ("_lanes", "_owners", "_points")

    def __init__(self, members: Sequence[tuple[L, float]], rng: random.Random, offset: int | None = None) -> None:
        lanes = [lane for lane, _ in members]
        heaviest = max(weight for _, weight in members)
        points_each = POINTS
        limit = POINTS_LANES
        while len(lanes) > limit and points_each > 10:
            limit, points_each = limit * 2, points_each // 2
        circle: dict[int, L] = {}
        # Relative to the heaviest weight, not to the sum: a lane's points do not change when another lane comes or
        # goes. The exception is the only heaviest lane: when it goes, the other lanes get more points, and keep the
        # points they had.
        for lane, weight in sorted(members, key=lambda member: _name(member[0].id)):
            count = max(1, round(points_each * weight / heaviest))
            circle.update(dict.fromkeys(_points(_name(lane.id), count), lane))
        self._points = sorted(circle)
        self._owners = list(map(circle.__getitem__, self._points))
        self._lanes = lanes

    def pick(self, key: int = 0, avoid: Collection[L] = (), now: float = 0.0) -> L | None:
        owners = self._owners
        at = bisect_right(self._points, key & _MASK)
        lane = owners[at] if at < len(owners) else owners[0]
        if not avoid or lane not in avoid:
            return lane
        return next(_others(owners, at, avoid), None) or next(_others(self._lanes, 0, avoid), lane)


class Maglev(Balancer[L]):
    """One look-up in a table that the lanes filled in turns."""

    needs_key = True
    __slots__ = ("_lanes", "_table")

    def __init__(self, members: Sequence[tuple[L, float]], rng: random.Random, offset: int | None = None) -> None:
        self._lanes = [lane for lane, _ in members]
        self._table = _fill(members)

    def pick(self, key: int = 0, avoid: Collection[L] = (), now: float = 0.0) -> L | None:
        table = self._table
        lane = table[key % len(table)]
        if not avoid or lane not in avoid:
            return lane
        # A lane of tiny weight may have no slot at all, and still be the only one left.
        return next(_others(table, key % len(table), avoid), None) or next(_others(self._lanes, 0, avoid), lane)


def _fill(members: Sequence[tuple[L, float]]) -> list[L]:
    """The paper's `populate`, with Envoy's weights. The order of names decides, so that all workers agree."""
    ordered = sorted(members, key=lambda member: _name(member[0].id))
    size = SMALL_TABLE if len(ordered) <= SMALL_LANES else LARGE_TABLE
    heaviest = max(weight for _, weight in ordered)
    starts, skips = [], []
    for lane, _ in ordered:
        offset, skip = _points(_name(lane.id), 2)
        starts.append(offset % size)
        skips.append(skip % (size - 1) + 1)
    credits = [0.0] * len(ordered)
    table: list[L | None] = [None] * size
    filled = 0
    while filled < size:
        for i, (lane, weight) in enumerate(ordered):
            credits[i] += weight / heaviest
            if credits[i] < 1.0 - 1e-9:
                continue
            credits[i] -= 1.0
            slot, skip = starts[i], skips[i]
            while table[slot] is not None:
                slot = (slot + skip) % size
            table[slot] = lane
            starts[i] = (slot + skip) % size
            filled += 1
            if filled == size:
                break
    return [lane for lane in table if lane is not None]
