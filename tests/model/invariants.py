"""What has to hold at any time: what is said is so, and nothing is left behind."""

from __future__ import annotations

import asyncio
import re
from collections import Counter

from tests.model import reference
from tests.model.clock import CLOCK
from tests.model.world import Track, World

PLAIN = reference.Request()
#: Seconds after which an idle connection to a target and one of a client that does not read are gone.
RETIRED = 25.0
#: Bytes that may wait for one client.
BUFFERED = 4 << 20
_SAMPLE = re.compile(r"^([a-z_]+)(?:\{(.*)\})? ([^ ]+)$", re.M)
_LABEL = re.compile(r'([a-z_]+)="([^"]*)"')


async def look(world: World) -> None:
    """Status, explanations, readiness and metrics are held against the reference."""
    operations = world.supervisor.operations
    status = await world.within(operations.status())
    services = world.services()
    sure: dict[str, bool | None] = {}
    for name, service in services.items():
        found = [bool(reading.may_see(PLAIN)) for reading in service.readings]
        sure[name] = True if all(found) else False if not any(found) else None
    ready = operations.readyz()[0]
    if ready != status.ready:
        world.violate("4 told", "/readyz and status differ")
    if ready and all(each is False for each in sure.values()):
        world.violate("4 told", "/readyz says ready, while no service can serve")
    if not ready and any(sure.values()) and not world.found.may_be_waited_for():
        world.violate("4 told", f"/readyz says {operations.readyz()[1]!r}, while {sure} can serve")
    for view in status.services:
        _look_at_service(world, view, services[view.name])
        explained = await world.within(operations.explain(view.name))
        served = "no ready target" not in explained.summary and "503" not in explained.summary
        if sure[view.name] is not None and served != sure[view.name]:
            world.violate("4 told", f"explain {view.name}: {explained.summary!r}, but served: {sure[view.name]}")
    for name, plan in world.plan.services.items():
        for pool, targets in plan.pools.items():
            for target in targets:
                await _explain(world, f"{name}/{pool}/{target.address}", services[name], pool)
    for track in world.remembered():
        await _explain_request(world, track)
    await metrics(world)


async def _explain_request(world: World, track: Track) -> None:
    """`lb explain REQUEST-ID` says what became of a request: its service, and who answered it with which status."""
    from lb.core.refusals import Refused

    answer = track.answer
    assert answer is not None
    told = f"explain of {track.wish} (#{track.wish.number}, {answer.status})"
    try:
        explained = await world.within(world.supervisor.operations.explain(answer.request_id))
    except Refused as refused:
        world.violate("4 told", f"{told}: {refused.detail}")
        return
    text = "\n".join((explained.summary, *explained.lines))
    who = f"service {track.service}," if answer.ours else world.spelled(answer.backend)
    if who not in text or f"answered {answer.status} " not in text:
        world.violate("4 told", f"{told}: {text!r}")


def _look_at_service(world: World, view: object, service: reference.Service) -> None:
    for pool in view.pools:  # type: ignore[attr-defined]
        known = {target.address: target for target in service.pools[pool.name]}
        for target in pool.targets:
            is_so = known[target.id.rpartition("/")[2]]
            if is_so.ready is None:
                continue
            address = is_so.address
            in_service = target.state in ("ready", "slow_start")
            if in_service != (bool(is_so.ready) and not is_so.out):
                world.violate("4 told", f"status says {target.id} is {target.state}, the reference: {is_so}")
            if target.draining != (address in world.drained):
                world.violate("4 told", f"status: {target.id} draining {target.draining}")


async def _explain(world: World, id: str, service: reference.Service, pool: str) -> None:
    target = next(target for target in service.pools[pool] if target.address == id.rpartition("/")[2])
    offered = any(target.address in reading.offered(pool) for reading in service.readings)
    explained = await world.within(world.supervisor.operations.explain(id))
    if "gets traffic" in explained.summary and not offered:
        world.violate("4 told", f"{explained.summary!r}, but {target}")


