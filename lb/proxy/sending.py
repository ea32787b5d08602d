"""Sending: whether a peer still takes what was written to it.

A transport says once that its write buffer is full (`pause_writing`), and `close()` waits for that buffer without any
bound. So a connection whose buffer is full, or that is to close, is put into `DataPlane.sending` with a `Sending`. The
sweeper looks at it until the buffer is empty or the connection is gone. Progress counts, as for nginx's `send_timeout`:
a peer that takes a little at a time is served, and one that takes nothing is cut off. The kernel knows best: it counts
what the peer has acknowledged while megabytes still wait in its own buffer.
"""

from __future__ import annotations

from math import inf
from typing import Any, Final, Protocol

from lb.proxy.tcp import delivery, unacknowledged

#: Seconds that a closing connection may last without progress, after the peer has acknowledged all bytes.
CLOSE_TIME = 5.0
#: Looks per limit. A look costs two system calls. A peer that takes nothing is cut off by a quarter of the limit late
#: at most. An eighth passes until the first look, before which nothing is known, and another eighth until the last.
LOOKS: Final = 8
#: Seconds between two looks at most, where there is no limit: a tunnel's idle time asks for the last progress too.
LONGEST: Final = 60.0


class Sender(Protocol):
    """A connection that is watched."""

    transport: Any

    def on_stalled(self) -> None:
        """The peer has taken nothing for too long."""


class Sending:
    """A peer's progress with the bytes that were written to it.

    `limit`: seconds without progress until it counts as stalled. `quiet`: the same once the peer has acknowledged
    everything, for a connection that is to close.
    """

    __slots__ = ("_acked", "_every", "_limit", "_quiet", "_sock", "_transport", "due", "moved_at", "pending")

    def __init__(self, transport: Any, now: float, limit: float, quiet: float = inf) -> None:
        self._transport = transport
        self._sock: Any = transport.get_extra_info("socket")
        self._limit = limit
        self._quiet = quiet
        self.moved_at = now  # when the peer was last seen to take something
        # Bytes that it has yet to take, at the last look. The kernel is not asked before the first one: most buffers
        # are empty again by then.
        self.pending: int = transport.get_write_buffer_size()
        self._acked = -1  # bytes acknowledged since the connect, at the last look
        self._every = min(limit, quiet, LONGEST) / LOOKS
        self.due = now + self._every  # when to look again

    def follow(self, earlier: Sending | None, now: float) -> Sending:
        """Go on from an earlier watch of the same connection: the time in which the peer took nothing counts."""
        if earlier is not None:
            earlier.is_stalled(now)
            self.moved_at = earlier.moved_at
        self._moved()
        return self

    def is_stalled(self, now: float) -> bool:
        """Look at the peer: whether it has taken nothing for the limit."""
        if self._moved():
            self.moved_at = now
        limit = self._limit if self.pending else min(self._limit, self._quiet)
        self.due = now + self._every
        return now - self.moved_at >= limit

    def _moved(self) -> bool:
        """Whether the peer has taken something since the last look. At the first look it is taken to have."""
        acked, before = self._acked, self.pending
        self.pending = self._transport.get_write_buffer_size()
        self._acked = 0
        if self._sock is not None:
            self.pending += unacknowledged(self._sock)
            progress = delivery(self._sock)
            if progress is not None:
                self._acked = progress.acked
                return progress.acked > acked
        return acked < 0 or self.pending < before  # a Unix socket: its kernel buffer shrinks as the peer reads
