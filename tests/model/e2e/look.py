"""What has to hold once a moment is settled: what is said is so, and at the end nothing is left."""

from __future__ import annotations

import asyncio
import re
import signal
from typing import Any

from tests.model import reference
from tests.model.clock import CLOCK
from tests.model.e2e.processes import descriptors
from tests.model.e2e.world import RealWorld

PLAIN = reference.Request()
#: Descriptors that processes may have more than in the beginning, besides what their connections take.
MORE_DESCRIPTORS = 12
_SAMPLE = re.compile(r"^([a-z_]+)(?:\{(.*)\})? ([^ ]+)$", re.M)
_LABEL = re.compile(r'([a-z_]+)="([^"]*)"')

Services = dict[str, reference.Service]


async def look(world: RealWorld) -> str:
    """Status, explanations, readiness and metrics, where the reference is sure before and after."""
    before = world.possible()
    status = await world.admin("GET", "/api/v1/status")
    ready = await world.admin("GET", "/readyz")
    metrics = await world.admin("GET", "/metrics")
    explained = {name: await world.admin("GET", f"/api/v1/explain/{name}") for name in world.plan.services}
    if world.possible() != before or len(before) > 1 or not status.ok or not metrics.ok:
        return "unsettled"
    services = before[0]
    served = {name: _served(service) for name, service in services.items()}
    if ready.status == 200 and all(each is False for each in served.values()):
        world.violate("4 told", "/readyz says ready, while no service can serve")
    if ready.status != 200 and any(served.values()):
        world.violate("4 told", f"/readyz says {ready.status} {ready.body}, while {served} can serve")
    for view in status.body["services"]:
        _look_at_service(world, view, services[view["name"]])
    for name, said in explained.items():
        if said.ok and served[name] is not None:
            summary = said.body["summary"]
            if ("no ready target" not in summary and "503" not in summary) != served[name]:
                world.violate("4 told", f"explain {name}: {summary!r}, but served: {served[name]}")
    _look_at_metrics(world, metrics.body, services)
    return "settled"


def _served(service: reference.Service) -> bool | None:
    found = [bool(reading.may_see(PLAIN)) for reading in service.readings]
    return True if all(found) else False if not any(found) else None


def _look_at_service(world: RealWorld, view: Any, service: reference.Service) -> None:
    for pool in view["pools"]:
        known = {target.address: target for target in service.pools[pool["name"]]}
        for target in pool["targets"]:
            is_so = known.get(target["id"].rpartition("/")[2])
            if is_so is None or is_so.replaced != target["replaced"]:
                world.violate("4 told", f"status has {target['id']} (replaced: {target['replaced']}), but: {is_so}")
                continue
            if is_so.ready is None:
                continue
            in_service = target["state"] in ("ready", "slow_start")
            if in_service != (is_so.ready and not is_so.out):
                world.violate("4 told", f"status says {target['id']} is {target['state']}, the reference: {is_so}")
            if target["serves"] != is_so.can_serve:
                world.violate("4 told", f"status says {target['id']} serves: {target['serves']}, reference: {is_so}")
            if target["draining"] != (is_so.address in world.drained):
                world.violate("4 told", f"status: {target['id']} draining {target['draining']}")


def samples(text: str) -> list[tuple[str, dict[str, str], float]]:
    return [(name, dict(_LABEL.findall(labels)), float(value)) for name, labels, value in _SAMPLE.findall(text)]


def _look_at_metrics(world: RealWorld, text: str, services: Services) -> None:
    pools: set[tuple[str, str]] = set()
    for name, labels, value in samples(text):
        if "pool" in labels:
            pools.add((labels["service"], labels["pool"]))
        if name != "lb_target_ready" or labels["target"] == "none":
            continue
        service = services.get(labels["service"])
        targets = service.pools.get(labels["pool"], ()) if service else ()
        found = [target for target in targets if target.address == labels["target"]]
        if not found:
            world.violate("6 nothing is left", f"lb_target_ready of {labels}, which is not configured")
        elif found[0].ready is not None and found[0].can_serve != (value == 1.0):
            world.violate("4 told", f"lb_target_ready of {labels['target']}: {value:g}, the reference: {found[0]}")
    configured = sum(len(service.pools) + 1 for service in world.plan.services.values())
    if len(pools) > configured + 12:
        world.violate("6 nothing is left", f"series of {len(pools)} pools, {configured} are configured")


