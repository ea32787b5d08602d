"""Steps: what operators do. Each order is asked about first (`?dry_run`), and has to do what that said."""

from __future__ import annotations

import asyncio
import functools
import random
import re
from collections.abc import Callable, Coroutine
from typing import Any

from tests.model import reference
from tests.model.clock import CLOCK
from tests.model.plan import ServicePlan, address_of
from tests.model.rules import rule
from tests.model.steps_traffic import draw_wish
from tests.model.world import World

PLAIN = reference.Request()
#: Seconds within which a worker that failed is surely replaced, unless another one fails as well.
REPLACED = 20.0
#: By which words an event says that an order leaves nobody to serve.
SAID = re.compile(r"forced|can serve|503|not ready|are ready|no ready")


def serves(world: World, name: str) -> bool:
    """Whether it is certain that a target that can serve gets an ordinary request of a service. The gates keep no other
    one from being cut off: who serves by `panic: spread` alone has said that it cannot."""
    service = world.services().get(name)
    return service is not None and reference.served(service, PLAIN)[0]


def nobody_serves(world: World, name: str) -> bool:
    """Whether it is certain that no target that can serve gets an ordinary request of a service."""
    service = world.services().get(name)
    return service is None or not reference.served(service, PLAIN)[1]


async def order(world: World, carried_out: Coroutine[Any, Any, Any], after: Callable[[], None] = lambda: None) -> Any:
    """Carry out an order; `after` notes it for the reference when it is in force.

    Returns the answer, or the `Refused`.
    """
    from lb.core.refusals import Refusal, Refused

    world.orders += 1
    turns, ejections, shared = world.turns, world.ejections, world.all_shares()
    world.events_before = max((event.id for event in world.supervisor.events.log.since()), default=0)
    try:
        answer = await world.within(carried_out)
    except Refused as refused:
        # What was refused has moved no traffic: `lb` itself has, by a rollout that it ended.
        in_force = refused.refusal is Refusal.NOT_CONFIRMED  # a worker has yet to follow
        world.traffic_moved = not in_force and world.all_shares() != shared
        if in_force:
            after()
        return refused
    else:
        world.traffic_moved = False
        after()
        return answer
    finally:
        world.orders -= 1
        world.on_change()
        await world.settle()
        world.barrier()
        world.turned_within_the_order = world.turns != turns
        world.ejected_within_the_order = world.ejections != ejections
        world.order_over()


def compare(world: World, preview: Any, answer: Any, what: str) -> None:
    """What was foreseen has to be what came, unless the checks changed something while the order was carried out."""
    from lb.core.refusals import Refusal, Refused

    unconfirmed = isinstance(answer, Refused) and answer.refusal is Refusal.NOT_CONFIRMED
    if unconfirmed and sum(at > CLOCK.now - REPLACED for at in world.processes.failures) < 2:
        world.violate("5 confirmed", f"{what}: {answer.detail}")
    refused = isinstance(answer, Refused) and not unconfirmed
    if refused and world.traffic_moved:
        return  # what was foreseen was about other shares
    if preview.allowed == refused and not (world.turned_within_the_order or world.ejected_within_the_order):
        came = answer.detail if refused else "carried out"
        world.violate("4 dry run", f"{what}: foreseen {'allowed' if preview.allowed else 'refused'}, came: {came}")


def judge_outcome(
    world: World, name: str, answer: Any, before: bool, force: bool, what: str, preview: Any = None
) -> None:
    """An order that takes the last target away is refused, or it was forced, and then the event says so."""
    if isinstance(answer, Exception) or not before or not nobody_serves(world, name):
        return
    if world.turned_within_the_order:
        return  # the checks took the last target away, while workers had yet to confirm
    service = world.services()[name]
    sharing = [pool for pool, parts in service.shares.items() if parts]
    if world.ejected_within_the_order and any(t.can_serve for pool in sharing for t in service.pools[pool]):
        return  # an ejection leaves one target, which may be too few by `panic_threshold`
    if not force:
        told = "; ".join(f"{pool}: {targets}" for pool, targets in service.pools.items())
        world.violate("5 gates", f"{what}: nobody can serve now, and it was not said: {service.shares}, {told}")
        return
    unforeseen = preview is not None and not any(change.kind in ("unserved", "short") for change in preview.changes)
    if unforeseen and not world.ejected_within_the_order:
        foreseen = [change.text for change in preview.changes]
        world.violate("4 dry run", f"{what}: nobody can serve now, and the dry run did not say so: {foreseen}")
    kinds = ("reload",) if what.startswith("reload") else ()  # its own event, as no other one is its answer
    events = world.supervisor.events.log.since(after=world.events_before)
    texts = [event.text for event in events if not kinds or event.kind in kinds]
    if not any(SAID.search(text) for text in texts):
        world.violate("5 forced", f"{what}: nobody can serve now, and the event does not say so: {texts}")


