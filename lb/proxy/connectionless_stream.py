"""ConnectionlessStream: the client's side of an exchange that lb itself begins. No connection stands behind it.

It takes everything and keeps nothing. A subclass keeps what it wants.
"""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING

from lb.proxy.client_stream import ClientStream

if TYPE_CHECKING:
    from lb.http.message import ResponseHead
    from lb.proxy.lane import Lane
    from lb.proxy.target_stream import TargetStream


class ConnectionlessStream(ClientStream):
    """In place of the stream of `client`, which has asked for the first request."""

    __slots__ = ()

    def __init__(self, client: ClientStream, trusted: bool) -> None:
        self.peer, self.tls = client.peer, client.tls
        self.trusted = trusted
        self.transport = None  # type: ignore[assignment]  # it becomes no tunnel
        self.private = None
        self.blocked = False

    @property
    def send_timeout(self) -> float:
        return inf

    def splice(self, response: ResponseHead) -> bool:
        return False

    def send_interim(self, response: ResponseHead) -> bool:
        return True

    def send_head(self, response: ResponseHead, piece: bytes, end: bool, last: bool = False) -> None:
        """Thrown away."""

    def send_body(self, piece: bytes, end: bool) -> None:
        """Thrown away."""

    def send_trailers(self, lines: bytes) -> None:
        """Thrown away."""

    def send_upgrade(self, response: ResponseHead) -> int:
        """Nothing that lb begins is an upgrade."""
        return response.status

    def become_tunnel(self) -> bytes:
        return b""

    def reset(self) -> None:
        """The answer goes nowhere."""

    def done(self, complete: bool) -> None:
        """Nothing follows."""

    def defer_read(self) -> None:
        """Nothing follows."""

    def pause(self) -> None:
        """The body is complete."""

    def resume(self) -> None:
        """The body is complete."""

    def expect_body(self) -> None:
        """The body is complete."""

    def keep_private(self, lane: Lane, upstream: TargetStream) -> None:
        """No second request follows."""
        upstream.close()

    def unregister(self) -> None:
        """There is no connection to leave."""
