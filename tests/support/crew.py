"""Real worker processes under a supervisor's hand, without the rest of the supervisor."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from pathlib import Path

import pytest

from lb.core.targets import AccessLog, Listener, Pool, Rotation, Route, Service, Snapshot
from lb.process.guard import Guard
from lb.supervisor.sockets import open_listener
from lb.supervisor.totals import Totals
from lb.supervisor.workers import Workers
from tests.support.processes import alive, children

BIND = "127.0.0.1:0"


class Crew:
    """Some workers on one address; they answer 503, as no target is ready."""

    def __init__(
        self, directory: Path, count: int, tell: Callable[[str], None] | None = None, guard: Guard | None = None
    ) -> None:
        self.told: list[str] = []
        self.hopeless = 0
        self.totals = Totals()
        self.workers = Workers(
            count,
            self.totals,
            directory=directory,
            tell=tell or self.told.append,
            on_hopeless=self._on_hopeless,
            guard=guard,
        )
        sockets = open_listener(BIND, count)
        self.address = sockets[0].getsockname()
        self.workers.sockets[BIND] = sockets
        self.version = 1

    def _on_hopeless(self) -> None:
        self.hopeless += 1

    def snapshot(self, binds: tuple[str, ...] = (BIND,)) -> Snapshot:
        self.version += 1
        return Snapshot(
            self.version,
            listeners=tuple(Listener(bind) for bind in binds),
            services=(Service("s", (Pool("p", ()),)),),
            routes=(Route("s"),),
            rotations=(Rotation("s", self.version, (("p", 100),), ()),),
            access_log=AccessLog("off"),
        )

    async def start(self) -> None:
        await self.workers.start(self.snapshot())
        self.workers.settle()

    async def ask(self, times: int = 1, within: float = 5.0, address: tuple[str, int] | None = None) -> int:
        """So many requests, each on a connection of its own; how many were answered in time."""
        answered = 0
        for _ in range(times):
            with suppress(OSError, TimeoutError):
                async with asyncio.timeout(within):
                    reader, writer = await asyncio.open_connection(*(address or self.address))
                    writer.write(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
                    answered += (await reader.read()).startswith(b"HTTP/1.1 503")
                    writer.close()
        return answered

    def requests(self) -> int:
        """As workers have told."""
        return sum(tally.requests for tally in self.totals.sums().pools.values())


@pytest.fixture
async def crew(tmp_path: Path) -> AsyncIterator[Callable[..., Crew]]:
    made: list[Crew] = []

    def make(count: int, tell: Callable[[str], None] | None = None, guard: Guard | None = None) -> Crew:
        made.append(Crew(tmp_path, count, tell, guard))
        return made[-1]

    yield make
    for each in made:
        processes = [worker.pid for worker in each.workers.processes]
        for pid in processes:
            with suppress(ProcessLookupError):
                os.kill(pid, 18)  # SIGCONT: a stopped one could not end
        await each.workers.stop(1.0)
        assert not any(alive(pid) for pid in processes)
    for pid in children("lb.worker.main"):  # let go by a supervisor that died, in a test that failed half-way
        os.kill(pid, 9)
