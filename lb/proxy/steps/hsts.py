"""Adds Strict-Transport-Security to answers of a route, where the client came by https for a host name (RFC 6797)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lb.http.h1.replies import Reply
from lb.http.hsts import is_for, with_policy
from lb.http.message import ResponseHead
from lb.proxy.services import AnswerStep

if TYPE_CHECKING:
    from lb.proxy.exchange import Exchange


class Hsts(AnswerStep):
    """Behind trusted proxies the client's scheme is theirs to tell. A listener adds no second policy."""

    __slots__ = ("_from", "_line", "_made")

    def __init__(self, value: str) -> None:
        self._line = b"Strict-Transport-Security: " + value.encode() + b"\r\n"
        self._from: ResponseHead | None = None  # targets repeat their heads
        self._made: ResponseHead | None = None

    def before(self, exchange: Exchange) -> Reply | None:
        if exchange.live.asked(exchange).scheme() == b"https" and is_for(exchange.received.host):
            exchange.answer_steps = [*exchange.answer_steps, self]
        return None

    def on_answer(self, exchange: Exchange, head: ResponseHead) -> ResponseHead:
        made = self._made
        if made is None or self._from is not head:
            made = with_policy(head, self._line)
            self._from, self._made = head, made
        return made
