"""Connections for short questions: one write, what comes back, closed; with as few system calls as that takes.

A transport of the event loop asks the kernel a dozen things that a probe never wants to know (both names, options, the
process's id, its readiness to write), which was two thirds of what a thousand probes a second cost. Here all
connections hang on one epoll of their own, of which the loop sees one descriptor: socket, connect, send, epoll_ctl,
recv, close, and that is all. No TLS, no names: `Dialer.open` does those.
"""

from __future__ import annotations

import asyncio
import errno
import os
import select
import socket
from typing import Protocol

from lb.net.resolver import Place

#: The C class below `socket.socket`, which adds things that no line needs, is asked for one of these.
STREAM = socket.SOCK_STREAM | socket.SOCK_NONBLOCK
#: Bytes taken at a time.
PIECE = 65536
#: Events taken at a time, before others of the loop get their turn.
BATCH = 64
#: What connecting without waiting may say, if it has not failed.
UNDER_WAY = frozenset((0, errno.EINPROGRESS, errno.EAGAIN))


class Asker(Protocol):
    """Who puts a question on a line, and hears what comes."""

    question: bytes

    def connected(self, line: Line) -> None:
        """The question, or a part of it, has gone out."""

    def data_received(self, data: bytes) -> None:
        """A piece of the answer."""

    def eof_received(self) -> None:
        """No more will come."""

    def connection_lost(self, error: Exception | None) -> None:
        """It could not be connected, or was reset."""


class Line:
    """One connection."""

    __slots__ = ("_asker", "_left", "_lines", "_sock", "fd", "waits")

    def __init__(self, lines: Lines, sock: socket.SocketType, asker: Asker) -> None:
        self._lines = lines
        self._sock = sock
        self._asker: Asker | None = asker  # until it is over: then the two are no cycle for the collector
        self._left = asker.question
        self.waits = select.EPOLLIN  # the epoll events it waits for
        self.fd = sock.fileno()

    def send(self) -> int:
        """Send what is left of the question; the epoll events to wait for next. Raises `OSError`.

        The kernel says EAGAIN while it still connects, and why, if it could not.
        """
        asker = self._asker
        assert asker is not None
        try:
            sent = self._sock.send(self._left)
        except BlockingIOError:
            return select.EPOLLOUT
        whole = len(self._left) == len(asker.question)
        self._left = self._left[sent:]
        if whole:
            asker.connected(self)
        return select.EPOLLOUT if self._left else select.EPOLLIN

    def on_event(self) -> None:
        """Something has happened: connected, answered, closed or failed."""
        asker = self._asker
        if asker is None:
            return
        try:
            if self.waits == select.EPOLLOUT:
                waits = self.send()
                if waits != self.waits:
                    self.waits = waits
                    self._lines.change(self)
                return
            data = self._sock.recv(PIECE)
        except BlockingIOError:
            return
        except OSError as error:
            self.abort()
            asker.connection_lost(error)
            return
        if data:
            asker.data_received(data)
        else:
            self.abort()
            asker.eof_received()

    def abort(self) -> None:
        """Close. What still comes is thrown away by the kernel."""
        if self.fd >= 0:
            self._lines.drop(self)
            self.fd = -1
            self._asker = None
            self._sock.close()


class Lines:
    """All connections of one event loop."""

    def __init__(self) -> None:
        self._epoll: select.epoll | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._lines: dict[int, Line] = {}

    @property
    def open_now(self) -> int:
        """How many there are."""
        return len(self._lines)

    def open(self, asker: Asker, place: Place) -> Line:
        """Connect and ask; the asker hears of the rest. Raises `OSError` when that is refused at once."""
        sock = socket.SocketType(place.family, STREAM)
        line = Line(self, sock, asker)
        error = sock.connect_ex(place.address)
        if error not in UNDER_WAY:
            sock.close()
            raise OSError(error, os.strerror(error))
        try:
            line.waits = line.send()
            if self._epoll is None:
                self._epoll = select.epoll()
                self.loop.add_reader(self._epoll.fileno(), self._on_events)
            self._epoll.register(line.fd, line.waits)
        except OSError:
            line.abort()
            raise
        self._lines[line.fd] = line
        return line

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The event loop that all of it runs on."""
        if self._loop is None:
            self._loop = asyncio.get_running_loop()  # a system call each time
        return self._loop

    def change(self, line: Line) -> None:
        """It waits for something else."""
        assert self._epoll is not None
        self._epoll.modify(line.fd, line.waits)

    def drop(self, line: Line) -> None:
        """It is about to be closed, by which the kernel forgets it."""
        self._lines.pop(line.fd, None)

    def close(self) -> None:
        """Close all."""
        for line in list(self._lines.values()):
            line.abort()
        if self._epoll is not None:
            self.loop.remove_reader(self._epoll.fileno())
            self._epoll.close()
            self._epoll = None

    def _on_events(self) -> None:
        if self._epoll is None:
            return
        for fd, _ in self._epoll.poll(0, BATCH):
            # An earlier one may have closed it, and its number be another line's by now: that one finds nothing there.
            line = self._lines.get(fd)
            if line is not None:
                line.on_event()
