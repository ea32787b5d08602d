"""Workers that die, hang, grow and do not start: their sockets are attended to all the time."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from math import inf
from pathlib import Path
from typing import Any

import pytest

from lb.core.refusals import Refusal, Refused
from lb.core.targets import Rotation, Route, Snapshot
from lb.process import fd_handover
from lb.process.channel import Command
from lb.supervisor import confirming, workers
from lb.supervisor.sockets import open_listener
from lb.supervisor.workers import resident
from tests.support.crew import BIND, Crew
from tests.support.eventually_async import eventually
from tests.support.processes import alive, children

Make = Callable[[int], Crew]


async def test_a_worker_at_rest_is_small(crew: Make) -> None:
    one = crew(1)
    await one.start()
    assert await one.ask(20) == 20
    assert resident(one.workers.pids[0]) < 45 << 20


@pytest.mark.timing
async def test_a_dead_worker_is_replaced_within_a_second_and_its_queue_is_attended_to(crew: Make) -> None:
    two = crew(2)
    await two.start()
    victim = two.workers.pids[0]
    os.kill(victim, signal.SIGKILL)
    began = time.monotonic()
    # Both sockets get connections; those to the dead worker's are served by its neighbour.
    assert await two.ask(40, within=1.0) == 40
    await eventually(lambda: len(two.workers.pids) == 2 and victim not in two.workers.pids)
    await eventually(lambda: two.workers.slots[0].stand_in is None and two.workers.slots[0].worker is not None)
    assert time.monotonic() - began < 3.0, "a second on a quiet machine"
    assert await two.ask(20, within=1.0) == 20
    assert two.workers.restarts == 1
    assert "was killed by SIGKILL" in two.told[0]


async def test_exact_sums_over_the_living_and_the_dead(crew: Make) -> None:
    two = crew(2)
    await two.start()
    asked = await two.ask(30)
    await two.workers.poll()
    assert two.requests() == asked == 30
    os.kill(two.workers.pids[1], signal.SIGKILL)
    await eventually(lambda: two.workers.restarts == 1)
    assert two.requests() == 30
    asked += await two.ask(30)
    assert await two.workers.poll(5.0)
    assert two.requests() == asked


async def test_one_that_dies_at_once_again_and_again_is_given_up_and_its_neighbour_serves_for_it(
    crew: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    two = crew(2)
    await two.start()
    monkeypatch.setattr(workers, "GIVE_UP", 4)
    monkeypatch.setattr(workers, "BACKOFF", (0.0, 0.01, 0.02))
    with monkeypatch.context() as broken:
        broken.setattr(sys, "executable", "/bin/false")
        os.kill(two.workers.pids[0], signal.SIGKILL)
        await eventually(lambda: two.workers.empty_seats == 1)
    assert "its seat stays empty" in two.told[-1]
    assert await two.ask(40, within=1.0) == 40
    assert not two.hopeless
    two.workers.retry()
    await eventually(lambda: len(two.workers.pids) == 2 and two.workers.slots[0].stand_in is None)
    assert two.workers.empty_seats == 0
    assert await two.ask(40, within=1.0) == 40


async def test_when_all_are_given_up_there_is_no_hope(crew: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    two = crew(2)
    await two.start()
    monkeypatch.setattr(workers, "GIVE_UP", 3)
    monkeypatch.setattr(workers, "BACKOFF", (0.0,))
    monkeypatch.setattr(sys, "executable", "/bin/false")
    for pid in two.workers.pids:
        os.kill(pid, signal.SIGKILL)
    await eventually(lambda: two.hopeless)
    assert two.hopeless == 1


async def test_one_that_cannot_be_started_is_tried_again(crew: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    one = crew(1)
    await one.start()
    monkeypatch.setattr(workers, "BACKOFF", (0.0, 0.05))
    with monkeypatch.context() as broken:
        broken.setattr(sys, "executable", "/nowhere/python")
        os.kill(one.workers.pids[0], signal.SIGKILL)
        await eventually(lambda: any("cannot be started: No such file" in text for text in one.told))
    await eventually(lambda: one.workers.pids)
    assert await one.ask(1) == 1


async def test_early_deaths_count_only_in_a_row(crew: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "STEADY_AFTER", 0.05)
    one = crew(1)
    await one.start()
    for number in range(3):
        await asyncio.sleep(0.1)  # it has served for long enough
        os.kill(one.workers.pids[0], signal.SIGKILL)
        await eventually(lambda number=number: one.workers.restarts == number + 1)  # type: ignore[misc]
        await eventually(lambda: one.workers.pids and one.workers.slots[0].worker.served_since)  # type: ignore[union-attr]
    assert all("starts at once" in text for text in one.told)


async def test_one_that_hangs_is_helped_out_and_then_replaced(crew: Make) -> None:
    two = crew(2)
    two.workers.hung_after = 2.0
    await two.start()
    victim = two.workers.pids[0]
    os.kill(victim, signal.SIGSTOP)
    await eventually(lambda: two.workers.slots[0].stand_in is not None)
    assert await two.ask(40, within=1.0) >= 30, "but for those that the kernel gave to the one that hangs"
    await eventually(lambda: not alive(victim))
    await eventually(lambda: len(two.workers.pids) == 2 and victim not in two.workers.pids)
    assert any("gave no sign of life" in text for text in two.told)
    await eventually(lambda: two.workers.slots[0].stand_in is None)
    assert await two.ask(20, within=1.0) == 20


async def test_one_that_comes_round_keeps_its_seat(crew: Make) -> None:
    two = crew(2)
    await two.start()
    victim = two.workers.pids[0]
    os.kill(victim, signal.SIGSTOP)
    await eventually(lambda: two.workers.slots[0].stand_in is not None)
    os.kill(victim, signal.SIGCONT)
    await eventually(lambda: two.workers.slots[0].stand_in is None)
    assert victim in two.workers.pids
    assert await two.ask(20, within=1.0) == 20
    assert two.workers.restarts == 0


async def test_one_that_starts_slowly_does_not_hang(
    crew: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a busy machine, where `limits.hang` is shorter than a worker's imports take."""
    slow = tmp_path / "python"
    slow.write_text(f'#!/bin/sh\nsleep 1.2\nexec {sys.executable} "$@"\n')
    slow.chmod(0o700)
    monkeypatch.setattr(sys, "executable", str(slow))
    one = crew(1)
    one.workers.hung_after = 0.8
    await one.start()
    assert one.workers.restarts == 0
    assert not one.told


