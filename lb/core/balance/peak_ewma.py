"""Peak EWMA: the better of two lanes by expected latency, quick to believe bad news and slow to forget it.

A lane's cost is its moving average of latencies times the requests it would then have in flight. A sample above the
average replaces it (the peak), one below it only pulls. Without samples the average fades, so that a lane once slow is
tried again. Failures count as a slow answer. Without that penalty a target that fails at once looks fast and draws all
the traffic (linkerd2-proxy's load biaser; finagle's plain EWMA lacks it).

Sources: finagle PeakEwma.scala; linkerd2-proxy's ewma and load-biaser, whose constants these are. Latencies are drawn
together by power of two choices, as in both. Reading does not mutate: `cost(now)` projects the fading.
"""

from __future__ import annotations

import random
from collections.abc import Collection, Sequence
from math import exp
from typing import Final, TypeVar

from lb.core.balance.alias_table import AliasTable
from lb.core.balance.policy import Balancer, Member

#: Seconds that a lane is taken to need before it has answered once (linkerd: 1 s).
FIRST: Final = 1.0
#: Seconds after which an old sample weighs 1/e (linkerd: 10 s).
DECAY: Final = 10.0
#: Seconds that a failed answer counts as (linkerd: 5 s), unless its Retry-After says more…
PENALTY: Final = 5.0
#: …up to this (linkerd: 300 s).
MAX_PENALTY: Final = 300.0

L = TypeVar("L", bound="Member")


class PeakEwma:
    """One lane's average latency in seconds, as of `stamp`."""

    __slots__ = ("decay", "stamp", "value")

    def __init__(self, now: float, first: float = FIRST, decay: float = DECAY) -> None:
        self.value = first
        self.stamp = now
        self.decay = decay

    def cost(self, now: float) -> float:
        """The average faded to `now`; a clock that went back fades nothing."""
        idle = now - self.stamp
        return self.value * exp(-idle / self.decay) if idle > 0.0 else self.value

    def observe(self, seconds: float, now: float) -> None:
        """An answer took `seconds`."""
        idle = now - self.stamp
        if idle < 0.0:
            idle = 0.0
        else:
            self.stamp = now
        fade = exp(-idle / self.decay)
        faded = self.value * fade
        # v e^(-dt/decay) is what is left of the past; a lower sample takes the share that faded.
        self.value = seconds if seconds > faded else faded + seconds * (1.0 - fade)

    def penalise(self, now: float, seconds: float = PENALTY) -> None:
        """The lane failed: a refused connection, a reset, a timeout, a 429 or 5xx (`seconds`: its Retry-After)."""
        self.observe(min(max(seconds, PENALTY), MAX_PENALTY), now)


class PeakEwmaBalancer(Balancer[L]):
    """The better of two lanes drawn by weight; better: lower average latency x (in flight / weight + 1).

    The weight counts against the pool's mean, so equal weights give linkerd's formula. Dividing the one as well would
    starve a light lane while nothing is in flight: the draw is by weight already.
    """

    __slots__ = ("_lanes", "_scales", "_table")

    def __init__(self, members: Sequence[tuple[L, float]], rng: random.Random, offset: int | None = None) -> None:
        weights = [weight for _, weight in members]
        mean = sum(weights, 0.0) / len(weights)
        self._lanes = [lane for lane, _ in members]
        self._scales = [mean / weight for weight in weights]
        self._table = AliasTable(weights, rng)

    def pick(self, key: int = 0, avoid: Collection[L] = (), now: float = 0.0) -> L | None:
        lanes = self._lanes
        if len(lanes) == 1:
            return lanes[0]
        i, j = self._table.draw_two()
        first, second = lanes[i], lanes[j]
        if avoid:
            if first in avoid:
                return self._elsewhere(avoid, now) if second in avoid else second
            if second in avoid:
                return first
        scales = self._scales
        cost = first.ewma.cost(now) * (first.in_flight * scales[i] + 1.0)
        return first if cost <= second.ewma.cost(now) * (second.in_flight * scales[j] + 1.0) else second

    def _elsewhere(self, avoid: Collection[L], now: float) -> L:
        """Rare: both draws were tried before. The cheapest of the other lanes, else of all."""
        both = list(zip(self._lanes, self._scales, strict=True))
        untried = [member for member in both if member[0] not in avoid] or both
        return min(untried, key=lambda member: member[0].ewma.cost(now) * (member[0].in_flight * member[1] + 1.0))[0]
