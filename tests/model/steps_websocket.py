"""Steps: WebSockets, through which a target sends back what it got, over HTTP/1.1 and HTTP/2 on both sides."""

from __future__ import annotations

import asyncio
import random

from tests.model import reference
from tests.model.peers import HANDSHAKE, Client
from tests.model.plan import ServicePlan
from tests.model.rules import rule
from tests.model.steps_crossings import prepared
from tests.model.steps_traffic import draw_wish
from tests.model.world import BROKEN_OFF, Track, World

#: A text frame of a client, masked with zeros.
FRAME = b"\x81\x84\0\0\0\0ping"
#: Seconds within which an answer, and an echo, is there.
SOON = 0.3
#: Targets of a pool of which few take WebSockets.
MANY = 7


@rule(8, "websocket")
async def step_websocket(world: World, dice: random.Random) -> str:
    """A client asks for a WebSocket, uses it for a while, and goes."""
    service = dice.choice(list(world.plan.services.values()))
    fields = draw_wish(world, dice, service.name)[1].fields if dice.random() < 0.4 else {}
    return await opened(world, dice, service, fields)


@rule(3, "websocket")
async def step_many_targets(world: World, dice: random.Random) -> str:
    """A pool of many targets, some of which take no WebSocket."""
    settings = {"mirror": None, "previews": None, "breaker": None, "sticky": None, "balance": None}
    service = await prepared(world, dice, MANY, settings)
    if service is None:
        return "not so"
    return "; ".join([await opened(world, dice, service, {}) for _ in range(MANY)])


async def opened(world: World, dice: random.Random, service: ServicePlan, fields: dict[str, str]) -> str:
    """Ask for a WebSocket on a new connection; it lasts for a moment, and ends within the step."""
    try:
        client = await world.client(fresh=True, http2="http2" in world.themes and dice.random() < 0.5)
    except OSError:
        return "nobody is there"
    wish = world.wish(service.name, fields={**fields, **HANDSHAKE}, do={"tunnel": "1"})
    track = await world.ask(service.name, wish, client)
    await asyncio.sleep(dice.choice((1e-6, SOON)))
    if client.tunnel:
        await _use(world, dice, client, track)
    track.excuses.add("client")
    client.close()
    await world.settle()
    return f"{track.answer.status} {track.answer.backend}" if track.answer else "…"


async def _use(world: World, dice: random.Random, client: Client, track: Track) -> None:
    workers = world.workers
    for seconds in (0.0, dice.choice((0.0, 1.0))):
        await asyncio.sleep(seconds)
        client.came = b""
        if client.open:
            client.write(FRAME)
        await asyncio.sleep(SOON)
        lasting = all(worker in world.workers and not worker.plane.front.draining for worker in workers)
        if client.came != FRAME and lasting and not track.excuses & BROKEN_OFF and _may_stay(world, track):
            world.violate("3 served (tunnel)", f"{track.wish} is open, and {client.came!r} came back")


def _may_stay(world: World, track: Track) -> bool:
    """Whether its target still gets such requests, so that no drain ends those that it has."""
    service = world.services().get(track.service)
    if service is None or track.answer is None or any(worker.plane.behind for worker in world.workers):
        return False
    address = world.spelled(track.answer.backend)
    targets = [target for pool in service.pools.values() for target in pool if target.address == address]
    drained = any(target.drained is not False or target.replaced for target in targets)
    return not drained and address in reference.may_see(service, track.request)[0]
