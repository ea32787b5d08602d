"""Sets, adds and removes header fields of requests, before they go to a target."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lb.http.changed_fields import FieldChanges
from lb.http.h1.replies import Reply
from lb.http.message import RequestFields, RequestHead
from lb.http.template import BadValue
from lb.proxy.request_values import RequestValues
from lb.proxy.services import Step

if TYPE_CHECKING:
    from lb.proxy.exchange import Exchange


class RequestHeaders(Step):
    """Connections repeat their header blocks: where no variable stands for something else, the result is at hand."""

    __slots__ = ("_changes",)

    def __init__(self, changes: FieldChanges) -> None:
        self._changes = changes

    def name(self) -> str:
        return "request_headers"

    def steady(self) -> bool:
        return self._changes.of_head

    def before(self, exchange: Exchange) -> Reply | None:
        head = exchange.head
        fields = head.fields
        made = fields.remembered(self)
        if not isinstance(made, RequestFields):
            try:
                _, new, gone = self._changes.apply(fields.forwarded_lines, RequestValues(exchange))
            except BadValue as error:
                return Reply(400, "bad_value", f"{error} of this request has a control character")
            made = fields.with_changes(new, gone)
            if self._changes.steady:
                fields.remember(self, made)
        exchange.head = RequestHead(head.method, head.target, head.path, head.minor, head.host, made)
        return None
