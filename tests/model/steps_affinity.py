"""Steps: clients that come back with the cookie of a target."""

from __future__ import annotations

import asyncio
import random

from tests.model.clock import CLOCK
from tests.model.plan import ServicePlan
from tests.model.rules import rule
from tests.model.steps_shares import COOL_DOWN, REQUESTS
from tests.model.world import World

#: Requests with one cookie, each on a connection of its own, so that all workers are asked.
VISITS = 4


@rule(6, "affinity")
async def step_return(world: World, dice: random.Random) -> str:
    """A client has met a target, perhaps long ago, and comes back to it."""
    service = next(iter(world.plan.services.values()))
    if "affinity" not in service.settings:
        return "no cookie"
    if world.unreachable:
        await asyncio.sleep(COOL_DOWN)
    able = _able(world, service)
    if not able:
        return "not for sure"
    address = dice.choice(able)
    value = world.cookies.get(address)
    if value is None:
        await world.ask(service.name, world.wish(service.name), await world.client(fresh=True))
        return "it has not been met yet"
    begun, turns = CLOCK.now, world.turns
    for _ in range(VISITS):
        client = await world.client(fresh=True, http2="http2" in world.themes and dice.random() < 0.5)
        cookie = f"a=b; lb_target={value}"
        track = await world.ask(service.name, world.wish(service.name, fields={"Cookie": cookie}), client)
        await world.settle()
        answer = track.answer
        if answer is None or not answer.backend or len(track.arrivals) > 1 + bool(track.copied_to):
            return f"{track.wish}: {answer}"
        if CLOCK.now > begun + 0.1 or world.turns != turns:
            return "it took too long"
        by = world.spelled(answer.backend)
        if by != address:
            world.violate("9 affinity", f"{track.wish} was answered by {by}, while {address} can serve")
        elif answer.cookie:
            world.violate("9 affinity", f"{track.wish} reached {address}, and got the cookie {answer.cookie}")
    return f"{address}, {VISITS} times"


def _able(world: World, service: ServicePlan) -> list[str]:
    """The targets of the one pool with traffic, where it is certain that each of them can serve at once."""
    sharing = [pool for pool, parts in world.shares(service).items() if parts]
    if len(sharing) != 1 or world.supervisor is None or any(worker.plane.behind for worker in world.workers):
        return []
    is_so = world.services()[service.name]
    targets = is_so.pools[sharing[0]]
    able = {target.address for target in targets if target.can_serve}
    if (
        any("client" not in track.excuses for track in world.tracks.values())
        or any(target.ready is None for target in targets)
        or is_so.offered(sharing[0]) != able
        or is_so.connections < REQUESTS  # clients that left or read nothing may take them all
        or not all(backend.is_well for address in able for backend in world.backends_of(address))
    ):
        return []
    return sorted(able)
