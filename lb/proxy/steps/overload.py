"""Refuses a request when its service has as many in flight as it may have: a fixed bound, or an adaptive one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lb.http.h1.replies import Reply
from lb.proxy.services import Step

if TYPE_CHECKING:
    from lb.proxy.exchange import Exchange


class Overload(Step):
    """The exchange is counted already."""

    __slots__ = ()

    def before(self, exchange: Exchange) -> Reply | None:
        service = exchange.service
        if service.bounded and service.in_flight > service.bound():
            return Reply(503, "overload", "the service has as many requests in flight as it may have")
        return None
