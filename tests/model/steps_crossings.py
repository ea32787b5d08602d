"""Steps: features that seldom cross by chance, brought together on purpose. Each edits the file to what it needs."""

from __future__ import annotations

import asyncio
import functools
import random
from typing import Any

from tests.model import features, steps_health, steps_processes
from tests.model.clock import LASTING, SLOW_DISK
from tests.model.plan import ServicePlan, address_of
from tests.model.rules import new_target, rule
from tests.model.steps_orders import compare, ids, judge_outcome, order, serves
from tests.model.steps_reload import reload
from tests.model.world import World

#: Seconds after which a healed target surely serves, and what was under way is over.
SETTLED = 6.0
#: Targets that the file of a run may have had.
MANY = 200


async def prepared(world: World, dice: random.Random, size: int, settings: dict[str, Any]) -> ServicePlan | None:
    """The first service, with its active pool of so many healthy targets and with these settings (None: without one).

    A setting with the pool `other` names a pool beside the active one. None: the file was refused.
    """
    if len(world.backends) > MANY:
        return None
    plan = world.plan.copy()
    service = next(iter(plan.services.values()))
    active = active_of(world, service)
    others = [pool for pool in service.pools if pool != active]
    if active not in service.pools or not others or active in service.sources:
        return None
    other = dice.choice(others)
    targets = service.pools[active]
    kept = [target for target in targets if target.address not in world.drained][:size] or targets[:1]
    service.pools[active] = [*kept, *[await new_target(world) for _ in range(size - len(kept))]]
    service.active = active
    for target in service.pools[active]:
        target.weight = 1
    for name, value in settings.items():
        if value is None:
            service.settings.pop(name, None)
        else:
            service.settings[name] = _named(value, other, active)
    features.sane(service)
    await steps_health.step_heal(world, dice)
    await reload(world, plan, dice)
    await asyncio.sleep(SETTLED)
    return service if world.plan is plan and active_of(world, service) == active else None


def active_of(world: World, service: ServicePlan) -> str:
    """The pool that an operator, or the file, has made active."""
    active: str = world.supervisor.desired.current.services[service.name].active
    return active


def _named(value: Any, other: str, active: str) -> Any:
    if isinstance(value, dict):
        return {key: _named(each, other, active) for key, each in value.items()}
    return {"other": other, "active": active}.get(value, value) if isinstance(value, str) else value


async def ask(world: World, service: ServicePlan, number: int, **do: str) -> None:
    """So many requests at once."""
    for _ in range(number):
        await world.ask(service.name, world.wish(service.name, method="GET", do=dict(do)))


def make_bad(world: World, service: ServicePlan, address: str, mood: str) -> None:
    """A target passes its checks and fails its requests."""
    for backend in world.backends_of(address):
        backend.mood = mood
        world.hurt(backend)


def _forget_override(world: World, address: str) -> None:
    world.overrides.pop(address, None)


@rule(2, "crossings")
async def step_copies_at_the_bound(world: World, dice: random.Random) -> str:
    """As many requests as may be in flight, while a copy of an earlier one is under way."""
    bound = dice.choice((2, 3))
    mirror = {"pool": "other", "percent": "100%"}
    wanted = {"mirror": mirror, "breaker": {"requests": bound}, "previews": None}
    service = await prepared(world, dice, 2, wanted)
    if service is None:
        return "not so"
    await ask(world, service, 1, delay="0.4")
    await asyncio.sleep(0.45)
    await ask(world, service, bound, delay="0.2")
    await asyncio.sleep(1.0)
    return f"{bound}"


@rule(2, "crossings")
async def step_copies_fail(world: World, dice: random.Random) -> str:
    """A target of the mirror's pool fails all copies: that is no reason to eject it."""
    outlier = {"consecutive_failures": 3, "base_ejection": "4s", "max_ejected": "100%", "connect_ejection": "2s"}
    wanted = {
        "mirror": {"pool": "other", "percent": "100%"},
        "outlier": outlier,
        "previews": None,
        "breaker": None,
        "fallback": None,
    }
    service = await prepared(world, dice, 1, wanted)
    if service is None or "mirror" not in service.settings:
        return "not so"
    pool = service.settings["mirror"]["pool"]
    address = dice.choice(service.pools[pool]).address
    make_bad(world, service, address, "500")
    for _ in range(12):
        await ask(world, service, 1)
        await asyncio.sleep(0.02)
    await asyncio.sleep(1.2)
    make_bad(world, service, address, "well")
    return f"{address} of {pool}"


@rule(2, "crossings")
async def step_copy_after_a_retry(world: World, dice: random.Random) -> str:
    """The mirror's pool, the fallback, serves a request that its only target has failed: there is no copy for it."""
    wanted = {
        "mirror": {"pool": "other", "percent": "100%"},
        "fallback": "other",
        "retries": {"statuses": [502, 503]},
        "previews": None,
        "breaker": None,
    }
    service = await prepared(world, dice, 1, wanted)
    if service is None:
        return "not so"
    await ask(world, service, 1)
    await ask(world, service, 3, first="503")
    await asyncio.sleep(1.0)
    return f"{service.settings.get('mirror')}"


