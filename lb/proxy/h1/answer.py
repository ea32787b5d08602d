"""An answer on its way to an HTTP/1 client: the additions to the head, the framing of the body, keep-alive.

A response's length decides its framing for the client (RFC 9112 section 6.3): Content-Length passes as it is; a body
without a length goes in chunks to HTTP/1.1 and until the close to HTTP/1.0.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lb.core.native import mypyc_attr
from lb.http.message import CHUNKED, UNTIL_CLOSE, RequestHead, ResponseHead
from lb.proxy.client_stream import ClientStream

if TYPE_CHECKING:
    from lb.proxy.exchange import Exchange


@mypyc_attr(allow_interpreted_subclasses=True)
class AnswerWriter(ClientStream):
    """The part of an HTTP/1 client's stream that writes answers. A subclass has `write` and `may_keep_alive`."""

    __slots__ = ("_rechunk", "_spliced", "exchange", "keep_alive", "until_close")

    def __init__(self) -> None:
        self.tls = None
        self.exchange: Exchange | None = None  # the request under way
        self.keep_alive = False  # the answer under way says that the connection stays open
        self.until_close = False  # the end of the connection is the answer's end
        self._rechunk = False  # pieces of the body get the framing of chunks
        self._spliced: ResponseHead | None = None  # the response whose pieces have it already

    def write(self, data: bytes) -> None:
        """Send bytes of an answer."""
        raise NotImplementedError

    def may_keep_alive(self, head: RequestHead) -> bool:
        """Whether the connection stays open after this request (RFC 9112 section 9.3)."""
        raise NotImplementedError

    def splice(self, response: ResponseHead) -> bool:
        exchange = self.exchange
        if exchange is None or not exchange.head.minor:
            return False
        self._spliced = response
        return True

    def send_interim(self, response: ResponseHead) -> bool:
        if self.exchange is None or not self.exchange.head.minor:
            return False  # RFC 9110 section 15.2: never to HTTP/1.0
        self.write(response.line + response.fields.forwarded_lines + b"\r\n")
        return True

    def send_head(self, response: ResponseHead, piece: bytes, end: bool, last: bool = False) -> None:
        exchange = self.exchange
        if exchange is None:
            return
        request = exchange.head
        fields = response.fields
        out = [response.front]
        if not fields.has_request_id:
            out += (b"X-Request-Id: ", exchange.request_id, b"\r\n")
        if not fields.has_date:
            out += (b"Date: ", exchange.context.date, b"\r\n")
        framing = response.framing
        modern = request.minor  # an HTTP/1.1 client
        keep_alive = not last and exchange.body_done and self.may_keep_alive(request)
        self.until_close = not modern and framing in (CHUNKED, UNTIL_CLOSE)
        if self.until_close:
            keep_alive = False  # to HTTP/1.0 such a body ends with the connection
        if fields.upgrade:
            out += (b"Upgrade: ", fields.upgrade, b"\r\nConnection: Upgrade", b"\r\n" if keep_alive else b", close\r\n")
        elif not keep_alive:
            out.append(b"Connection: close\r\n")
        elif not modern:
            out.append(b"Connection: keep-alive\r\n")
        self._rechunk = False
        if modern and (fields.chunked or framing == UNTIL_CLOSE):
            out.append(b"Transfer-Encoding: chunked\r\n")
            self._rechunk = framing in (CHUNKED, UNTIL_CLOSE) and self._spliced is not response
        self._spliced = None
        self.keep_alive = keep_alive
        out.append(b"\r\n")
        out.append(_chunk(piece, end) if self._rechunk else piece)
        self.write(b"".join(out))

    def send_body(self, piece: bytes, end: bool) -> None:
        if self._rechunk:
            piece = _chunk(piece, end)
        if piece:
            self.write(piece)

    def send_trailers(self, lines: bytes) -> None:
        if self._rechunk:
            self.write(b"0\r\n" + lines + b"\r\n")

    def send_upgrade(self, response: ResponseHead) -> int:
        fields = response.fields
        self.write(
            b"".join(
                (
                    response.line,
                    fields.forwarded_lines,
                    b"Upgrade: ",
                    fields.upgrade,
                    b"\r\nConnection: Upgrade\r\n\r\n",
                )
            )
        )
        return response.status


def _chunk(piece: bytes, end: bool) -> bytes:
    """A piece of payload as a chunk; with `end` the last chunk after it."""
    framed = b"%x\r\n%b\r\n" % (len(piece), piece) if piece else b""
    return framed + b"0\r\n\r\n" if end else framed
