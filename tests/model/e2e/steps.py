"""The steps of an end-to-end run: those of the model that need no clock, and orders, signals and kills of its own."""

from __future__ import annotations

import asyncio
import json
import random
import re
import signal
import sys
from collections.abc import Awaitable, Callable
from typing import Any

from tests.model import features, reference, steps_health, steps_http2, steps_reload, steps_traffic
from tests.model.clock import CLOCK
from tests.model.e2e import certificates, front_door, look, tunnels
from tests.model.e2e.processes import Said
from tests.model.e2e.world import BEAT, RealWorld, Wished
from tests.model.plan import Plan, ServicePlan, TargetPlan
from tests.model.rules import new_target
from tests.model.steps_orders import ids
from tests.model.steps_traffic import draw_wish

Step = Callable[[Any, random.Random], Awaitable[str | None]]
PLAIN = reference.Request()
#: A target's host name, that /etc/hosts knows.
NAME = "web.model.test"
#: What takes long in the model, and how long it takes here.
HURRY = {"1s": "150ms", "700ms": "100ms", "2s": "250ms"}


def hurry(plan: Plan) -> None:
    """Settings of the model's features that suit real time."""
    for service in plan.services.values():
        service.check["interval"] = HURRY.get(service.check["interval"], service.check["interval"])
        settings = service.settings
        if "rollout" in settings:
            settings["rollout"].update(step_time="600ms", bake="0s" if settings["rollout"]["bake"] == "0s" else "900ms")
        if "slow_start" in settings:
            settings["slow_start"]["window"] = "2s"
        outlier = settings.get("outlier", {"enabled": True})
        if outlier.get("enabled", True):
            outlier.update(base_ejection="800ms", connect_ejection="400ms", max_ejection="2s", calm="2s")
        settings["outlier"] = outlier


async def begin(world: RealWorld) -> None:
    """A file, its targets, and lb."""
    rng = world.rng
    check: dict[str, Any] = {
        "path": "/ready",
        "interval": "150ms",
        "timeout": "400ms",
        "rise": rng.choice((1, 2)),
        "fall": rng.choice((1, 2, 3)),
        "grace": rng.choice(("0s", "30s")),
    }
    app = ServicePlan("app", "/app", {}, "blue", {}, check)
    for name in ("blue", "green", "grey")[: rng.choice((2, 2, 3))]:
        app.pools[name] = [await new_target(world) for _ in range(rng.choice((1, 2, 2, 3)))]
    world.plan.services["app"] = app
    if rng.random() < 0.4:
        world.plan.services["side"] = ServicePlan(
            "side", "/side", {"only": [await new_target(world)]}, "only", {}, dict(check)
        )
    if world.can_name and rng.random() < 0.4:
        backend = await world.add_backend(len(world.backends) + 1)
        world.name(NAME, backend.host)
        world.leaving.clear()
        named = ServicePlan("named", "/named", {"only": [TargetPlan(NAME, backend.port)]}, "only", {}, dict(check))
        world.plan.services["named"] = named
    if rng.random() < 0.4:
        certificates.renew(world)
        targets = [await new_tls_target(world) for _ in range(2)]
        secret = ServicePlan("secret", "/secret", {"only": targets}, "only", {}, dict(check), "https")
        secret.settings["tls"] = {"ca_file": str(certificates.authorities(world))}
        world.plan.services["secret"] = secret
    for service in world.plan.services.values():
        service.settings.update(patience="0s", timeouts={"response": "4s", "queue": "1s", "drain": "4s", "idle": "3s"})
        if service is app:
            features.draw_all(rng, service, features.swarm(rng))
    hurry(world.plan)
    world.plan.extra.update(workers=2, drain="4s")
    world.front = front_door.FrontDoor(world)
    if "http2" in world.themes:
        world.plan.listener["protocols"] = ["h2c", "http/1.1"]
    world.plan.extra["listeners"] = [{"bind": world.plan.bind, **world.plan.listener}, world.front.listener()]
    world.file.write_text(world.plan.text())
    world.wished = world.planned_file(world.plan)
    world.wished.shares = {name: [{plan.active: 100}] for name, plan in world.plan.services.items()}
    world.become(world.wished)
    await world.start()
    world.begin()
    await asyncio.sleep(1.5)


