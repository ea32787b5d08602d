"""Steps: what becomes of the sources that name targets."""

from __future__ import annotations

import asyncio
import functools
import random

from tests.model import steps_processes
from tests.model.found import Source
from tests.model.plan import ServicePlan, SourcePlan
from tests.model.rules import new_target, rule
from tests.model.steps_orders import background, order
from tests.model.steps_reload import reload, rename_pool
from tests.model.steps_traffic import draw_wish
from tests.model.world import World

#: Targets that a run may have had.
MANY = 200
#: Targets that a source names at most.
MOST = 8
#: Seconds until an answer is in force, and its targets are checked; and less.
PAUSES = (0.0, 0.04, 0.2, 0.7, 1.5, 4.0)


def any_source(world: World, dice: random.Random) -> tuple[ServicePlan, str, Source] | None:
    """A pool with a source."""
    found = world.found.in_use()
    return dice.choice(found) if found else None


async def name_more(world: World, source: Source, number: int, dice: random.Random) -> list[str]:
    """The source names so many targets more: new ones, or ones that it has named before."""
    former = [address for address in source.had if address not in source.targets]
    added = []
    for _ in range(min(number, MOST - len(source.targets))):
        if former and (dice.random() < 0.4 or len(world.backends) > MANY):
            address = former.pop(dice.randrange(len(former)))
            source.targets[address] = source.had[address]
        elif len(world.backends) <= MANY:
            target = await new_target(world)
            address = target.address
            source.targets[address] = target
            for backend in world.backends_of(address):
                backend.ready = dice.choice(("pass", "pass", "pass", "fail", "hang"))
        else:
            break
        if not source.is_file:
            source.part[address] = dice.choice(("", "", "a", "b"))
        added.append(address)
    return added


async def use(world: World, dice: random.Random) -> None:
    """Some requests, before the answer is in force or after it."""
    await background(world, dice)
    await asyncio.sleep(dice.choice(PAUSES))
    await background(world, dice)


@rule(5, "found")
async def step_found_more(world: World, dice: random.Random) -> str:
    chosen = any_source(world, dice)
    if chosen is None:
        return "no source"
    service, pool, source = chosen
    added = await name_more(world, source, dice.choice((1, 1, 2, 3)), dice)
    source.publish(dice)
    await use(world, dice)
    return f"{service.name}/{pool}: {added}"


@rule(5, "found")
async def step_found_fewer(world: World, dice: random.Random) -> str:
    """A target is gone, some are, or all of them."""
    chosen = any_source(world, dice)
    if chosen is None:
        return "no source"
    service, pool, source = chosen
    names = list(source.targets)
    gone = dice.sample(names, min(len(names), dice.choice((1, 1, 2, 3, MOST))))
    await background(world, dice)
    for address in gone:
        del source.targets[address]
    source.publish(dice)
    await use(world, dice)
    return f"{service.name}/{pool}: {gone} of {names}"


@rule(2, "found")
async def step_found_ill(world: World, dice: random.Random) -> str:
    """Targets are new that do not pass, while requests come in all the time."""
    chosen = any_source(world, dice)
    if chosen is None:
        return "no source"
    service, pool, source = chosen
    added = await name_more(world, source, dice.choice((1, 2, 3)), dice)
    for address in added:
        for backend in world.backends_of(address):
            backend.ready = dice.choice(("hang", "hang", "fail"))
    source.publish(dice)
    for _ in range(30 if source.is_file else 8):
        for _ in range(2):
            await world.ask(service.name, world.wish(service.name, method="GET"))
        await asyncio.sleep(0.06)
    for address in added:
        if dice.random() < 0.5:
            for backend in world.backends_of(address):
                backend.ready = "pass"
    return f"{service.name}/{pool}: {added}"


