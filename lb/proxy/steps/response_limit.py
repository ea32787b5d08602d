"""Bounds the answers of a route: one that is longer than its `max_response` becomes a 502, or is cut.

Content-Length tells of most answers before anything is passed on. Of the other ones the exchange counts the bytes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from lb.http.h1.replies import Reply
from lb.http.message import LENGTH, ResponseHead
from lb.proxy.context import Context
from lb.proxy.services import AnswerBound

if TYPE_CHECKING:
    from lb.proxy.exchange import Exchange

REASON: Final = "response_too_large"


class ResponseLimit(AnswerBound):
    """It comes before the steps that change answers."""

    __slots__ = ("_counts", "_stats")

    def __init__(self, most: int, route: str, context: Context) -> None:
        self.most = most
        self._stats = context.stats
        self._counts = context.stats.step_counts(route, "response_limit")

    def before(self, exchange: Exchange) -> Reply | None:
        exchange.response_limit = self
        exchange.answer_steps = [*exchange.answer_steps, self]
        return None

    def on_answer(self, exchange: Exchange, head: ResponseHead) -> ResponseHead:
        """It may answer instead: then the exchange is over."""
        if not exchange.answered_by_proxy:
            declared = head.fields.length if head.framing == LENGTH else 0
            if max(declared, exchange.bytes_out) > self.most:
                self._counts.count(REASON)
                exchange.answer(502, REASON, f"the target's answer is longer than {self.most} bytes")
        return head

    def cut(self, exchange: Exchange) -> None:
        self._counts.count(REASON)
        self._stats.reject(REASON)
        exchange.refuse(502, REASON, "")
