"""Steps: how requests are shared among the targets of a pool, by their weights and slow starts."""

from __future__ import annotations

import asyncio
import random

from tests.model import steps_health, steps_processes
from tests.model.clock import CLOCK
from tests.model.plan import ServicePlan, address_of
from tests.model.rules import rule
from tests.model.steps_orders import ids, order
from tests.model.world import World

#: Requests, one after the other on one connection.
REQUESTS = 40
#: Seconds after which a target that refused a connection has its turns again.
COOL_DOWN = 1.1
#: Turns that a target may have more or less than its share: round robin spreads turns evenly, and weights may change
#: once meanwhile.
TURNS = 3


@rule(4, "traffic")
async def step_share(world: World, dice: random.Random) -> str:
    """Perhaps one target begins its slow start; after a while, perhaps in another lb, requests are shared."""
    service = next(iter(world.plan.services.values()))
    if dice.random() < 0.7:
        await steps_health.step_heal(world, dice)
        await asyncio.sleep(6.0)
    if dice.random() < 0.5 and "orders" in world.themes:
        await _enter_anew(world, service, dice)
    if dice.random() < 0.5 and "restart" in world.themes:
        restart = dice.choice((steps_processes.step_upgrade, steps_processes.step_kill_supervisor))
        await restart(world, dice)
        await world.settle()
    return await _count(world, service)


async def _enter_anew(world: World, service: ServicePlan, dice: random.Random) -> None:
    """A target is drained and taken back, which begins its slow start."""
    operations = world.supervisor.operations
    active = world.supervisor.desired.current.services[service.name].active
    id = dice.choice(ids(world, service, active) or ids(world, service))
    address = address_of(id)
    if address in world.drained:
        return
    answer = await order(world, operations.drain(id, False, "model"), lambda: world.drained.add(address))
    if not isinstance(answer, Exception):
        await order(world, operations.undrain(id, True, "model"), lambda: world.drained.discard(address))
    await asyncio.sleep(dice.choice((0.0, 2.0, 4.0, 4.0)))


async def _count(world: World, service: ServicePlan) -> str:
    """Ask, and hold who answered against weights and slow starts."""
    if world.unreachable:
        await asyncio.sleep(COOL_DOWN)
    shares = [pool for pool, parts in world.shares(service).items() if parts]
    if len(shares) != 1 or "balance" in service.settings:
        return "not by turns of one pool"
    pool = shares[0]
    targets = world.services()[service.name].pools[pool]
    addresses = {target.address for target in targets}
    able = {target.address: target for target in targets if target.can_serve}
    if (
        len(able) < 2
        or any("client" not in track.excuses for track in world.tracks.values())
        or any(target.ready is None for target in targets)
        or world.services()[service.name].offered(pool) != set(able)
        or addresses & world.relieved
        or world.services()[service.name].connections < REQUESTS  # clients that left or read nothing may take them all
        or not all(backend.is_well for address in able for backend in world.backends_of(address))
    ):
        return "not for sure"
    begun, turns = CLOCK.now, world.turns
    client = await world.client(fresh=True)
    counts = dict.fromkeys(able, 0)
    for _ in range(REQUESTS):
        track = await world.ask(service.name, world.wish(service.name), client)
        await world.settle()
        answer = track.answer
        by = world.spelled(answer.backend) if answer is not None and answer.backend else ""
        if by not in counts or len(track.arrivals) > 1 + bool(track.copied_to):
            return f"{track.wish}: {answer}"
        counts[by] += 1
    if CLOCK.now > begun + 0.1 or world.turns != turns:
        return "it took too long"
    warmth = {address: world.warmth(service.name, address) for address in able}
    least = {address: able[address].weight * warmth[address][0] for address in able}
    most = {address: able[address].weight * warmth[address][1] for address in able}
    for address, count in counts.items():
        at_most = most[address] / (most[address] + sum(least.values()) - least[address])
        at_least = least[address] / (least[address] + sum(most.values()) - most[address])
        if not at_least * REQUESTS - TURNS <= count <= at_most * REQUESTS + TURNS:
            told = f"{address} got {count} of {REQUESTS}, not {at_least:.0%} to {at_most:.0%}"
            world.violate("7 shares", f"{told}: {counts}, {warmth}")
    return f"{counts}, {warmth}"
