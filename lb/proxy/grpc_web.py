"""GrpcWebStream: a client of gRPC-Web as the client of an exchange that is a call of gRPC.

It stands between the exchange and the client's own stream, whatever that stream's protocol is, and translates the
answer: content type, trailers, and in the text form the whole body.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from lb.http.grpc import status_of
from lb.http.grpc_web import TEXT, encode_text, trailer_frame, web_type
from lb.http.message import NONE, UNTIL_CLOSE, ResponseFields, ResponseHead
from lb.proxy.wrapped_stream import WrappedStream

if TYPE_CHECKING:
    from lb.proxy.client_stream import ClientStream
    from lb.proxy.exchange import Exchange

_OK: Final = b"HTTP/1.1 200 OK\r\n"


class GrpcWebStream(WrappedStream):
    """Translates for one call."""

    __slots__ = ("_exchange", "_form", "_translates", "_type")

    def __init__(self, inner: ClientStream, exchange: Exchange, form: int, content_type: bytes) -> None:
        super().__init__(inner)
        self._exchange = exchange
        self._form = form
        self._type = content_type
        self._translates = False  # the answer is one of gRPC

    def send_head(self, response: ResponseHead, piece: bytes, end: bool, last: bool = False) -> None:
        exchange = self._exchange
        if exchange.answered_by_proxy:
            # lb's own answer: the status, and no message (PROTOCOL-WEB allows trailers alone in the head).
            text = b"lb: %d %b" % (response.status, exchange.reason.encode())
            status = status_of(response.status, exchange.reason)
            lines = b"content-type: %b\r\ngrpc-status: %d\r\ngrpc-message: %b\r\ncontent-length: 0\r\n"
            response = _head(response, lines % (self._type, status, text), NONE)
            piece = b""
        else:
            lines = response.fields.forwarded_lines
            response, self._translates = self._translated(response, lines, end)
            if piece:
                piece = self._encoded(piece)
        self._inner.send_head(response, piece, end, last)
        self.blocked = self._inner.blocked

    def _translated(self, response: ResponseHead, lines: bytes, end: bool) -> tuple[ResponseHead, bool]:
        """The head for the client, and whether the answer is one of gRPC at all."""
        out: list[bytes] = []
        translates = False
        for line in lines.split(b"\r\n"):
            name, colon, value = line.partition(b":")
            lower = name.lower()
            if lower == b"content-type" and value.strip().lower().startswith(b"application/grpc"):
                translates = True
                line = b"content-type: " + web_type(value.strip(), self._form)
            elif lower == b"content-length" and not end:
                continue  # the trailers make it longer
            if colon:
                out.append(line + b"\r\n")
        if not translates:
            return response, False
        return _head(response, b"".join(out), response.framing if end else UNTIL_CLOSE), True

    def _encoded(self, piece: bytes) -> bytes:
        return encode_text(piece) if self._translates and self._form == TEXT else piece

    def send_body(self, piece: bytes, end: bool) -> None:
        self._inner.send_body(self._encoded(piece) if piece else piece, end)
        self.blocked = self._inner.blocked

    def send_trailers(self, lines: bytes) -> None:
        if self._translates:
            self._inner.send_body(self._encoded(trailer_frame(lines)), True)
        else:
            self._inner.send_trailers(lines)


def _head(response: ResponseHead, lines: bytes, framing: int) -> ResponseHead:
    """A 200 with these lines, made of another answer's head."""
    former = response.fields
    fields = ResponseFields()
    fields.forwarded_lines = lines
    fields.has_date, fields.has_request_id = b"\r\ndate:" in b"\r\n" + lines.lower(), False
    fields.grpc_status = former.grpc_status
    return ResponseHead(200, 1, _OK, framing, fields)
