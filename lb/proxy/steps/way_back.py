"""Changes URLs and cookies of a target's answers into what clients know: the way back of a changed path or host."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lb.http.h1.replies import Reply
from lb.http.message import ResponseHead
from lb.http.way_back import with_cookies, with_location
from lb.proxy.services import AnswerStep

if TYPE_CHECKING:
    from lb.proxy.exchange import Exchange


class WayBack(AnswerStep):
    """`word` is the step's: `location`, `cookie_path` or `cookie_domain`. lb's own answers stay."""

    __slots__ = ("_part", "_to", "_was", "_word")

    def __init__(self, word: str, was: str, to: str) -> None:
        self._word = word
        self._part = word.removeprefix("cookie_").encode()
        self._was = was.encode()
        self._to = to.encode()

    def name(self) -> str:
        return self._word

    def before(self, exchange: Exchange) -> Reply | None:
        exchange.answer_steps = [*exchange.answer_steps, self]
        return None

    def on_answer(self, exchange: Exchange, head: ResponseHead) -> ResponseHead:
        if exchange.answered_by_proxy:
            return head
        lines = head.fields.forwarded_lines
        if self._part == b"location":
            made = with_location(lines, self._was, self._to)
        else:
            made = with_cookies(lines, self._part, self._was, self._to)
        return head if made == lines else head.with_lines(made)
