"""Steps: what is edited in the file."""

from __future__ import annotations

import asyncio
import random

from tests.model import features, reference
from tests.model.clock import CLOCK
from tests.model.plan import Plan, ServicePlan, TargetPlan
from tests.model.reference import Knowledge
from tests.model.rules import new_target, rule
from tests.model.steps_health import in_file
from tests.model.steps_orders import PLAIN, background, judge_outcome, order, serves
from tests.model.world import World


def plan_to_edit(world: World, dice: random.Random) -> tuple[Plan, ServicePlan]:
    """A copy of the plan, and one of its services."""
    plan = world.plan.copy()
    return plan, dice.choice(list(plan.services.values()))


async def reload(world: World, plan: Plan, dice: random.Random, force: bool | None = None) -> str:
    """Make a plan the file, and reload it: unless it is forced, no service is left without anybody who can serve.

    `force`: None leaves it to the dice."""
    await background(world, dice)
    ill = dice.choice(in_file(world)) if dice.random() < 0.25 else None
    if ill is not None and ill.ready == "pass":
        ill.ready = dice.choice(("fail", "hang"))  # for a moment: it takes `fall` failures to make a target unready
        if dice.random() < 0.5:
            await asyncio.sleep(0.7)
    try:
        return await _reload(world, plan, dice.random() < 0.2 if force is None else force)
    finally:
        if ill is not None:
            await background(world, dice)
            await world.settle()
            ill.ready = "pass"


async def _reload(world: World, plan: Plan, force: bool) -> str:
    from lb.core.refusals import Refusal, Refused

    for service in plan.services.values():
        service.sources = {pool: source for pool, source in service.sources.items() if pool in service.pools}
    text = plan.text()
    world.file.write_text(text)
    await world.settle()
    served = {name for name in plan.services if serves(world, name)}
    operations = world.supervisor.operations
    foreseen = (await world.within(operations.validate(text))).refused is not None

    had_traffic = {name: traffic(world, service) for name, service in world.plan.services.items()}

    def note(services: dict[str, reference.Service]) -> None:
        served.intersection_update(
            name for name in services if reference.served(services[name], PLAIN)[0]
        )  # a check may fail
        former, world.plan, world.former = world.plan, plan, services
        for service in plan.services.values():
            for pool in service.pools:
                world.found.fit(world.supervisor, service, pool)
        hand_over(world, former, services, had_traffic)
        old_ones = {target.address for targets, _ in world.replaced.values() for target in targets}
        addresses = old_ones | {
            target.address for s in plan.services.values() for pool in s.pools.values() for target in pool
        }
        for service in plan.services.values():
            for targets in service.pools.values():
                for target in targets:
                    known = world.knowledge.get(target.address)
                    if known is None:
                        known = world.knowledge[target.address] = Knowledge(
                            service.check["rise"], service.check["fall"]
                        )
                    known.rise, known.fall = service.check["rise"], service.check["fall"]
                    override = world.overrides.get(target.address)
                    if override is not None and override[1] != target.weight:
                        del world.overrides[target.address]
        world.forget_targets(addresses)
        world.on_change()

    world.on_reload = note
    answer = await order(world, operations.reload(force, "model"))
    world.on_reload = None
    refused = isinstance(answer, Refused) and answer.refusal is Refusal.NO_TARGET_COULD_SERVE
    meanwhile = world.turned_within_the_order or world.ejected_within_the_order
    if not force and foreseen != refused and not meanwhile:
        world.violate("4 dry run", f"reload: foreseen {'refused' if foreseen else 'allowed'}, came: {answer}")
    if refused:
        world.file.write_text(world.plan.text())
        return f"refused: {answer.detail}"
    for name in served:
        judge_outcome(world, name, answer, True, force, f"reload{' by force' if force else ''}")
    if isinstance(answer, Exception):
        reasons = [f"{r}" for r in getattr(answer, "obstacles", ())]
        world.violate("model", f"the file was refused: {answer} {reasons}")
        return "refused"
    return "; ".join(answer.lines[:4])


def traffic(world: World, service: ServicePlan) -> set[str]:
    """The pools that requests of a service go to without a preview."""
    shares = world.shares(service)
    return {*(pool for pool, parts in shares.items() if parts), service.settings.get("fallback", "")}


def hand_over(
    world: World, former: Plan, services: dict[str, reference.Service], had_traffic: dict[str, set[str]]
) -> None:
    """Where all targets of a pool are replaced, those that can serve go on."""
    under_way, world.replaced = world.replaced, {}
    for name, service in world.plan.services.items():
        old = former.services.get(name)
        for pool, targets in service.pools.items() if old is not None else ():
            was = pool if pool in old.pools else former_name(old, service, targets)
            if not was:
                continue
            old_ones, since = under_way.get((name, was), ([], 0.0))
            addresses = {target.address for target in targets}
            members = [*old.pools[was], *old_ones]
            if addresses.isdisjoint(target.address for target in members):
                known = {target.address: target for target in services[name].pools[was]}
                kept = [t for t in members if known[t.address].can_serve or _may_serve(known[t.address])]
                begins = was in had_traffic[name] and pool in traffic(world, service)
                sure = any(known[target.address].can_serve for target in kept)
                if begins and kept and (sure or (name, pool) in world.supervisor.handovers.under_way):
                    world.replaced[name, pool] = kept, CLOCK.now
            elif old_ones and (name, pool) in world.supervisor.handovers.under_way:
                left = [target for target in old_ones if target.address not in addresses]
                if left:
                    world.replaced[name, pool] = left, since


