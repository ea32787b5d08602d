"""Targets given by name: requests go to an address that passed its probe, and to no other one.

The look-ups are the test's own, the targets are real servers on 127.0.0.1, 127.0.0.2 and so on, at one port.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from lb.core.checks import Checks, CheckSpec
from lb.core.lifecycle import in_rotation
from lb.core.targets import Target
from lb.health.addresses import order
from lb.health.monitor import Monitor
from lb.net import resolver
from tests.health.conftest import Backend, Watcher, ok
from tests.support.eventually_async import eventually
from tests.support.ports import free_port

HTTP = CheckSpec(protocol="http", path="/ready", interval=0.05, timeout=1.0, rise=2, fall=3, grace=0.0)
SICK = ok(b"", b"503 Service Unavailable")
ONE, TWO, THREE = "127.0.0.1", "127.0.0.2", "127.0.0.3"


class Stage:
    """A name, what it resolves to, and servers on its addresses."""

    def __init__(self) -> None:
        self.answers: tuple[str, ...] = (ONE, TWO)
        self.port = free_port()
        self.moves: list[tuple[tuple[str, ...], tuple[str, ...]]] = []
        self.servers: dict[str, Backend] = {}
        self.target = Target(f"app/blue/web.test:{self.port}", "app", "blue", "web.test", self.port)
        self.watcher = Watcher(look_up=self.look_up, on_address=self.on_address)

    def look_up(self, host: str) -> tuple[str, ...]:
        if not self.answers:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return self.answers

    def on_address(self, target: str, before: tuple[str, ...], after: tuple[str, ...]) -> None:
        self.moves.append((before, after))

    async def serve(self, address: str, script: bytes = b"") -> Backend:
        server = await Backend(script or ok()).start(self.port, address)
        self.servers[address] = server
        return server

    @property
    def monitor(self) -> Monitor:
        return self.watcher.monitor

    @property
    def in_use(self) -> tuple[str, ...]:
        return self.monitor.addresses.get(self.target.id, ())

    @property
    def ready(self) -> bool:
        return in_rotation(self.monitor.health(self.target.id))


@pytest.fixture
async def stage(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Stage]:
    monkeypatch.setattr(resolver, "FRESH", 0.05)
    monkeypatch.setattr(resolver, "TICK", 0.02)
    made = Stage()
    await made.monitor.start()
    yield made
    await made.monitor.close()
    for server in made.servers.values():
        await server.stop()


@pytest.mark.parametrize("sick", [ONE, TWO], ids=["the first", "the second"])
@pytest.mark.parametrize("protocol", ["http", "tcp"])
async def test_of_two_addresses_the_one_that_passes_has_the_traffic(stage: Stage, sick: str, protocol: str):
    good = TWO if sick == ONE else ONE
    await stage.serve(good)
    if protocol == "http":
        await stage.serve(sick, SICK)  # and at tcp nobody listens there
    stage.watcher.watch((stage.target, replace(HTTP, protocol=protocol)))
    await eventually(lambda: stage.ready)
    assert stage.in_use == (good,)
    probes = len(stage.watcher.probes)
    await eventually(lambda: len(stage.watcher.probes) > probes + 6)
    assert stage.in_use == (good,) and stage.ready
    assert all(verdict.ok for _, _, verdict in stage.watcher.probes), "the sick address is no failure of the target"


async def test_with_two_that_pass_the_first_keeps_the_traffic_until_it_fails(stage: Stage):
    first, second = await stage.serve(ONE), await stage.serve(TWO)
    stage.watcher.watch((stage.target, HTTP))
    await eventually(lambda: stage.ready and len(first.asked) > 4)
    assert stage.in_use == (ONE,) and not second.asked
    stage.answers = (TWO, ONE)  # a resolver that turns its answers round moves nothing
    await asyncio.sleep(0.2)
    assert stage.in_use == (ONE,)
    first.script = SICK
    await eventually(lambda: stage.in_use == (TWO,))
    assert stage.ready and not any(not in_rotation(after) for _, _, after, _ in stage.watcher.changes)
    [moved] = [verdict for _, _, verdict in stage.watcher.probes if ONE in verdict.text]
    assert moved.ok and f"at {TWO}" in moved.text and "503" in moved.text


async def test_when_every_address_fails_the_target_is_out_and_the_probe_names_them(stage: Stage):
    first, second = await stage.serve(ONE), await stage.serve(TWO)
    stage.watcher.watch((stage.target, HTTP))
    await eventually(lambda: stage.ready)
    first.script = second.script = SICK
    await eventually(lambda: not stage.ready)
    assert ONE in stage.watcher.texts(stage.target)[-1] and TWO in stage.watcher.texts(stage.target)[-1]
    second.script = ok()
    await eventually(lambda: stage.ready)
    assert stage.in_use == (TWO,)


async def test_an_address_that_hangs_costs_one_timeout_not_the_target(stage: Stage):
    async def hangs(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    await stage.serve(TWO)
    (await stage.serve(ONE)).script = hangs
    stage.watcher.watch((stage.target, replace(HTTP, timeout=0.3)))
    await eventually(lambda: stage.ready)
    assert stage.in_use == (TWO,)


async def test_more_addresses_that_hang_than_one_probe_has_time_for_are_all_asked_in_the_end(stage: Stage):
    async def hangs(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    stage.answers = ("127.0.0.4", "127.0.0.5", ONE, TWO, THREE)
    for address in stage.answers:
        (await stage.serve(address)).script = hangs if address != THREE else ok()
    stage.watcher.watch((stage.target, replace(HTTP, timeout=0.2)))
    await eventually(lambda: stage.ready)
    assert stage.in_use == (THREE,)


async def test_a_dead_ipv6_address_beside_a_live_ipv4_one(stage: Stage):
    stage.answers = ("2001:db8::1", ONE)
    await stage.serve(ONE)
    stage.watcher.watch((stage.target, HTTP))
    await eventually(lambda: stage.ready)
    assert stage.in_use == (ONE,)


async def test_a_name_that_moves_takes_the_traffic_along_once_the_new_address_passes(stage: Stage):
    stage.answers = (ONE,)
    await stage.serve(ONE)
    fresh = await stage.serve(TWO, SICK)
    stage.watcher.watch((stage.target, HTTP))
    await eventually(lambda: stage.ready)
    stage.answers = (TWO,)
    await eventually(lambda: len(fresh.asked) > 3)
    assert stage.in_use == (ONE,) and stage.ready, "the new address has not passed, and the old one does"
    fresh.script = ok()
    await eventually(lambda: stage.in_use == (TWO,))
    assert stage.moves == [((), (ONE,)), ((ONE,), (TWO,))]
    old = len(stage.servers[ONE].asked)
    await eventually(lambda: len(fresh.asked) > 12)
    assert len(stage.servers[ONE].asked) <= old + 1


async def test_after_a_move_the_old_address_is_of_no_use_once_it_fails(stage: Stage):
    stage.answers = (ONE,)
    old = await stage.serve(ONE)
    stage.watcher.watch((stage.target, HTTP))
    await eventually(lambda: stage.ready)
    stage.answers = (TWO,)
    old.script = SICK
    await eventually(lambda: not stage.ready)
    await stage.serve(TWO)
    await eventually(lambda: stage.ready)
    assert stage.in_use == (TWO,)


async def test_a_name_that_resolves_no_more_serves_on_while_its_address_passes(stage: Stage):
    first = await stage.serve(ONE)
    stage.watcher.watch((stage.target, HTTP))
    await eventually(lambda: stage.ready)
    stage.answers = ()
    asked = len(first.asked)
    await eventually(lambda: len(first.asked) > asked + 8)
    assert stage.ready and stage.in_use == (ONE,)


async def test_a_name_that_does_not_resolve_yet_is_not_ready_and_says_so(stage: Stage):
    stage.answers = ()
    await stage.serve(ONE)
    stage.watcher.watch((stage.target, HTTP))
    await eventually(lambda: len(stage.watcher.probes) > 2)
    assert not stage.ready and stage.in_use == ()
    assert stage.watcher.probes[-1][2].kind == "dns" and "web.test" in stage.watcher.texts(stage.target)[-1]
    stage.answers = (ONE,)
    await eventually(lambda: stage.ready)


async def test_liveness_asks_the_address_that_has_the_traffic(stage: Stage):
    await stage.serve(ONE, SICK)
    await stage.serve(TWO)
    alive = replace(HTTP, path="/live", interval=0.05)
    stage.watcher.watch((stage.target, Checks(readiness=HTTP, liveness=alive)))
    await eventually(lambda: stage.ready)
    before = len(stage.servers[ONE].asked)
    await eventually(lambda: sum(b"/live" in asked for asked in stage.servers[TWO].asked) > 4)
    assert not any(b"/live" in asked for asked in stage.servers[ONE].asked[before:])


async def test_a_changed_check_on_trial_moves_no_traffic(stage: Stage):
    async def old_path_only(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(ok() if b" /ready " in await reader.readuntil(b"\r\n\r\n") else SICK)

    (await stage.serve(ONE)).script = old_path_only
    second = await stage.serve(TWO)
    stage.watcher.watch((stage.target, HTTP))
    await eventually(lambda: stage.ready)
    stage.watcher.watch((stage.target, replace(HTTP, path="/other")))
    await eventually(lambda: stage.watcher.notices)
    assert stage.in_use == (ONE,) and stage.ready and not second.asked


async def test_a_target_that_is_not_probed_has_all_addresses_of_its_name(stage: Stage):
    stage.watcher.watch((stage.target, CheckSpec(protocol="none")))
    await eventually(lambda: stage.in_use == (ONE, TWO))
    stage.answers = (THREE,)
    await eventually(lambda: stage.in_use == (THREE,))
    await stage.serve(THREE)
    stage.answers = (TWO, THREE)
    await eventually(lambda: stage.in_use == (TWO, THREE))
    stage.watcher.watch((stage.target, HTTP))  # from now on it is probed
    await eventually(lambda: stage.in_use == (THREE,))


async def test_a_check_that_goes_to_another_host_decides_on_no_address(stage: Stage):
    side = await stage.serve(ONE)
    elsewhere = replace(HTTP, host=ONE, port=side.port)
    stage.watcher.watch((stage.target, elsewhere))
    await eventually(lambda: stage.ready and stage.in_use == (ONE, TWO))


async def test_a_command_is_given_the_address(stage: Stage, tmp_path):
    log = tmp_path / "asked"
    script = f'echo "$LB_TARGET_HOST $LB_TARGET_ADDRESS" >> {log}; test "$LB_TARGET_ADDRESS" = {TWO}'
    spec = replace(HTTP, protocol="command", command=("/bin/sh", "-c", script), timeout=20.0)
    stage.watcher.watch((stage.target, spec))
    await eventually(lambda: stage.ready, within=30.0)
    assert stage.in_use == (TWO,)
    assert log.read_text().splitlines()[:2] == [f"web.test {ONE}", f"web.test {TWO}"]
    assert os.environ.get("LB_TARGET_ADDRESS") is None


async def test_a_verdict_that_outlives_a_restart_is_one_on_its_address(stage: Stage):
    await stage.serve(TWO)
    stage.watcher.watch((stage.target, HTTP))
    await eventually(lambda: stage.ready)
    kept = stage.monitor.keep()
    assert [each.address for each in kept] == [TWO]
    later = Watcher(look_up=lambda host: (ONE, TWO))
    later.watch((stage.target, HTTP))
    assert later.monitor.restore(kept) == [stage.target.id]
    assert later.monitor.addresses[stage.target.id] == (TWO,)
    await later.monitor.close()


def test_the_order_in_which_addresses_are_asked():
    assert order(("a", "b", "c"), "", 0) == ["a", "b", "c"]
    assert order(("a", "b", "c"), "b", 0) == ["b", "a", "c"]
    assert order(("a", "b", "c"), "b", 1) == ["b", "c", "a"], "each of the others comes second in some probe"
    assert order(("c", "d"), "a", 0) == ["c", "a", "d"], "after a move the old one is asked second"
    assert order((), "a", 3) == ["a"]
    assert order((), "", 3) == []
