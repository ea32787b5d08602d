"""Chooses a request's service, where its route has several: by weight, and a fallback while no other one can serve."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from lb.core.balance import hash_key
from lb.core.shares import Split, parts_of
from lb.core.targets import Route
from lb.http.h1.replies import Reply
from lb.proxy.services import Chooser, LiveService, key_bytes

if TYPE_CHECKING:
    from lb.proxy.exchange import Exchange
    from lb.proxy.services import LiveConfig

#: Splits without some services that are kept.
MOST_SPLITS: Final = 64


class ServiceChoice(Chooser):
    """The share of a service that has no target goes to the other ones, by their weights. It is asked once for a
    request: further tries stay at the chosen service."""

    __slots__ = (
        "_by",
        "_counts",
        "_fallback",
        "_services",
        "_split",
        "_splits",
        "_timeout",
        "_weights",
        "affine",
        "bounded",
    )

    def __init__(self, route: Route, live: LiveConfig) -> None:
        weights = route.split or ((route.service, 1),)
        self._services = {name: live.services[name] for name, _ in weights}
        self._weights = weights
        self._by = route.split_by
        self._fallback = live.services[route.fallback] if route.fallback else None
        self._splits: dict[tuple[str, ...], Split[LiveService]] = {}  # by the names of services that are out
        self._split = self._without((), live.context.worker * 37)
        self._timeout = route.total
        self._counts = live.context.stats.step_counts(route.title(), self.name())
        self.bounded = self._fallback is not None and self._fallback.bounded
        self.affine = self._fallback is not None and self._fallback.cookie is not None
        for service in self._services.values():
            self.bounded = self.bounded or service.bounded
            self.affine = self.affine or service.cookie is not None

    def name(self) -> str:
        return "split" if len(self._weights) > 1 else "fallback"

    def before(self, exchange: Exchange) -> Reply | None:
        service = self.choose(exchange)
        if service is not exchange.service:
            exchange.choose_service(service)
            total = service.rules.timeouts.total
            if total and not self._timeout and exchange.started + total < exchange.ends_at:
                exchange.ends_at = exchange.started + total
        return None

    def choose(self, exchange: Exchange) -> LiveService:
        split = self._split
        key = key_bytes(self._by, exchange.received, exchange.client) if self._by else b""
        service = split.of(hash_key(key)) if key else split.only or split.pick()
        if service.offers():
            return service
        out = tuple([name for name, weight in self._weights if not weight or not self._services[name].offers()])
        if len(out) == len(self._weights):
            return self._or_fallback(exchange, service)
        rest = self._splits.get(out)
        if rest is None:
            if len(self._splits) >= MOST_SPLITS:
                self._splits.clear()
            rest = self._splits[out] = self._without(out, split.position)
        self._counts.count("moved")
        return rest.of(hash_key(key)) if key else rest.only or rest.pick()

    def _or_fallback(self, exchange: Exchange, service: LiveService) -> LiveService:
        fallback = self._fallback
        if fallback is None or not fallback.offers():
            return service
        self._counts.count("fallback")
        exchange.remark(f"fallback: no target of {' or '.join(self._services)} can serve")
        return fallback

    def _without(self, out: tuple[str, ...], offset: int) -> Split[LiveService]:
        weights = [(name, weight) for name, weight in self._weights if name not in out]
        return Split(parts_of(weights), self._services, offset)
