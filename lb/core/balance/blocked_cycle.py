"""BlockedCycle: how round robin takes a cycle of many lanes at a high rate: a part of it several times, then the next.

A connection that was used a millisecond ago is still in the processor's cache, with all that the kernel and the worker
keep of it. Taking turns among a thousand targets is not good enough. In strict turn a request to one of a thousand
targets costs a quarter more than a request to one of a few. To go through a part of the data several times before the
next part is called loop blocking or tiling (Lam, Rothberg, Wolf: The cache performance and optimizations of blocked
algorithms, 1991).

No request waits for it, and no lane is skipped:

- A stretch has the traffic for `STAY` seconds at the most. So below about 1,300 requests a second the order is strict.
- Hardly ever does a target get a request while it has another one. Consider the requests in flight that stand behind
  another request. By Little's law their share equals the share of time that requests spend waiting, even where a target
  serves one at a time. Where it is more than `BEHIND`, stretches become longer, up to the whole cycle, which is the
  strict order.
- A stretch consists of the parts of the cycle that have had the fewest turns. So no part is ever more than `LAPS` turns
  ahead of another: the shares are exact, give or take these turns. Once traffic has ebbed away, such a lead is
  forgiven. Otherwise the other parts would have to be served for long before the lead is made up for.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil
from typing import Final, Generic, TypeVar

from lb.core.balance.policy import Member

#: Turns of one part, about. A stretch is some parts of the cycle.
PART: Final = 16
#: Parts of the shortest stretch.
SHORTEST: Final = 2
#: How many times in a row a stretch is gone through at most.
LAPS: Final = 32
#: Seconds that a stretch may have all traffic.
STAY: Final = 0.05
#: Turns of a stretch for each request in flight, when its length is chosen; it is gone through again while it has one.
ROOM: Final = 1.5
#: Turns for each request in flight that are enough in any case: each target is busy for a quarter of the time.
AMPLE: Final = 4
#: The share of the requests in flight that may stand behind another one at their target.
BEHIND: Final = 0.02
#: Seconds without a second lap after which leads are forgiven.
PATIENCE: Final = 1.0
#: Both figures of what is in flight are smoothed over about so many laps.
SMOOTH: Final = 8

L = TypeVar("L", bound=Member)


class BlockedCycle(Generic[L]):
    """The turns of one cycle, without end, a lap over a stretch at a time."""

    __slots__ = (
        "_began",
        "_behind",
        "_gone",
        "_in_flight",
        "_lap",
        "_lap_began",
        "_laps",
        "_next",
        "_parts",
        "_repeated",
        "_stretch",
        "_width",
    )

    def __init__(self, cycle: Sequence[L]) -> None:
        slots, parts = len(cycle), ceil(len(cycle) / PART)
        self._parts = [cycle[slots * i // parts : slots * (i + 1) // parts] for i in range(parts)]
        self._gone = [0] * parts  # how often each has been gone through
        self._next = 0  # the part that follows the last one that was
        self._width = SHORTEST  # parts that a stretch has
        self._in_flight = 0.0  # requests in flight at the targets of a lap, at its end…
        self._behind = 0.0  # …and how many of them stand behind another one
        self._stretch: list[int] = []  # the parts that are gone through now…
        self._lap: list[L] = []  # …and their turns
        self._laps = LAPS  # how often that has been done; at first there is nothing to be done again
        self._began = self._lap_began = self._repeated = 0.0  # when: the stretch, its last lap, any second lap

    def next_lap(self, now: float) -> list[L]:
        """The turns to come. `now` is in seconds, of any origin; a clock that stands still gives the strict order."""
        took = now - self._lap_began
        self._lap_began = now
        crowded = self._is_crowded()
        fits = not crowded and self._in_flight <= len(self._lap)
        if fits and 0.0 < took <= self._began + STAY - now and self._laps < LAPS:
            self._laps += 1
            self._repeated = now
        else:
            if now - self._repeated > PATIENCE:
                self._gone = [0] * len(self._parts)
            if not crowded:  # else it is longer already
                self._width = self._width_for_flight()
            self._stretch = self._least()
            self._lap = [lane for part in self._stretch for lane in self._parts[part]]
            self._laps = 1
            self._began = now
        for part in self._stretch:
            self._gone[part] += 1
        return self._lap

    def _is_crowded(self) -> bool:
        """Whether more than a few requests stand behind another request. If so, the next stretch is longer."""
        in_flight = [lane.in_flight for lane in self._lap]
        self._in_flight += (sum(in_flight) - self._in_flight) / SMOOTH
        self._behind += (sum([count - 1 for count in in_flight if count > 1]) - self._behind) / SMOOTH
        if self._behind <= BEHIND * self._in_flight:
            return False
        self._behind = 0.0  # the longer stretch is measured anew
        self._width = min(len(self._parts), self._width + 1 + self._width // 4)
        return True

    def _width_for_flight(self) -> int:
        """Parts that the next stretch has: requests in flight need its room, and a long one gets shorter by and by."""
        room = ROOM if self._laps >= SMOOTH else AMPLE  # one lap says nothing about what further ones would meet
        needed = min(len(self._parts), ceil(room * self._in_flight / PART))
        return max(SHORTEST, needed, self._width - 1)

    def _least(self) -> list[int]:
        """The parts for the next stretch: the parts gone through least; of equal parts, the next in turn."""
        parts = len(self._parts)
        in_turn = [*range(self._next, parts), *range(self._next)]
        least = sorted(in_turn, key=self._gone.__getitem__)[: self._width]  # a stable sort
        self._next = (least[-1] + 1) % parts
        return least