@rule(3, "found")
async def step_found_replaced(world: World, dice: random.Random) -> str:
    """Other targets instead, all at once or one by one; the old ones may have ended."""
    chosen = any_source(world, dice)
    if chosen is None:
        return "no source"
    service, pool, source = chosen
    old = list(source.targets)
    at_once, ends = dice.random() < 0.5, dice.random() < 0.3
    for address in old:
        await name_more(world, source, 1, dice)
        del source.targets[address]
        if ends:
            for backend in world.backends_of(address):
                backend.ready = "fail"
        if not at_once:
            source.publish(dice)
            await use(world, dice)
    source.publish(dice)
    await use(world, dice)
    return f"{service.name}/{pool}: {old} → {list(source.targets)}{'' if at_once else ', one by one'}"


@rule(3, "found")
async def step_found_again(world: World, dice: random.Random) -> str:
    """The same in another order; or gone and back within a moment."""
    chosen = any_source(world, dice)
    if chosen is None:
        return "no source"
    service, pool, source = chosen
    names, gone = dict(source.targets), dice.random() < 0.5
    if gone:
        for address in dice.sample(list(names), min(len(names), dice.choice((1, 2)))):
            del source.targets[address]
        source.publish(dice)
        await asyncio.sleep(dice.choice((0.0, 0.11, 0.3, 1.2)))
    source.targets = dict(sorted(names.items(), key=lambda each: dice.random()))
    source.publish(dice)
    await use(world, dice)
    return f"{service.name}/{pool}: {'gone and back' if gone else 'shuffled'}"


@rule(2, "found")
async def step_found_weight(world: World, dice: random.Random) -> str:
    from dataclasses import replace

    chosen = any_source(world, dice)
    if chosen is None or not chosen[2].targets:
        return "no target"
    _, _, source = chosen
    address = dice.choice(list(source.targets))
    source.targets[address] = replace(source.targets[address], weight=dice.choice((1, 1, 2, 3)))
    source.publish(dice)
    await use(world, dice)
    return f"{address}: {source.targets[address].weight}"


@rule(4, "found")
async def step_found_down(world: World, dice: random.Random) -> str:
    """A source does not answer, or does again; meanwhile it may have come to other words."""
    chosen = any_source(world, dice)
    if chosen is None:
        return "no source"
    service, pool, source = chosen
    source.down = not source.down or dice.random() < 0.2
    if dice.random() < 0.3:
        await name_more(world, source, 1, dice)
    source.publish(dice)
    await use(world, dice)
    return f"{service.name}/{pool}: {'down' if source.down else 'up'}"


@rule(2, "found")
async def step_found_silent(world: World, dice: random.Random) -> str:
    """A part of a source does not answer, or does again."""
    chosen = any_source(world, dice)
    if chosen is None or chosen[2].is_file:
        return "no parts"
    _, _, source = chosen
    source.silent ^= {dice.choice("ab")}
    source.publish(dice)
    await use(world, dice)
    return f"{sorted(source.silent)}"


@rule(2, "found")
async def step_found_confirm(world: World, dice: random.Random) -> str:
    """An operator says that the source is right."""
    chosen = any_source(world, dice)
    if chosen is None:
        return "no source"
    service, pool, _ = chosen
    members = world.found.pools.get((service.name, pool))
    if members is not None:
        members.confirmed = bool(members.held)
    await order(world, world.supervisor.operations.confirm_removals(service.name, pool, "model"))
    world.found.note(world.supervisor)
    await use(world, dice)
    return f"{service.name}/{pool}"


@rule(3, "found")
async def step_found_elsewhere(world: World, dice: random.Random) -> str:
    """The file names another source for a pool, or another guard; the pool may have another name as well."""
    plan = world.plan.copy()
    services = [service for service in plan.services.values() if service.sources]
    if not services:
        return "no source"
    service = dice.choice(services)
    pool = dice.choice(list(service.sources))
    former = world.found.source(service.sources[pool].path)
    what = dice.choice(("guard", "source", "source", "fixed"))
    if what == "guard":
        service.sources[pool].guard = dice.choice(("50%", "30%", "0%", "100%"))
    elif what == "source":
        source = world.found.add_source(dice)
        source.down = dice.random() < 0.3
        kept = dice.sample(list(former.targets), dice.randint(0, len(former.targets)))
        source.targets = {address: former.targets[address] for address in kept}
        await name_more(world, source, dice.choice((0, 1, 2)), dice)
        source.publish(dice)
        service.sources[pool].path = source.path
    else:
        service.pools[pool].append(await new_target(world))
    said = await reload(world, plan, dice)
    await use(world, dice)
    return f"{service.name}/{pool} {what}: {said}"


