"""ConnectPacer: connections to targets are begun a few per turn of the event loop.

A thousand requests that come at once find no idle connection. A thousand connections begun at once would keep the
worker from its answers for a good while. They would also overflow the target's listen queue (nginx's holds 511, many a
server's 128). A connection that does not fit waits a second until its SYN is sent again. So only the first few begin at
once. The remaining ones follow in the next turns, unless their requests have got another connection by then
(`Lane.hand_over`). The loop turns a hundred times while a connection to another machine is made, so that only a busy
worker delays a request.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Protocol

#: Connections that are begun in one turn of the loop.
PER_TURN = 16


class Lane(Protocol):
    """A target that connections are opened to."""

    opening: int  # connections being opened, or to be begun

    def begin(self) -> None: ...

    def needs_another(self) -> bool: ...


class ConnectPacer:
    """One worker's connections that are to be begun."""

    __slots__ = ("_due", "_loop", "_room", "_waiting")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._waiting: deque[Lane] = deque()
        self._room = PER_TURN  # connections that may still begin in this turn
        self._due = False  # whether the next turn is scheduled

    def ask(self, lane: Lane) -> None:
        """Begin a connection to `lane`'s target, now, or in one of the next turns if it is needed still."""
        if not self._due:
            self._due = True
            self._loop.call_soon(self._turn)
        if self._room:
            self._room -= 1
            lane.begin()
        else:
            lane.opening += 1
            self._waiting.append(lane)

    def _turn(self) -> None:
        waiting = self._waiting
        self._room = PER_TURN
        self._due = bool(waiting)
        if self._due:
            self._loop.call_soon(self._turn)
        while waiting and self._room:
            lane = waiting.popleft()
            lane.opening -= 1
            if lane.needs_another():
                self._room -= 1
                lane.begin()
