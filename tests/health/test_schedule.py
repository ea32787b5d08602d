"""The schedule: many targets on time, hung ones in nobody's way, bounded numbers at one time."""

from __future__ import annotations

import asyncio
import itertools
import random
import subprocess
import sys
import time
import weakref
from dataclasses import replace

import pytest

from lb.core.checks import CheckSpec
from lb.core.detection import detection
from lb.core.lifecycle import in_rotation
from lb.core.targets import Target
from lb.health import monitor as monitor_module
from lb.health.schedule import Schedule
from tests.health.conftest import Watcher, never_late, ok, waited_for_a_processor
from tests.support.eventually_async import eventually
from tests.support.processes import alive

HTTP = CheckSpec(protocol="http", path="/health", interval=0.1, timeout=0.5, rise=2, fall=3, grace=0.0)


async def hang(reader, writer):
    await reader.read()
    await asyncio.sleep(30)


# --- the heap --------------------------------------------------------------------------------------------------------


async def test_items_run_in_order_once_and_not_when_dropped():
    ran: list[str] = []
    schedule: Schedule[str] = Schedule(time.monotonic, lambda item, due: ran.append(item))
    now = time.monotonic()
    schedule.set("c", now + 0.03)
    schedule.set("a", now + 0.01)
    schedule.set("dropped", now + 0.02)
    schedule.set("b", now + 5.0)
    schedule.set("b", now + 0.02)  # anew: the time before does not count any more
    schedule.drop("dropped")
    schedule.start()
    await eventually(lambda: len(ran) == 3)
    await asyncio.sleep(0.02)
    assert ran == ["a", "b", "c"]
    schedule.close()


async def test_an_item_that_cannot_be_started_ends_no_other(monkeypatch):
    monkeypatch.setattr("lb.health.schedule.AGAIN", 0.02)
    ran: list[str] = []

    def run(item: str, due: float) -> None:
        ran.append(item)
        if ran == ["broken"]:
            raise KeyError(item)

    schedule: Schedule[str] = Schedule(time.monotonic, run)
    now = time.monotonic()
    schedule.set("broken", now)
    schedule.set("sound", now + 0.01)
    schedule.start()
    await eventually(lambda: ran == ["broken", "sound", "broken"])
    schedule.close()


async def test_an_earlier_item_wakes_the_schedule_earlier():
    ran: list[str] = []
    schedule: Schedule[str] = Schedule(time.monotonic, lambda item, due: ran.append(item))
    schedule.start()
    schedule.set("late", time.monotonic() + 60.0)
    schedule.set("soon", time.monotonic() + 0.01)
    await eventually(lambda: ran == ["soon"])  # not after 60 s
    schedule.close()


async def test_the_heap_does_not_grow_with_dropped_items():
    class Item:
        pass

    schedule: Schedule[Item] = Schedule(time.monotonic, lambda item, due: None)
    held: weakref.WeakSet[Item] = weakref.WeakSet()
    for _ in range(10_000):
        item = Item()
        held.add(item)
        schedule.set(item, time.monotonic() + 60.0)
        schedule.drop(item)
    assert len(held) <= 65


# --- probes on it ----------------------------------------------------------------------------------------------------