@rule(2, "found")
async def step_found_or_fixed(world: World, dice: random.Random) -> str:
    """A pool gets a source, or loses it."""
    plan = world.plan.copy()
    service = next(iter(plan.services.values()))
    pool = dice.choice(list(service.pools))
    if pool in service.sources and len(service.sources) > 1:
        del service.sources[pool]
        if not any(not target.found for target in service.pools[pool]):
            service.pools[pool] = [await new_target(world)]
    elif pool not in service.sources:
        source = world.found.add_source(dice)
        await name_more(world, source, dice.choice((1, 2)), dice)
        source.publish(dice)
        service.sources[pool] = SourcePlan(source.path)
    else:
        return "the last one"
    said = await reload(world, plan, dice)
    await use(world, dice)
    return f"{pool}: {said}"


@rule(2, "found")
async def step_found_rename(world: World, dice: random.Random) -> str:
    """A pool with a source has another name, and perhaps other fixed targets at the same time."""
    plan = world.plan.copy()
    service = next((each for each in plan.services.values() if each.sources), None)
    if service is None:
        return "no source"
    old = dice.choice(list(service.sources))
    new = next(name for name in ("f1", "f2", "f3", "f4") if name not in service.pools)
    rename_pool(service, old, new)
    edits = dice.random() < 0.4
    if edits:
        service.pools[new].append(await new_target(world))
    said = await reload(world, plan, dice)
    await use(world, dice)
    return f"{old} → {new}{' and a target more' if edits else ''}: {said}"


@rule(3, "found")
async def step_found_over_a_restart(world: World, dice: random.Random) -> str:
    """Another supervisor comes while a source is down, or is late, or has changed a moment ago."""
    if not world.themes & {"restart", "kill"}:
        return "not in this run"
    chosen = any_source(world, dice)
    if chosen is None:
        return "no source"
    _, _, source = chosen
    kind = dice.choice(("down", "late", "changed", "changed"))
    source.down = kind == "down" or source.down
    source.delay = 3.0 if kind == "late" else 0.0
    if kind == "changed":
        await name_more(world, source, 1, dice)
        if source.targets and dice.random() < 0.5:
            del source.targets[dice.choice(list(source.targets))]
    source.publish(dice)
    await asyncio.sleep(dice.choice((0.0, 0.12, 0.6, 2.0)))
    steps = steps_processes.step_kill_worker, steps_processes.step_upgrade, steps_processes.step_kill_supervisor
    how = dice.choice(steps if "restart" in world.themes else steps[:1])
    said = await how(world, dice)
    for _ in range(dice.choice((1, 3))):
        await world.ask(*draw_wish(world, dice))
    await asyncio.sleep(dice.choice((0.0, 0.5, 3.5)))
    source.down, source.delay = False, 0.0
    source.publish(dice)
    return f"{kind}, {how.__name__}: {said}"


@rule(2, "found")
async def step_found_beside_an_order(world: World, dice: random.Random) -> str:
    """A target is drained, or weighed, while the source comes to other words."""
    chosen = any_source(world, dice)
    if chosen is None:
        return "no source"
    service, pool, source = chosen
    found = [target for target in service.pools[pool] if target.found]
    if not found:
        return "nothing is found"
    address = dice.choice(found).address
    if address in source.targets and dice.random() < 0.6:
        del source.targets[address]
    await name_more(world, source, 1, dice)
    source.publish(dice)
    await asyncio.sleep(dice.choice((0.0, 0.1, 0.12, 0.14, 0.16)))
    id = f"{service.name}/{pool}/{address}"
    if world.found.is_in_force(address):
        note = functools.partial(world.found.note_drain, address)
        await order(world, world.supervisor.operations.drain(id, True, "model"), note)
    await use(world, dice)
    if address in world.drained:
        back = functools.partial(world.drained.discard, address)
        await order(world, world.supervisor.operations.undrain(id, True, "model"), back)
    return f"{id}"
