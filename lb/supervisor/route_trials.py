"""Tries requests against the configuration that runs, for the admin port: one at a time, in a thread."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING

from lb.control.trial_models import Trial, TrialRequest
from lb.core.refusals import Refusal, Refused
from lb.supervisor.desired import DesiredState
from lb.supervisor.state import State

if TYPE_CHECKING:
    from lb.config.resolve import World

#: Other routes that an answer names.
NAMED = 100


class RouteTrials:
    """Each trial makes a data plane of its own, which costs memory and time in proportion to the routes."""

    def __init__(self, state: State, desired: DesiredState) -> None:
        self._state = state
        self._desired = desired
        self._turn = asyncio.Lock()

    async def tried(self, wanted: TrialRequest) -> Trial:
        """Try a request. Raises `Refused` for one that no client could send."""
        async with self._turn:
            desired = self._desired.current
            shares = {name: each.shares or ((each.active, 100),) for name, each in desired.services.items()}
            return await asyncio.to_thread(_tried, self._world(), shares, wanted)

    def _world(self) -> World:
        """What runs, with the routes that are in maintenance."""
        world, orders = self._state.world, self._desired.current.routes
        if not orders:
            return world
        routes = tuple(
            replace(route, maintenance=orders[title].maintenance) if (title := route.title()) in orders else route
            for route in world.snapshot.routes
        )
        return replace(world, snapshot=replace(world.snapshot, routes=routes))


def _tried(world: World, shares: dict[str, tuple[tuple[str, int], ...]], wanted: TrialRequest) -> Trial:
    from lb.supervisor.route_trial import BadTrial, Request, document, nearest, trial  # the data plane: for this alone

    request = Request(wanted.method, wanted.url, tuple(wanted.headers), wanted.client, wanted.http)
    try:
        made = trial(world, request, shares)
    except BadTrial as error:
        raise Refused(Refusal.INVALID_REQUEST, str(error)) from None
    made.others = nearest(made.others, NAMED)
    return Trial.model_validate(document(made))
