"""Sets, adds and removes header fields of all answers to a route's requests, lb's own answers among them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lb.http.changed_fields import FieldChanges
from lb.http.h1.replies import Reply
from lb.http.message import ResponseHead
from lb.http.template import BadValue
from lb.proxy.request_values import RequestValues
from lb.proxy.services import AnswerStep

if TYPE_CHECKING:
    from lb.proxy.exchange import Exchange


class ResponseHeaders(AnswerStep):
    """Targets repeat their heads: where no variable is used, the last result is at hand."""

    __slots__ = ("_changes", "_from", "_made")

    def __init__(self, changes: FieldChanges) -> None:
        self._changes = changes
        self._from: ResponseHead | None = None
        self._made: ResponseHead | None = None

    def name(self) -> str:
        return "response_headers"

    def before(self, exchange: Exchange) -> Reply | None:
        exchange.answer_steps = [*exchange.answer_steps, self]
        return None

    def on_answer(self, exchange: Exchange, head: ResponseHead) -> ResponseHead:
        if self._made is not None and self._from is head:
            return self._made
        lines = [line + b"\r\n" for line in head.fields.forwarded_lines.split(b"\r\n") if line]
        try:
            kept, new, _ = self._changes.apply(lines, RequestValues(exchange))
        except BadValue:  # an answer that is there already goes on as it is
            return head
        made = head.with_lines(b"".join([*kept, *new]))
        if self._changes.static:
            self._from, self._made = head, made
        return made