@rule(2, "crossings")
async def step_spare_of_weight_0(world: World, dice: random.Random) -> str:
    """The one target that serves fails, beside a ready one of weight 0, which replaces no other one."""
    from lb.control.models import WeightRequest

    outlier = {"consecutive_failures": 3, "base_ejection": "4s", "max_ejected": "100%", "connect_ejection": "2s"}
    service = await prepared(world, dice, 2, {"outlier": outlier, "mirror": None, "breaker": None})
    if service is None:
        return "not so"
    active = active_of(world, service)
    bad, *others = dice.sample(ids(world, service, active), len(service.pools[active]))
    for id in others:
        note = functools.partial(world.overrides.__setitem__, address_of(id), (0, 1))
        await order(world, world.supervisor.operations.weight(id, WeightRequest(weight=0), "model"), note)
    make_bad(world, service, address_of(bad), "500")
    for _ in range(8):
        await ask(world, service, 1)
        await asyncio.sleep(0.02)
    await asyncio.sleep(1.2)
    world.check()
    make_bad(world, service, address_of(bad), "well")
    for id in others:
        back = functools.partial(_forget_override, world, address_of(id))
        await order(world, world.supervisor.operations.weight(id, WeightRequest(weight=1), "model"), back)
    return f"{bad}"


@rule(2, "crossings")
async def step_rollout_to_nobody(world: World, dice: random.Random) -> str:
    """Both pools of a rollout are drained by force, once it has seen enough: its next step has to wait."""
    from lb.control.models import SwitchRequest

    analysis = {"min_requests": 1}
    rollout = {"steps": [20, 60, 100], "step_time": "2s", "bake": "0s", "min_ready": 1, "analysis": analysis}
    wanted = {"rollout": rollout, "mirror": None, "panic_threshold": None, "fallback": None, "breaker": None}
    service = await prepared(world, dice, 1, {**wanted, "previews": None, "sticky": None})
    if service is None:
        return "not so"
    active = active_of(world, service)
    to = dice.choice([pool for pool in service.pools if pool != active])
    operations = world.supervisor.operations
    await order(world, operations.switch(service.name, SwitchRequest(to=to, force=True), "model"))
    await asyncio.sleep(dice.choice((0.3, 1.0)))
    for _ in range(20):
        await ask(world, service, 2)
        await world.settle()
    drained = [id for pool in (to, active) for id in ids(world, service, pool) if address_of(id) not in world.drained]
    for id in drained:
        await order(world, operations.drain(id, True, "model"), functools.partial(world.drained.add, address_of(id)))
    await asyncio.sleep(dice.choice((2.5, 5.0)))
    world.check()
    for id in drained:
        await order(
            world, operations.undrain(id, True, "model"), functools.partial(world.drained.discard, address_of(id))
        )
    return f"{active} → {to}"


@rule(2, "crossings")
async def step_near_panic(world: World, dice: random.Random) -> str:
    """Two of three targets are ready, just enough: one of them is drained, or another one comes back for nothing."""
    wanted = {"panic_threshold": "60%", "panic": None, "fallback": None}
    service = await prepared(world, dice, 3, wanted)
    if service is None:
        return "not so"
    ill, able, _ = dice.sample(ids(world, service, active_of(world, service)), 3)
    for backend in world.backends_of(address_of(ill)):
        backend.ready = "fail"
    await asyncio.sleep(service.detection)
    before = serves(world, service.name)
    operations = world.supervisor.operations
    preview = operations.preview_drain(able, False)
    address = address_of(able)
    answer = await order(world, operations.drain(able, False, "model"), lambda: world.drained.add(address))
    compare(world, preview, answer, f"drain {able}")
    judge_outcome(world, service.name, answer, before, False, f"drain {able}", preview)
    world.check()
    for backend in world.backends_of(address_of(ill)):
        backend.ready = "pass"
    if address in world.drained:
        await order(world, operations.undrain(able, True, "model"), lambda: world.drained.discard(address))
    return f"{able}: {answer if isinstance(answer, Exception) else 'done'}"


@rule(2, "crossings")
async def step_behind_a_retry(world: World, dice: random.Random) -> str:
    """The first in the queue has tried the target that gets room: the next one has it."""
    wanted = {
        "breaker": {"connections": 1, "pending": 20},
        "retries": {"statuses": [502, 503]},
        "fallback": None,
        "mirror": None,
        "previews": None,
        "balance": None,
    }
    service = await prepared(world, dice, 2, wanted)
    if service is None:
        return "not so"
    await ask(world, service, 1, delay="2.5")
    await ask(world, service, 1, delay="0.3", first="503")
    await ask(world, service, 1, delay="0.3")
    await asyncio.sleep(0.35)
    await ask(world, service, 1, delay="0.3")
    await asyncio.sleep(0.35)
    world.check()
    await asyncio.sleep(1.0)
    return ""


