"""Affinity over any policy: the lane that a client's cookie stands for, and the policy for all other requests.

The number of that lane (`core.affinity`) is the upper part of the key. The lower 64 bits are the policy's own key.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Final, TypeVar

from lb.core.balance.policy import Balancer, Member

#: Bits of a policy's own key.
BITS: Final = 64
_MASK: Final = (1 << BITS) - 1

L = TypeVar("L", bound=Member)


class ByCookie(Balancer[L]):
    """`lanes` are the ones in rotation by their numbers. A retry, which has tried its lane, goes by the policy."""

    needs_key = True
    __slots__ = ("_lanes", "_policy")

    def __init__(self, policy: Balancer[L], lanes: Mapping[int, L]) -> None:
        self._policy = policy
        self._lanes = lanes

    def pick(self, key: int = 0, avoid: Collection[L] = (), now: float = 0.0) -> L | None:
        lane = self._lanes.get(key >> BITS)
        if lane is not None and lane not in avoid:
            return lane
        return self._policy.pick(key & _MASK, avoid, now)
