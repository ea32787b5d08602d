"""Acceptor: accepts connections from a listening socket's queue, also beside a thousand busy clients.

libuv accepts one connection per look at its sockets (libuv pull request 3696). Beside a thousand busy clients a look
takes tens of milliseconds, so that only some thirty new connections a second would be accepted. When the last accept is
long ago, the acceptor therefore accepts the next connections of the queue as well.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Coroutine
from time import monotonic
from typing import Any

#: Seconds since the last new connection from which on further ones are looked for: the loop's own pace is a thousand a
#: second then.
LONG_AGO = 0.001
#: So many are accepted at once; the rest at the loop's next look (HAProxy's tune.maxaccept: 64).
AT_ONCE = 64


class Acceptor:
    """The protocol factory of one listening socket. `go` starts a task and keeps it. `under_way` are the connections
    that have been accepted and that the loop has yet to take over."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        sock: socket.socket,
        factory: Callable[[], asyncio.Protocol],
        go: Callable[[Coroutine[Any, Any, None]], object],
        under_way: set[socket.socket] | None = None,
    ) -> None:
        self._loop = loop
        self._sock = sock
        self._factory = factory
        self._go = go
        self._under_way: set[socket.socket] = set() if under_way is None else under_way
        self._last = 0.0

    def __call__(self) -> asyncio.Protocol:
        """The loop has accepted a connection."""
        now = monotonic()
        if now - self._last > LONG_AGO:
            self.let_in(AT_ONCE)
        self._last = now
        return self._factory()

    def let_in(self, most: float, queue: socket.socket | None = None) -> None:
        """Accept up to `most` connections of the queue, or of another queue of the same address."""
        queue = queue or self._sock
        while most > 0:
            most -= 1
            try:
                connection, _ = queue.accept()
            except OSError:  # the queue is empty, or there is no descriptor
                return
            connection.setblocking(False)
            self._under_way.add(connection)
            self._go(self._welcome(connection))

    async def _welcome(self, connection: socket.socket) -> None:
        try:
            await self._loop.connect_accepted_socket(self._factory, connection)
        except OSError:
            connection.close()
        finally:
            self._under_way.discard(connection)
