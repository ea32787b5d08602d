"""The machine's pace: whether the proxy's processor is as fast just now as it can be.

A virtual processor is often one half of a core, and half as fast for as long as somebody else's virtual machine keeps
the other half busy: for seconds at a time, and no counter of ours says so. A loop of arithmetic does. What it costs
here has two values, one 1.8 times the other, and little between. Two rounds compare if both ran at the same pace.

It judges the machine and never a result: no round is repeated because of what it measured.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from math import inf

#: Turns of the loop: 2 ms.
TURNS = 60_000
#: The best of so many readings counts: whatever interrupts one is not the machine's pace.
READINGS = 3
#: Slower than the best pace seen by more than this factor: somebody else is at work.
SLOW = 1.3
#: Seconds between two looks while it is waited for better times.
LOOK_EVERY = 0.25


class Pace:
    """The pace of one processor, beside its best so far."""

    def __init__(self, processor: int, read: Callable[[], float] | None = None) -> None:
        self._processor = processor
        self._read = read or self._seconds
        self._best = inf

    def factor(self) -> float:
        """How many times longer than at its best the processor takes just now; 1 or more."""
        seconds = self._read()
        self._best = min(self._best, seconds)
        return seconds / self._best

    def wait(self, within: float, sleep: Callable[[float], None] = time.sleep) -> None:
        """Until it is as fast as it can be, or `within` seconds have passed."""
        waited = 0.0
        while self.factor() > SLOW and waited < within:
            sleep(LOOK_EVERY)
            waited += LOOK_EVERY

    def _seconds(self) -> float:
        before = os.sched_getaffinity(0)
        os.sched_setaffinity(0, {self._processor})
        try:
            return min(_loop() for _ in range(READINGS))
        finally:
            os.sched_setaffinity(0, before)


def _loop() -> float:
    began = time.perf_counter()
    total = 0
    for i in range(TURNS):
        total += i * i
    return time.perf_counter() - began
