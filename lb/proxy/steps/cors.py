"""Lets pages of other origins read a route's answers, by rules of the file; a preflight never reaches a target."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lb.core.guards import Cors
from lb.http.cors import Policy
from lb.http.h1.replies import Reply
from lb.http.message import ResponseHead
from lb.proxy.services import AnswerStep

if TYPE_CHECKING:
    from lb.proxy.exchange import Exchange


class CorsStep(AnswerStep):
    """The policy's fields stand instead of the target's, so that the two never contradict one another."""

    __slots__ = ("_policy",)

    def __init__(self, rule: Cors) -> None:
        self._policy = Policy(rule.origins, rule.methods, rule.headers, rule.expose, rule.credentials, rule.max_age)

    def name(self) -> str:
        return "cors"

    def before(self, exchange: Exchange) -> Reply | None:
        head = exchange.received
        fields = head.fields
        if head.method == b"OPTIONS":
            method = fields.value(b"access-control-request-method")
            if method and fields.value(b"origin"):
                headers = b",".join(list(fields.values(b"access-control-request-headers")))
                lines = self._policy.preflight_lines(fields.value(b"origin"), method, headers)
                return Reply(204, "cors_preflight", "", lines, done=True)
        exchange.answer_steps = [*exchange.answer_steps, self]
        return None

    def on_answer(self, exchange: Exchange, head: ResponseHead) -> ResponseHead:
        origin = exchange.received.fields.value(b"origin")
        return head.with_lines(self._policy.answer_lines(origin, head.fields.forwarded_lines))
