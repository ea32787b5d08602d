"""The steps of a run: who they are, and how one is taken. The steps themselves are in the files named below."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

from tests.model import features
from tests.model.plan import ServicePlan, TargetPlan
from tests.model.reference import Knowledge
from tests.model.world import World

Rule = Callable[[World, random.Random], Awaitable[str | None]]
#: Seconds that workers serve on without a supervisor.
ORPHAN_BOUND = 20.0
#: Bytes that a request's body may have.
MAX_BODY = 3000
#: (weight, theme, step). A run has some of the themes.
RULES: list[tuple[int, str, Rule]] = []
#: How many times its weight a step has in a run: each run repeats some steps, and leaves others out.
PACES = (0, 0.3, 1, 1, 1, 4)
#: Theme → how many of 100 runs have it.
THEMES = {
    "traffic": 100,
    "health": 100,
    "trouble": 50,
    "orders": 85,
    "reload": 60,
    "kill": 30,
    "restart": 30,
    "slow": 50,
    "look": 100,
    "names": 35,
    "crossings": 50,
}
#: The same of themes with dice of their own, so that runs without them are what they would be anyway.
APART = {
    "http2": 30,
    "found": 35,
    "affinity": 20,
    "websocket": 30,
}


def rule(weight: int, theme: str) -> Callable[[Rule], Rule]:
    """One of the steps, taken as often as its weight says in runs that have its theme."""

    def add(function: Rule) -> Rule:
        RULES.append((weight, theme, function))
        return function

    return add


def choose(world: World, dice: random.Random) -> Rule:
    """The step that the dice want."""
    open_to = [(weight * world.pace[function], function) for weight, theme, function in RULES if theme in world.themes]
    return dice.choices([function for _, function in open_to], [weight for weight, _ in open_to])[0]


async def take(world: World, rule: Rule, dice: random.Random) -> str | None:
    """Take a step, and raise what was found."""
    await world.settle()
    world.barrier()
    said = await rule(world, dice)
    await world.settle()
    world.check()
    return said


async def begin(world: World) -> None:
    """A file, its targets, and lb."""
    rng = world.rng
    world.themes = {theme for theme, often in THEMES.items() if rng.random() * 100 < often}
    world.pace = {function: rng.choice(PACES) for _, theme, function in RULES if theme not in APART}
    apart = random.Random(f"{world.seed}/apart")
    for theme, often in APART.items():
        if apart.random() * 100 < often:
            world.themes.add(theme)
        world.pace |= {function: apart.choice(PACES) for _, where, function in RULES if where == theme}
    world.features = features.swarm(rng)
    check: dict[str, Any] = {
        "path": "/ready",
        "interval": "1s",
        "timeout": "500ms",
        "rise": rng.choice((1, 2)),
        "fall": rng.choice((1, 2, 3)),
        "grace": rng.choice(("0s", "30s")),
    }
    app = ServicePlan("app", "/app", {}, "blue", {}, check, max_body=MAX_BODY)
    for name in ("blue", "green", "grey")[: rng.choice((2, 2, 3))]:
        app.pools[name] = [await new_target(world) for _ in range(rng.choice((1, 2, 2, 3)))]
    world.plan.services["app"] = app
    if rng.random() < 0.3:
        side = ServicePlan("side", "/side", {"only": [await new_target(world)]}, "only", {}, dict(check))
        world.plan.services["side"] = side
    for service in world.plan.services.values():
        service.settings.update(patience="0s", timeouts={"response": "4s", "queue": "1s", "drain": "6s", "idle": "20s"})
        if service is app:
            features.draw_all(rng, service, world.features)
        for targets in service.pools.values():
            for target in targets:
                world.knowledge[target.address] = Knowledge(check["rise"], check["fall"])
    if "affinity" in world.themes:
        secret = world.directory / "secret"
        secret.write_text("the secret of the model\n".replace(" ", "-"))
        app.settings["affinity"] = {"cookie": "lb_target", "secret_file": str(secret)}
    if "http2" in world.themes:
        world.plan.listener["protocols"] = ["h2c", "http/1.1"]
    world.worker_count = rng.choice((1, 1, 2))
    if "found" in world.themes:
        await world.found.begin(app, apart)
    world.plan.extra["workers"] = world.worker_count
    world.plan.extra["worker_limits"] = {"orphan": f"{ORPHAN_BOUND:g}s"}
    world.file.write_text(world.plan.text())
    await world.start()
    await asyncio.sleep(2.0)


async def new_target(world: World) -> TargetPlan:
    """A target at an address that has not been there yet, perhaps given by name."""
    backend = await world.add_backend(len(world.backends) + 1)
    http2 = "http2" in world.themes and random.Random(f"{backend.host}/http2").random() < 0.5
    host = backend.host
    if "names" in world.themes and random.Random(backend.host).random() < 0.6:
        host = f"n{backend.host.rpartition('.')[2]}.model.test"
        world.stand_for(host, [backend])
    target = TargetPlan(host, backend.port, scheme="h2c" if http2 else "")
    if http2:
        world.http2.add(target.address)
    return target


async def end(world: World) -> None:
    """The end of a run: everything comes to rest, and nothing is left."""
    from tests.model import invariants

    await invariants.rest(world)
    await invariants.look(world)
    world.check()
    assert world.supervising is not None
    world.supervising.send_signal(15)
    await asyncio.wait_for(world.supervising.wait(), 60.0)
    await asyncio.sleep(1.0)
    left = world.processes.living("worker")
    if left and not world.orphans:
        world.violate("6 nothing is left", f"{len(left)} workers after the end")
    world.check()


def leave_out(names: Iterable[str]) -> None:
    """Runs have none of these themes, features and steps."""
    for name in names:
        if name in THEMES:
            THEMES[name] = 0
        elif name in APART:
            APART[name] = 0
        elif any(function.__name__ == f"step_{name}" for _, _, function in RULES):
            RULES[:] = [each for each in RULES if each[2].__name__ != f"step_{name}"]
        else:
            features.FEATURES[name] = (0, features.FEATURES[name][1])


def put_in(names: Iterable[str]) -> None:
    """All runs have these themes."""
    for name in names:
        (APART if name in APART else THEMES)[name] = 100


def load_all() -> None:
    """Import the files of steps."""
    from tests.model import (  # noqa: F401
        steps_affinity,
        steps_crossings,
        steps_found,
        steps_health,
        steps_http2,
        steps_names,
        steps_orders,
        steps_processes,
        steps_reload,
        steps_shares,
        steps_traffic,
        steps_websocket,
    )
