"""Compresses answers: the coding follows from what the client accepts, and the answer decides whether it gets one.

Events and parts of ranges are left alone, and so is what has a coding already, or must not be transformed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lb.core.guards import Compression
from lb.http.codings import Types, chosen, with_strong_tags
from lb.http.h1.replies import Reply
from lb.http.message import RequestHead
from lb.proxy.compressing import CompressingStream
from lb.proxy.services import Step

if TYPE_CHECKING:
    from lb.proxy.exchange import Exchange
    from lb.proxy.offload import Offload


class CompressStep(Step):
    """It stands between the exchange and the client."""

    __slots__ = ("_codings", "_minimum", "_offload", "_types")

    def __init__(self, rule: Compression, offload: Offload) -> None:
        self._types = Types(rule.types)
        self._minimum = rule.minimum
        self._codings = [coding.encode() for coding in rule.codings]
        self._offload = offload

    def name(self) -> str:
        return "compress"

    def before(self, exchange: Exchange) -> Reply | None:
        head = exchange.received
        fields = head.fields
        if not head.minor or fields.upgrade or exchange.head.fields.grpc or fields.value(b"range"):
            return None
        coding = chosen(list(fields.values(b"accept-encoding")), self._codings)
        if coding and fields.value(b"if-none-match"):
            sent = exchange.head
            made = with_strong_tags(sent.fields)
            exchange.head = RequestHead(sent.method, sent.target, sent.path, sent.minor, sent.host, made)
        exchange.client = CompressingStream(
            exchange.client, exchange, coding, self._types, self._minimum, self._offload
        )
        return None