async def new_tls_target(world: RealWorld) -> TargetPlan:
    """A target at an address that has not been there yet, with a certificate of the newest authority."""
    backend = await world.add_backend(len(world.backends) + 1, certificates.context(world))
    return TargetPlan(backend.host, backend.port)


async def traffic(world: RealWorld, dice: random.Random) -> None:
    """Clients that ask all the time."""
    while True:
        await asyncio.sleep(dice.choice((0.01, 0.03, 0.06, 0.1)))
        try:
            await world.ask(*draw_wish(world, dice))
        except Exception as error:
            world.violate(getattr(error, "invariant", "model"), getattr(error, "text", repr(error)))


# --- orders ---------------------------------------------------------------------------------------------------------


def one(world: RealWorld, dice: random.Random) -> ServicePlan:
    return dice.choice(list(world.plan.services.values()))


def certain(world: RealWorld, name: str) -> dict[str, reference.Service] | None:
    """The services, where all of one is known for sure."""
    possible = world.possible()
    if len(possible) > 1 or name not in possible[0]:
        return None
    sure = all(target.ready is not None for pool in possible[0][name].pools.values() for target in pool)
    return possible[0] if sure else None


def serves(world: RealWorld, name: str) -> bool:
    """Whether a target that can serve gets an ordinary request, for sure."""
    return all(name in each and reference.served(each[name], PLAIN)[0] for each in world.possible())


def nobody(world: RealWorld, name: str) -> bool:
    """Whether none does, for sure."""
    return all(name not in each or not reference.served(each[name], PLAIN)[1] for each in world.possible())


async def carry_out(
    world: RealWorld, name: str, path: str, method: str, body: Any, planned: Wished, preview: str
) -> Said:
    """An order, beside what it was foreseen to do."""
    asked, began = dict(body), CLOCK.now
    before = certain(world, name)
    served = serves(world, name)
    foreseen = await world.admin("POST", preview, asked)
    said = await world.order(method, path, asked, planned)
    if foreseen.ok and before is not None and said.status in (200, 202, 409) and world.calm():
        allowed = foreseen.body["allowed"]
        if allowed != said.ok:
            world.violate("4 dry run", f"{path} {body}: foreseen {foreseen.body}, came {said.status} {said.detail}")
    if said.ok and served and not asked.get("force") and nobody(world, name):
        told = world.services().get(name)
        if await undoubted(world, began):
            world.violate("5 gates", f"{path} {body}: nobody can serve now, and it was not said: {told}")
    return said


async def undoubted(world: RealWorld, since: float) -> bool:
    """Whether what was known for sure then has stayed so. The targets live in the driver, and fail checks when it is
    late: lb may have let go a target that could serve as the order began."""
    await asyncio.sleep(2 * BEAT)  # in which the driver finds out that it was late
    return world.certain_from < since


def outcome(said: Said) -> str:
    return "done" if said.ok else f"{said.status} {said.detail[:110]}"


async def step_switch(world: RealWorld, dice: random.Random) -> str:
    service = one(world, dice)
    pool = dice.choice(list(service.pools))
    body: dict[str, Any] = {"to": pool, "force": dice.random() < 0.2}
    if dice.random() < 0.5:
        body.update(steps=dice.choice(([50, 100], [20, 60, 100], [100])), step_time="500ms")
    body["bake"] = dice.choice(("0s", "700ms"))
    planned = world.wished.copy()
    old = {name for options in planned.shares[service.name] for name in options}
    planned.shares[service.name] = [{pool: 100}, *({name: 50, pool: 50} for name in old), *({n: 100} for n in old)]
    path = f"/api/v1/services/{service.name}/switch"
    said = await carry_out(world, service.name, path, "POST", body, planned, f"{path}/preview")
    at_once = said.ok and "steps" not in body and "rollout" not in service.settings
    if at_once and world.wished.shares[service.name] != [{pool: 100}]:
        status = await world.admin("GET", f"/api/v1/services/{service.name}")
        if status.ok and status.body["active"] != pool and status.body["rollout"] is None:
            world.violate("5 done", f"switched {service.name} to {pool}: {status.body['active']} is active")
    return f"{service.name} {body}: {outcome(said)}"


