"""Connections for probes of one write and one answer, with as few system calls as possible.

A transport of the event loop asks the kernel for a dozen things that a probe never uses. Examples are both names,
options, the process's id, readiness to write. These calls were two thirds of the cost of a thousand probes a second.
Here all connections share one epoll, of which the loop sees one descriptor. A probe costs socket, connect, send,
epoll_ctl, recv and close. `Dialer.open` is for TLS and for names.
"""

from __future__ import annotations

import asyncio
import errno
import os
import select
import socket
from typing import Protocol

from lb.net.resolver import Place

#: The type for `socket.SocketType`, the C class below `socket.socket`, whose additions a probe does not need.
STREAM = socket.SOCK_STREAM | socket.SOCK_NONBLOCK
#: Bytes taken at a time.
PIECE = 65536
#: Events handled at a time, before the loop's other callbacks run.
BATCH = 64
#: Results of a non-blocking connect that has not failed.
UNDER_WAY = frozenset((0, errno.EINPROGRESS, errno.EAGAIN))


class Handler(Protocol):
    """Supplies the question of a connection, and takes the answer."""

    question: bytes

    def connected(self, connection: ProbeConnection) -> None:
        """The question, or a part of it, has been sent."""

    def data_received(self, data: bytes) -> None:
        """Take a piece of the answer."""

    def eof_received(self) -> None:
        """The target has ended its answer."""

    def connection_lost(self, error: Exception | None) -> None:
        """The connection has failed, or was reset."""


class ProbeConnection:
    """One connection."""

    __slots__ = ("_handler", "_sock", "_transport", "_unsent", "fd", "waits")

    def __init__(self, transport: ProbeTransport, sock: socket.SocketType, handler: Handler) -> None:
        self._transport = transport
        self._sock = sock
        self._handler: Handler | None = handler  # None after `abort`, so that no reference cycle is left
        self._unsent = handler.question
        self.waits = select.EPOLLIN  # the epoll events it waits for
        self.fd = sock.fileno()

    def send(self) -> int:
        """Send the unsent part of the question. Returns the epoll events to wait for next.

        While the kernel connects, it answers EAGAIN. Raises `OSError` when the connect has failed.
        """
        handler = self._handler
        assert handler is not None
        try:
            sent = self._sock.send(self._unsent)
        except BlockingIOError:
            return select.EPOLLOUT
        whole = len(self._unsent) == len(handler.question)
        self._unsent = self._unsent[sent:]
        if whole:
            handler.connected(self)
        return select.EPOLLOUT if self._unsent else select.EPOLLIN

    def on_event(self) -> None:
        """An epoll event: the socket is connected, readable, closed or failed."""
        handler = self._handler
        if handler is None:
            return
        try:
            if self.waits == select.EPOLLOUT:
                waits = self.send()
                if waits != self.waits:
                    self.waits = waits
                    self._transport.change(self)
                return
            data = self._sock.recv(PIECE)
        except BlockingIOError:
            return
        except OSError as error:
            self.abort()
            handler.connection_lost(error)
            return
        if data:
            handler.data_received(data)
        else:
            self.abort()
            handler.eof_received()

    def abort(self) -> None:
        """Close. The kernel discards all later bytes."""
        if self.fd >= 0:
            self._transport.drop(self)
            self.fd = -1
            self._handler = None
            self._sock.close()


class ProbeTransport:
    """All connections of one event loop."""

    def __init__(self) -> None:
        self._epoll: select.epoll | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._connections: dict[int, ProbeConnection] = {}

    @property
    def open_now(self) -> int:
        """The number of open connections."""
        return len(self._connections)

    def open(self, handler: Handler, place: Place) -> ProbeConnection:
        """Connect and send the question. Later results go to `handler`.

        Raises `OSError` when the kernel refuses the connect at once.
        """
        sock = socket.SocketType(place.family, STREAM)
        connection = ProbeConnection(self, sock, handler)
        error = sock.connect_ex(place.address)
        if error not in UNDER_WAY:
            sock.close()
            raise OSError(error, os.strerror(error))
        try:
            connection.waits = connection.send()
            if self._epoll is None:
                self._epoll = select.epoll()
                self.loop.add_reader(self._epoll.fileno(), self._on_events)
            self._epoll.register(connection.fd, connection.waits)
        except OSError:
            connection.abort()
            raise
        self._connections[connection.fd] = connection
        return connection

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The event loop of all connections."""
        if self._loop is None:
            self._loop = asyncio.get_running_loop()  # a system call each time
        return self._loop

    def change(self, connection: ProbeConnection) -> None:
        """Register the events that `connection.waits` names now."""
        assert self._epoll is not None
        self._epoll.modify(connection.fd, connection.waits)

    def drop(self, connection: ProbeConnection) -> None:
        """Forget a connection that is about to be closed. Closing removes it from the epoll."""
        self._connections.pop(connection.fd, None)

    def close(self) -> None:
        """Close all connections."""
        for connection in list(self._connections.values()):
            connection.abort()
        if self._epoll is not None:
            self.loop.remove_reader(self._epoll.fileno())
            self._epoll.close()
            self._epoll = None

    def _on_events(self) -> None:
        if self._epoll is None:
            return
        for fd, _ in self._epoll.poll(0, BATCH):
            # A callback of this batch may have closed it, and a new connection may have its number. A recv on the new
            # one finds no data.
            connection = self._connections.get(fd)
            if connection is not None:
                connection.on_event()
