"""Adds the header fields that make browsers careful, where the target has not set them itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lb.http.h1.replies import Reply
from lb.http.message import ResponseHead
from lb.proxy.services import AnswerStep

if TYPE_CHECKING:
    from lb.proxy.exchange import Exchange


class SecurityHeaders(AnswerStep):
    """`fields` are names with their values."""

    __slots__ = ("_from", "_lines", "_made")

    def __init__(self, fields: tuple[tuple[str, str], ...]) -> None:
        self._lines = [(name.lower().encode(), f"{name}: {value}\r\n".encode()) for name, value in fields]
        self._from: ResponseHead | None = None  # targets repeat their heads
        self._made: ResponseHead | None = None

    def before(self, exchange: Exchange) -> Reply | None:
        exchange.answer_steps = [*exchange.answer_steps, self]
        return None

    def on_answer(self, exchange: Exchange, head: ResponseHead) -> ResponseHead:
        if self._made is not None and self._from is head:
            return self._made
        lines = head.fields.forwarded_lines
        present = {line.partition(b":")[0].lower() for line in lines.split(b"\r\n")}
        more = b"".join([line for name, line in self._lines if name not in present])
        made = head.with_lines(lines + more) if more else head
        self._from, self._made = head, made
        return made
