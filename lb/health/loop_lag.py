"""The lag of lb's own event loop: a probe that times out while the loop stands still is no fault of its target.

The loop runs a beat every 50 ms. It is late with a beat when a slow callback, a busy machine or a stopped process has
held it up. The lateness of all beats, added up, is compared with the times of probes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

BEAT = 0.05
#: Lateness below this is the loop's ordinary work.
TOLERATED = 0.02


class LoopLag:
    """`lost()` grows by the seconds that the loop stands still. The difference of two readings is the lag between."""

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
        """Seconds of lag since `start`, an overdue beat included."""
        late = self._clock() - self._next
        return self._lost + late if late > TOLERATED else self._lost

    def _beat(self, loop: asyncio.AbstractEventLoop) -> None:
        self._lost = self.lost()
        self._next = self._clock() + BEAT
        self._timer = loop.call_later(BEAT, self._beat, loop)
