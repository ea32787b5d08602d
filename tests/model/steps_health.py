"""Steps: what becomes of targets."""

from __future__ import annotations

import asyncio
import random

from tests.model.peers import Backend
from tests.model.rules import rule
from tests.model.world import World


def in_file(world: World) -> list[Backend]:
    """The targets of the file; all that ever ran while each of the file is a name without an address."""
    listed = [
        backend
        for service in world.plan.services.values()
        for targets in service.pools.values()
        for target in targets
        for backend in world.backends_of(target.address)
    ]
    return listed or list(world.backends.values())


@rule(6, "health")
async def step_ready(world: World, dice: random.Random) -> str:
    backend = dice.choice(in_file(world))
    backend.ready = dice.choice(("pass", "pass", "pass", "fail", "fail", "hang"))
    await asyncio.sleep(dice.choice((0.0, 0.0, 1.2, 3.5)))
    return f"{backend} {backend.ready}"


@rule(2, "health")
async def step_words(world: World, dice: random.Random) -> str:
    """A target asks for less, or for nothing."""
    backend = dice.choice(in_file(world))
    threshold = any("panic_threshold" in service.settings for service in world.plan.services.values())
    words = ["", "", "X-LB-Weight: 50%\r\n", "X-LB-State: drain\r\n"]
    if not threshold:
        words.append("X-LB-Weight: 0%\r\n")
    backend.words = dice.choice(words)
    await asyncio.sleep(dice.choice((0.0, 1.2)))
    return f"{backend} {backend.words.strip()!r}"


@rule(2, "health")
async def step_heal(world: World, dice: random.Random) -> str:
    """All are well again."""
    for backend in world.backends.values():
        backend.ready, backend.words, backend.mood = "pass", "", "well"
        await backend.start()
    await asyncio.sleep(dice.choice((0.0, 5.0)))
    return ""


@rule(3, "trouble")
async def step_down(world: World, dice: random.Random) -> str:
    """A target's process ends, or comes back."""
    backend = dice.choice(in_file(world))
    if backend.up:
        world.hurt(backend)
        world.unreachable.add(backend.address)
        backend.stop()
    else:
        await backend.start()
    await asyncio.sleep(dice.choice((0.0, 0.3, 2.0)))
    return f"{backend} {'up' if backend.up else 'down'}"


@rule(2, "trouble")
async def step_bounce(world: World, dice: random.Random) -> str:
    """A target restarts within a moment."""
    backend = dice.choice(in_file(world))
    world.hurt(backend)
    world.unreachable.add(backend.address)
    backend.stop()
    await asyncio.sleep(dice.choice((0.0, 0.1)))
    await backend.start()
    return f"{backend}"


@rule(3, "trouble")
async def step_end_at_work(world: World, dice: random.Random) -> str:
    """All targets of a pool end with requests in hand, and nobody knows of it yet."""
    service = dice.choice(list(world.plan.services.values()))
    targets = service.pools[dice.choice((service.active, dice.choice(list(service.pools))))]
    fields = dice.choice(({}, {}, {"X-Version": "next"}, {"X-Any": "1"}))
    for _ in range(dice.choice((1, 2, 4))):
        wish = world.wish(service.name, do={"delay": dice.choice(("0.4", "1.5"))}, fields=fields)
        await world.ask(service.name, wish)
    await asyncio.sleep(dice.choice((1e-6, 0.2, 1.1)))
    ending = [backend for target in targets for backend in world.backends_of(target.address) if backend.up]
    for backend in ending:
        world.hurt(backend)
        world.unreachable.add(backend.address)
        backend.stop()
    await asyncio.sleep(dice.choice((0.0, 0.3, 2.0)))
    if dice.random() < 0.7:
        for backend in ending:
            await backend.start()
    return f"{ending}"


@rule(3, "trouble")
async def step_mood(world: World, dice: random.Random) -> str:
    """A target that passes its checks fails its requests."""
    backend = dice.choice(in_file(world))
    backend.mood = dice.choice(("well", "well", "500", "reset", "close", "hang"))
    if backend.mood != "well":
        world.hurt(backend)
    return f"{backend} {backend.mood}"


@rule(3, "trouble")
async def step_bad_release(world: World, dice: random.Random) -> str:
    """One target of a pool, or all of them, pass their checks and fail their requests; then a few requests come."""
    service = next(iter(world.plan.services.values()))
    pool = dice.choice(list(service.pools))
    backends = [each for target in service.pools[pool] for each in world.backends_of(target.address)]
    mood = dice.choice(("500", "500", "reset", "close", "hang"))
    for backend in backends if not backends or dice.random() < 0.3 else [dice.choice(backends)]:
        backend.mood = mood
        world.hurt(backend)
    for _ in range(dice.choice((6, 14, 24))):
        await world.ask(service.name, world.wish(service.name, method=dice.choice(("GET", "GET", "POST"))))
        await asyncio.sleep(dice.choice((1e-6, 1e-6, 0.05)))
    await asyncio.sleep(dice.choice((0.0, 1.2)))
    for backend in backends if dice.random() < 0.7 else []:
        backend.mood = "well"
    return f"{pool}: {mood}"


@rule(3, "health")
async def step_close_idle(world: World, dice: random.Random) -> str:
    """A target closes the connections that it has no request on."""
    backend = dice.choice(in_file(world))
    backend.close_idle()
    if dice.random() < 0.5:
        await world.settle()
    return f"{backend}"
