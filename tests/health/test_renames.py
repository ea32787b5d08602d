"""Other names for the same addresses: what is known of a target goes along, and only that."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable
from dataclasses import replace

import pytest

from lb.core.checks import Checks, CheckSpec, OnFailure
from lb.core.lifecycle import Drain, Eject, in_rotation, shown
from lb.core.renames import Renames, renames, split_id
from lb.core.targets import Target
from tests.health.conftest import Watcher, ok
from tests.support.eventually_async import eventually

HTTP = CheckSpec(protocol="http", path="/health", interval=0.05, timeout=1.0, rise=2, fall=3, grace=0.0)
SLOW = replace(HTTP, interval=60.0)


def names(old: Iterable[Target], new: Iterable[Target]) -> Renames:
    layouts = []
    for targets in (old, new):
        layout: dict[str, dict[str, list[str]]] = {}
        for target in targets:
            layout.setdefault(target.service, {}).setdefault(target.pool, []).append(split_id(target.id)[2])
        layouts.append(layout)
    return renames(*layouts)


async def test_a_renamed_pool_keeps_health_history_and_the_probe_under_way(watcher: Watcher, backend):
    asked = asyncio.Event()

    async def slowly(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        if asked.is_set():
            await asyncio.sleep(0.3)
        asked.set()
        writer.write(ok())

    server = await backend(slowly)
    was, now = server.target(pool="blue"), server.target(pool="teal")
    watcher.watch((was, HTTP))
    await eventually(lambda: in_rotation(watcher.monitor.health(was.id)))
    await eventually(lambda: server.connections == 2)
    before = watcher.monitor.health(was.id)
    watcher.watch((now, HTTP), names=names([was], [now]))
    assert watcher.monitor.health(now.id) == before
    assert was.id not in watcher.monitor.healths
    assert len(watcher.monitor.history(now.id)) == 1
    await eventually(lambda: len(watcher.monitor.history(now.id)) >= 2)
    assert server.connections <= 3, "the probe under way was not broken off and asked again"
    server.script = ok(b"", b"500 Oops")
    await eventually(lambda: not in_rotation(watcher.monitor.health(now.id)))
    watcher.watch()
    assert not watcher.monitor.healths
    await asyncio.sleep(0.1)


async def test_a_probe_that_outlasts_a_rename_and_fails_is_weighed(watcher: Watcher, backend):
    """Requests that workers had counted under the former name say nothing about the probe."""
    asked = asyncio.Event()

    async def hang(reader, writer):
        asked.set()
        await asyncio.sleep(30.0)

    server = await backend()
    was, now = server.target(pool="blue"), server.target(pool="teal")
    check = replace(SLOW, timeout=0.3)
    watcher.watch((was, check))
    await eventually(lambda: in_rotation(watcher.monitor.health(was.id)))
    server.script = hang
    probing = asyncio.create_task(watcher.monitor.probe_now(was.id))
    await asked.wait()
    watcher.monitor.observe(0, was.id, 1, 5)
    watcher.watch((now, check), names=names([was], [now]))
    assert not (await probing).ok
    assert [seen.verdict.ok for seen in watcher.monitor.history(now.id)] == [True, False]


@pytest.mark.parametrize("place", [("app", "teal"), ("web", "blue"), ("web", "teal")])
async def test_drained_ejected_and_unready_targets_stay_so(watcher: Watcher, backend, place):
    drained, ejected, failing = await backend(), await backend(), await backend()
    old = [each.target() for each in (drained, ejected, failing)]
    new = [each.target(*place) for each in (drained, ejected, failing)]
    watcher.watch(*[(target, HTTP) for target in old])
    await eventually(lambda: all(in_rotation(watcher.monitor.health(target.id)) for target in old))
    watcher.monitor.feed(old[0].id, Drain())
    watcher.monitor.feed(old[1].id, Eject("slow"))
    failing.script = ok(b"", b"500 Oops")
    await eventually(lambda: watcher.monitor.health(old[2].id).probe == "unready")
    watcher.watch(*[(target, HTTP) for target in new], names=names(old, new))
    states = [shown(watcher.monitor.health(target.id), time.monotonic()) for target in new]
    assert states == ["draining", "ejected", "unready"]


async def test_a_rename_with_another_check_is_a_changed_check(watcher: Watcher, backend):
    server = await backend()
    was, now = server.target(pool="blue"), server.target(pool="teal")
    watcher.watch((was, HTTP))
    await eventually(lambda: in_rotation(watcher.monitor.health(was.id)))
    watcher.watch((now, replace(SLOW, path="/ready")), names=names([was], [now]))
    assert in_rotation(watcher.monitor.health(now.id)), "the former check decides until the new one has passed"
    await eventually(lambda: watcher.monitor.on_trial(now.id) is None)


async def test_a_target_that_moves_alone_keeps_its_verdict_for_the_same_question_only(watcher: Watcher, backend):
    first, second, third = await backend(), await backend(), await backend()
    old = [first.target(), second.target(), third.target(pool="green")]
    watcher.watch(*[(target, HTTP) for target in old])
    await eventually(lambda: all(in_rotation(watcher.monitor.health(target.id)) for target in old))
    moved = [first.target(), second.target(pool="green"), third.target(pool="green")]
    watcher.watch(*[(target, HTTP) for target in moved], names=names(old, moved))
    assert all(in_rotation(watcher.monitor.health(target.id)) for target in moved)
    again = [first.target(), second.target("other", "green"), third.target(pool="green")]
    other = replace(SLOW, path="/other")
    checks = [(target, other if target.service == "other" else HTTP) for target in again]
    watcher.watch(*checks, names=names(moved, again))
    assert watcher.monitor.health(again[1].id).probe == "starting", "nobody has asked it this"


async def test_of_several_the_one_that_found_it_ill_is_believed(watcher: Watcher, backend):
    server = await backend()
    blue, red, pink = (server.target(pool=pool) for pool in ("blue", "red", "pink"))
    watcher.watch((blue, SLOW), (red, SLOW))
    await eventually(lambda: all(in_rotation(watcher.monitor.health(target.id)) for target in (blue, red)))
    server.script = ok(b"", b"500 Oops")
    for _ in range(3):
        await watcher.monitor.probe_now(red.id)
    watcher.watch((pink, SLOW), names=names([blue, red], [pink]))
    assert watcher.monitor.health(pink.id).probe == "unready"


async def test_several_successors_of_one(watcher: Watcher, backend):
    """A pool that is split: both parts know the address that they share."""
    server = await backend()
    blue, red, pink = (server.target(pool=pool) for pool in ("blue", "red", "pink"))
    watcher.watch((blue, SLOW))
    await eventually(lambda: in_rotation(watcher.monitor.health(blue.id)))
    watcher.monitor.feed(blue.id, Drain())
    watcher.watch((red, SLOW), (pink, SLOW), names=names([blue], [red, pink]))
    for target in (red, pink):
        health = watcher.monitor.health(target.id)
        assert (health.probe, health.admin) == ("ready", "draining")
    await eventually(lambda: watcher.monitor.history(pink.id))


async def test_a_twin_begins_with_the_verdict_and_nothing_else(watcher: Watcher, backend):
    server = await backend()
    blue, red = server.target(pool="blue"), server.target(pool="red")
    watcher.watch((blue, SLOW))
    await eventually(lambda: in_rotation(watcher.monitor.health(blue.id)))
    watcher.monitor.feed(blue.id, Drain())
    watcher.monitor.feed(blue.id, Eject("slow"))
    watcher.watch((blue, SLOW), (red, SLOW), names=names([blue], [blue, red]))
    assert in_rotation(watcher.monitor.health(red.id))
    assert shown(watcher.monitor.health(blue.id), time.monotonic()) == "draining"
    await eventually(lambda: watcher.monitor.history(red.id), what="it is probed for itself")


async def test_another_address_is_another_target(watcher: Watcher, backend):
    one, two = await backend(), await backend()
    was, now = one.target(pool="blue"), two.target(pool="teal")
    watcher.watch((was, SLOW))
    await eventually(lambda: in_rotation(watcher.monitor.health(was.id)))
    watcher.watch((now, SLOW), names=names([was], [now]))
    assert watcher.monitor.health(now.id).probe == "starting"


async def test_a_restart_under_way_is_that_of_the_renamed_target(watcher: Watcher, backend, tmp_path):
    server = await backend(ok(b"", b"500 Oops"))
    was, now = server.target(pool="blue"), server.target(pool="teal")
    go = tmp_path / "go"
    command = ("sh", "-c", f"while [ ! -e {go} ]; do sleep 0.02; done")
    liveness = replace(HTTP, fall=1)
    checks = Checks(HTTP, liveness, OnFailure(command=command))
    watcher.watch((was, checks))
    await eventually(lambda: any(notice.cause == "liveness_restart" for notice in watcher.notices))
    watcher.watch((now, checks), names=names([was], [now]))
    assert len(watcher.monitor.liveness[now.id].tries) == 1
    go.touch()
    await eventually(lambda: any(notice.cause == "liveness_restarted" for notice in watcher.notices))
    assert watcher.notices[-1].scope == now.id or any(
        notice.scope == now.id for notice in watcher.notices if notice.cause == "liveness_restarted"
    )
    server.script = ok()
    await eventually(lambda: watcher.monitor.liveness[now.id].state == "alive", what="the restart is over by any name")


async def test_verdicts_and_ejections_are_found_under_new_names_after_a_restart(watcher: Watcher, backend):
    up, ejected, plain = await backend(), await backend(), await backend()
    none = CheckSpec(protocol="none")
    watcher.watch((up.target(), SLOW), (ejected.target(), SLOW), (plain.target(), none))
    await eventually(lambda: all(in_rotation(watcher.monitor.health(each.target().id)) for each in (up, ejected)))
    for each in (ejected, plain):
        watcher.monitor.feed(each.target().id, Eject("slow"))
    heir = Watcher()
    new = [each.target("web", "teal") for each in (up, ejected, plain)]
    heir.watch((new[0], SLOW), (new[1], SLOW), (new[2], none))
    assert set(heir.monitor.restore(watcher.monitor.keep())) == {new[0].id, new[1].id}
    states = [shown(heir.monitor.health(target.id), time.monotonic()) for target in new]
    assert states == ["ready", "ejected", "ejected"]
    other = Watcher()
    other.watch((new[0], replace(SLOW, path="/other")))
    assert other.monitor.restore(watcher.monitor.keep()) == []
