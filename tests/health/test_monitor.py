"""The monitor against real sockets: first probes, readiness gating, timing, updates."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from lb.core.checks import CheckSpec
from lb.core.lifecycle import Drain, Undrain, Verdict, in_rotation
from lb.core.targets import Target
from lb.health import monitor as monitor_module
from tests.health.conftest import Watcher, ok
from tests.support.eventually_async import eventually

HTTP = CheckSpec(protocol="http", path="/health", interval=0.05, timeout=1.0, rise=2, fall=3, grace=0.0)
TCP = CheckSpec(protocol="tcp", interval=0.05, timeout=1.0, grace=0.0)


@pytest.mark.timing
async def test_first_probes_go_out_at_once_and_side_by_side(watcher: Watcher, backend):
    """Traefik waits one interval and asks one after another: a hung target delays all others."""

    async def hang(reader, writer):
        await reader.read()

    hung = await backend(hang)
    good = [await backend() for _ in range(10)]
    slow = replace(HTTP, interval=60.0, timeout=5.0)
    watcher.watch((hung.target(), slow), *[(each.target(), slow) for each in good])
    ids = [each.target().id for each in good]
    await eventually(lambda: all(watcher.monitor.health(target).probe == "ready" for target in ids), within=1.0)
    assert watcher.monitor.health(hung.target().id).probe == "starting"


async def test_no_rotation_before_the_first_passed_check(watcher: Watcher, backend):
    gate = asyncio.Event()

    async def later(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        await gate.wait()
        writer.write(ok())

    server = await backend(later)
    target = server.target()
    watcher.watch((target, HTTP))
    await eventually(lambda: server.connections == 1)
    assert not in_rotation(watcher.monitor.health(target.id))
    gate.set()
    await eventually(lambda: in_rotation(watcher.monitor.health(target.id)))
    assert len(watcher.monitor.history(target.id)) == 1  # one pass, although rise is 2


async def test_leaves_after_fall_and_returns_after_rise(watcher: Watcher, backend):
    server = await backend()
    target = server.target()
    watcher.watch((target, HTTP))
    await eventually(lambda: in_rotation(watcher.monitor.health(target.id)))
    server.script = ok(b"no", b"503 Service Unavailable")
    await eventually(lambda: not in_rotation(watcher.monitor.health(target.id)))
    history = watcher.monitor.history(target.id)
    assert [seen.verdict.ok for seen in history][-3:] == [False] * 3
    assert "HTTP 503, expected 200-299" in history[-1].verdict.text
    assert "HTTP/1.1 503 Service Unavailable\nno" in history[-1].verdict.got
    server.script = ok()
    await eventually(lambda: in_rotation(watcher.monitor.health(target.id)))
    assert [seen.verdict.ok for seen in watcher.monitor.history(target.id)][-2:] == [True] * 2
    entered = [effects for _, _, after, effects in watcher.changes if any(e.kind == "enter" for e in effects)]
    assert len(entered) == 2


async def test_tcp_check_follows_the_listener(watcher: Watcher, backend):
    server = await backend()
    target = server.target()
    watcher.watch((target, TCP))
    await eventually(lambda: in_rotation(watcher.monitor.health(target.id)))
    await server.stop()
    await eventually(lambda: watcher.monitor.health(target.id).probe == "unready")
    assert watcher.monitor.health(target.id).text == f"connection refused by 127.0.0.1:{server.port}"
    await server.start(server.port)
    await eventually(lambda: in_rotation(watcher.monitor.health(target.id)))


async def test_unprobed_target_is_ready_at_once(watcher: Watcher):
    target = Target("app/blue/127.0.0.1:1", "app", "blue", "127.0.0.1", 1)
    watcher.watch((target, CheckSpec(protocol="none")))
    assert in_rotation(watcher.monitor.health(target.id))
    assert watcher.monitor.history(target.id) == ()
    assert not watcher.probes


async def test_unchanged_targets_keep_their_verdict_over_an_update(watcher: Watcher, backend):
    """Traefik #13218: every reload marks all targets up for one interval."""
    up, down = await backend(), await backend(ok(b"", b"500 Oops"))
    watcher.watch((up.target(), HTTP), (down.target(), HTTP))
    await eventually(lambda: watcher.monitor.health(down.target().id).probe == "unready")
    before = watcher.monitor.health(up.target().id), watcher.monitor.health(down.target().id)
    watcher.watch((up.target(), replace(HTTP, interval=0.1)), (down.target(), HTTP))
    assert (watcher.monitor.health(up.target().id), watcher.monitor.health(down.target().id)) == before


async def test_a_probe_cancelled_by_an_update_is_no_failure(watcher: Watcher, backend):
    """Caddy PR#7625: the reload cancelled the probe, and it counted as a failure."""

    async def hang(reader, writer):
        await reader.read()

    server = await backend(hang)
    target = server.target()
    watcher.watch((target, replace(HTTP, timeout=30.0)))
    await eventually(lambda: server.connections == 1)
    watcher.watch((target, replace(HTTP, path="/other", timeout=30.0)))
    await eventually(lambda: server.connections == 2)
    watcher.watch()
    await eventually(lambda: server.open_now == 0)
    assert watcher.probes == []
    assert watcher.changes == []


async def test_a_removed_target_is_not_probed_any_more(watcher: Watcher, backend):
    stays, goes = await backend(), await backend()
    watcher.watch((stays.target(), HTTP), (goes.target(), HTTP))
    await eventually(lambda: goes.connections >= 2)
    watcher.watch((stays.target(), HTTP))
    assert goes.target().id not in watcher.monitor.healths
    seen, others = goes.connections, stays.connections
    await eventually(lambda: stays.connections >= others + 3)
    assert goes.connections <= seen + 1  # the one under way


