"""Refuses a request whose body is longer than the route's `max_body`, as far as its head and first piece tell.

Bytes of the body that come later are counted by the exchange.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lb.http.h1.replies import Reply
from lb.proxy.services import Step

if TYPE_CHECKING:
    from lb.proxy.exchange import Exchange


class BodyLimit(Step):
    """At most `limit` bytes of payload."""

    __slots__ = ("_limit",)

    def __init__(self, limit: int) -> None:
        self._limit = limit

    def before(self, exchange: Exchange) -> Reply | None:
        limit = self._limit
        if exchange.head.fields.length > limit or exchange.bytes_in > limit:
            return Reply(413, "body_too_large", f"the body is longer than {limit} bytes")
        return None