@pytest.mark.timing
async def test_the_interval_is_kept_from_start_to_start_and_never_exceeded(watcher: Watcher, backend):
    """A slow answer does not stretch the interval; jitter only shortens it."""

    async def slow(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        await asyncio.sleep(0.05)
        writer.write(ok())

    server = await backend(slow)
    watcher.watch((server.target(), replace(HTTP, interval=0.1, jitter=0.2)))
    await eventually(lambda: len(server.at) > 12)
    gaps = [later - earlier for earlier, later in zip(server.at[1:], server.at[2:], strict=False)]
    mean = sum(gaps) / len(gaps)
    assert 0.075 < mean < 0.105
    assert len({round(gap, 3) for gap in gaps}) > 3  # they do differ


@pytest.mark.timing
async def test_targets_that_start_together_do_not_stay_together(watcher: Watcher, backend):
    server = await backend()
    targets = [replace(server.target(), id=f"app/blue/{number}") for number in range(40)]
    watcher.watch(*[(target, replace(HTTP, interval=1.0)) for target in targets])
    await eventually(lambda: server.connections >= 80, within=3.0)
    second = sorted(at - server.at[0] for at in server.at[40:80])
    assert second[-1] - second[0] > 0.4


@pytest.mark.timing
async def test_interval_by_state_on_the_wire(watcher: Watcher, backend):
    """Slow while all is well, fast in doubt, another pace while out."""
    server = await backend()
    target = server.target()
    spec = replace(HTTP, interval=0.4, fast_interval=0.05, down_interval=0.2, jitter=0.0, fall=4)
    watcher.watch((target, spec))
    await eventually(lambda: len(watcher.monitor.history(target.id)) >= 2)
    server.script = ok(b"", b"503 No")
    await eventually(lambda: watcher.monitor.health(target.id).probe == "unready")
    await eventually(lambda: sum(not seen.verdict.ok for seen in watcher.monitor.history(target.id)) >= 6)
    failed = [seen.at for seen in watcher.monitor.history(target.id) if not seen.verdict.ok]
    gaps = [later - earlier for earlier, later in itertools.pairwise(failed)]
    assert all(gap < 0.12 for gap in gaps[:3])
    assert all(0.15 < gap < 0.3 for gap in gaps[3:5])


@pytest.mark.timing
async def test_hung_targets_delay_nobody(watcher: Watcher, backend):
    """Traefik probes one after another: one hung server delays all others by its time-out."""
    hung = await backend(hang)
    good = await backend()
    others = [replace(hung.target(), id=f"app/blue/hung{number}") for number in range(200)]
    watcher.watch(*[(target, replace(HTTP, timeout=2.0)) for target in others], (good.target(), HTTP))
    await never_late(good, HTTP, 15)


@pytest.mark.timing
async def test_programs_are_bounded_and_hung_ones_hold_up_no_other_kind(backend, monkeypatch, tmp_path):
    monkeypatch.setattr(monitor_module, "PROGRAMS", 2)
    watcher = Watcher()
    await watcher.monitor.start()
    server = await backend()
    begun = tmp_path / "pids"
    begun.touch()
    script = f"echo $$ >> {begun}; exec sleep 60"
    command = CheckSpec(protocol="command", command=("/bin/sh", "-c", script), interval=0.1, timeout=0.3, grace=0.0)
    slow = [replace(server.target(), id=f"app/blue/c{number}") for number in range(5)]
    watcher.watch(*[(target, command) for target in slow], (server.target(), HTTP))
    side_by_side: set[int] = set()

    def all_had_a_turn() -> bool:
        side_by_side.add(sum(alive(int(pid)) for pid in begun.read_text().split()))
        return {target for target, _, _ in watcher.probes} >= {target.id for target in slow}

    await eventually(all_had_a_turn)
    assert max(side_by_side) <= 2
    await never_late(server, HTTP, 10)
    await watcher.monitor.close()


SERVER = """
import asyncio, uvloop
class Answer(asyncio.Protocol):
    def connection_made(self, transport): self.transport = transport
    def data_received(self, data):
        self.transport.write(b"HTTP/1.1 200 OK\\r\\nContent-Length: 2\\r\\nConnection: close\\r\\n\\r\\nok")
        self.transport.close()
async def main():
    server = await asyncio.get_running_loop().create_server(Answer, "127.0.0.1", 0, backlog=4096)
    print(server.sockets[0].getsockname()[1], flush=True)
    await asyncio.sleep(120)
uvloop.run(main())
"""


@pytest.mark.timing
async def test_two_thousand_targets_start_on_time(watcher: Watcher):
    """2,000 targets at 1 s: probes start within 50 ms of their schedule at p99."""
    server = subprocess.Popen([sys.executable, "-c", SERVER], stdout=subprocess.PIPE, text=True)  # noqa: ASYNC220
    try:
        assert server.stdout is not None
        port = int(server.stdout.readline())
        targets = [Target(f"app/blue/{number}", "app", "blue", "127.0.0.1", port) for number in range(2000)]
        watcher.watch(*[(target, replace(HTTP, interval=1.0, timeout=1.0, jitter=0.1)) for target in targets])
        await eventually(lambda: len(watcher.probes) >= 4000, within=20.0)  # two rounds to settle
        beyond = []
        while not beyond or (min(beyond) >= 0.05 and len(beyond) < 5):
            done, kept_waiting = len(watcher.probes), waited_for_a_processor()
            await eventually(lambda done=done: len(watcher.probes) >= done + 6200, within=60.0)
            late = sorted(watcher.monitor.late())  # of 4,096 starts, which all came in these rounds
            assert len(late) >= 3500
            beyond.append(late[int(len(late) * 0.99)] - (waited_for_a_processor() - kept_waiting))
        assert min(beyond) < 0.05, beyond
        assert all(in_rotation(watcher.monitor.health(target.id)) for target in targets)
    finally:
        server.terminate()
        server.wait()


@pytest.mark.timing
@pytest.mark.parametrize("how", ["down", "hung", "not ready"])
async def test_fifty_detections_lie_between_the_best_and_the_worst_case(watcher: Watcher, backend, how):
    """Each target has a pool of its own: fifty trials at once, each failing at a moment of its own."""
    spec = replace(HTTP, interval=0.3, timeout=0.2, fall=3, fast_interval=0.15)
    times = detection(spec)
    assert times is not None
    servers = [await backend() for _ in range(50)]
    witness = await backend()  # stays well, so that not everything fails at once
    targets = [server.target(pool=f"p{number}") for number, server in enumerate(servers)]
    watcher.watch(*[(target, spec) for target in targets], (witness.target(), spec))
    await eventually(lambda: all(len(watcher.monitor.history(target.id)) >= 2 for target in targets))
    dice, failed = random.Random(11), {}
    for server, target in zip(servers, targets, strict=True):
        if how == "down":
            await server.stop()
        else:
            server.script = hang if how == "hung" else ok(b"", b"503 No")
        failed[target.id] = time.monotonic()
        await asyncio.sleep(0.012 * dice.random())
    await eventually(lambda: not any(in_rotation(watcher.monitor.health(target.id)) for target in targets))
    took = [watcher.monitor.health(target.id).probe_since - failed[target.id] for target in targets]
    slack = 0.1  # two noisy cores
    assert times.best - slack <= min(took)
    assert max(took) <= times.worst + slack
    if how != "hung":
        assert abs(sum(took) / len(took) - times.expected) < 0.12
