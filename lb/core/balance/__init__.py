"""Which of a pool's lanes gets the next request: one policy a file, one method, `pick`.

A balancer is built once per rotation, from the lanes in rotation and their effective weights. When the rotation
changes, the whole balancer is replaced. So a pick never looks at health, and costs the same with 1,000 lanes as with 2.
(finagle's distributors are built and swapped in the same way.)

Outside its scope: health, retries and the clock. A retry hands in the lanes it has tried as `avoid`.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any, Final, TypeVar

from lb.core.balance.hashing import Maglev, Ring, hash_key
from lb.core.balance.least_request import LeastRequest
from lb.core.balance.peak_ewma import PeakEwma, PeakEwmaBalancer
from lb.core.balance.policy import Balancer, Member, NoMember
from lb.core.balance.random_two import RandomTwo
from lb.core.balance.round_robin import RoundRobin
from lb.core.targets import Balance

__all__ = ["POLICIES", "Balancer", "Member", "PeakEwma", "build", "hash_key"]

L = TypeVar("L", bound=Member)

_CLASSES: Final[dict[str, Any]] = {
    "round_robin": RoundRobin,
    "least_request": LeastRequest,
    "random_two": RandomTwo,
    "peak_ewma": PeakEwmaBalancer,
    "ring": Ring,
    "maglev": Maglev,
}

#: Names that `balance:` may have in the configuration.
POLICIES: Final[tuple[str, ...]] = tuple(_CLASSES)


def build(
    balance: Balance, members: Sequence[tuple[L, float]], rng: random.Random, offset: int | None = None
) -> Balancer[L]:
    """The balancer for `members`, each a lane with its effective weight; a weight of 0 or less gets nothing.

    `offset` says where in its sequence round robin begins, so that several workers do not all begin with the same lane.
    None draws the beginning from `rng`: right for a balancer that is rebuilt often, as a fixed beginning would favour
    the lane at that place.
    """
    if balance.policy not in _CLASSES:
        raise ValueError(f"balancing policy {balance.policy!r} is unknown; known are {', '.join(POLICIES)}")
    kept = [member for member in members if member[1] > 0]
    if not kept:
        return NoMember()
    balancer: Balancer[L] = _CLASSES[balance.policy](kept, rng, offset)
    return balancer
