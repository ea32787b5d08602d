"""Sends another Host than the client's. X-Forwarded-Host and Forwarded go on to name the client's."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lb.http.h1.replies import Reply
from lb.http.message import RequestHead
from lb.proxy.services import Step

if TYPE_CHECKING:
    from lb.proxy.exchange import Exchange


class HostChange(Step):
    """Always this host. It comes before the service's `host_header`."""

    __slots__ = ("_host",)

    def __init__(self, host: str) -> None:
        self._host = host.encode()

    def name(self) -> str:
        return "host"

    def steady(self) -> bool:
        return True

    def before(self, exchange: Exchange) -> Reply | None:
        head = exchange.head
        exchange.head = RequestHead(head.method, head.target, head.path, head.minor, self._host, head.fields)
        return None
