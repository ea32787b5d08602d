"""The stage of a drill: a second lb with fake targets behind it, clients in front of it, and eyes on its states."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path

import aiohttp

from lb.cli.client import Client
from lb.cli.failure import Failure, Json
from lb.cli.terminal import span

#: Seconds between two looks at the states.
LOOK = 0.05
#: Seconds that a client waits for an answer.
PATIENCE = 10.0


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


@contextlib.asynccontextmanager
async def running(file: Path, port: int) -> AsyncIterator[Stage]:
    """The lb that is rehearsed with, as a process, and a session of clients to it."""
    process = subprocess.Popen(  # noqa: ASYNC220 - it takes a millisecond, and nothing else is under way
        [sys.executable, "-m", "lb", "run", str(file)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=(file.parent / "lb.log").open("w"),
        start_new_session=True,
    )
    limits = aiohttp.TCPConnector(limit=0)
    try:
        timeout = aiohttp.ClientTimeout(total=PATIENCE)
        async with aiohttp.ClientSession(connector=limits, timeout=timeout) as session:
            stage = Stage(Client(f"http://127.0.0.1:{port}"), session)
            watching = asyncio.create_task(stage.watch(process, file.parent / "lb.log"))
            try:
                await stage.up()
                yield stage
            finally:
                watching.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await watching
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            await asyncio.to_thread(process.wait, 3)
        except subprocess.TimeoutExpired:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


class Stage:
    """Where the drill takes place: the running lb, its clients, and what its targets' states were when."""

    def __init__(self, admin: Client, session: aiohttp.ClientSession) -> None:
        self.admin = admin
        self.session = session
        self.listener = ""
        self.states: dict[str, str] = {}
        self.left_at: dict[str, float] = {}  # the moment a target was last seen to leave rotation
        self.entered_at: dict[str, float] = {}
        self.trouble: Failure | None = None

    async def watch(self, process: subprocess.Popen[bytes], log: Path) -> None:
        """Keep the states up to date."""
        began = time.monotonic()
        while True:
            try:
                status: Json = await asyncio.to_thread(self.admin.get, "/api/v1/status")
            except Failure as failure:
                if process.poll() is not None or time.monotonic() - began > 15.0:
                    self.trouble = Failure(
                        f"the rehearsing lb did not start:\n{log.read_text()[-2000:]}{failure.message}"
                    )
            else:
                began = time.monotonic()
                self.listener = status["listeners"][0]["address"]
                self.note(status, began)
            await asyncio.sleep(LOOK)

    def note(self, status: Json, now: float) -> None:
        for service in status["services"]:
            for pool in service["pools"]:
                for target in pool["targets"]:
                    serving = target["state"] in ("ready", "slow_start")
                    served = self.states.get(target["id"], "") in ("ready", "slow_start")
                    if served and not serving:
                        self.left_at[target["id"]] = now
                    elif serving and not served:
                        self.entered_at[target["id"]] = now
                    self.states[target["id"]] = target["state"]

    async def until(self, condition: Callable[[], object], within: float) -> bool:
        end = time.monotonic() + within
        while time.monotonic() < end:
            if self.trouble is not None:
                raise self.trouble
            if condition():
                return True
            await asyncio.sleep(LOOK / 2)
        return False

    async def up(self) -> None:
        if not await self.until(lambda: self.states, 20.0):
            raise Failure("the rehearsing lb did not answer within 20 s")

    def serving(self, target: str) -> bool:
        return self.states.get(target, "") in ("ready", "slow_start")


@dataclass(slots=True)
class Outcome:
    began: float
    ended: float
    failure: str  # empty: it was answered 200


class Load:
    """Requests at a constant rate, whatever becomes of the ones before (open loop)."""

    def __init__(self, session: aiohttp.ClientSession, url: str, host: str, rate: int) -> None:
        self.session, self.url, self.host, self.rate = session, url, host, rate
        self.outcomes: list[Outcome] = []
        self._requests: set[asyncio.Task[None]] = set()
        self._pacing: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._pacing = asyncio.create_task(self._pace())

    async def stop(self) -> None:
        """No further requests; wait for the answers that are due."""
        if self._pacing is not None:
            self._pacing.cancel()
        if self._requests:
            await asyncio.wait(self._requests, timeout=PATIENCE + 1.0)

    async def _pace(self) -> None:
        began = time.monotonic()
        sent = 0
        while True:
            due = int((time.monotonic() - began) * self.rate)
            for _ in range(due - sent):
                task = asyncio.create_task(self._ask())
                self._requests.add(task)
                task.add_done_callback(self._requests.discard)
            sent = due
            await asyncio.sleep(1 / self.rate)

    async def _ask(self) -> None:
        began = time.monotonic()
        failure = ""
        try:
            async with self.session.get(self.url, headers={"Host": self.host}) as answer:
                await answer.read()
                if answer.status != 200:
                    failure = str(answer.status)
        except TimeoutError:
            failure = f"no answer within {span(PATIENCE)}"
        except aiohttp.ClientError as error:
            failure = type(error).__name__
        self.outcomes.append(Outcome(began, time.monotonic(), failure))