def former_name(old: ServicePlan, new: ServicePlan, targets: list[TargetPlan]) -> str:
    """The former name of a pool; empty: it had none."""
    addresses = {target.address for target in targets}
    return next(
        (
            name
            for name, known in old.pools.items()
            if name not in new.pools and {target.address for target in known} == addresses
        ),
        "",
    )


def _may_serve(target: reference.Target) -> bool:
    return target.ready is None and target.weight > 0 and not target.out


@rule(8, "reload")
async def step_edit_feature(world: World, dice: random.Random) -> str:
    if not world.features:
        return "none"
    plan = world.plan.copy()
    service = next(iter(plan.services.values()))
    said = features.draw(dice, service, dice.choice(world.features))
    return f"{said} → {await reload(world, plan, dice)}"


@rule(2, "reload")
async def step_edit_weight(world: World, dice: random.Random) -> str:
    plan, service = plan_to_edit(world, dice)
    fixed = [target for targets in service.pools.values() for target in targets if not target.found]
    if not fixed:
        return "all are found"
    dice.choice(fixed).weight = dice.choice((0, 1, 1, 2))
    return await reload(world, plan, dice)


@rule(2, "reload")
async def step_edit_targets(world: World, dice: random.Random) -> str:
    """Add a target, take one out, or replace all of a pool."""
    plan, service = plan_to_edit(world, dice)
    pool = dice.choice(list(service.pools))
    targets = service.pools[pool]
    what = dice.choice(("add", "remove", "replace"))
    if len(world.backends) > 200:
        return "enough"
    if what == "add" and len(targets) < 4:
        targets.append(await new_target(world))
    elif what == "remove" and len(targets) > 1:
        del targets[dice.randrange(len(targets))]
    elif what == "replace":
        service.pools[pool] = [await new_target(world) for _ in targets]
    return f"{what}: {await reload(world, plan, dice)}"


@rule(2, "reload")
async def step_replace_all(world: World, dice: random.Random) -> str:
    """Replace all targets of the active pool, by some that take their time."""
    plan, service = plan_to_edit(world, dice)
    if len(world.backends) > 200:
        return "enough"
    fresh = [await new_target(world) for _ in range(dice.choice((1, 2, 3)))]
    pool = service.active if dice.random() < 0.7 else dice.choice(list(service.pools))
    service.pools[pool] = fresh
    ready = dice.choice(("pass", "fail", "fail", "hang"))
    for target in fresh:
        for backend in world.backends_of(target.address):
            backend.ready = ready
    said = await reload(world, plan, dice)
    await background(world, dice)
    await asyncio.sleep(dice.choice((0.0, 0.3, 1.5, 4.0)))
    return f"{ready}: {said}"


@rule(2, "reload")
async def step_edit_active(world: World, dice: random.Random) -> str:
    plan, service = plan_to_edit(world, dice)
    service.active = dice.choice(list(service.pools))
    return await reload(world, plan, dice)


@rule(2, "reload")
async def step_remove_active(world: World, dice: random.Random) -> str:
    """The file loses the pool that serves, as by a bad merge."""
    plan, service = plan_to_edit(world, dice)
    active = world.supervisor.desired.current.services[service.name].active
    if len(service.pools) < 2 or active not in service.pools:
        return "there is no other pool"
    del service.pools[active]
    features.sane(service)
    return f"{active}: {await reload(world, plan, dice)}"


@rule(2, "reload")
async def step_edit_pace(world: World, dice: random.Random) -> str:
    """Another pace of the checks; the question stays."""
    plan, service = plan_to_edit(world, dice)
    service.check["interval"] = dice.choice(("1s", "700ms", "2s"))
    return await reload(world, plan, dice)


def rename_pool(service: ServicePlan, old: str, new: str) -> None:
    """The same pool under another name, in all that names it."""
    service.pools = {new if name == old else name: targets for name, targets in service.pools.items()}
    service.sources = {new if name == old else name: source for name, source in service.sources.items()}
    service.active = new if service.active == old else service.active
    settings = service.settings
    if settings.get("fallback") == old:
        settings["fallback"] = new
    if settings.get("mirror", {}).get("pool") == old:
        settings["mirror"]["pool"] = new
    for preview in settings.get("previews", ()):
        if preview["pool"] == old:
            preview["pool"] = new


@rule(2, "reload")
async def step_rename_pool(world: World, dice: random.Random) -> str:
    """The same targets under another name."""
    plan, service = plan_to_edit(world, dice)
    old = dice.choice(list(service.pools))
    new = next(name for name in ("v1", "v2", "v3", "v4", "v5") if name not in service.pools)
    rename_pool(service, old, new)
    return f"{old} → {new}: {await reload(world, plan, dice)}"


@rule(1, "reload")
async def step_remove_pool(world: World, dice: random.Random) -> str:
    plan = world.plan.copy()
    service = next(iter(plan.services.values()))
    if len(service.pools) < 3:
        service.pools[f"new{len(world.backends)}"] = [await new_target(world)]
    else:
        del service.pools[dice.choice(list(service.pools))]
    features.sane(service)
    return await reload(world, plan, dice)


@rule(1, "reload")
async def step_reload_same(world: World, dice: random.Random) -> str:
    return await reload(world, world.plan.copy(), dice)


@rule(1, "reload")
async def step_reload_invalid(world: World, dice: random.Random) -> str:
    """A file with an error changes nothing."""
    text = world.file.read_text()
    world.file.write_text(text.replace('"services"', '"servces"'))
    answer = await order(world, world.supervisor.operations.reload(False, "model"))
    world.file.write_text(text)
    if not isinstance(answer, Exception):
        world.violate("model", "an invalid file was accepted")
    return ""