def ids(world: World, service: ServicePlan, pool: str = "") -> list[str]:
    return [
        f"{service.name}/{name}/{target.address}"
        for name, targets in service.pools.items()
        if not pool or name == pool
        for target in targets
    ]


def any_service(world: World, dice: random.Random) -> ServicePlan:
    return dice.choice(list(world.plan.services.values()))


async def background(world: World, dice: random.Random) -> None:
    """Some requests that are under way while an order is carried out."""
    for _ in range(dice.choice((0, 0, 1, 3))):
        service, wish = draw_wish(world, dice)
        await world.ask(service, wish)


@rule(6, "orders")
async def step_switch(world: World, dice: random.Random) -> str:
    from lb.control.models import SwitchRequest

    service = any_service(world, dice)
    pool = dice.choice(list(service.pools))
    more: dict[str, Any] = {}
    if dice.random() < 0.4:
        more = {"steps": dice.choice(([50, 100], [20, 60, 100], [100])), "step_time": "2s"}
    force = dice.random() < 0.2
    wanted = SwitchRequest(to=pool, force=force, bake=dice.choice(("0s", "2s", None)), **more)
    await background(world, dice)
    await world.settle()
    before = serves(world, service.name)
    was = world.supervisor.desired.current.services[service.name].active
    operations = world.supervisor.operations
    preview = operations.preview_switch(service.name, wanted)
    answer = await order(world, operations.switch(service.name, wanted, "model"))
    what = f"switch {service.name} to {pool} {more.get('steps', '')}{' by force' if force else ''}"
    compare(world, preview, answer, what)
    done = not isinstance(answer, Exception)
    if done:
        judge_outcome(world, service.name, answer, before, force, what, preview)
        wished = world.supervisor.desired.current.services[service.name]
        if not more and wished.shares == () and wished.rollout is None and wished.active != pool:
            world.violate("5 done", f"{what}: {wished.active} is active")
        if (
            not force
            and was != pool
            and world.services()[service.name].shares.get(pool, 0)
            and not _able(world, service, pool)
            and not world.turned_within_the_order
        ):
            world.violate("5 gates", f"{what}: no target of {pool} can serve")
    return f"{what}: {'done' if done else answer.detail}"


def _able(world: World, service: ServicePlan, pool: str) -> bool:
    readings = world.services()[service.name].readings
    return any(any(target.can_serve for target in reading.pools[pool]) for reading in readings)


@rule(2, "orders")
async def step_rollback(world: World, dice: random.Random) -> str:
    service = any_service(world, dice)
    force = dice.random() < 0.2
    await background(world, dice)
    await world.settle()
    before = serves(world, service.name)
    operations = world.supervisor.operations
    preview = operations.preview_rollback(service.name, force)
    answer = await order(world, operations.rollback(service.name, force, "model"))
    what = f"rollback {service.name}"
    compare(world, preview, answer, what)
    judge_outcome(world, service.name, answer, before, force, what, preview)
    return f"refused: {answer}" if isinstance(answer, Exception) else "done"


@rule(4, "orders")
async def step_drain(world: World, dice: random.Random) -> str:
    service = any_service(world, dice)
    id = dice.choice(ids(world, service))
    force = dice.random() < 0.2
    await background(world, dice)
    before = serves(world, service.name)
    operations = world.supervisor.operations
    preview = operations.preview_drain(id, force)
    address = address_of(id)
    answer = await order(world, operations.drain(id, force, "model"), lambda: world.drained.add(address))
    compare(world, preview, answer, f"drain {id}")
    done = not isinstance(answer, Exception)
    judge_outcome(world, service.name, answer, before, force, f"drain {id}", preview)
    return f"{id}{' by force' if force else ''}: {'done' if done else answer.detail}"


