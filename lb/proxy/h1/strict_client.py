"""The client's side on a listener whose answers carry Strict-Transport-Security: browsers then come by https alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lb.http.hsts import is_for, with_policy
from lb.http.message import ResponseHead
from lb.proxy.h1.client import Downstream

if TYPE_CHECKING:
    from lb.core.targets import Listener
    from lb.proxy.front import Front
    from lb.proxy.services import LiveConfig


class StrictDownstream(Downstream):
    """A client's connection, whose answers carry the listener's policy.

    It is a class of its own, so that other listeners' answers cost no look at it.
    """

    __slots__ = ("_from", "_line", "_made")

    def __init__(self, live: LiveConfig, front: Front, listener: Listener) -> None:
        super().__init__(live, front, listener)
        self._line = b"Strict-Transport-Security: " + listener.hsts.encode() + b"\r\n"
        self._from: ResponseHead | None = None  # the last head met, and that head with the policy
        self._made: ResponseHead | None = None

    def send_head(self, response: ResponseHead, piece: bytes, end: bool, last: bool = False) -> None:
        exchange = self.exchange
        if exchange is not None and is_for(exchange.received.host):
            made = self._made
            if made is None or self._from is not response:
                self._from, self._made = response, with_policy(response, self._line)
                made = self._made
            if self._spliced is response:
                self._spliced = made
            response = made
        Downstream.send_head(self, response, piece, end, last)
