"""Acceptor: accepts connections from a listening socket's queue, also beside a thousand busy clients.

libuv accepts one connection per look at its sockets (libuv pull request 3696). Beside a thousand busy clients a look
takes tens of milliseconds, so that only some thirty new connections a second would be accepted. When the last accept is
long ago, the acceptor therefore accepts the next connections of the queue as well.
"""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import Callable, Coroutine
from time import monotonic
from typing import Any

#: Seconds since the last new connection from which on further ones are looked for: the loop's own pace is a thousand a
#: second then.
LONG_AGO = 0.001
#: So many are accepted at once; the rest at the loop's next look (HAProxy's tune.maxaccept: 64).
AT_ONCE = 64
_SHORT = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)


class Acceptor:
    """The protocol factory of one listening socket. `options` are for TLS; `go` starts a task and keeps it. `failed` is
    called with the client's address and the error when its TLS handshake fails. `under_way` are the clients that have
    been accepted and have no connection of the data plane yet: their TLS handshake is under way."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        sock: socket.socket,
        factory: Callable[[], asyncio.Protocol],
        options: dict[str, Any],
        go: Callable[[Coroutine[Any, Any, None]], object],
        failed: Callable[[str, OSError], None] | None = None,
        under_way: set[socket.socket] | None = None,
    ) -> None:
        self._loop = loop
        self._sock = sock
        self._factory = factory
        self._options = options
        self._go = go
        self._failed = failed
        self._under_way: set[socket.socket] = set() if under_way is None else under_way
        self._last = 0.0

    def __call__(self) -> asyncio.Protocol:
        """The loop has accepted a connection."""
        now = monotonic()
        if now - self._last > LONG_AGO:
            self.let_in(AT_ONCE)
        self._last = now
        return self._factory()

    def let_in_some(self) -> bool:
        """Accept some of the queue. False: the system has no descriptor or memory for them."""
        return self.let_in(AT_ONCE)

    def let_in(self, most: float, queue: socket.socket | None = None) -> bool:
        """Accept up to `most` connections of the queue, or of another queue of the same address.

        False: the system has no descriptor or memory for them.
        """
        queue = queue or self._sock
        while most > 0:
            most -= 1
            try:
                connection, address = queue.accept()
            except OSError as error:  # the queue is empty, or there is no descriptor
                return error.errno not in _SHORT
            connection.setblocking(False)
            self._under_way.add(connection)
            self._go(self._welcome(connection, address))
        return True

    async def _welcome(self, connection: socket.socket, address: Any) -> None:
        try:
            await self._loop.connect_accepted_socket(self._factory, connection, **self._options)
        except OSError as error:
            connection.close()
            if self._options and self._failed is not None:
                self._failed(address[0] if isinstance(address, tuple) else "unix", error)
        finally:
            self._under_way.discard(connection)