async def step_rollback(world: RealWorld, dice: random.Random) -> str:
    service = one(world, dice)
    planned = world.wished.copy()
    pools = list(service.pools)
    planned.shares[service.name] = [{pool: 100} for pool in pools] + [dict.fromkeys(pools, 1)]
    path = f"/api/v1/services/{service.name}/rollback"
    body = {"force": dice.random() < 0.2}
    return outcome(await carry_out(world, service.name, path, "POST", body, planned, f"{path}/preview"))


async def step_drain(world: RealWorld, dice: random.Random) -> str:
    service = one(world, dice)
    id = dice.choice(ids(world, service))
    planned = world.wished.copy()
    planned.drained.add(id.rpartition("/")[2])
    body = {"force": dice.random() < 0.2}
    path = f"/api/v1/targets/{id}/drain"
    said = await carry_out(world, service.name, path, "POST", body, planned, f"{path}/preview")
    return f"{id} {body}: {outcome(said)}"


async def step_undrain(world: RealWorld, dice: random.Random) -> str:
    every = [id for service in world.plan.services.values() for id in ids(world, service)]
    id = dice.choice([id for id in every if id.rpartition("/")[2] in world.drained] or every)
    planned = world.wished.copy()
    planned.drained.discard(id.rpartition("/")[2])
    body = {"force": dice.random() < 0.2}
    path = f"/api/v1/targets/{id}/undrain"
    said = await carry_out(world, id.partition("/")[0], path, "POST", body, planned, f"{path}/preview")
    return f"{id} {body}: {outcome(said)}"


async def step_weight(world: RealWorld, dice: random.Random) -> str:
    service = one(world, dice)
    id = dice.choice(ids(world, service))
    address = id.rpartition("/")[2]
    target = service.target(address)
    assert target is not None
    body = {"weight": dice.choice((0, 1, 1, 3)), "force": dice.random() < 0.2}
    planned = world.wished.copy()
    planned.overrides[address] = (body["weight"], target.weight)
    path = f"/api/v1/targets/{id}/weight"
    said = await carry_out(world, service.name, path, "PUT", body, planned, f"{path}/preview")
    return f"{id} {body}: {outcome(said)}"


async def step_probe(world: RealWorld, dice: random.Random) -> str:
    id = dice.choice(ids(world, one(world, dice)))
    said = await world.admin("POST", f"/api/v1/targets/{id}/probe")
    return f"{id}: {said.status}"


# --- the file -------------------------------------------------------------------------------------------------------


async def reload(world: RealWorld, plan: Plan, dice: random.Random) -> str:
    """Make a plan the file, and have it read: by an order, or by a signal."""
    hurry(plan)
    began = CLOCK.now
    served = {name: serves(world, name) for name in plan.services}
    world.file.write_text(plan.text())
    planned = world.planned_file(plan)
    force = dice.random() < 0.2
    if dice.random() < 0.25:
        force = False
        said = await _by_signal(world, planned)
        how = "SIGHUP"
    else:
        said = await world.order("POST", "/api/v1/reload", {"force": force}, planned)
        how = "reload by force" if force else "reload"
    if said.ok:
        for name, before in served.items():
            if before and not force and nobody(world, name):
                told = world.services()[name]
                if await undoubted(world, began):
                    world.violate("5 gates", f"{how}: nobody can serve {name} now: {told}")
    else:
        world.file.write_text(world.plan.text())
        if force or said.status != 409 or not CUT_OFF.search(said.detail):
            world.violate("model", f"{how}: the file was refused: {said.status} {said.body}")
        elif all(reference.served(each[name], PLAIN)[0] for each in world.possible_by(planned) for name in each):
            world.violate("5 gates", f"{how}: refused, though all would be served: {said.detail}")
    lines = said.body.get("lines", [])[:4] if said.ok and isinstance(said.body, dict) else ""
    return f"{how} {outcome(said)} {'; '.join(lines)}"


