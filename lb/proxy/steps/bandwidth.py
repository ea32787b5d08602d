"""Holds the answers of a route to a rate of bytes a second, each by itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lb.core.targets import Bandwidth
from lb.http.h1.replies import Reply
from lb.proxy.context import Context
from lb.proxy.pace import Pace
from lb.proxy.services import Step

if TYPE_CHECKING:
    from lb.proxy.exchange import Exchange


class BandwidthStep(Step):
    """An answer that comes whole with its head is not held."""

    __slots__ = ("_counts", "_rule")

    def __init__(self, rule: Bandwidth, route: str, context: Context) -> None:
        self._rule = rule
        self._counts = context.stats.step_counts(route, "bandwidth")

    def name(self) -> str:
        return "bandwidth"

    def before(self, exchange: Exchange) -> Reply | None:
        loop = exchange.context.loop
        exchange.pace = Pace(exchange, loop, self._rule.rate, self._rule.after, self._counts)
        return None
