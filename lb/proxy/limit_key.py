"""LimitKey: what a limit counts requests by, as a mark in a table that workers share."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from lb.core.networks import limited_as

if TYPE_CHECKING:
    from lb.proxy.exchange import Exchange

#: Keys whose mark is remembered, so that it need not be computed for each request, and the longest of them.
REMEMBERED: Final = 4096
LONGEST: Final = 256


class LimitKey:
    """`client`, `route`, `header:NAME` or `cookie:NAME` of one limit. Requests without the header or cookie share a
    mark. `mark_of` is the table's."""

    __slots__ = ("_by", "_by_client", "_limit", "_mark_of", "_marks", "_name")

    def __init__(self, by: str, limit: bytes, mark_of: Callable[[bytes, bytes], int]) -> None:
        self._by = by
        self._by_client = by == "client"
        self._limit = limit
        self._mark_of = mark_of
        kind, _, name = by.partition(":")
        self._name = name.encode() if kind == "cookie" else name.lower().encode()
        self._marks: dict[bytes, int] = {}

    def mark(self, exchange: Exchange) -> int:
        """The mark of a request's key."""
        key = self._value(exchange)
        mark = self._marks.get(key, 0)
        if mark:
            return mark
        mark = self._mark_of(self._limit, limited_as(key) if self._by_client else key)
        if len(self._marks) >= REMEMBERED:
            self._marks.clear()
        if len(key) <= LONGEST:
            self._marks[key] = mark
        return mark

    def _value(self, exchange: Exchange) -> bytes:
        by = self._by
        if self._by_client:
            client = exchange.client
            return client.peer if not client.trusted else exchange.live.asked(exchange).client()
        if by == "route":
            return b""
        if by == "header:host":
            return exchange.received.host
        fields = exchange.received.fields
        return fields.cookie(self._name) if by.startswith("cookie:") else fields.value(self._name)
