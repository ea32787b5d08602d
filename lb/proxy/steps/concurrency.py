"""Refuses requests while as many of the route are under way as may be: in all, or of one client, header or cookie."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lb.core.targets import Concurrency
from lb.http.h1.replies import Reply
from lb.proxy.context import Context
from lb.proxy.in_flight_table import FULL
from lb.proxy.limit_key import LimitKey
from lb.proxy.services import Step

if TYPE_CHECKING:
    from lb.proxy.exchange import Exchange


class ConcurrencyStep(Step):
    """At most `limit` requests under way, over all workers. A request counts until its answer, or its tunnel, ends."""

    __slots__ = ("_counts", "_key", "_reply", "_rule", "_table")

    def __init__(self, rule: Concurrency, route: str, context: Context) -> None:
        self._rule = rule
        self._table = context.in_flight
        self._counts = context.stats.step_counts(route, "concurrency")
        self._key = LimitKey(rule.key, repr((route, rule.key)).encode(), context.in_flight.mark)
        if rule.key == "route":
            text = "as many requests of this route are under way as may be"
            self._reply = Reply(503, "concurrency", text)
        else:
            self._reply = Reply(429, "concurrency", "too many requests are under way already", retry_after=1)

    def name(self) -> str:
        return "concurrency"

    def before(self, exchange: Exchange) -> Reply | None:
        slot = self._table.enter(self._key.mark(exchange), self._rule.limit)
        if slot == FULL:
            if not self._rule.dry_run:
                return self._reply
            self._counts.count("dry_run")
            exchange.remark("concurrency: over the limit (dry run)")
        elif slot >= 0:
            exchange.in_flight_slots = [*exchange.in_flight_slots, slot]
        else:
            self._counts.count("uncounted")
        return None