async def base(world: RealWorld) -> dict[int, dict[str, int]]:
    """The descriptors of each process of lb."""
    status = await world.admin("GET", "/api/v1/status")
    return {pid: descriptors(pid) for pid in (world.program.pid, *status.body["workers"])}


async def rest(world: RealWorld, at_first: dict[int, dict[str, int]]) -> None:
    """All becomes well, clients leave, and nothing is left; then lb ends."""
    for backend in world.backends.values():
        backend.ready, backend.words, backend.mood = "pass", "", "well"
        await backend.start()
    await asyncio.sleep(1.0)
    for _ in range(160):
        if not world.tracks:
            break
        await asyncio.sleep(0.05)
    waiting = [track for track in world.tracks.values() if "client" not in track.excuses]
    if waiting:
        world.violate("3 in time", f"{[str(track.wish) for track in waiting]} have no answer though all are well")
    await world.stop_beating()
    world.excuse("client")
    for client in [*world.clients, *(client for _, client in world.sleepers)]:
        client.close()
    wrong: list[str] = ["nothing was looked at"]
    until = CLOCK.now + 15.0
    while wrong and CLOCK.now < until:
        await asyncio.sleep(0.3)
        wrong = await _left(world, at_first)
    for each in wrong:
        world.violate("6 nothing is left", each)
    await look(world)
    await _end(world)


async def _left(world: RealWorld, at_first: dict[int, dict[str, int]]) -> list[str]:
    metrics = await world.admin("GET", "/metrics")
    status = await world.admin("GET", "/api/v1/status")
    if not metrics.ok or not status.ok:
        return [f"status: {status.status} {status.detail}"]
    found: list[str] = []
    for name, labels, value in samples(metrics.body):
        gone = name in ("lb_requests_in_flight", "lb_downstream_connections") or name.endswith("_in_flight")
        if gone and value:
            found.append(f"{name} {labels}: {value:g}")
    if status.body["in_flight"] or status.body["downstream_connections"] or status.body["workers_leaving"]:
        told = {key: status.body[key] for key in ("in_flight", "downstream_connections", "workers_leaving")}
        found.append(f"status: {told}")
    most: dict[str, int] = {}
    for kinds in list(at_first.values())[1:]:
        for kind, number in kinds.items():
            most[kind] = max(most.get(kind, 0), number)
    for pid in status.body["workers"]:
        for kind, number in descriptors(pid).items():
            if number > most.get(kind, 0) + MORE_DESCRIPTORS:
                found.append(f"worker {pid} has {number} descriptors ({kind}), in the beginning {most.get(kind, 0)}")
    first = next(iter(at_first.values()))
    for kind, number in descriptors(world.program.pid).items():
        if number > first.get(kind, 0) + MORE_DESCRIPTORS:
            found.append(f"the supervisor has {number} descriptors ({kind}), in the beginning {first.get(kind, 0)}")
    return found


async def _end(world: RealWorld) -> None:
    world.away = True
    world.program.send(signal.SIGTERM, world.program.main)
    code = await world.program.wait(world.program.main, 10.0)
    if code != 0:
        world.violate("6 ends", f"lb ended with {code} after SIGTERM: {world.program.tail()[-600:]}")
    await asyncio.sleep(0.3)
    world.program.reap()
    left = world.program.descendants()
    if left:
        world.violate("6 nothing is left", f"processes {left} live on after the end")
    log = world.program.log.read_text(errors="replace")
    if "Traceback" in log:
        world.violate("no error", log[log.index("Traceback") :][:2500])
