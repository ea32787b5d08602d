"""A background loop that fails is reported and started again; an error of a callback is never silent."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from lb.config.load import load
from lb.config.model.config import Config
from lb.core.background import LONGEST_WAIT
from lb.core.report import Report
from lb.process import fd_handover
from lb.process.channel import Channel, Message, WorkerError
from lb.process.guard import Guard
from lb.supervisor.main import Supervisor
from lb.supervisor.os.file_watch import FileWatch
from lb.worker.main import Worker
from tests.support.crew import Crew
from tests.support.eventually_async import eventually
from tests.support.processes import alive

Make = Callable[..., Crew]


async def at_once(seconds: float) -> None:
    """Sleep, but not for long."""
    await asyncio.sleep(0)


class TestLoops:
    async def test_one_that_fails_is_reported_counted_and_started_again(self) -> None:
        runs = 0
        waits: list[float] = []
        reports: list[str] = []

        async def loop() -> None:
            nonlocal runs
            runs += 1
            if runs < 10:
                raise KeyError("gone")

        async def sleep(seconds: float) -> None:
            waits.append(seconds)

        guard = Guard(reports.append, sleep)
        await guard.keep_running("drains", loop)
        assert runs == 10
        assert waits[:3] == [1.0, 2.0, 4.0]
        assert max(waits) == LONGEST_WAIT
        assert reports[0].startswith("the loop of drains has failed (KeyError: 'gone', at test_guard.py:")
        assert reports[0].endswith(" in loop) and is started again in 1 s")
        assert guard.restarts == {"drains": 9}

    async def test_one_that_ran_well_waits_less_again(self) -> None:
        now = 0.0
        waits: list[float] = []
        lengths = [0.0, 0.0, 0.0, 0.0, 1000.0, 0.0]

        async def loop() -> None:
            nonlocal now
            if lengths:
                now += lengths.pop(0)
                raise OSError("no descriptors")

        async def sleep(seconds: float) -> None:
            waits.append(seconds)

        await Guard(lambda text: None, sleep, lambda: now).keep_running("sweep", loop)
        assert waits == [1.0, 2.0, 4.0, 8.0, 1.0, 2.0]

    async def test_a_report_that_fails_ends_nothing(self) -> None:
        runs = 0

        async def loop() -> None:
            nonlocal runs
            runs += 1
            if runs < 3:
                raise KeyError("gone")

        def report(text: str) -> None:
            raise OSError("no space left")

        await Guard(report, at_once).keep_running("drains", loop)
        assert runs == 3

    async def test_one_that_is_cancelled_ends(self) -> None:
        body: Callable[[], asyncio.Future[None]] = asyncio.get_running_loop().create_future
        task = asyncio.ensure_future(Guard(print).keep_running("sweep", body))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


class TestCallbacks:
    async def test_an_error_is_told_with_its_place_and_counted(self) -> None:
        reports: list[str] = []
        guard = Guard(reports.append)
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(guard.on_error)
        for _ in range(3):
            loop.call_soon(lambda: 1 / 0)
        await asyncio.sleep(0.01)
        assert guard.errors == 3
        [report] = reports
        assert "ZeroDivisionError: division by zero, at test_guard.py:" in report

    async def test_so_is_one_of_a_task_that_nobody_waits_for(self) -> None:
        reports: list[str] = []
        guard = Guard(reports.append)
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(guard.on_error)

        async def fail() -> None:
            raise ValueError("lost")

        task = loop.create_task(fail())
        await asyncio.wait((task,))
        del task
        gc.collect()
        assert guard.errors == 1
        assert "ValueError: lost, at test_guard.py:" in reports[0]


async def test_a_change_of_the_file_that_could_not_be_taken_is_found_again(tmp_path: Path) -> None:
    path, tries = tmp_path / "lb.yaml", 0
    path.write_text("one")

    async def changed() -> None:
        nonlocal tries
        tries += 1
        if tries == 1:
            raise MemoryError

    guard = Guard(lambda text: None, at_once)
    watch = FileWatch(path, changed, every=0.02)
    looking = asyncio.ensure_future(guard.keep_running("watch", watch.run))
    path.write_text("another one")
    await eventually(lambda: tries == 2)
    await asyncio.sleep(0.1)
    assert tries == 2
    assert guard.restarts == {"watch": 1}
    looking.cancel()


async def test_a_look_at_the_workers_that_fails_is_taken_up_again(crew: Make) -> None:
    said: list[str] = []

    def tell(text: str) -> None:
        said.append(text)
        if len(said) == 1:
            raise OSError("the disk with the events is gone")

    guard = Guard(said.append, at_once)
    two = crew(2, tell, guard)
    await two.start()
    two.workers.hung_after = 0.5
    hung = two.workers.pids[0]
    os.kill(hung, signal.SIGSTOP)
    await eventually(lambda: not alive(hung))
    assert guard.restarts == {"workers": 1}


async def test_the_reports_of_a_worker_go_on_after_a_failure() -> None:
    loop = asyncio.get_running_loop()
    messages: list[Message] = []
    ours, theirs = socket.socketpair()
    our_fds, their_fds = fd_handover.pair()
    their_fds.setblocking(False)
    worker = Worker(0, loop, None)
    report, tries = worker.plane.report, 0

    def failing(full: bool = False, part: int = 0, parts: int = 1) -> Report:
        nonlocal tries
        tries += not full
        if tries == 1:
            raise RuntimeError("a tally is broken")
        return report(full, part, parts)

    worker.plane.report = failing  # type: ignore[method-assign]
    channel = await Channel.over(ours, messages.append, lambda: None)
    running = asyncio.ensure_future(worker.run(theirs, their_fds))
    try:
        await eventually(lambda: [m for m in messages if isinstance(m, Report) and m.restarts == {"worker_reports": 1}])
        loop.call_soon(lambda: 1 / 0)
        await eventually(lambda: [m for m in messages if isinstance(m, Report) and m.errors == 1])
    finally:
        worker.done.set()
        await running
        channel.close()
        our_fds.close()
    troubles = [message.text for message in messages if isinstance(message, WorkerError)]
    assert "worker 0: the loop of a worker's reports has failed (RuntimeError: a tally is broken" in troubles[0]
    assert "ZeroDivisionError" in troubles[1]


async def test_the_supervisor_takes_a_file_that_it_could_not_read_at_first_and_counts_what_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The watch on the file is guarded, and the loop's errors are heard."""
    monkeypatch.setattr(gc, "freeze", lambda: None)
    monkeypatch.setattr(gc, "set_threshold", lambda *numbers: None)
    path, reads = tmp_path / "lb.yaml", 0
    text = "watch: true\nlisteners: ['127.0.0.1:0']\nadmin: {bind: 127.0.0.1:0}\nbackends: ['127.0.0.1:9']\ndrain: 0s\n"
    path.write_text(text)

    def read(path: Path, served: object) -> Config:
        nonlocal reads
        reads += 1
        if reads == 1:
            raise MemoryError
        return load(path)

    supervisor = Supervisor(path, load(path), 1, read)
    serves = asyncio.Event()
    running = asyncio.ensure_future(supervisor.run(lambda _: serves.set()))
    try:
        await serves.wait()
        asyncio.get_running_loop().call_soon(lambda: 1 / 0)
        path.write_text(text + "lame_duck: 1ms\n")
        await eventually(lambda: supervisor.state.config.lame_duck > 0, 20.0)
        metrics = (await supervisor.operations.metrics()).decode()
        told = [event.text for event in supervisor.events.log.since()]
    finally:
        if serves.is_set():
            signal.raise_signal(signal.SIGTERM)
        await running
    assert 'lb_background_restarts_total{loop="watch"} 1.0' in metrics
    assert 'lb_background_restarts_total{loop="worker_reports"} 0.0' in metrics
    assert 'lb_unhandled_errors_total{process="supervisor"} 1.0' in metrics
    assert any("the watch on the configuration file has failed (MemoryError" in text for text in told)
    assert any("ZeroDivisionError: division by zero, at test_guard.py:" in text for text in told)
