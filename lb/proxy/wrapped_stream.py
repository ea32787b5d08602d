"""WrappedStream: a client's stream with something between it and the exchange that changes answers.

It stands for the client's own stream, whatever that stream's protocol is. A subclass changes what passes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lb.core.native import mypyc_attr
from lb.proxy.client_stream import ClientStream

if TYPE_CHECKING:
    from lb.http.message import ResponseHead
    from lb.proxy.lane import Lane
    from lb.proxy.target_stream import TargetStream


@mypyc_attr(allow_interpreted_subclasses=True)
class WrappedStream(ClientStream):
    """Passes everything on. `blocked` is what the client's own stream said with the last bytes."""

    __slots__ = ("_inner",)

    def __init__(self, inner: ClientStream) -> None:
        self._inner = inner
        self.peer = inner.peer
        self.trusted = inner.trusted
        self.transport = inner.transport
        self.private = inner.private
        self.blocked = inner.blocked
        self.tls = inner.tls

    @property
    def send_timeout(self) -> float:
        return self._inner.send_timeout

    def is_blocked(self) -> bool:
        return self._inner.is_blocked()

    # --- the answer -------------------------------------------------------------------------------------------------

    def splice(self, response: ResponseHead) -> bool:
        return False

    def send_interim(self, response: ResponseHead) -> bool:
        sent = self._inner.send_interim(response)
        self.blocked = self._inner.blocked
        return sent

    def send_head(self, response: ResponseHead, piece: bytes, end: bool, last: bool = False) -> None:
        self._inner.send_head(response, piece, end, last)
        self.blocked = self._inner.blocked

    def send_body(self, piece: bytes, end: bool) -> None:
        self._inner.send_body(piece, end)
        self.blocked = self._inner.blocked

    def send_trailers(self, lines: bytes) -> None:
        self._inner.send_trailers(lines)

    def reset(self) -> None:
        self._inner.reset()

    def done(self, complete: bool) -> None:
        self._inner.done(complete)

    # --- the request ------------------------------------------------------------------------------------------------

    def pause(self) -> None:
        self._inner.pause()

    def resume(self) -> None:
        self._inner.resume()

    def expect_body(self) -> None:
        self._inner.expect_body()

    def framed_request(self, stream: TargetStream, begin: bool) -> bytes | None:
        return None

    # --- the connection ---------------------------------------------------------------------------------------------

    def defer_read(self) -> None:
        self._inner.defer_read()

    def keep_private(self, lane: Lane, upstream: TargetStream) -> None:
        self._inner.keep_private(lane, upstream)

    def accepts(self, response: ResponseHead) -> bool:
        return self._inner.accepts(response)

    def send_upgrade(self, response: ResponseHead) -> int:
        return self._inner.send_upgrade(response)

    def become_tunnel(self) -> bytes:
        return self._inner.become_tunnel()

    def unregister(self) -> None:
        self._inner.unregister()
