"""RequestValues: what the variables of a route's texts stand for in one request."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lb.http.h1.parse import host_name
from lb.http.template import (
    CLIENT_IP,
    HOST,
    METHOD,
    PATH,
    QUERY,
    REQUEST_ID,
    SCHEME,
    TLS_CIPHER,
    TLS_SERVER_NAME,
    TLS_VERSION,
    Values,
)

if TYPE_CHECKING:
    from lb.proxy.exchange import Exchange


class RequestValues(Values):
    """Of the request as its client sent it, whatever steps have changed."""

    __slots__ = ("_exchange",)

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange

    def value(self, variable: int) -> bytes:
        exchange = self._exchange
        head = exchange.received
        if variable == HOST:
            return host_name(head.host)
        if variable == PATH:
            return head.path
        if variable == REQUEST_ID:
            return exchange.request_id
        if variable == CLIENT_IP:
            return exchange.live.asked(exchange).client()
        if variable == SCHEME:
            return exchange.live.asked(exchange).scheme()
        if variable == METHOD:
            return head.method
        if variable == QUERY:
            return head.target[len(head.path) + 1 :]
        tls = exchange.tls
        if tls is None:
            return b""
        text = {TLS_VERSION: tls.version, TLS_CIPHER: tls.cipher, TLS_SERVER_NAME: tls.server_name}[variable]
        return text.encode()
