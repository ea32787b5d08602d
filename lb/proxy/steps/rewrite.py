"""Sends another path than the client's, by a regular expression with groups. The query stays."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lb.core.path_rewrite import LONGEST_PATH, rewrite_of
from lb.http.h1.replies import Reply
from lb.proxy.services import Step
from lb.proxy.steps.path_change import send_path

if TYPE_CHECKING:
    from lb.proxy.exchange import Exchange


class Rewrite(Step):
    """It goes by the path as the steps before have left it."""

    __slots__ = ("_rewrite",)

    def __init__(self, pattern: str, to: str) -> None:
        self._rewrite = rewrite_of(pattern, to)

    def steady(self) -> bool:
        return True

    def before(self, exchange: Exchange) -> Reply | None:
        path = exchange.head.path
        changed = self._rewrite.apply(path) if path != b"*" else None
        if changed is None:
            return None
        if len(changed) > LONGEST_PATH:
            return Reply(400, "bad_path", f"the path would be longer than {LONGEST_PATH} bytes")
        return send_path(exchange, changed)
