"""The schedule of all probes: one heap and one timer.

A sleeping task per target would cost a timer and two context switches a probe, and could not measure how late it is.
Here every entry has the moment when it is due, and `late` records by how much each start missed that moment.

No two runs of one entry are due at once: an entry is removed when it comes due, and its owner sets it again.
"""

from __future__ import annotations

import asyncio
import heapq
import logging
from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")
log = logging.getLogger("lb")

#: Entries started at a time, before the loop's other callbacks run.
BATCH = 32
#: Timers may fire this much early: the loop counts whole milliseconds.
SLACK = 0.001
#: Seconds after which an entry that could not be started is tried again.
AGAIN = 1.0


class Schedule(Generic[T]):
    """Calls `run(item, due)` when an item's time has come."""

    def __init__(self, clock: Callable[[], float], run: Callable[[T, float], None]) -> None:
        self._clock = clock
        self._run = run
        self._heap: list[tuple[float, int, T]] = []
        self._tickets: dict[T, int] = {}
        self._next_ticket = 0
        self._timer: asyncio.TimerHandle | asyncio.Handle | None = None
        self._wakes_at = float("inf")
        self._loop: asyncio.AbstractEventLoop | None = None
        #: Seconds by which the last starts were late.
        self.late: deque[float] = deque(maxlen=4096)

    def start(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._arm()

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._loop = None
        self._heap.clear()
        self._tickets.clear()

    def set(self, item: T, due: float) -> None:
        """Make `item` due at `due`, which replaces the time set before."""
        ticket = self._next_ticket = self._next_ticket + 1
        self._tickets[item] = ticket
        heapq.heappush(self._heap, (due, ticket, item))
        if due < self._wakes_at:
            self._arm()

    def drop(self, item: T) -> None:
        """Remove `item` from the schedule."""
        self._tickets.pop(item, None)
        if len(self._heap) > 64 and len(self._heap) > 4 * len(self._tickets):
            self._heap = [entry for entry in self._heap if self._tickets.get(entry[2]) == entry[1]]
            heapq.heapify(self._heap)

    def _arm(self) -> None:
        if self._loop is None:
            return
        if self._timer is not None:
            self._timer.cancel()
        if not self._heap:
            self._timer, self._wakes_at = None, float("inf")
            return
        self._wakes_at = self._heap[0][0]
        delay = self._wakes_at - self._clock()
        self._timer = self._loop.call_later(delay, self._wake) if delay > 0 else self._loop.call_soon(self._wake)

    def _wake(self) -> None:
        self._timer, self._wakes_at = None, float("-inf")  # a call of `set` within this loop need not arm the timer
        started = 0
        while self._heap and started < BATCH:
            due, ticket, item = self._heap[0]
            now = self._clock()
            if due > now + SLACK:
                break
            heapq.heappop(self._heap)
            if self._tickets.get(item) != ticket:
                continue
            del self._tickets[item]
            self.late.append(max(0.0, now - due))
            started += 1
            try:
                self._run(item, due)
            except Exception:  # a probe that cannot be started must not end all later probes
                log.exception("%r could not be started; it is tried again in %g s", item, AGAIN)
                self.set(item, now + AGAIN)
        self._arm()
