"""Receiver: the ledger of the octets that a connection receives (RFC 9113 section 5.2).

There are two ledgers: the stream's window, and the connection's. An octet is given back to both once it is passed on,
and not while the stream is paused. So all paused streams together hold no more than the connection's window. Octets
that are thrown away, padding too, are given back to the connection at once.
"""

from __future__ import annotations

from lb.http.h2.fault import Fault
from lb.http.h2.frames import FLOW_CONTROL_ERROR, window_update
from lb.http.h2.stream import Stream


class Receiver:
    """Of one connection. Updates of windows go to `out`."""

    __slots__ = ("_connection_window", "_out", "_stream_window", "_unreturned", "window")

    def __init__(self, out: list[bytes], connection_window: int, stream_window: int) -> None:
        self._out = out
        self._connection_window = connection_window
        self._stream_window = stream_window
        self._unreturned = 0  # octets to be given back with the connection's next update
        self.window = connection_window  # octets that the peer may send

    def take(self, size: int) -> None:
        """Octets have come."""
        self.window -= size
        if self.window < 0:
            raise Fault(FLOW_CONTROL_ERROR, "flow_control", "more than the connection's window")  # section 6.9.1

    def read_on(self, stream: Stream, reading: bool) -> None:
        """Whether what comes on the stream is passed on: its windows are given back, or kept shut."""
        stream.reading = reading
        if reading and stream.uncredited:
            self.credit(stream)

    def credit(self, stream: Stream) -> None:
        """Give both windows back what the stream has been passed on."""
        size, stream.uncredited = stream.uncredited, 0
        self.give_back(size)
        if stream.id and not stream.ended:
            stream.unreturned += size
            if stream.unreturned >= self._stream_window // 2:
                self._out.append(window_update(stream.id, stream.unreturned))
                stream.receive_window += stream.unreturned
                stream.unreturned = 0

    def give_back(self, size: int) -> None:
        """Give octets back to the connection's window."""
        self._unreturned += size
        if self._unreturned >= self._connection_window // 2:
            self._out.append(window_update(0, self._unreturned))
            self.window += self._unreturned
            self._unreturned = 0