async def test_a_supervisor_that_stood_still_blames_nobody(crew: Make) -> None:
    two = crew(2)
    two.workers.hung_after = 0.8
    await two.start()
    time.sleep(2.0)  # noqa: ASYNC251 - the loop is to stand still
    await asyncio.sleep(0.7)
    assert two.workers.restarts == 0
    assert not two.told


async def test_one_that_has_grown_too_large_is_recycled_without_a_lost_request(crew: Make) -> None:
    two = crew(2)
    await two.start()
    old = two.workers.pids
    two.workers.memory = 1 << 20  # every worker is larger than that
    answered = asked = 0
    while set(old) & set(two.workers.pids) or two.workers.leaving:
        answered, asked = answered + await two.ask(5), asked + 5
        assert asked < 5000
    assert answered == asked
    assert not any(alive(pid) for pid in old)
    assert sum("takes its place" in text for text in two.told) == 2
    heirs = two.workers.pids
    await asyncio.sleep(0.6)
    assert two.workers.pids == heirs, "one that is born too large is not replaced for ever"
    assert two.workers.restarts == 0, "that is for deaths"
    assert await two.workers.poll(5.0)
    assert two.requests() == asked


async def test_fewer_workers_than_queues_attend_to_all_of_them(crew: Make) -> None:
    """The lb before had five workers: their queues live on, whatever the number of workers now."""
    two = crew(2)
    two.workers.sockets[BIND] = open_listener(BIND, 5, two.workers.sockets[BIND])
    await two.start()
    assert await two.ask(60, within=2.0) == 60
    os.kill(two.workers.pids[1], signal.SIGSTOP)
    await eventually(lambda: two.workers.slots[1].stand_in is not None)
    os.kill(two.workers.pids[1], signal.SIGKILL)
    await eventually(lambda: two.workers.slots[1].stand_in is None and two.workers.slots[1].worker is not None)
    assert await two.ask(60, within=2.0) == 60


