"""Admission: how many TLS handshakes are under way, and how much of a turn of the event loop they get.

A full handshake takes most of a millisecond. A storm of newcomers must not make running requests wait for all of them:
in one turn of the loop handshakes get a bounded time, and the rest has its turn later, first come, first served.

The number under way is bounded, too. When it is reached, the oldest one that waits for its client gives way: clients
that mean it answer within a round trip, and connections that never finish cannot lock them out. When all of them wait
for this process, the newcomer is refused.

One timer serves all deadlines. They are the same for all handshakes, so that the order of beginning is theirs.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from time import monotonic
from typing import Final, Protocol

#: Handshakes under way in one worker.
LIMIT: Final = 1024
#: Seconds that a handshake may take, from the accept on.
HANDSHAKE_TIME: Final = 10.0
#: Seconds of one turn of the loop in which handshakes may go on: at most one step longer.
TURN: Final = 0.001
#: Seconds that a connection without a handshake may take to end: the client reads the alert, or an answer.
FAREWELL_TIME: Final = 2.0
#: Seconds that the end of an established connection may take in all. Its bound is `proxy.sending`, which sees progress.
SHUTDOWN_TIME: Final = 600.0
#: Seconds between two looks at the deadlines.
TICK: Final = 0.25


class Newcomer(Protocol):
    """A connection whose handshake is under way, or that ends."""

    @property
    def queued(self) -> bool:
        """Whether it waits for its turn, and not for its client."""

    def advance(self) -> None:
        """Go on with the handshake."""

    def give_up(self, reason: str) -> None:
        """End the handshake without an answer: `timeout`, `overload` or `stopped`."""

    def abort(self) -> None:
        """Its time to end is over."""


class Admission:
    """The handshakes of one worker."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        limit: int = LIMIT,
        time: float = HANDSHAKE_TIME,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self.clock = clock
        self._loop = loop
        self._limit = limit
        self._time = time
        self._under_way: dict[Newcomer, float] = {}  # → when its time is over
        self._farewells: dict[Newcomer, float] = {}
        self._shutdowns: dict[Newcomer, float] = {}
        self._queue: deque[Newcomer] = deque()
        self._turn_ends = 0.0  # 0: none has gone on in this turn
        self._ticking = False

    def __len__(self) -> int:
        """Handshakes under way."""
        return len(self._under_way)

    def admit(self, newcomer: Newcomer) -> bool:
        """A connection was accepted. False: there are too many, and it is to be refused."""
        if len(self._under_way) >= self._limit:
            oldest = next((each for each in self._under_way if not each.queued), None)
            if oldest is None:
                return False
            oldest.give_up("overload")
        self._under_way[newcomer] = self.clock() + self._time
        self._watch()
        return True

    def step(self, newcomer: Newcomer) -> bool:
        """Bytes of a handshake have come. True: it goes on now. False: it is called when it is its turn."""
        now = self.clock()
        if not self._turn_ends:
            self._turn_ends = now + TURN
            self._loop.call_soon(self._next_turn)
        elif self._queue or now >= self._turn_ends:
            self._queue.append(newcomer)
            return False
        return True

    def leave(self, newcomer: Newcomer) -> None:
        """Its handshake is over."""
        self._under_way.pop(newcomer, None)

    def take_leave(self, newcomer: Newcomer) -> None:
        """It ends without a handshake, and waits for its client a little."""
        self._under_way.pop(newcomer, None)
        self._farewells[newcomer] = self.clock() + FAREWELL_TIME
        self._watch()

    def shut_down(self, newcomer: Newcomer) -> None:
        """An established connection ends, and waits for its client."""
        self._shutdowns[newcomer] = self.clock() + SHUTDOWN_TIME
        self._watch()

    def forget(self, newcomer: Newcomer) -> None:
        """The connection is gone."""
        self._under_way.pop(newcomer, None)
        self._farewells.pop(newcomer, None)
        self._shutdowns.pop(newcomer, None)

    def close(self) -> None:
        """The worker ends: so do they all."""
        for newcomer in list(self._under_way):
            newcomer.give_up("stopped")
        for newcomer in [*self._farewells, *self._shutdowns]:
            newcomer.abort()

    def _next_turn(self) -> None:
        if not self._queue:
            self._turn_ends = 0.0
            return
        ends = self._turn_ends = self.clock() + TURN
        self._loop.call_soon(self._next_turn)
        queue = self._queue
        while queue:
            newcomer = queue.popleft()
            try:
                newcomer.advance()
            except Exception as error:  # one client must not keep other clients waiting
                self._loop.call_exception_handler({"message": "a TLS handshake failed", "exception": error})
                newcomer.abort()
            if self.clock() >= ends:
                return

    def _watch(self) -> None:
        if not self._ticking:
            self._ticking = True
            self._loop.call_later(TICK, self._tick)

    def _tick(self) -> None:
        self._ticking = False
        now = self.clock()
        for newcomer in _over(self._under_way, now):
            newcomer.give_up("timeout")
        for ending in (self._farewells, self._shutdowns):
            for newcomer in _over(ending, now):
                del ending[newcomer]
                newcomer.abort()
        if self._under_way or self._farewells or self._shutdowns:
            self._watch()


def _over(deadlines: dict[Newcomer, float], now: float) -> list[Newcomer]:
    """All whose time is over: they are the first ones."""
    over: list[Newcomer] = []
    for newcomer, deadline in deadlines.items():
        if deadline > now:
            break
        over.append(newcomer)
    return over
