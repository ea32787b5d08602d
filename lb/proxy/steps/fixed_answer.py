"""Answers each request with the same status and body."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lb.core.targets import Answer
from lb.http.h1.replies import Reply
from lb.proxy.services import Step

if TYPE_CHECKING:
    from lb.proxy.exchange import Exchange


class FixedAnswer(Step):
    """It is no refusal, whatever its status."""

    __slots__ = ("_reply",)

    def __init__(self, answer: Answer) -> None:
        body, kind = answer.body.encode(), answer.content_type.encode()
        self._reply = Reply(answer.status, "answer", "", payload=body, content_type=kind, done=True)

    def name(self) -> str:
        return "answer"

    def before(self, exchange: Exchange) -> Reply | None:
        return self._reply