async def metrics(world: World) -> None:
    """The metrics: who is ready, how many requests there were, nothing in flight that is not, no series too many."""
    text = (await world.within(world.supervisor.operations.metrics())).decode()
    totals: Counter[str] = Counter()
    in_flight = 0.0
    pools: set[tuple[str, str]] = set()
    for name, labels, value in _SAMPLE.findall(text):
        told = dict(_LABEL.findall(labels))
        if "pool" in told:
            pools.add((told["service"], told["pool"]))
        if name == "lb_requests_total":
            totals[told["service"]] += int(float(value))
        elif name == "lb_requests_in_flight":
            in_flight += float(value)
        elif name == "lb_target_ready" and told["target"] != "none":
            _ready(world, told, value == "1.0")
    if not world.tracks and in_flight and CLOCK.now > world.busy_until:
        world.violate("4 told", f"metrics: {in_flight:g} requests in flight, there are none")
    under_way = Counter(track.service for track in world.tracks.values())
    for service in world.plan.services:
        most = world.counted.get(service, 0) + world.perhaps.get(service, 0) + under_way[service]
        least = world.counted.get(service, 0) if world.counted_exactly else 0
        if not least <= totals[service] <= most:
            world.violate("4 told", f"lb_requests_total of {service}: {totals[service]}, clients: {least} to {most}")
    if world.is_quiet:
        configured = {(name, pool) for name, service in world.plan.services.items() for pool in service.pools}
        gone = {(name, pool) for name, pool in pools - configured if pool not in ("none", "removed")}
        if gone:
            world.violate("6 nothing is left", f"series of pools that are gone: {sorted(gone)}")
        # From now on each request is known again, whatever was lost with those that were killed.
        world.counted = dict(totals)
        world.perhaps.clear()
        world.counted_exactly = True


def _ready(world: World, told: dict[str, str], ready: bool) -> None:
    service = world.services().get(told["service"])
    for target in service.pools.get(told["pool"], ()) if service else ():
        if target.address == told["target"] and target.ready is not None and target.can_serve != ready:
            world.violate("4 told", f"lb_target_ready of {told['target']}: {ready}, the reference: {target}")


async def rest(world: World) -> None:
    """Everything comes to its end; then nothing may be left of it."""
    for client in world.clients:
        if client.idle:
            client.close()
    await asyncio.sleep(8.0)
    world.excuse("client")
    for client in world.clients:
        client.close()
    world.check()
    await asyncio.sleep(RETIRED)
    world.check()
    asleep = [client for since, client in world.sleepers if client.open and since > CLOCK.now - 61.0 - RETIRED]
    for worker in world.workers:
        plane = worker.plane
        where = f"worker {worker.number}"
        if len(plane.clients) > len(asleep):
            world.violate("6 nothing is left", f"{where}: {len(plane.clients)} connections of clients")
        busy = [exchange for client in plane.clients if (exchange := client.exchange) is not None]
        busy += [exchange for client in plane.front.multiplexed for exchange in client.exchanges()]
        if asleep:
            continue
        if plane.live.copies or plane.context.tunnels or plane.connector.tasks or busy:
            world.violate(
                "6 nothing is left",
                f"{where}: {len(plane.live.copies)} copies, {len(plane.connector.tasks)} tasks, {len(busy)} requests",
            )
        for lane in plane.lanes.values():
            if lane.in_flight or lane.active or lane.waiters:
                world.violate(
                    "6 nothing is left", f"{where}: {lane.id}: {lane.in_flight} in flight, {lane.active} active"
                )
            links = getattr(lane, "links", ())
            if len(lane.connections) or links:
                world.violate(
                    "6 nothing is left", f"{where}: {lane.id}: {len(lane.connections) + len(links)} connections"
                )
        for service in plane.services.values():
            if service.in_flight or service.waiting:
                world.violate("6 nothing is left", f"{where}: {service.name}: {service.in_flight} in flight")
        if plane.front.per_client:
            world.violate("6 nothing is left", f"{where}: connections are counted for {plane.front.per_client}")
    world.is_quiet = not asleep and not world.tracks and world.supervisor is not None
    if world.is_quiet:
        await metrics(world)
        world.is_quiet = False


def memory(world: World) -> None:
    """What waits for clients that do not read is bounded."""
    for worker in world.workers:
        for client in worker.plane.clients:
            transport = client.transport
            size = transport.get_write_buffer_size() if transport is not None else 0
            if client in worker.plane.front.multiplexed:
                size += client.wire.pending_size
            if size > BUFFERED:
                world.violate("6 bounded", f"{size >> 10} KiB wait for one client")


def queues(world: World) -> None:
    """No request waits while a target of its pool has room, or for a pool that may no longer see it."""
    if world.orders or world.supervisor is None:
        return
    for worker in world.workers:
        plane = worker.plane
        if plane.behind or plane.front.draining:
            continue
        for service in plane.services.values():
            limit = service.rules.breaker.connections
            for exchange in service.waiting:
                where = f"worker {worker.number}: {exchange} waits for {service.name}/{exchange.pool.name}"
                members = [lane for lane in exchange.pool.members if lane not in exchange.tried]
                free = [lane.id for lane in members if lane.active < limit]
                # A client that is logged in waits for its own connection, and holds up nobody.
                if free and exchange.client.private is None:
                    world.violate("3 in time", f"{where}, while {free} have room")
                allowed = world.allowed_now(int(exchange.head.path.rpartition(b"/")[2]))
                addresses = {f"{lane.target.host}:{lane.target.port}" for lane in exchange.pool.members}
                if allowed is not None and not allowed & addresses:
                    world.violate("1 ready and allowed", f"{where}, allowed: {sorted(allowed)}")