#: How a reload says that it would leave a service without a target that can serve.
CUT_OFF = re.compile(r"is served by .*: its clients would get 503")
#: The steps that edit a plan end with this, whoever carries it out.
steps_reload.reload = reload  # type: ignore[assignment]


async def _by_signal(world: RealWorld, planned: Wished) -> Said:
    before = await _reloads(world)
    world.planned = planned
    world.on_change()
    world.moved = CLOCK.now
    world.program.send(signal.SIGHUP)
    until = CLOCK.now + 20.0
    now = before
    while CLOCK.now < until and now == before:
        await asyncio.sleep(0.05)
        now = await _reloads(world) or before
    said = await world.admin("GET", "/api/v1/status")
    taken = ("ok", "partial") if world.front.broken else ("ok",)
    if any(now.get(result) != before.get(result) for result in taken):
        world.become(planned)
    elif now.get("failed") != before.get("failed"):
        said = Said(409, {"detail": said.body["config"]["last_error"]})
    else:
        world.violate("5 confirmed", f"SIGHUP led to nothing, or was not confirmed, within 20 s: {before}, {now}")
    world.planned = None
    world.on_change()
    for name in list(world.wished.shares):
        await world.resolve(name)
    return said


async def _reloads(world: RealWorld) -> dict[str, float]:
    """How many reloads have ended in which way."""
    said = await world.admin("GET", "/metrics")
    every = look.samples(said.body) if said.ok else []
    return {labels["result"]: value for name, labels, value in every if name == "lb_config_reloads_total"}


async def step_replace_all(world: RealWorld, dice: random.Random) -> str:
    """Replace all targets of a pool, by some that take their time."""
    plan, service = steps_reload.plan_to_edit(world, dice)
    if len(world.backends) > 90:
        return "enough"
    pool = service.active if dice.random() < 0.7 else dice.choice(list(service.pools))
    make = new_tls_target if service.scheme == "https" else new_target
    ready = dice.choice(("pass", "fail", "fail", "hang"))
    service.pools[pool] = [await make(world) for _ in range(dice.choice((1, 2, 3)))]
    for target in service.pools[pool]:
        world.backends[target.address].ready = ready
    said = await reload(world, plan, dice)
    await asyncio.sleep(dice.choice((0.0, 1.0, 3.0)))
    return f"{ready}: {said}"


async def step_edit_check(world: RealWorld, dice: random.Random) -> str:
    """Another question, which all targets answer in the same way: who is ready stays so."""
    plan, service = steps_reload.plan_to_edit(world, dice)
    service.check["path"] = dice.choice(("/ready", "/health", "/status"))
    return f"{service.check['path']}: {await reload(world, plan, dice)}"


async def step_renew(world: RealWorld, dice: random.Random) -> str:
    """The targets' authority changes: lb trusts both, then the targets show the new one's certificates."""
    if "secret" not in world.plan.services:
        return "no TLS"
    if any(service == "secret" for service, _ in world.wished.handovers.under_way):
        return "not now: replaced targets are taken for what they were"
    certificates.renew(world)
    said = await reload(world, world.plan.copy(), dice)
    await asyncio.sleep(dice.choice((1.5, 2.5)))
    for backend in world.backends.values():
        if backend.tls is not None:
            certificates.show(world, backend)
    return said


async def step_front_door(world: RealWorld, dice: random.Random) -> str:
    """Certificates that clients see, and that they show, are exchanged."""
    return await front_door.change(world, dice)


async def step_rename_host(world: RealWorld, dice: random.Random) -> str:
    """A name gets another address."""
    if NAME not in world.names or len(world.names[NAME]) > 1:
        return "not now"
    backend = await world.add_backend(len(world.backends) + 1)
    world.name(NAME, backend.host)
    return f"{world.names[NAME]}"


