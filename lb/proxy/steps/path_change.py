"""Sends another path than the client's: a prefix stripped or replaced, or a path of its own. The query stays."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lb.core.rewriting import fault_of, with_prefix
from lb.http.h1.replies import Reply
from lb.http.message import RequestHead
from lb.proxy.services import Step

if TYPE_CHECKING:
    from lb.proxy.exchange import Exchange


class PathChange(Step):
    """`to` instead of `prefix`; with `whole` instead of any path."""

    __slots__ = ("_prefix", "_to", "_whole", "_word")

    def __init__(self, word: str, prefix: str, to: str, whole: bool = False) -> None:
        self._word = word
        self._prefix = prefix.encode()
        self._to = to.encode()
        self._whole = whole

    def name(self) -> str:
        return self._word

    def steady(self) -> bool:
        return True

    def before(self, exchange: Exchange) -> Reply | None:
        path = exchange.head.path
        if path == b"*":
            return None
        return send_path(exchange, self._to if self._whole else with_prefix(path, self._prefix, self._to))


def send_path(exchange: Exchange, changed: bytes) -> Reply | None:
    """Have the target get this path, unless a client's could not be so: then it is refused."""
    head = exchange.head
    path = head.path
    if changed == path:
        return None
    fault = fault_of(changed)
    if fault:
        return Reply(400, "bad_path", f"the path would be sent in a form that is not allowed: {fault}")
    target = changed + head.target[len(path) :]
    exchange.head = RequestHead(head.method, target, changed, head.minor, head.host, head.fields)
    return None