async def test_an_heir_that_does_not_start_leaves_the_old_one_in_place(
    crew: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = crew(1)
    await one.start()
    old = one.workers.pids
    monkeypatch.setattr(sys, "executable", "/bin/false")
    one.workers.memory = 1 << 20
    await eventually(lambda: any("heir died at once" in text for text in one.told))
    assert one.workers.pids == old
    assert await one.ask(3) == 3


async def test_one_of_another_version_is_not_used(crew: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    one = crew(1)
    await one.start()
    monkeypatch.setattr(workers, "VERSION", 99)
    monkeypatch.setattr(workers, "GIVE_UP", 2)
    os.kill(one.workers.pids[0], signal.SIGKILL)
    await eventually(lambda: one.hopeless)
    assert any("lb upgrade" in text for text in one.told)


async def test_listeners_come_and_go_while_workers_serve(crew: Make) -> None:
    two = crew(2)
    await two.start()
    pids = two.workers.pids
    other = "127.0.0.1:00"  # another name for a free port
    sockets = open_listener(other, 2)
    address = sockets[0].getsockname()
    two.workers.open(other, sockets)
    two.workers.apply(two.snapshot((BIND, other)))
    await two.workers.confirm(two.version)
    assert await two.ask(10, address=address) == 10
    two.workers.close(other)
    two.workers.apply(two.snapshot())
    await two.workers.confirm(two.version)
    assert await two.ask(1, address=address) == 0, "refused"
    assert await two.ask(10) == 10
    assert two.workers.pids == pids


async def test_workers_outlive_a_supervisor_only_when_it_had_started_well(crew: Make) -> None:
    two = crew(2)
    await two.workers.start(two.snapshot())
    pids = two.workers.pids
    for worker in two.workers.processes:
        assert worker.channel is not None
        worker.channel.close()
    await eventually(lambda: not any(alive(pid) for pid in pids), what="nobody said that all is well: they end")


async def test_they_can_be_adopted(crew: Make, tmp_path: object) -> None:
    two, replacement = crew(2), crew(2)
    await two.start()
    pids = two.workers.pids
    asked = await two.ask(10)
    assert two.workers.directory is not None
    found_workers, _ = await asyncio.to_thread(fd_handover.find_workers, two.workers.directory)
    assert sorted(found.pid for found in found_workers) == sorted(pids)
    replacement.version = 50
    await replacement.start()
    for found in found_workers:
        for sock in found.sockets.values():
            sock.close()
        await replacement.workers.adopt(found)
    two.workers.let_go()
    await eventually(lambda: not any(alive(pid) for pid in pids), what="they drain and end")
    await eventually(lambda: not replacement.workers.leaving)
    assert replacement.requests() == asked, "what they had counted is the replacement's now"
    assert replacement.workers.pids != pids


async def test_a_worker_that_was_not_taken_over_ends(crew: Make) -> None:
    """It started while an upgrade was under way, so that the successor did not see it."""
    two = crew(2)
    await two.start()
    two.workers.settle()
    seen, late = two.workers.pids
    two.workers.let_go([seen])
    await eventually(lambda: not alive(late), what="nobody tells it anything any more")
    assert alive(seen)
    os.kill(seen, signal.SIGKILL)


async def test_one_that_the_successor_drains_before_this_one_hears_of_it_is_not_replaced(crew: Make) -> None:
    """The replacement would have been left over: settled, without sockets and without a supervisor, for an hour."""
    two = crew(2)
    await two.start()
    pids = two.workers.pids
    await two.workers.hold()
    for pid in pids:
        os.kill(pid, signal.SIGTERM)
    await eventually(lambda: not two.workers.processes)
    await asyncio.sleep(0.2)
    assert not two.workers.processes
    two.workers.let_go([])
    assert not children("lb.worker.main")
    assert two.workers.restarts == 0, "none has died"
    assert not two.told


async def test_workers_that_ended_in_an_upgrade_that_backs_out_are_replaced(crew: Make) -> None:
    two = crew(2)
    await two.start()
    gone = two.workers.pids[0]
    await two.workers.hold()
    os.kill(gone, signal.SIGKILL)
    await eventually(lambda: gone not in two.workers.pids)
    two.workers.resume()
    await eventually(lambda: len(two.workers.pids) == 2)
    assert "was killed by SIGKILL during an upgrade" in two.told[0]
    assert await two.ask(20) == 20


@pytest.mark.parametrize("how", ["stop", "hold"])
async def test_one_that_is_being_started_is_waited_for(crew: Make, monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    """Else it is told nothing, and outlives its supervisor as if that had died."""
    one = crew(1)
    await one.start()
    start, begun, go_on = asyncio.create_subprocess_exec, asyncio.Event(), asyncio.Event()

    async def slowly(*arguments: str, **named: Any) -> asyncio.subprocess.Process:
        process = await start(*arguments, **named)
        begun.set()
        await go_on.wait()
        return process

    monkeypatch.setattr(asyncio, "create_subprocess_exec", slowly)
    os.kill(one.workers.pids[0], signal.SIGKILL)
    await begun.wait()
    ending = asyncio.ensure_future(one.workers.stop(60.0) if how == "stop" else one.workers.hold())
    asyncio.get_running_loop().call_later(0.1, go_on.set)
    async with asyncio.timeout(20.0):  # it is told: nobody has to kill it after a minute
        await ending
    if how == "hold":
        one.workers.let_go([])
    await eventually(lambda: not children("lb.worker.main"))


def listens(address: tuple[str, int]) -> bool:
    with socket.socket() as sock:
        return sock.connect_ex(address) == 0


async def test_those_of_another_version_drain_by_themselves(crew: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    old, replacement = crew(1), crew(1)
    await old.start()
    [pid] = old.workers.pids
    reader, writer = await asyncio.open_connection(*old.address)
    writer.write(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nab")  # under way, and not to be lost
    assert old.workers.directory is not None
    [found], _ = await asyncio.to_thread(fd_handover.find_workers, old.workers.directory)
    found.close_sockets()
    monkeypatch.setattr(workers, "VERSION", 99)
    await replacement.workers.adopt(found)
    old.workers.let_go()
    await eventually(lambda: any("drains by itself" in text for text in replacement.told))
    await eventually(lambda: not listens(old.address))
    writer.write(b"cde")
    assert (await asyncio.wait_for(reader.read(), 10)).startswith(b"HTTP/1.1 503")
    await eventually(lambda: not alive(pid))


@pytest.mark.timing
async def test_stop_ends_all_in_order(crew: Make) -> None:
    two = crew(2)
    await two.start()
    pids = two.workers.pids
    began = time.monotonic()
    await two.workers.stop(5.0)
    assert time.monotonic() - began < 4.0, "nothing was under way"
    assert not any(alive(pid) for pid in pids)
    assert two.workers.directory is not None
    assert not list((two.workers.directory / fd_handover.FOLDER).iterdir())


async def test_stop_does_not_wait_for_one_that_hangs(crew: Make) -> None:
    two = crew(2)
    await two.start()
    pids = two.workers.pids
    os.kill(pids[0], signal.SIGSTOP)
    await two.workers.stop(0.2)
    assert not any(alive(pid) for pid in pids)


async def test_an_order_reaches_all(crew: Make) -> None:
    two = crew(2)
    await two.start()
    pids = two.workers.pids
    two.workers.send_command(Command("stop"))
    await eventually(lambda: not any(alive(pid) for pid in pids))
    await eventually(lambda: two.workers.restarts == 2)


async def test_an_orphan_ends_after_its_bound_but_not_while_a_supervisor_that_starts_visits_it(
    crew: Make, tmp_path: Path
) -> None:
    one = crew(1)
    await one.workers.start(replace(one.snapshot(), orphan=1.0))
    one.workers.settle()
    await one.ask(1)
    [pid] = one.workers.pids
    one.workers.let_go()
    [found], hung = await asyncio.to_thread(fd_handover.find_workers, tmp_path)
    assert not hung
    await asyncio.sleep(2.0)
    assert alive(pid)
    found.leave()
    await eventually(lambda: not alive(pid))


def hopeless_snapshot(one: Crew) -> Snapshot:
    """One that no worker can install: a route leads to a service that it does not have."""
    return replace(one.snapshot(), routes=(Route("nobody"),))


async def test_one_that_is_behind_confirms_nothing_until_a_snapshot_installs(crew: Make) -> None:
    two = crew(2)
    await two.start()
    slot = two.workers.slots[0]
    slot.next_replacement = inf  # it is to stay for a while
    assert slot.worker is not None
    slot.worker.say(hopeless_snapshot(two))
    failed = two.version
    two.version += 1
    two.workers.rotate(Rotation("s", two.version, (("p", 100),), ()))  # on top of what is not there
    with pytest.raises(workers.Unconfirmed) as caught:
        await two.workers.confirm(two.version, 1.0)
    name = f"worker 0 (process {slot.worker.pid})"
    why = f"could not install version {failed}: KeyError: 'nobody'; it is to be replaced"
    assert caught.value.workers == [(name, why)]
    assert two.workers.behind == [f"{name} {why}"]
    assert two.told == [f"{name} could not install version {failed}: KeyError: 'nobody'"]
    assert not two.workers.serves(two.version)
    two.workers.apply(two.snapshot())
    await two.workers.confirm(two.version)
    assert not two.workers.behind


async def test_one_that_is_behind_is_replaced_without_a_lost_request(crew: Make) -> None:
    two = crew(2)
    await two.start()
    old, stays = two.workers.pids
    assert two.workers.slots[0].worker is not None
    two.workers.slots[0].worker.say(hopeless_snapshot(two))
    two.version += 1
    two.workers.rotate(Rotation("s", two.version, (("p", 100),), ()))
    confirming = asyncio.ensure_future(two.workers.confirm(two.version))
    asked = answered = 0
    while alive(old):
        asked, answered = asked + 5, answered + await two.ask(5)
        assert asked < 5000
    assert answered == asked
    await confirming  # by the replacement, in the place of the one that could not
    assert two.workers.pids[1] == stays
    assert two.told[1].startswith(f"worker 0 (process {old}) is behind")
    assert two.told[1].endswith("takes its place, it drains")


async def test_one_that_is_behind_gets_the_snapshot_once_more_when_it_leaves(crew: Make) -> None:
    """Its clients may have a request yet: by the old snapshot it would not know the targets that the rotations name."""
    one = crew(1)
    await one.start()
    _, writer = await asyncio.open_connection(*one.address)
    writer.write(b"GET / HTTP/1.1\r\nHost: a\r\n")  # its head goes on until the end of the test: the worker lingers
    await asyncio.sleep(0.1)
    old = one.workers.slots[0].worker
    assert old is not None
    in_force = one.version
    old.say(hopeless_snapshot(one))
    await eventually(lambda: old.leaving)
    await eventually(lambda: old.behind is None)
    assert alive(old.pid)
    assert old.applied == in_force
    one.version += 1
    one.workers.rotate(Rotation("s", one.version, (("p", 100),), ()))
    await one.workers.confirm(one.version)
    assert old.applied == one.version, "it is waited for as others that leave are"
    writer.close()


async def test_heirs_that_cannot_install_it_either_come_less_and_less_often(
    crew: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workers, "REPLACEMENT_BACKOFF", (0.0, 600.0))
    one = crew(1)
    await one.start()
    pids = one.workers.pids
    one.workers.apply(hopeless_snapshot(one))
    await eventually(lambda: sum("but its heir is as well" in text for text in one.told) == 2)
    await asyncio.sleep(0.6)
    assert sum("but its heir is as well" in text for text in one.told) == 2
    assert one.workers.pids == pids
    assert await one.ask(3) == 3, "it serves on by what it has"
    assert one.workers.behind
    one.workers.apply(one.snapshot())
    one.workers.retry()
    await one.workers.confirm(one.version)
    assert not one.workers.behind


@pytest.mark.parametrize("how", ["its successor", "it catches up"])
async def test_replacements_that_failed_before_it_followed_delay_no_later_one(crew: Make, how: str) -> None:
    """A slot had failed replacements in a row, and then a worker that followed. The model found the next one a minute
    late."""
    one = crew(1)
    await one.start()
    slot = one.workers.slots[0]
    before = slot.worker
    assert before is not None
    slot.failed_replacements, slot.next_replacement = 4, inf
    if how == "its successor":
        os.kill(before.pid, signal.SIGKILL)
        await eventually(lambda: slot.worker is not None and slot.worker is not before and slot.worker.served_since)
    else:
        before.say(hopeless_snapshot(one))
        await eventually(lambda: before.behind is not None)
        one.workers.apply(one.snapshot())
        await eventually(lambda: before.behind is None)
    assert slot.worker is not None
    slot.worker.say(hopeless_snapshot(one))
    one.version += 1
    one.workers.rotate(Rotation("s", one.version, (("p", 100),), ()))
    await one.workers.confirm(one.version)
    assert slot.failed_replacements == 0


async def test_a_new_one_that_cannot_install_its_first_snapshot_is_replaced(
    crew: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workers, "BACKOFF", (0.0, 0.05))
    two = crew(2)
    await two.start()
    for pid in two.workers.pids:
        os.kill(pid, signal.SIGKILL)
    two.workers.apply(hopeless_snapshot(two))  # nobody has it but the new workers
    await eventually(lambda: sum("could not install version" in text for text in two.told) >= 2)
    two.workers.apply(two.snapshot())
    await eventually(lambda: all(slot.worker is not None and slot.worker.served_since for slot in two.workers.slots))
    assert await two.ask(20, within=1.0) == 20


async def test_one_that_leaves_and_stands_still_fails_no_order_but_is_not_forgotten(crew: Make) -> None:
    old, replacement = crew(1), crew(1)
    await old.start()
    [pid] = old.workers.pids
    replacement.version = 50
    await replacement.start()
    assert old.workers.directory is not None
    found_workers, _ = await asyncio.to_thread(
        fd_handover.find_workers, old.workers.directory, replacement.workers.pids
    )
    [found] = found_workers
    found.close_sockets()
    _, writer = await asyncio.open_connection(*old.address)
    writer.write(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nab")
    await asyncio.sleep(0.1)
    await replacement.workers.adopt(found)
    await replacement.workers.confirm(replacement.version)
    await eventually(lambda: replacement.totals.sums().downstream == 1)
    os.kill(pid, signal.SIGSTOP)
    replacement.workers.apply(replacement.snapshot())
    await replacement.workers.confirm(replacement.version)
    assert replacement.workers.confirmed(replacement.version)
    assert replacement.workers.leaving == [pid]
    assert not replacement.workers.serves(replacement.version), "a target may not stop for it"
    assert not await replacement.workers.poll()
    assert replacement.totals.sums().downstream == 1
    os.kill(pid, signal.SIGCONT)
    await eventually(lambda: replacement.workers.serves(replacement.version))
    old.workers.let_go()
    writer.close()
    await eventually(lambda: not alive(pid), what="it ends when nothing is under way")


async def test_one_that_is_being_killed_fails_no_order(crew: Make) -> None:
    two = crew(2)
    await two.start()
    worker = two.workers.slots[0].worker
    assert worker is not None
    os.kill(worker.pid, signal.SIGSTOP)
    worker.doomed = True
    two.workers.apply(two.snapshot())
    await two.workers.confirm(two.version, 1.0)
    worker.doomed = False
    with pytest.raises(workers.Unconfirmed, match="has not answered yet"):
        await two.workers.confirm(two.version, 0.2)


async def test_an_order_says_who_has_not_confirmed(crew: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(confirming, "CONFIRM_WITHIN", 1.0)
    one = crew(1)
    await one.start()
    one.workers.slots[0].next_replacement = inf
    one.workers.apply(hopeless_snapshot(one))
    with pytest.raises(Refused) as caught:
        await confirming.confirm(one.workers, one.version)
    assert caught.value.detail == "the change is in force, but a worker has not confirmed it within 1 s"
    assert caught.value.refusal is Refusal.NOT_CONFIRMED
    [obstacle] = caught.value.obstacles
    assert obstacle.where == f"worker 0 (process {one.workers.pids[0]})"
    assert obstacle.reason.startswith(f"could not install version {one.version}: KeyError")


async def test_who_waits_in_the_queue_of_one_that_dies_with_its_supervisor_is_served(crew: Make) -> None:
    two = crew(2)
    await two.start()
    pids = two.workers.pids
    os.kill(pids[0], signal.SIGSTOP)
    waiting = []
    for _ in range(20):  # about half of them come to the queue of the one that stands still
        reader, writer = await asyncio.open_connection(*two.address)
        waiting.append((reader, writer))
    two.workers.let_go()  # the supervisor dies: its channels and its sockets are closed
    os.kill(pids[0], signal.SIGKILL)
    await eventually(lambda: not alive(pids[0]))
    for reader, writer in waiting:
        writer.write(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        assert (await asyncio.wait_for(reader.read(), 5.0)).startswith(b"HTTP/1.1 503")
        writer.close()
    assert await two.ask(20, within=1.0) == 20
    os.kill(pids[1], signal.SIGKILL)
    await eventually(lambda: not alive(pids[1]))
