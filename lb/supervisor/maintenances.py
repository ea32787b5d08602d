"""Maintenance of routes, as operators order it: kept with what is desired, so that it outlives lb, and told to workers
with the routes."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING

from lb.config.model.addresses import parse_network
from lb.core.desired import Desired, RouteDesired
from lb.core.refusals import Obstacle, Refusal, Refused
from lb.core.targets import Maintenance
from lb.supervisor.confirming import confirm
from lb.supervisor.desired import DesiredState
from lb.supervisor.events import Events
from lb.supervisor.installation import Installation
from lb.supervisor.lookup import route_of
from lb.supervisor.state import State
from lb.supervisor.workers import Workers

if TYPE_CHECKING:
    from lb.control.models import MaintenanceRequest, MaintenanceState


class Maintenances:
    """The maintenance of one supervisor's routes."""

    def __init__(
        self, state: State, desired: DesiredState, installation: Installation, workers: Workers, events: Events
    ) -> None:
        self._state = state
        self._desired = desired
        self._installation = installation
        self._workers = workers
        self._events = events

    def state(self, title: str) -> MaintenanceState:
        """Whether a route is in maintenance."""
        from lb.control.models import MaintenanceState
        from lb.supervisor.views import maintenance_views

        views = [view for view in maintenance_views(self._desired.current) if view.route == title]
        return MaintenanceState(route=title, maintenance=views[0] if views else None)

    async def put(
        self, name: str, wanted: MaintenanceRequest, actor: str, version: int | None = None
    ) -> MaintenanceState:
        """Begin, change or end maintenance; returns when every worker has confirmed it. Raises `Refused`. `version`: of
        the desired state that the order is based on."""
        rules = Maintenance(wanted.retry_after, _networks(wanted.allow), wanted.page)

        def change(desired: Desired) -> tuple[Desired, tuple[str, RouteDesired | None]]:
            title = route_of(self._state, name).title()
            was = desired.routes.get(title)
            if not wanted.on:
                rest = {known: wish for known, wish in desired.routes.items() if known != title}
                return (replace(desired, routes=rest) if was is not None else desired), (title, was)
            if was is not None and was.maintenance == rules:
                return desired, (title, was)
            wish = RouteDesired(rules, was.since if was is not None else time.time(), actor)
            return replace(desired, routes={**desired.routes, title: wish}), (title, was)

        title, was = await self._desired.commit(change, version)
        now = self._desired.current.routes.get(title)
        if now != was:
            text = f"on: clients get 503, Retry-After {rules.retry_after} s" if now is not None else "off"
            text += f"; {', '.join(rules.allow)} pass" if now is not None and rules.allow else ""
            before = "on" if was is not None else "off"
            self._events.emit(
                "maintenance", text, general=title, actor=actor, before=before, after="on" if now is not None else "off"
            )
            await confirm(self._workers, self._installation.tell_routes())
        return self.state(title)


def _networks(texts: list[str]) -> tuple[str, ...]:
    found: list[str] = []
    for place, text in enumerate(texts):
        try:
            found.append(text if text == "unix" else str(parse_network(text)))
        except ValueError as error:
            obstacle = Obstacle(str(error), where=f"allow.{place}")
            raise Refused(Refusal.INVALID_REQUEST, f"{text!r} is not a network", [obstacle]) from None
    return tuple(dict.fromkeys(found))