@rule(4, "orders")
async def step_undrain(world: World, dice: random.Random) -> str:
    drained = [id for service in world.plan.services.values() for id in ids(world, service)]
    chosen = [id for id in drained if address_of(id) in world.drained] or drained
    id = dice.choice(chosen)
    address, name = address_of(id), id.partition("/")[0]
    force = dice.random() < 0.2
    await world.settle()
    before = serves(world, name)
    operations = world.supervisor.operations
    preview = operations.preview_undrain(id, force)
    answer = await order(world, operations.undrain(id, force, "model"), lambda: world.drained.discard(address))
    what = f"undrain {id}"
    compare(world, preview, answer, what)
    judge_outcome(world, name, answer, before, force, what, preview)
    return f"{id}{' by force' if force else ''}: {f'refused: {answer}' if isinstance(answer, Exception) else 'done'}"


@rule(5, "orders")
async def step_weight(world: World, dice: random.Random) -> str:
    service = any_service(world, dice)
    id = dice.choice(ids(world, service))
    address = address_of(id)
    weight = dice.choice((0, 1, 1, 1, 3))
    target = service.target(address)
    assert target is not None
    await background(world, dice)

    def note() -> None:
        if weight == target.weight:
            world.overrides.pop(address, None)
        else:
            world.overrides[address] = (weight, target.weight)

    from lb.control.models import WeightRequest

    force = dice.random() < 0.2
    wanted = WeightRequest(weight=weight, force=force)
    operations = world.supervisor.operations
    await world.settle()
    before = serves(world, service.name)
    preview = operations.preview_weight(id, wanted)
    answer = await order(world, operations.weight(id, wanted, "model"), note)
    what = f"weight {id} {weight}"
    compare(world, preview, answer, what)
    judge_outcome(world, service.name, answer, before, force, what, preview)
    return f"{id} {weight}: {f'refused: {answer}' if isinstance(answer, Exception) else 'done'}"


@rule(3, "orders")
async def step_full_queue(world: World, dice: random.Random) -> str:
    """Requests for all versions wait, as many as may; then traffic is switched, or the pool is drained by force."""
    from lb.control.models import SwitchRequest

    service = next(iter(world.plan.services.values()))
    pending = service.setting("breaker", "pending", default=0)
    if not pending:
        return "nobody may wait"
    operations = world.supervisor.operations
    for _ in range(min(pending, dice.choice((4, 12, 260, 260)))):
        fields = {"X-Version": "next"} if dice.random() < 0.2 else {}
        wish = world.wish(service.name, do={"delay": dice.choice(("0.3", "2.5"))}, fields=fields)
        await world.ask(service.name, wish)
    await asyncio.sleep(dice.choice((1e-6, 0.4)))
    world.check()
    kind = dice.choice(("switch", "drain", "drain", "fail", "wait"))
    active = world.supervisor.desired.current.services[service.name].active
    if kind == "switch":
        to = dice.choice(list(service.pools))
        await order(world, operations.switch(service.name, SwitchRequest(to=to, force=True), "model"))
    elif kind == "drain":
        drained = [id for id in ids(world, service, active) if address_of(id) not in world.drained]
        for id in drained:
            address = address_of(id)
            await order(world, operations.drain(id, True, "model"), functools.partial(world.drained.add, address))
        world.check()
        for id in drained:
            address = address_of(id)
            await order(world, operations.undrain(id, True, "model"), functools.partial(world.drained.discard, address))
    elif kind == "fail":
        for target in service.pools.get(active, ()):
            for backend in world.backends_of(target.address):
                backend.ready = "fail"
    world.check()
    await asyncio.sleep(dice.choice((0.5, 1.4, 3.0)))
    return f"{pending}, {kind}"


@rule(2, "orders")
async def step_probe(world: World, dice: random.Random) -> str:
    id = dice.choice(ids(world, any_service(world, dice)))
    answer = await order(world, world.supervisor.operations.probe(id))
    return f"{id}: {answer if isinstance(answer, Exception) else answer.ok}"


@rule(2, "look")
async def step_look(world: World, dice: random.Random) -> str:
    from tests.model import invariants

    await invariants.look(world)
    return ""


@rule(1, "look")
async def step_rest(world: World, dice: random.Random) -> str:
    from tests.model import invariants

    await invariants.rest(world)
    await asyncio.sleep(0)
    return ""
