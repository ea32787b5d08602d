"""Which pool of a service gets a request while two of them share the traffic: exact, not by luck.

A hundred buckets are dealt out to the pools by their parts of 100. Requests step through the buckets in strides of 61.
Any 100 requests in a row visit every bucket once, so the shares are exact in any window of 100. The stride is about the
golden section, so the shares are nearly exact in shorter windows too. And a client that sends requests in a rhythm
(page, asset, page, asset) is not locked to one pool, as taking turns would do.

With sticky clients the bucket is the client's: a hash of its address, header or cookie. The buckets are dealt out in
the order of the pools' names. So between two pools a growing share only ever adds buckets to the growing pool: no
client moves back within a rollout.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, Generic, TypeVar

BUCKETS: Final = 100
#: Has no common factor with 100, and is its golden section.
STRIDE: Final = 61

P = TypeVar("P")


def deal(shares: Sequence[tuple[str, int]]) -> list[str]:
    """The pool of each of the 100 buckets."""
    if any(parts < 0 for _, parts in shares) or sum(parts for _, parts in shares) != BUCKETS:
        raise ValueError(f"shares must be parts of {BUCKETS} that sum to {BUCKETS}, not {list(shares)}")
    return [pool for pool, parts in sorted(shares) for _ in range(parts)]


def parts_of(weights: Sequence[tuple[str, int]]) -> list[tuple[str, int]]:
    """Weights as parts of 100, by largest remainders. A weight above 0 has one part at least."""
    total = sum(weight for _, weight in weights)
    exact = [(name, BUCKETS * weight / total) for name, weight in weights if weight]
    parts = {name: max(int(share), 1) for name, share in exact}
    for name, _ in sorted(exact, key=lambda each: (int(each[1]) - each[1], each[0])):
        if sum(parts.values()) < BUCKETS:
            parts[name] += 1
    while sum(parts.values()) > BUCKETS:
        parts[max(parts, key=lambda name: (parts[name], name))] -= 1
    return list(parts.items())


class Split(Generic[P]):
    """The pools of one service, each with its share. `P` is whatever the caller keeps for a pool.

    `offset` is where the steps begin: another one per worker, or the `position` of the split that this one replaces. So
    frequent replacements do not favour the pools of the first steps.
    """

    __slots__ = ("_buckets", "only", "position")

    def __init__(self, shares: Sequence[tuple[str, int]], pools: Mapping[str, P], offset: int = 0) -> None:
        names = deal(shares)
        self._buckets: list[P] = [pools[name] for name in names]
        #: The pool that has it all; None while several share.
        self.only: P | None = self._buckets[0] if len(set(names)) == 1 else None
        self.position = offset % BUCKETS

    def pick(self) -> P:
        """The pool of the next request."""
        position = self.position = (self.position + STRIDE) % BUCKETS
        return self._buckets[position]

    def of(self, key: int) -> P:
        """The pool of the client whose `balance.hash_key` is `key`."""
        return self._buckets[key % BUCKETS]
