"""Steps: what becomes of the names of targets."""

from __future__ import annotations

import asyncio
import random

from tests.model.rules import rule
from tests.model.world import World


@rule(6, "names")
async def step_move_name(world: World, dice: random.Random) -> str:
    """A name stands for another address, for the former one again, for two of them, or for none."""
    in_file = {t.host for s in world.plan.services.values() for targets in s.pools.values() for t in targets}
    hosts = sorted(in_file & world.standing.known.keys())
    if not hosts or len(world.backends) > 200:
        return "no name"
    host = dice.choice(hosts)
    had = world.standing.known[host].had
    kind = dice.choice(("fresh", "fresh", "back", "both", "none"))
    if kind == "none":
        world.stand_for(host, [])
    else:
        others = [backend for backend in had if backend.host not in world.names[host]]
        fresh = kind == "fresh" or not others
        other = await world.add_backend(len(world.backends) + 1) if fresh else dice.choice(others)
        other.ready = dice.choice(("pass", "pass", "pass", "fail", "hang"))
        found = [other, *world.in_use(host)] if kind == "both" or dice.random() < 0.2 else [other]
        dice.shuffle(found)
        world.stand_for(host, found)
    for _ in range(dice.choice((0, 1, 3))):
        service = dice.choice(list(world.plan.services.values()))
        await world.ask(service.name, world.wish(service.name, do={"delay": dice.choice(("0.1", "1.5"))}))
    await asyncio.sleep(dice.choice((0.0, 0.4, 1.2, 6.0, 8.0)))
    return f"{host} {kind}: {world.names[host]}"
