"""Failures that are somebody else's: our own stall, a lost network, a busy target; and how long they are doubted."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace

import pytest

from lb.core.checks import CheckSpec
from lb.core.lifecycle import in_rotation
from lb.core.rotation import ServiceRules
from tests.health.conftest import Backend, Watcher, ok
from tests.support.eventually_async import eventually

HTTP = CheckSpec(protocol="http", path="/health", interval=0.1, timeout=0.2, rise=2, fall=2, grace=0.0, jitter=0.0)


async def hang(reader, writer):
    await reader.read()
    await asyncio.sleep(30)


async def watched(watcher: Watcher, backends: list[Backend], spec: CheckSpec, **more) -> list[str]:
    targets = [backend.target() for backend in backends]
    watcher.watch(*[(target, spec) for target in targets], **more)
    ids = [target.id for target in targets]
    await eventually(lambda: all(in_rotation(watcher.monitor.health(each)) for each in ids))
    return ids


async def test_our_own_stall_is_no_failure_of_a_target(watcher: Watcher, backend):
    """Envoy #28699: the checker's event loop lagged, and all targets were called unhealthy."""
    servers = [await backend() for _ in range(3)]
    ids = await watched(watcher, servers, replace(HTTP, fall=1, timeout=0.15))
    for _ in range(5):
        seen = len(watcher.probes)
        await eventually(lambda seen=seen: len(watcher.probes) > seen)
        time.sleep(0.3)  # noqa: ASYNC251 - this is the stall
    await asyncio.sleep(0)
    await eventually(lambda: all(watcher.monitor.history(each)[-1].verdict.ok for each in ids))
    assert all(in_rotation(watcher.monitor.health(each)) for each in ids)
    assert not any(effect.kind == "leave" for _, _, _, effects in watcher.changes for effect in effects)
    assert len(watcher.notices) <= 1  # said once, not for every target


async def test_a_probe_that_a_stall_spoilt_is_said_to_be_and_repeated_at_once(watcher: Watcher, backend):
    gate = asyncio.Event()

    async def slow(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        await gate.wait()
        writer.write(ok())

    server = await backend()
    (target,) = await watched(watcher, [server], replace(HTTP, interval=30.0, timeout=0.4, fall=1))
    server.script = slow
    asking = asyncio.ensure_future(watcher.monitor.probe_now(target))
    await eventually(lambda: server.open_now == 1)
    time.sleep(0.5)  # noqa: ASYNC251
    verdict = await asking
    assert not verdict.ok
    gate.set()
    await eventually(lambda: watcher.monitor.history(target)[-1].verdict.ok)  # not after 30 s
    assert watcher.monitor.history(target)[-2].doubt == "own_fault"
    (notice,) = watcher.notices
    assert notice.text.startswith("our own event loop stood still for 0.")
    assert in_rotation(watcher.monitor.health(target))


@pytest.mark.timing
async def test_all_silent_at_once_keeps_the_last_verdict_for_a_bounded_time(watcher: Watcher, backend):
    servers = [await backend() for _ in range(4)]
    ids = await watched(watcher, servers, replace(HTTP, fall=3), service=ServiceRules(patience=1.5))
    began = time.monotonic()
    for server in servers:
        server.script = hang
    await eventually(lambda: any(notice.scope == "all" and notice.began for notice in watcher.notices))
    assert {notice.cause for notice in watcher.notices} <= {"own_fault", "shared"}
    await asyncio.sleep(max(0.0, began + 1.0 - time.monotonic()))
    assert all(in_rotation(watcher.monitor.health(each)) for each in ids)  # 3 × 0.2 s would have been enough
    await eventually(lambda: not any(in_rotation(watcher.monitor.health(each)) for each in ids), within=4.0)
    for server in servers:
        server.script = ok()
    await eventually(lambda: all(in_rotation(watcher.monitor.health(each)) for each in ids))


@pytest.mark.timing
async def test_all_that_say_they_are_not_ready_are_believed(watcher: Watcher, backend):
    servers = [await backend() for _ in range(4)]
    ids = await watched(watcher, servers, HTTP)
    for server in servers:
        server.script = ok(b"database is gone", b"503 Service Unavailable")
    began = time.monotonic()
    await eventually(lambda: not any(in_rotation(watcher.monitor.health(each)) for each in ids))
    assert time.monotonic() - began < 1.0
    assert any(notice.cause == "shared" and "HTTP 503" in notice.text for notice in watcher.notices)


async def test_a_canary_that_answers_clears_the_checker(watcher: Watcher, backend):
    servers = [await backend() for _ in range(2)]
    canary = await backend()
    spec = replace(HTTP, interval=0.05)
    checks = {server.target().id: spec for server in servers}
    watcher.watch(*[(server.target(), spec) for server in servers], canary=(canary.target("lb", "canary"), spec))
    await eventually(lambda: all(in_rotation(watcher.monitor.health(each)) for each in checks))
    await eventually(lambda: canary.connections > 2)
    await canary.stop()
    for server in servers:
        server.script = hang
    await eventually(
        lambda: any(seen.doubt == "own_fault" for each in checks for seen in watcher.monitor.history(each))
    )
    assert all(in_rotation(watcher.monitor.health(each)) for each in checks)
    assert "lb/canary" not in {target.rpartition("/")[0] for target, _, _ in watcher.probes}


async def test_a_busy_target_gets_less_and_stays(watcher: Watcher, backend):
    """huggingface/dataset-viewer#3422: a busy target fails its probe, its load moves, the next one falls."""
    server, other = await backend(), await backend()
    target, _ = await watched(watcher, [server, other], replace(HTTP, fall=1))
    server.script = hang
    served = 0

    async def traffic() -> None:
        nonlocal served
        while True:
            served += 3
            watcher.monitor.observe(1, target, 20, served)
            await asyncio.sleep(0.02)

    load = asyncio.ensure_future(traffic())
    await eventually(lambda: watcher.monitor.health(target).relief < 0.3)
    health = watcher.monitor.health(target)
    assert (in_rotation(health), health.doubt) == (True, "overloaded")
    server.script = ok()
    await eventually(lambda: watcher.monitor.health(target).relief == 1.0)
    load.cancel()


@pytest.mark.timing
async def test_a_hung_target_with_much_in_flight_is_hung(watcher: Watcher, backend):
    """kill -STOP under load: requests pile up, none is answered."""
    server, other = await backend(), await backend()
    target, _ = await watched(watcher, [server, other], HTTP)
    server.script = hang
    began = time.monotonic()
    while in_rotation(watcher.monitor.health(target)):
        watcher.monitor.observe(1, target, 50, 1000)
        await asyncio.sleep(0.02)
        assert time.monotonic() - began < 0.1 + 0.2 + 0.2 + 0.3  # interval, two time-outs, room for a busy machine


@pytest.mark.timing
async def test_traffic_that_fails_brings_the_next_probe_forward(watcher: Watcher, backend):
    server = await backend()
    (target,) = await watched(watcher, [server], replace(HTTP, interval=30.0))
    await server.stop()
    for _ in range(2):
        seen = len(watcher.probes)
        watcher.monitor.nudge(target)
        watcher.monitor.nudge(target)  # two at once are one
        await eventually(lambda seen=seen: len(watcher.probes) > seen, within=1.0)
    assert not in_rotation(watcher.monitor.health(target))
