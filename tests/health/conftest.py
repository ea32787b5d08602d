"""Real targets for probes: small scripted servers on loopback, and a monitor that is closed after each test."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import msgspec
import pytest

from lb.core.checks import Checks, CheckSpec
from lb.core.common_cause import Notice
from lb.core.lifecycle import Effect, Health, Rules, Verdict
from lb.core.renames import NONE, Renames
from lb.core.rotation import ServiceRules, rules_of
from lb.core.targets import Target
from lb.health.monitor import Monitor
from tests.support.eventually_async import eventually
from tests.support.loops import pytest_asyncio_loop_factories

__all__ = ["pytest_asyncio_loop_factories"]

Script = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def waited_for_a_processor() -> float:
    """Seconds that this thread could have run while others did: they use this machine as well."""
    return int(Path("/proc/thread-self/schedstat").read_text().split()[1]) / 1e9


class Backend:
    """A target that answers each connection by its script; counts and remembers what it was asked."""

    def __init__(self, script: Script | bytes) -> None:
        self.script = script
        self.asked: list[bytes] = []
        self.at: list[float] = []
        self.connections = 0
        self.open_now = 0
        self.most_open = 0
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.StreamWriter] = set()
        self.port = 0

    async def start(self, port: int = 0, host: str = "127.0.0.1", **options: object) -> Backend:
        self._server = await asyncio.start_server(self._serve, host, port, **options)  # type: ignore[arg-type]
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def stop(self) -> None:
        if self._server is not None:
            self._server.close()
            for writer in list(self._open):
                writer.transport.abort()

    def target(self, name: str = "app", pool: str = "blue") -> Target:
        return Target(f"{name}/{pool}/127.0.0.1:{self.port}", name, pool, "127.0.0.1", self.port)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.at.append(time.monotonic())
        self.open_now += 1
        self.most_open = max(self.most_open, self.open_now)
        self._open.add(writer)
        try:
            with contextlib.suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
                if isinstance(self.script, bytes):
                    self.asked.append(await reader.readuntil(b"\r\n\r\n"))
                    writer.write(self.script)
                    await writer.drain()
                else:
                    await self.script(reader, writer)
        finally:
            self.open_now -= 1
            self._open.discard(writer)
            writer.close()


def delays(server: Backend, spec: CheckSpec) -> list[float]:
    """Seconds by which the probes that a target got came later than an interval after the one before."""
    return [later - earlier - spec.interval for earlier, later in zip(server.at, server.at[1:], strict=False)]


async def never_late(server: Backend, spec: CheckSpec, probes: int, tries: int = 4) -> None:
    """`probes` in a row none of which was late by an interval, without the time that others had the processor."""
    for left in range(tries, 0, -1):
        server.at.clear()
        kept_waiting = waited_for_a_processor()
        await eventually(lambda: len(server.at) >= probes, within=30.0)
        if max(delays(server, spec)) - (waited_for_a_processor() - kept_waiting) < spec.interval:
            return
        assert left > 1, delays(server, spec)


def ok(body: bytes = b"ok", status: bytes = b"200 OK", headers: bytes = b"") -> bytes:
    return b"HTTP/1.1 %b\r\n%bContent-Length: %d\r\n\r\n%b" % (status, headers, len(body), body)


@pytest.fixture
async def backend() -> AsyncIterator[Callable[..., Awaitable[Backend]]]:
    started: list[Backend] = []

    async def make(script: Script | bytes = b"", **options: object) -> Backend:
        made = Backend(script or ok())
        started.append(made)
        return await made.start(**options)  # type: ignore[arg-type]

    yield make
    for each in started:
        await each.stop()


class Watcher:
    """A monitor and all that it told."""

    def __init__(self, **options: object) -> None:
        self.changes: list[tuple[str, Health, Health, tuple[Effect, ...]]] = []
        self.probes: list[tuple[str, str, Verdict]] = []
        self.notices: list[Notice] = []
        usual: dict[str, object] = {
            "rng": random.Random(7),
            "on_change": lambda *change: self.changes.append(change),
            "on_probe": lambda target, kind, seen: self.probes.append((target, kind, seen.verdict)),
            "on_notice": self.notices.append,
        }
        self.monitor = Monitor(**{**usual, **options})  # type: ignore[arg-type]

    def watch(
        self,
        *pairs: tuple[Target, CheckSpec | Checks],
        service: ServiceRules | None = None,
        canary: tuple[Target, CheckSpec] | None = None,
        names: Renames = NONE,
    ) -> None:
        checks = {t.id: c if isinstance(c, Checks) else Checks(readiness=c) for t, c in pairs}
        rules: dict[str, Rules] = {t: rules_of(service or ServiceRules(), c.readiness) for t, c in checks.items()}
        targets = {t.id: t for t, _ in pairs}
        foreseen = self.monitor.foresee(checks, targets, rules, names)
        self.monitor.update(checks, targets, rules, canary, names)
        came = {id: _timeless(health) for id, health in self.monitor.healths.items()}
        assert came == {id: _timeless(foreseen.get(id, Health())) for id in targets}, "what a reload was judged by"

    def texts(self, target: Target) -> list[str]:
        return [verdict.text for probed, _, verdict in self.probes if probed == target.id]


def _timeless(health: Health) -> Health:
    """What is known of a target, without the moment at which a check of it begins."""
    return msgspec.structs.replace(health, started=0.0, probe_since=0.0, rotation_since=0.0, warm_at=0.0)


@pytest.fixture
async def watcher() -> AsyncIterator[Watcher]:
    made = Watcher()
    gc.freeze()  # as the supervisor does: to look through all of pytest's objects would take a tenth of a second
    await made.monitor.start()
    yield made
    await made.monitor.close()
    gc.unfreeze()