class AtOnce:
    """A probe that waits for nothing: its verdict is there before anybody has heard of it."""

    where = asked = expected = ""

    def begin(self, timeout: float, told: object, at: str = "") -> None:
        return None

    async def run(self, at: str = "") -> Verdict:
        return Verdict(True, 0.0, "passed at once", "passed")

    def timed_out(self, seconds: float) -> Verdict:
        raise AssertionError(seconds)


@pytest.mark.parametrize("turns", [0, 1, 2, 3])
async def test_what_is_found_of_a_target_that_was_just_taken_away_counts_for_nothing(
    backend, turns: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    """Whoever waits for it hears that it was broken off, and the room that the probe took is free again."""
    monkeypatch.setattr(monitor_module, "PROGRAMS", 1)
    watcher = Watcher()
    await watcher.monitor.start()
    spec = CheckSpec(protocol="command", command=("sleep", "60"), interval=60.0)
    target = (await backend()).target()
    trouble: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: trouble.append(context))
    with monkeypatch.context() as patched:
        patched.setattr(monitor_module, "build", lambda target, spec, dialer: AtOnce())
        watcher.watch((target, spec))
    asking = asyncio.ensure_future(watcher.monitor.probe_now(target.id))
    await asyncio.sleep(0)  # it is under way
    for _ in range(turns):
        await asyncio.sleep(0)
    watcher.watch()
    verdict = await asking
    assert verdict.ok == bool(watcher.probes)
    assert verdict.ok or (verdict.ignored and verdict.text.startswith("broken off: "))
    assert not trouble
    lock, both = tmp_path / "lock", tmp_path / "both"
    spec = replace(spec, command=("/bin/sh", "-c", f"mkdir {lock} || touch {both}; sleep 0.1; rmdir {lock}"))
    watcher.probes.clear()
    watcher.watch(*[(replace(target, id=f"app/blue/{number}"), spec) for number in range(2)])
    await eventually(lambda: len(watcher.probes) == 2, what="there is room for one")
    assert not both.exists(), "there is room for no more than one"
    await watcher.monitor.close()


async def test_a_question_to_an_address_needs_no_task(watcher: Watcher, backend):
    async def never(reader, writer):
        await reader.read()

    servers = [await backend(never) for _ in range(20)]
    before = asyncio.all_tasks()
    watcher.watch(*[(server.target(), replace(HTTP, timeout=30.0)) for server in servers])
    await eventually(lambda: all(server.open_now for server in servers))
    new = {str(task.get_coro()) for task in asyncio.all_tasks() - before}
    assert not [name for name in new if "_serve" not in name]  # the servers' own


async def test_same_address_in_two_pools_is_two_targets(watcher: Watcher, backend):
    """Caddy #7870: two checks on one address share a verdict there."""

    async def by_path(reader, writer):
        request = await reader.readuntil(b"\r\n\r\n")
        writer.write(ok() if b" /good " in request else ok(b"", b"503 No"))

    server = await backend(by_path)
    good, bad = server.target(pool="blue"), server.target(pool="green")
    watcher.watch((good, replace(HTTP, path="/good")), (bad, replace(HTTP, path="/bad")))
    await eventually(lambda: watcher.monitor.health(bad.id).probe == "unready")
    assert in_rotation(watcher.monitor.health(good.id))


async def test_no_probe_overlaps_itself(watcher: Watcher, backend):
    async def slow(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        await asyncio.sleep(0.06)
        writer.write(ok())

    server = await backend(slow)
    watcher.watch((server.target(), replace(HTTP, interval=0.01)))
    await eventually(lambda: len(watcher.probes) >= 5)
    assert server.most_open == 1


async def test_a_listener_that_raises_does_not_stop_the_checks(backend):
    calls = []

    def broken(*probe):
        calls.append(probe)
        raise RuntimeError("a bug elsewhere")

    watcher = Watcher(on_probe=broken)
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: None)
    await watcher.monitor.start()
    server = await backend()
    watcher.watch((server.target(), HTTP))
    await eventually(lambda: len(calls) >= 3)
    await watcher.monitor.close()


async def test_probe_now_counts_and_shows_what_was_asked(watcher: Watcher, backend):
    server = await backend(ok(b"not yet", b"503 Service Unavailable"))
    target = server.target()
    watcher.watch((target, replace(HTTP, interval=60.0)))
    await eventually(lambda: len(watcher.probes) == 1)
    server.script = ok()
    verdict = await watcher.monitor.probe_now(target.id)
    assert verdict.ok and verdict.got == "HTTP/1.1 200 OK\nok"
    assert in_rotation(watcher.monitor.health(target.id))
    asked = watcher.monitor.asked(target.id)
    assert asked.startswith(f"127.0.0.1:{server.port}\nGET /health HTTP/1.1\nHost: 127.0.0.1:{server.port}\n")
    assert "User-Agent: lb-health/" in asked and "Connection: close" in asked
    assert watcher.monitor.expected(target.id) == "status 200-299, within 1 s"


async def test_draining_is_remembered_beside_the_probes(watcher: Watcher, backend):
    """`test_undrain_remembers_probes`: undraining a target that failed meanwhile finds it unready."""
    server = await backend()
    target = server.target()
    watcher.watch((target, HTTP))
    await eventually(lambda: in_rotation(watcher.monitor.health(target.id)))
    watcher.monitor.feed(target.id, Drain())
    server.script = ok(b"", b"500 Oops")
    await eventually(lambda: watcher.monitor.health(target.id).probe == "unready")
    watcher.monitor.feed(target.id, Undrain())
    assert not in_rotation(watcher.monitor.health(target.id))
