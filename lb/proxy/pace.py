"""Pace: an answer's rate of bytes. While the client has got too much, nothing is read from the target.

One timer for each wait of an answer that a route limits; no other request knows of it.
"""

from __future__ import annotations

from asyncio import AbstractEventLoop, TimerHandle
from collections.abc import Callable
from time import monotonic
from typing import TYPE_CHECKING, Final, Protocol

if TYPE_CHECKING:
    from lb.proxy.stats import StepCounts

#: Seconds that an answer may be ahead of its rate before it waits: timers of single packets would cost more.
AHEAD: Final = 0.05
#: Seconds of one wait at most; then it is looked at again.
LONGEST: Final = 60.0


class Paced(Protocol):
    """The exchange whose answer is held."""

    @property
    def client_is_blocked(self) -> bool: ...

    def client_blocked(self) -> None: ...

    def client_unblocked(self) -> None: ...


class Pace:
    """`rate` bytes a second, after `free` bytes at full speed."""

    __slots__ = ("_counts", "_due", "_exchange", "_free", "_loop", "_rate", "_timer", "holds")

    def __init__(self, exchange: Paced, loop: AbstractEventLoop, rate: int, free: int, counts: StepCounts) -> None:
        self._exchange = exchange
        self._loop = loop
        self._rate = rate
        self._free = free
        self._counts = counts
        self._due = 0.0  # when the client is to have what was sent; 0.0: nothing has waited yet
        self._timer: TimerHandle | None = None
        self.holds = False

    def sent(self, size: int) -> None:
        """So many bytes went to the client, and more are to come."""
        if self._free:
            rest = self._free - size
            self._free = max(rest, 0)
            size = max(-rest, 0)
        now = monotonic()
        if not self._due and size:
            self._counts.count("held")
        self._due = max(self._due, now) + size / self._rate
        self._wait(now)

    def _wait(self, now: float) -> None:
        seconds = self._due - now
        if seconds > AHEAD and not self.holds:
            self.holds = True
            self._exchange.client_blocked()
            go_on: Callable[[], None] = self._go_on
            self._timer = self._loop.call_later(min(seconds, LONGEST), go_on)

    def _go_on(self) -> None:
        self.holds, self._timer = False, None
        self._wait(monotonic())
        if not self.holds and not self._exchange.client_is_blocked:
            self._exchange.client_unblocked()

    def close(self) -> None:
        """The answer is over."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
