"""Answers OPTIONS and TRACE that are to be forwarded no further (RFC 9110 section 7.6.2)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from lb.http.h1.replies import Reply
from lb.proxy.services import Step

if TYPE_CHECKING:
    from lb.proxy.exchange import Exchange

_ALLOW: Final = b"Allow: GET, HEAD, POST, PUT, DELETE\r\n"


class MaxForwards(Step):
    """`Max-Forwards: 0` ends here."""

    __slots__ = ()

    def before(self, exchange: Exchange) -> Reply | None:
        head = exchange.head
        if head.fields.max_forwards == 0 and head.method in (b"OPTIONS", b"TRACE"):
            return Reply(200 if head.method == b"OPTIONS" else 405, "max_forwards", "Max-Forwards is 0", _ALLOW)
        return None
