"""Refuses a WebSocket handshake that no target can accept (RFC 6455 section 4.1)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lb.http.h1.replies import Reply
from lb.http.message import HTTP2
from lb.proxy.services import Step

if TYPE_CHECKING:
    from lb.proxy.exchange import Exchange


class WebSocketHandshake(Step):
    """It is a GET of HTTP/1.1 with a key; other protocols to upgrade to are not ours to judge. What came over HTTP/2 is
    a handshake already, with a key of lb's."""

    __slots__ = ()

    def before(self, exchange: Exchange) -> Reply | None:
        head = exchange.head
        fields = head.fields
        if not fields.upgrade or b"websocket" not in fields.upgrade.lower().split(b", "):
            return None
        if head.minor == HTTP2 or (head.method == b"GET" and fields.value(b"sec-websocket-key") and head.minor == 1):
            return None
        return Reply(400, "bad_upgrade", "a WebSocket handshake needs GET and Sec-WebSocket-Key")
