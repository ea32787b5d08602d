"""The client's side of an exchange, as narrow as the exchange sees it.

`Downstream` implements it for HTTP/1, `mirror.MirrorClient` for mirrored copies, and tests have a third. The exchange
hands over heads and pieces of payload. The stream decides how they are written, and whether the connection serves
another request.

The classes here are interfaces: a method that raises `NotImplementedError` is overridden by each stream. They are plain
base classes. A class that is called for each request and is to be compiled can be no `Protocol`.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

from lb.core.native import mypyc_attr

if TYPE_CHECKING:
    import asyncio

    from lb.http.message import ResponseHead
    from lb.net.tls.session import Established
    from lb.proxy.lane import Lane
    from lb.proxy.target_stream import TargetStream


class PrivateStreams:
    """The idle connections to targets that one client has for itself."""

    __slots__ = ()

    def keep(self, lane: Lane, upstream: TargetStream) -> None:
        """A connection to this lane's target has become idle."""
        raise NotImplementedError

    def find(self, pools: Sequence[Collection[Lane]], tried: Collection[Lane]) -> tuple[Lane, TargetStream, int] | None:
        """A connection for a request, from the first of these pools with one: (lane, connection, index of the pool).

        None: no pool has one. A pool is its lanes in rotation; lanes in `tried` have failed the request.
        """
        raise NotImplementedError

    def take(self, upstream: TargetStream) -> None:
        """The connection has a request again."""
        raise NotImplementedError

    def close(self) -> None:
        """The client is gone."""
        raise NotImplementedError


@mypyc_attr(allow_interpreted_subclasses=True)
class ClientStream:
    """The client of an exchange, and the way for its answer. A subclass sets all of the attributes."""

    __slots__ = ("blocked", "peer", "private", "tls", "transport", "trusted")

    peer: bytes  # its address
    trusted: bool  # its forwarding fields and its request id are believed
    transport: asyncio.Transport  # for a tunnel
    private: PrivateStreams | None  # its own connections to targets; None: it has none
    blocked: bool  # it takes no more for now
    tls: Established | None  # what its TLS handshake came to; None: it speaks without TLS

    @property
    def send_timeout(self) -> float:
        """Seconds without progress, after which the client counts as stalled."""
        raise NotImplementedError

    def is_blocked(self) -> bool:
        """Whether it takes no more for now; `blocked`, which a stream around another one knows as of its last bytes."""
        return self.blocked

    # --- the answer -------------------------------------------------------------------------------------------------

    def splice(self, response: ResponseHead) -> bool:
        """Whether this response's body, which is chunked, may be handed over with its framing.

        The target's stream asks once, before it hands the head over. Then both streams pass the bytes on unchanged,
        which saves removing the framing and adding it again. The exchange sees only a count of the framing.
        """
        raise NotImplementedError

    def send_interim(self, response: ResponseHead) -> bool:
        """Send a 1xx head, unless the client cannot take it: then False."""
        raise NotImplementedError

    def send_head(self, response: ResponseHead, piece: bytes, end: bool, last: bool = False) -> None:
        """Send the head and the first piece of the body; with `end` there is no more. `last`: the connection is to
        serve no further request."""
        raise NotImplementedError

    def send_body(self, piece: bytes, end: bool) -> None:
        """Send more of the body."""
        raise NotImplementedError

    def send_trailers(self, lines: bytes) -> None:
        """Send the trailer fields, whole lines; that is the end of the answer."""
        raise NotImplementedError

    def reset(self) -> None:
        """Cut the answer off: it must not look complete."""
        raise NotImplementedError

    def done(self, complete: bool) -> None:
        """The exchange is over; `complete`: the client has been sent a whole answer. Begin its next request, or
        close."""
        raise NotImplementedError

    # --- the request ------------------------------------------------------------------------------------------------

    def pause(self) -> None:
        """Read no more for now: the target takes no more, or enough is held."""
        raise NotImplementedError

    def resume(self) -> None:
        """Read on, unless enough is held already."""
        raise NotImplementedError

    def expect_body(self) -> None:
        """From now on the client has to send its body."""
        raise NotImplementedError

    def framed_request(self, stream: TargetStream, begin: bool) -> bytes | None:
        """The chunks of the request's body as they came: all of it so far (`begin`), or the bytes since the stream's
        last call. Without the last chunk. None: the stream has to frame the payload by itself.

        A target's stream asks as it is sent the request (`begin`), and, if it got bytes then, with each further piece.
        The chunks pass as they came then, which the exchange, whose pieces are payload, sees nothing of.
        """
        return None

    # --- the connection ---------------------------------------------------------------------------------------------

    def defer_read(self) -> None:
        """Defer reading from the client until the loop's next turn, because this turn has lasted too long."""
        raise NotImplementedError

    def keep_private(self, lane: Lane, upstream: TargetStream) -> None:
        """Keep a connection to a target for this client alone, until the client's connection ends."""
        raise NotImplementedError

    def accepts(self, response: ResponseHead) -> bool:
        """Whether a 101 to a WebSocket handshake is one."""
        return b"sec-websocket-accept:" in response.fields.forwarded_lines.lower()

    def send_upgrade(self, response: ResponseHead) -> int:
        """Send the head of a 101. Returns the status that the client sees."""
        raise NotImplementedError

    def become_tunnel(self) -> bytes:
        """Hand the transport to a tunnel. Returns the bytes that were read ahead."""
        raise NotImplementedError

    def unregister(self) -> None:
        """Remove the connection, which has ended, from all counts."""
        raise NotImplementedError