@rule(2, "crossings")
async def step_reload_to_nobody(world: World, dice: random.Random) -> str:
    """A file that makes a pool active of which nobody can serve, perhaps by force."""
    service = await prepared(world, dice, 1, {"fallback": None, "panic": None})
    if service is None:
        return "not so"
    plan = world.plan.copy()
    edited = next(iter(plan.services.values()))
    active = active_of(world, edited)
    edited.active = dice.choice([pool for pool in edited.pools if pool != active])
    for target in edited.pools[edited.active]:
        target.weight = 0
    features.sane(edited)
    said = await reload(world, plan, dice, force=dice.random() < 0.7)
    plan = world.plan.copy()
    edited = next(iter(plan.services.values()))
    for target in edited.pools[edited.active]:
        target.weight = 1
    await reload(world, plan, dice)
    return said


@rule(2, "crossings")
async def step_order_beside_an_ejection(world: World, dice: random.Random) -> str:
    """A target is drained, or taken out of the file, and the only other one is ejected while that is written."""
    outlier = {"consecutive_failures": 3, "base_ejection": "4s", "max_ejected": "100%", "connect_ejection": "2s"}
    wanted = {"outlier": outlier, "fallback": None, "mirror": None, "panic_threshold": None, "retries": None}
    service = await prepared(world, dice, 2, {**wanted, "breaker": None, "balance": None})
    if service is None:
        return "not so"
    bad, other = dice.sample(ids(world, service, active_of(world, service)), 2)
    make_bad(world, service, address_of(bad), "500")
    for _ in range(8):
        await ask(world, service, 1)
    await asyncio.sleep(dice.choice((1e-6, 0.1, 0.2, 0.3, 0.4)))
    address = address_of(other)
    world.loop.lasting = SLOW_DISK
    if dice.random() < 0.6:
        before = serves(world, service.name)
        operations = world.supervisor.operations
        preview = operations.preview_drain(other, False)
        answer = await order(world, operations.drain(other, False, "model"), lambda: world.drained.add(address))
        compare(world, preview, answer, f"drain {other}")
        judge_outcome(world, service.name, answer, before, False, f"drain {other}", preview)
        said = f"drain: {answer if isinstance(answer, Exception) else 'done'}"
        world.check()
        if address in world.drained:
            await order(world, operations.undrain(other, True, "model"), lambda: world.drained.discard(address))
    else:
        plan = world.plan.copy()
        targets = next(iter(plan.services.values())).pools[active_of(world, service)]
        targets[:] = [target for target in targets if target.address != address]
        said = await reload(world, plan, dice, force=False)
    world.loop.lasting = LASTING
    make_bad(world, service, address_of(bad), "well")
    return said


@rule(2, "crossings")
async def step_answer_over_a_full_buffer(world: World, dice: random.Random) -> str:
    """A target's interim answers fill the way to a client that does not read, then it fails the request; the next
    target has a large answer."""
    service = await prepared(world, dice, 2, {"retries": {"statuses": [502, 503]}, "breaker": None, "mirror": None})
    if service is None:
        return "not so"
    tracks = []
    for _ in range(4):
        client = await world.client(fresh=True)
        client.transport.pause_reading()
        do = {"hints": str(dice.randrange(250, 550, 12)), "first": "503", "once": "1", "size": "9000000"}
        track = await world.ask(service.name, world.wish(service.name, method="GET", do=do), client)
        track.excuses.add("slow")
        tracks.append((track, client))
    await asyncio.sleep(0.5)
    world.check()
    for track, client in tracks:
        track.excuses.add("client")
        client.close()
    await asyncio.sleep(0.5)
    return ""


@rule(2, "crossings")
async def step_judged_before_an_upgrade(world: World, dice: random.Random) -> str:
    """A target was ejected for its failures and is back; another lb hears of them from workers that go on."""
    outlier = {"consecutive_failures": 5, "base_ejection": "4s", "max_ejected": "100%", "connect_ejection": "2s"}
    wanted = {"outlier": outlier, "fallback": None, "mirror": None, "panic_threshold": None, "retries": None}
    service = await prepared(world, dice, 2, {**wanted, "breaker": None, "balance": None, "slow_start": None})
    if service is None:
        return "not so"
    bad = address_of(dice.choice(ids(world, service, active_of(world, service))))
    make_bad(world, service, bad, "500")
    for _ in range(44):
        await ask(world, service, 1)
    await asyncio.sleep(1.2)
    make_bad(world, service, bad, "well")
    await asyncio.sleep(dice.choice((7.0, 12.0)))
    await ask(world, service, dice.choice((0, 2)), delay="3")  # a worker that drains has something to report
    successor = dice.choice((steps_processes.step_upgrade, steps_processes.step_kill_supervisor))
    await successor(world, dice)
    await asyncio.sleep(1.0)
    await ask(world, service, 2)
    await asyncio.sleep(4.0)
    return f"{bad}, {successor.__name__}"
