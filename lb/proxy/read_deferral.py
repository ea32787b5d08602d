"""ReadDeferral: a turn of the event loop ends, however many clients are busy.

libuv looks for ready sockets up to 48 times in one turn, for as long as each look finds 1,024 of them. Two thousand
busy clients keep a worker from all else for more than a second then: timers, new connections, word from the supervisor.
When the worker's timer is seen to be late, clients that have just had an answer are not read from until the turn is
over.
"""

from __future__ import annotations

import asyncio
from typing import Final, Protocol

#: Seconds since the last tick of the worker's timer (`deadlines.TICK`) from which on a turn has lasted long enough.
LATE: Final = 0.15


class Client(Protocol):
    """A client's connection."""

    def pause(self) -> None: ...

    def resume(self) -> None: ...


class ReadDeferral:
    """One worker's clients that are not read from until the next turn."""

    __slots__ = ("_clients", "_loop")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._clients: list[Client] = []

    def defer(self, client: Client) -> None:
        """Do not read from `client`, which has no request under way, until the next turn."""
        if not self._clients:
            self._loop.call_soon(self._go_on)
        self._clients.append(client)
        client.pause()

    def _go_on(self) -> None:
        clients, self._clients = self._clients, []
        for client in clients:
            client.resume()