# --- processes ------------------------------------------------------------------------------------------------------


async def step_kill_worker(world: RealWorld, dice: random.Random) -> str:
    """kill -9 for one of the workers."""
    said = await world.admin("GET", "/api/v1/status")
    if not said.ok or not said.body["workers"]:
        return "none"
    pid = dice.choice(said.body["workers"])
    world.excuse("worker")
    world.workers_hurt = world.moved = CLOCK.now
    world.program.send(signal.SIGKILL, pid)
    await asyncio.sleep(dice.choice((0.1, 0.6)))
    return f"{pid}"


async def step_kill_supervisor(world: RealWorld, dice: random.Random) -> str:
    """kill -9; the workers serve on until the next one comes."""
    world.frozen_from, world.frozen_until = CLOCK.now, 1e18
    world.program.send(signal.SIGKILL)
    gap = dice.choice((0.0, 0.3, 1.5))
    if await world.program.wait(world.program.main, 5.0) is None:
        world.violate("6 ends", "the process that was started outlives the supervisor")
    await asyncio.sleep(gap)
    await world.start_anew()
    world.frozen_until = world.moved = CLOCK.now
    for name in world.wished.shares:
        await world.resolve(name)
    return f"{gap:g} s"


async def step_restart(world: RealWorld, dice: random.Random) -> str:
    """SIGTERM, and a new start."""
    world.away = True
    world.excuse("restart")
    world.program.send(signal.SIGTERM, dice.choice((world.program.pid, world.program.main)))
    code = await world.program.wait(world.program.main, 15.0)
    world.excuse("restart")
    if code != 0:
        world.violate("6 ends", f"lb ended with {code} after SIGTERM: {world.program.tail()[-400:]}")
        world.program.send(signal.SIGKILL)
    await world.start_anew()
    world.excuse("restart")
    world.disturbed = CLOCK.now
    world.doubt("a restart")
    for name in world.wished.shares:
        await world.resolve(name)
    return ""


async def step_upgrade(world: RealWorld, dice: random.Random) -> str:
    """The new lb takes over; nobody notices."""
    pid = world.program.pid
    how = dice.choice(("order", "SIGUSR2", "lb upgrade"))
    world.moved = CLOCK.now + 60.0  # the former workers end what they have when its time is over
    if how == "order":
        said = await world.admin("POST", "/api/v1/upgrade", {"within": 20.0})
        if said.ok:
            world.program.pid = said.body["pid"]
        elif said.status != 409:
            world.violate("5 confirmed", f"upgrade: {said.status} {said.detail}")
        told = outcome(said)
    elif how == "SIGUSR2":
        world.program.send(signal.SIGUSR2)
        told = await _new_supervisor(world, pid)
    else:
        url = f"http://{world.program.admin[0]}:{world.program.admin[1]}"
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "lb", "upgrade", "--admin", url, "--json",
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE, stdin=asyncio.subprocess.DEVNULL,
        )  # fmt: skip
        out, err = await process.communicate()
        told = (out or err).decode()[-200:].strip()
        if out.strip().startswith(b"{") and "pid" in json.loads(out):
            world.program.pid = json.loads(out)["pid"]
    program = world.program
    if pid not in (program.pid, program.main) and await program.wait(pid, 20.0) != 0:
        world.violate("6 ends", f"the former lb ended with {program.ended.get(pid)}")
    if program.main in program.ended:
        world.violate("6 ends", f"the process that was started ended with {program.ended[program.main]}")
    world.moved = CLOCK.now
    for name in world.wished.shares:
        await world.resolve(name)
    return f"{how}: {told}"


async def _new_supervisor(world: RealWorld, pid: int) -> str:
    until = CLOCK.now + 25.0
    while CLOCK.now < until:
        await asyncio.sleep(0.1)
        said = await world.admin("GET", "/api/v1/status", within=5.0)
        if said.ok and said.body["pid"] != pid:
            world.program.pid = said.body["pid"]
            return f"{said.body['pid']}"
    return "nobody came"


