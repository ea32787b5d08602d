"""How long our own event loop has stood still: what it did not do in that time is no fault of a target.

A beat every 50 ms; the loop is late with one when something held it up: a slow callback, a busy machine, a process
that was stopped. The lateness of all beats, added up, is what probes are measured against.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

BEAT = 0.05
#: Lateness below this is the loop's ordinary work.
TOLERATED = 0.02


class Pulse:
    """`lost()` grows by the seconds that the loop stood still; compare two readings."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._lost = 0.0
        self._next = float("inf")  # when the next beat is due
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        loop = asyncio.get_running_loop()
        self._next = self._clock() + BEAT
        self._timer = loop.call_later(BEAT, self._beat, loop)

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def lost(self) -> float:
        """Seconds, a beat that is overdue right now included."""
        late = self._clock() - self._next
        return self._lost + late if late > TOLERATED else self._lost

    def _beat(self, loop: asyncio.AbstractEventLoop) -> None:
        self._lost = self.lost()
        self._next = self._clock() + BEAT
        self._timer = loop.call_later(BEAT, self._beat, loop)
