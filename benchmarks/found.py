"""`python -m benchmarks.found`: what one change costs among thousands of targets that a source names.

It runs a supervisor with two workers. The source is a list in memory that has another target instead of one of its
targets, once a second. The targets have no checks. It prints the processor time of the supervisor and of a worker
beside what they use when nothing changes, and how long a change takes until all workers serve by it, with the 50 ms
that lb waits for more of a burst. `--profile` shows where the time goes.
"""

from __future__ import annotations

import argparse
import asyncio
import cProfile
import logging
import os
import pstats
import signal
import statistics
import tempfile
import time
from contextlib import nullcontext
from pathlib import Path

import uvloop

from lb.config.load import load
from lb.core.membership import Answer, Found
from lb.discovery.source import Tell
from lb.supervisor.main import Supervisor

FILE = """
listeners: [{{bind: 'unix:{folder}/l.sock'}}]
admin: {{bind: 127.0.0.1:0}}
state_dir: {folder}/state
workers: 2
access_log: off
services: {{web: {{pools: {{main: {{discover: {{file: {folder}/unread.yaml}}}}}}, readiness: {{protocol: none}}}}}}
routes: [{{path: /, service: web}}]
"""
#: Seconds between two changes, and of the measurement without any.
EVERY, QUIET = 1.0, 5.0


class Listed:
    """A source with a list."""

    def __init__(self, targets: int) -> None:
        self.found = list(map(_found, range(targets)))
        self.next = targets
        self.tell: Tell | None = None

    async def ask(self) -> Answer:
        return Answer(tuple(self.found))

    async def watch(self, tell: Tell) -> None:
        self.tell = tell
        tell(await self.ask())
        await asyncio.Event().wait()

    async def change(self) -> str:
        """Name another target instead of one; returns its address."""
        fresh = _found(self.next)
        self.found[self.next % len(self.found)] = fresh
        self.next += 1
        assert self.tell is not None
        self.tell(await self.ask())
        return fresh.address


def _found(number: int) -> Found:
    address = f"10.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}:80"
    return Found(address, f"http://{address}")


def _used(pid: int) -> float:
    """Seconds of processor time that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def _in_force(supervisor: Supervisor, id: str) -> None:
    """Return when all workers serve by a version with this target."""
    while id not in supervisor.state.targets or not supervisor.workers.serves(supervisor.rotations.version):  # noqa: ASYNC110
        await asyncio.sleep(0.01)  # seconds; each look is work of the process that is measured


async def measure(targets: int, changes: int, profile: bool) -> None:
    """Print what is found."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "lb.yaml")
        path.write_text(FILE.format(folder=folder))
        source, started = Listed(targets), asyncio.Event()
        supervisor = Supervisor(path, load(path), 2)
        supervisor.discoveries.make = lambda settings: source
        running = asyncio.ensure_future(supervisor.run(lambda one: started.set()))
        await started.wait()
        while len(supervisor.state.targets) < targets:  # noqa: ASYNC110 - nothing tells
            await asyncio.sleep(0.05)
        await asyncio.sleep(QUIET)
        pids = [os.getpid(), *supervisor.workers.pids]
        before = [_used(pid) for pid in pids]
        await asyncio.sleep(QUIET)
        idle = [(_used(pid) - was) / QUIET for pid, was in zip(pids, before, strict=True)]
        before, began, delays = [_used(pid) for pid in pids], time.monotonic(), []
        profiler = cProfile.Profile() if profile else None
        with profiler or nullcontext():
            for _ in range(changes):
                at = time.monotonic()
                id = f"web/main/{await source.change()}"
                await _in_force(supervisor, id)
                delays.append(time.monotonic() - at)
                await asyncio.sleep(max(0.0, at + EVERY - time.monotonic()))
        seconds = time.monotonic() - began
        costs = [
            (_used(pid) - was - each * seconds) / changes * 1000
            for pid, was, each in zip(pids, before, idle, strict=True)
        ]
        print(f"{targets} targets, {changes} changes, one in {EVERY:g} s")
        print(f"supervisor: {costs[0]:.1f} ms each, beside {idle[0] * 100:.1f} % of a core without changes")
        print(f"a worker:   {costs[1]:.1f} ms each, beside {idle[1] * 100:.1f} %")
        print(
            f"in force at all workers after {statistics.median(delays) * 1000:.0f} ms, {max(delays) * 1000:.0f} at most"
        )
        if profiler is not None:
            pstats.Stats(profiler).sort_stats("tottime").print_stats(40)
        os.kill(os.getpid(), signal.SIGTERM)
        await running


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.found", description=__doc__)
    parser.add_argument("--targets", type=int, default=10_000)
    parser.add_argument("--changes", type=int, default=20)
    parser.add_argument("--profile", action="store_true", help="show where the supervisor's time goes")
    wanted = parser.parse_args()
    logging.disable(logging.WARNING)
    uvloop.run(measure(wanted.targets, wanted.changes, wanted.profile))


if __name__ == "__main__":
    main()
