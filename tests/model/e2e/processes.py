"""`lb` as a process, and its admin port. All descendants are ours (a child subreaper), so that none is left behind."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.model.clock import CLOCK

PR_SET_CHILD_SUBREAPER = 36
#: Seconds within which lb serves, or has ended.
PATIENCE = 30.0


@dataclass
class Said:
    """An answer of the admin port; status 0: there was none."""

    status: int
    body: Any = None

    @property
    def ok(self) -> bool:
        return 200 <= self.status < 300

    @property
    def detail(self) -> str:
        return str(self.body.get("detail", self.body)) if isinstance(self.body, dict) else str(self.body)


async def ask(address: tuple[str, int], method: str, path: str, body: Any = None, within: float = 40.0) -> Said:
    """One request to the admin port."""
    data = b"" if body is None else json.dumps(body).encode()
    lines = [f"{method} {path} HTTP/1.1", f"Host: {address[0]}:{address[1]}", "Connection: close"]
    lines += ["X-LB-Actor: model"]
    if body is not None:
        lines += ["Content-Type: application/json", f"Content-Length: {len(data)}"]
    writer = None
    try:
        async with asyncio.timeout(within):
            reader, writer = await asyncio.open_connection(*address)
            writer.write("\r\n".join([*lines, "", ""]).encode() + data)
            head = await reader.readuntil(b"\r\n\r\n")
            content = await reader.read()
    except (OSError, EOFError, asyncio.IncompleteReadError):
        return Said(0, "no answer")
    except TimeoutError:
        return Said(0, f"no answer within {within:g} s")
    finally:
        if writer is not None:
            writer.close()
    if b"chunked" in head.lower():
        content = _joined(content)
    text = content.decode()
    return Said(int(head.split(b" ", 2)[1]), json.loads(text) if b"json" in head.lower() and text else text)


def _joined(content: bytes) -> bytes:
    joined = b""
    while content:
        size, _, rest = content.partition(b"\r\n")
        length = int(size, 16)
        joined += rest[:length]
        content = rest[length + 2 :]
    return joined


@dataclass
class Program:
    """All processes of one lb, across restarts and upgrades."""

    file: Path
    admin: tuple[str, int]
    environment: dict[str, str] = field(default_factory=dict)
    main: int = 0  # what was started; after an upgrade it only stands for the supervisor (`lb.supervisor.os.pid_proxy`)
    pid: int = 0  # of the supervisor
    ended: dict[int, int] = field(default_factory=dict)  # pid → exit status of processes that are over

    def __post_init__(self) -> None:
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)

    @property
    def log(self) -> Path:
        return self.file.with_suffix(".log")

    async def start(self) -> None:
        """Start the supervisor; returns when it serves. Raises RuntimeError where it ends instead."""
        self.main = self.pid = self._spawn()
        until = CLOCK.now + PATIENCE
        while True:
            self.reap()
            if self.pid in self.ended:
                raise RuntimeError(f"lb run ended with {self.ended[self.pid]}: {self.tail()}")
            said = await ask(self.admin, "GET", "/api/v1/status", within=5.0)
            if said.ok and said.body["pid"] == self.pid and said.body["workers"]:
                return
            if CLOCK.now > until:
                raise RuntimeError(f"lb run does not serve after {PATIENCE:g} s: {self.tail()}")
            await asyncio.sleep(0.02)

    def _spawn(self) -> int:
        with self.log.open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "lb", "run", str(self.file)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, **self.environment},
                start_new_session=True,
            )
        process.returncode = 0  # `reap` waits for it
        return process.pid

    def tail(self) -> str:
        """The end of its log."""
        return self.log.read_text(errors="replace")[-1500:]

    def reap(self) -> None:
        """Wait for what has ended."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if not pid:
                return
            self.ended[pid] = os.waitstatus_to_exitcode(status)

    async def wait(self, pid: int, within: float) -> int | None:
        """The exit status of a process, 0 where only its parent hears that; None: it has not ended."""
        for _ in range(int(within / 0.05)):
            self.reap()
            if pid in self.ended or not Path(f"/proc/{pid}").exists():
                return self.ended.get(pid, 0)
            await asyncio.sleep(0.05)
        return None

    def send(self, number: int, pid: int = 0) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid or self.pid, number)

    def descendants(self) -> list[int]:
        """Processes that live and descend from this one."""
        parents: dict[int, list[int]] = {}
        for pid, parent, state in _processes():
            if state not in "ZX":
                parents.setdefault(parent, []).append(pid)
        found: list[int] = []
        waiting = [os.getpid()]
        while waiting:
            children = parents.get(waiting.pop(), [])
            found += children
            waiting += children
        return found

    def end_all(self) -> None:
        """kill -9 for all that is left."""
        for _ in range(20):
            left = self.descendants()
            for pid in left:
                self.send(signal.SIGKILL, pid)
            self.reap()
            if not left:
                return


def _processes() -> Iterator[tuple[int, int, str]]:
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        with contextlib.suppress(OSError):
            fields = (entry / "stat").read_text().rpartition(") ")[2].split()
            yield int(entry.name), int(fields[1]), fields[0]


def descriptors(pid: int) -> dict[str, int]:
    """How many descriptors of each kind a process has open."""
    kinds: dict[str, int] = {}
    with contextlib.suppress(OSError):
        for entry in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(OSError):
                kind = str(entry.readlink()).partition(":")[0]
                kinds[kind] = kinds.get(kind, 0) + 1
    return kinds
