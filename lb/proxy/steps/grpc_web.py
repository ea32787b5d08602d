"""Takes calls of gRPC-Web for calls of gRPC, on routes that ask for it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lb.http.grpc import read_timeout
from lb.http.grpc_web import NONE, TEXT, TextReader, form_of, native_type
from lb.http.h1.replies import Reply
from lb.http.message import RequestHead
from lb.proxy.grpc_web import GrpcWebStream
from lb.proxy.services import Step

if TYPE_CHECKING:
    from lb.proxy.exchange import Exchange


class GrpcWeb(Step):
    """The head becomes one of gRPC, and the answer is translated. It comes before steps that may answer."""

    __slots__ = ()

    def before(self, exchange: Exchange) -> Reply | None:
        head = exchange.head
        content_type = head.fields.value(b"content-type")
        form = form_of(content_type)
        if form == NONE or head.method != b"POST":
            return None
        native = b"content-type: " + native_type(content_type, form) + b"\r\n"
        offer = b"" if head.fields.te_trailers else b"TE: trailers\r\nConnection: TE\r\n"
        fields = head.fields.with_line(b"content-type", native, offer)
        if form == TEXT and not fields.chunked and fields.length >= 0:
            fields = fields.with_line(b"content-length", b"", b"Transfer-Encoding: chunked\r\n")
            fields.length, fields.chunked = -1, True
        fields.te_trailers = fields.grpc = fields.special = True
        fields.grpc_timeout = read_timeout(fields.value(b"grpc-timeout"))
        exchange.head = RequestHead(head.method, head.target, head.path, head.minor, head.host, fields)
        exchange.client = GrpcWebStream(exchange.client, exchange, form, content_type)
        if form == TEXT:
            try:
                exchange.read_text(TextReader())
            except ValueError as error:
                return Reply(400, "bad_framing", str(error))
        return None