# --- what there is to look at ----------------------------------------------------------------------------------------


async def step_look(world: RealWorld, dice: random.Random) -> str:
    """After a settled moment, what is said is so."""
    return await look.look(world)


async def step_upload(world: RealWorld, dice: random.Random) -> str:
    """Bodies of requests that come in pieces."""
    service = one(world, dice).name
    wish = world.wish(service, method=dice.choice(("POST", "PUT")), body=dice.choice((70_000, 400_000)))
    track = await world.ask(service, wish, await world.client(fresh=True))
    await asyncio.sleep(0.2)
    return steps_traffic.told([track])


async def step_tunnel(world: RealWorld, dice: random.Random) -> str:
    """A client that stays, in a WebSocket."""
    service = one(world, dice).name
    task = asyncio.ensure_future(tunnels.hold(world, service, dice.choice((0.5, 2.0, 6.0))))
    world.staying.add(task)
    task.add_done_callback(world.staying.discard)
    await asyncio.sleep(0.05)
    return service


async def step_quiet(world: RealWorld, dice: random.Random) -> str:
    """Long enough that the checks have decided."""
    seconds = dice.choice((0.3, 1.0, 2.5))
    await asyncio.sleep(seconds)
    return f"{seconds:g} s"


#: Weight, theme, step.
STEPS: list[tuple[int, str, Step]] = [
    (4, "traffic", steps_traffic.step_ask),
    (4, "traffic", steps_traffic.step_burst),
    (3, "traffic", steps_traffic.step_abort),
    (3, "traffic", step_upload),
    (4, "traffic", step_tunnel),
    (6, "traffic", step_quiet),
    (2, "slow", steps_traffic.step_slow_reader),
    (2, "slow", steps_traffic.step_pipeline),
    (1, "slow", steps_traffic.step_open_only),
    (4, "http2", steps_http2.step_streams),
    (2, "http2", steps_http2.step_reset_streams),
    (1, "http2", steps_http2.step_close_with_streams),
    (3, "http2", steps_http2.step_target_leaves),
    (2, "http2", steps_http2.step_target_refuses),
    (2, "http2", steps_http2.step_limit_of_streams),
    (6, "health", steps_health.step_ready),
    (2, "health", steps_health.step_words),
    (3, "health", steps_health.step_heal),
    (3, "health", steps_health.step_close_idle),
    (3, "trouble", steps_health.step_down),
    (2, "trouble", steps_health.step_bounce),
    (3, "trouble", steps_health.step_mood),
    (7, "orders", step_switch),
    (3, "orders", step_rollback),
    (4, "orders", step_drain),
    (4, "orders", step_undrain),
    (5, "orders", step_weight),
    (2, "orders", step_probe),
    (4, "reload", steps_reload.step_edit_feature),
    (2, "reload", steps_reload.step_edit_weight),
    (3, "reload", steps_reload.step_edit_targets),
    (3, "reload", step_replace_all),
    (2, "reload", steps_reload.step_edit_active),
    (2, "reload", steps_reload.step_edit_pace),
    (2, "reload", step_edit_check),
    (2, "reload", steps_reload.step_rename_pool),
    (1, "reload", steps_reload.step_remove_pool),
    (1, "reload", steps_reload.step_reload_same),
    (3, "names", step_renew),
    (5, "front", step_front_door),
    (3, "names", step_rename_host),
    (2, "kill", step_kill_worker),
    (1, "restart", step_kill_supervisor),
    (1, "restart", step_restart),
    (1, "restart", step_upgrade),
    (5, "look", step_look),
]
#: Theme → how many of 100 runs have it.
THEMES = {
    "traffic": 100,
    "slow": 40,
    "http2": 40,
    "health": 100,
    "trouble": 40,
    "orders": 85,
    "reload": 65,
    "names": 60,
    "front": 50,
    "kill": 35,
    "restart": 40,
    "look": 100,
}
