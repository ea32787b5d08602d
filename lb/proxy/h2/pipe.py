"""StreamTransport: a stream of HTTP/2 as the transport of a tunnel (RFC 8441).

A tunnel ties two transports together. This is one of them where the client has asked for a WebSocket on a stream, or
where lb has asked a target so. Its protocol is called as a loop calls one. The windows of the stream are its
backpressure: DATA that the tunnel does not read is not given back, and DATA that the peer does not take waits.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from lb.http.h2.frames import CANCEL
from lb.http.h2.sending import HIGH_WATER

if TYPE_CHECKING:
    from lb.http.h2.endpoint import Endpoint
    from lb.http.h2.stream import Stream
    from lb.proxy.context import Context


class TunnelConnection(Protocol):
    """The stream's connection, to a client or to a target."""

    @property
    def wire(self) -> Endpoint: ...

    @property
    def context(self) -> Context: ...

    def flush(self) -> None: ...

    def on_tunnel_end(self) -> None: ...


class StreamTransport:
    """One stream. Its end in either direction is the end of the stream, as over TLS: there is no half-close of lb's."""

    __slots__ = ("_closing", "_connection", "_lost", "_paused", "_protocol", "_stream")

    def __init__(self, connection: TunnelConnection, stream: Stream) -> None:
        self._connection = connection
        self._stream = stream
        self._protocol: Any = None
        self._paused = False  # the protocol is to write no more
        self._closing = False
        self._lost = False

    # --- from the tunnel --------------------------------------------------------------------------------------------

    def set_protocol(self, protocol: Any) -> None:
        """Bytes of the peer go there from now on. They are held until the present call is over."""
        self._protocol = protocol
        self._connection.wire.read_on(self._stream, True)
        if self._stream.ended:
            self._connection.context.loop.call_soon(self.on_end)

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """Nothing: what the kernel says of the socket holds for all streams."""
        return default

    def write(self, data: bytes) -> None:
        if self._closing:
            return
        self._connection.wire.send_body(self._stream, data, False)
        self._connection.flush()
        if self._stream.pending_size > HIGH_WATER and not self._paused:
            self._paused = True
            self._protocol.pause_writing()

    def get_write_buffer_size(self) -> int:
        return self._stream.pending_size

    def pause_reading(self) -> None:
        self._connection.wire.read_on(self._stream, False)

    def resume_reading(self) -> None:
        self._connection.wire.read_on(self._stream, True)
        self._connection.flush()

    def can_write_eof(self) -> bool:
        return False

    def is_closing(self) -> bool:
        return self._closing

    def close(self) -> None:
        """End the stream behind what was written."""
        if not self._closing:
            self._closing = True
            self._connection.wire.send_body(self._stream, b"", True)
            self._connection.flush()
            self._look()

    def abort(self) -> None:
        """Cut the stream off (RFC 8441 section 5: the reset of a connection is a CANCEL)."""
        self._closing = True
        self._connection.wire.reset(self._stream, CANCEL)
        self._connection.flush()
        self._look()

    def _look(self) -> None:
        """Whether the stream is over."""
        if not self._stream.id:
            self._connection.context.loop.call_soon(self.lose)

    # --- from the stream --------------------------------------------------------------------------------------------

    def on_data(self, data: bytes) -> None:
        if not self._lost:
            self._protocol.data_received(data)

    def on_end(self) -> None:
        """The peer has ended the stream."""
        if self._closing:
            self._connection.context.loop.call_soon(self._look)  # the connection has yet to see that it is over
        elif not self._protocol.eof_received():
            self.close()

    def on_room(self) -> None:
        """The peer has taken most of what waited, or all of it."""
        if self._closing:
            self._look()
        elif self._paused:
            self._paused = False
            self._protocol.resume_writing()

    def lose(self) -> None:
        """The stream is over."""
        if not self._lost:
            self._lost = self._closing = True
            self._connection.on_tunnel_end()
            if self._protocol is not None:
                self._protocol.connection_lost(None)
