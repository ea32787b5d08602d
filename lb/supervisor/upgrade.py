"""One supervisor follows another: after a death, or in an upgrade, without an address being closed for a moment.

After a death the workers serve on by themselves. A new `lb run` with the same state directory connects to the Unix
socket of each of them (`process.fd_handover`). It listens with workers of its own on their sockets. When these workers
serve, it adopts the old ones: they drain and end, and their reports still count.

In an upgrade the old supervisor (the predecessor) lives. It starts the new one with the command line that it was
itself started with, and both talk over a socket pair:

    predecessor                                   successor
        │ starts it, with one end of the pair         │
        │                                             │ reads the file, workers the workers, listens on their
        │                                             │ sockets with its own workers, probes the targets
        │ ◀──────────────── ready ─────────────────── │
        │ ──── go, with the state directory's lock, ──▶ takes the old workers in
        │      the admin port's socket, the sums      │
        │ ◀───────────────── done ─────────────────── │ serves the admin port
        │ ends, or stays as a small process that      │
        │ passes signals on (`os.pid_proxy`)          │

If `ready` or `done` does not come in time, or the successor reports why it cannot start, the successor is ended. The
predecessor then goes on as before: its workers have never stopped. Requests that the successor's workers have taken
meanwhile may end.

An order to end that comes before `go` ends both. Between `go` and `done` signals are held: they are for the lb that
goes on. No process is left in either case.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import sys
from collections.abc import Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import msgspec

from lb.early_signals import ENDING, HANDLED
from lb.net import fdpass
from lb.process.fd_handover import FoundWorker, find_workers
from lb.supervisor.os import systemd
from lb.supervisor.os.pid_proxy import HANDED_OVER, MOST_TOLD
from lb.supervisor.totals import Counters

#: The environment variable that tells a successor of its predecessor.
VARIABLE = "LB_PREDECESSOR"
#: The environment variable of processes whose ancestor will be a pid proxy.
SHIM = "LB_SHIM"
#: Seconds that a successor has by default to be ready: a start takes about one, its first probes perhaps five.
READY_WITHIN = 30.0
#: Seconds that the last step may take.
DONE_WITHIN = 10.0
#: Seconds for a process that was told to end.
END_WITHIN = 5.0


class Failed(Exception):  # noqa: N818 - it says what happened
    """The successor did not get ready; the text says why."""


@dataclass(slots=True)
class HandoverState:
    """The state that a predecessor hands over."""

    lock: int
    admin: socket.socket | None
    sums: Counters
    version: int  # of the newest rotation


# --- the new one -----------------------------------------------------------------------------------------------------


class Predecessor:
    """The supervisor that this one is to follow."""

    def __init__(self, sock: socket.socket, directory: Path, admin_bind: str) -> None:
        self._sock = sock
        self.directory = directory  # its state directory
        self.admin_bind = admin_bind

    @classmethod
    def known(cls) -> Predecessor | None:
        """The predecessor that started this process, if one did."""
        told = os.environ.pop(VARIABLE, "")
        if not told:
            return None
        place = json.loads(told)
        sock = socket.socket(fileno=place["fd"])
        sock.set_inheritable(False)
        sock.setblocking(False)
        return cls(sock, Path(place["directory"]), place["admin"])

    async def hand_over(self, ready: bool) -> HandoverState:
        """Say that everything stands, and take what is left. Raises `Failed`: the predecessor wants to go on."""
        try:
            _say(self._sock, {"ready": ready})
            said, fds = await _hear(self._sock, DONE_WITHIN)
        except (OSError, EOFError):  # a TimeoutError among them
            raise Failed("the lb that ran is gone, or does not answer") from None
        if "go" not in said or not fds:
            for fd in fds:
                os.close(fd)
            raise Failed("the lb that runs goes on")
        lock, book, *rest = fds
        with os.fdopen(book, "rb") as file:
            file.seek(0)
            try:
                sums = msgspec.msgpack.decode(file.read(), type=Counters)
            except msgspec.MsgspecError:  # of another version: counters begin anew, which Prometheus understands
                sums = Counters()
        admin = socket.socket(fileno=rest[0]) if rest else None
        return HandoverState(lock, admin, sums, said["version"])

    def done(self, workers: Collection[int]) -> None:
        """Everything has been taken over, these workers (process ids) among it."""
        with suppress(OSError):
            _say(self._sock, {"done": True, "workers": [*workers]})
        self._sock.close()

    def fail(self, text: str) -> None:
        """Tell it why there will be no successor."""
        with suppress(OSError):
            _say(self._sock, {"failed": text})
        self._sock.close()


@dataclass(slots=True)
class OrphanedWorkers:
    """The workers of a supervisor that is gone or about to go, and their sockets."""

    workers: list[FoundWorker] = field(default_factory=list)
    ended: list[int] = field(default_factory=list)  # workers that hung and were killed

    @property
    def version(self) -> int:
        """Newest version that any of them serves by."""
        return max((worker.applied for worker in self.workers), default=0)

    def sockets(self, bind: str) -> list[socket.socket]:
        """Their sockets of one listener; they belong to the caller."""
        sockets = []
        for worker in self.workers:
            for key in sorted(key for key in worker.sockets if key[0] == bind):
                sockets.append(worker.sockets.pop(key))
        return sockets

    def close_rest(self) -> None:
        """Close the sockets that no listener uses: the workers keep theirs until they end."""
        for worker in self.workers:
            worker.close_sockets()

    def leave(self) -> None:
        """Let them be."""
        for worker in self.workers:
            worker.leave()


async def find_orphans(directory: Path, kill_hung: bool, but: Collection[int] = ()) -> OrphanedWorkers:
    """The workers with a handover socket in a state directory, except for those with a process id in `but`.

    With `kill_hung`, hung workers are killed.
    """
    workers, hung = await asyncio.to_thread(find_workers, directory, but)
    orphans = OrphanedWorkers(workers)
    for pid in hung if kill_hung else ():
        with suppress(OSError):
            if b"lb.worker.main" in Path(f"/proc/{pid}/cmdline").read_bytes():
                os.kill(pid, signal.SIGKILL)
                orphans.ended.append(pid)
    with suppress(TimeoutError):
        async with asyncio.timeout(2.0):
            while any(Path(f"/proc/{pid}/fd/0").exists() for pid in orphans.ended):  # noqa: ASYNC110 - no child of ours
                await asyncio.sleep(0.02)
    return orphans


# --- the old one -----------------------------------------------------------------------------------------------------


class Successor:
    """The process that is to follow this supervisor."""

    def __init__(self, process: asyncio.subprocess.Process, sock: socket.socket) -> None:
        self._process = process
        self._sock = sock

    @property
    def pid(self) -> int:
        return self._process.pid

    @classmethod
    async def start(cls, command: Sequence[str], directory: Path, admin_bind: str) -> Successor:
        """Start it. Raises OSError."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setblocking(False)
        environment = {
            **os.environ,
            VARIABLE: json.dumps({"fd": theirs.fileno(), "directory": str(directory), "admin": admin_bind}),
        }
        if not os.environ.get("NOTIFY_SOCKET"):
            environment[SHIM] = "1"
        environment.pop("WATCHDOG_PID", None)  # it will be the one that is watched
        try:
            process = await asyncio.create_subprocess_exec(
                *command,
                pass_fds=(theirs.fileno(),),
                env=environment,
                stdin=asyncio.subprocess.DEVNULL,
                start_new_session=True,  # a Ctrl-C reaches it through this process, once
            )
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
        return cls(process, ours)

    async def ready(self, within: float) -> bool:
        """Wait until it serves; returns whether it has ready targets. Raises `Failed`."""
        try:
            said, _ = await _hear(self._sock, within)
        except TimeoutError:
            raise Failed(f"it was not ready within {within:g} s") from None
        except EOFError:
            with suppress(TimeoutError):
                async with asyncio.timeout(END_WITHIN):
                    await self._process.wait()
            code = self._process.returncode
            raise Failed(f"it ended with exit status {code}; its reason is in the log") from None
        if "failed" in said:
            raise Failed(str(said["failed"]))
        return bool(said["ready"])

    async def go(self, handover_state: HandoverState) -> list[int] | None:
        """Leave everything to it; returns when it has taken over. Raises `Failed`.

        Returned are the process ids of the workers that it has taken; None: it is an lb that does not say.
        """
        book = os.memfd_create("lb-sums", os.MFD_CLOEXEC)
        try:
            with os.fdopen(os.dup(book), "wb") as file:
                file.write(msgspec.msgpack.encode(handover_state.sums))
            fds = [handover_state.lock, book]
            if handover_state.admin is not None:
                fds.append(handover_state.admin.fileno())
            said = {"go": True, "version": handover_state.version}
            try:
                _say(self._sock, said, fds)
                answer, _ = await _hear(self._sock, DONE_WITHIN)
            except (TimeoutError, EOFError, OSError):
                raise Failed("it stopped in the last step") from None
            if "done" not in answer:
                raise Failed(str(answer.get("failed", "it stopped in the last step")))
        finally:
            os.close(book)
        self._sock.close()
        workers: list[int] | None = answer.get("workers")
        return workers

    async def back_out(self, drain: float, hurry: asyncio.Event) -> None:
        """End it, and its workers with it; returns when it has ended.

        Requests that its workers have taken may end within `drain` seconds, or until `hurry` is set.
        """
        with suppress(OSError):
            _say(self._sock, {"stop": True})
        self._sock.close()
        self._signal(signal.SIGTERM)
        ended = asyncio.ensure_future(self._process.wait())
        hurried = asyncio.ensure_future(hurry.wait())
        await asyncio.wait((ended, hurried), timeout=drain + END_WITHIN, return_when=asyncio.FIRST_COMPLETED)
        hurried.cancel()
        for number in (signal.SIGTERM, signal.SIGKILL):  # a second SIGTERM ends it at once
            if not ended.done():
                self._signal(number)
                await asyncio.wait((ended,), timeout=END_WITHIN)

    def _signal(self, number: int) -> None:
        with suppress(ProcessLookupError):
            self._process.send_signal(number)


def command_line() -> list[str]:
    """The command that started this process, to start it again: the interpreter by its path, everything else as it was
    typed."""
    first, *rest = sys.orig_argv
    return [first if Path(first).is_absolute() else sys.executable, *rest]


def pass_on(number: int, successor: int) -> None:
    """Give the successor a signal that was meant for the lb that this process was."""
    with suppress(ProcessLookupError):
        os.kill(successor, number)


def step_aside(successor: int, lock: Path, ends_passed_on: int) -> NoReturn:
    """The last act of a predecessor: its parent process must not see the service end.

    systemd is told the new main process, and this one may end. Every other parent watches this process id: a terminal,
    a container whose process 1 this is, another supervisor. So the process becomes a small one that passes signals on
    and ends when the successor does. A successor that stands behind such a process already simply ends. It tells that
    process how many signals to end it has passed on, since a second one would end the new lb at once.

    All signals are blocked here; those that have come since are passed on.
    """
    code = 0
    if os.environ.get("NOTIFY_SOCKET"):
        systemd.notify(f"MAINPID={successor}")
        systemd.await_heard()  # until then `systemctl stop` sends its signal here
        _pass_on_pending(successor)
    elif os.environ.get(SHIM):
        code = HANDED_OVER + min(MOST_TOLD, ends_passed_on + _pass_on_pending(successor))
    else:
        # A signal that comes while the pid proxy starts waits for it.
        os.execv(sys.executable, [sys.executable, "-m", "lb.supervisor.os.pid_proxy", str(successor), str(lock)])
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # the interpreter's own end would be long enough for one more signal


def _pass_on_pending(successor: int) -> int:
    """Pass on the blocked signals that have come; returns how many of them are to end lb."""
    ends = 0
    while (found := signal.sigtimedwait(HANDLED, 0)) is not None:
        pass_on(found.si_signo, successor)
        ends += found.si_signo in ENDING
    return ends


# --- their messages --------------------------------------------------------------------------------------------------


def _say(sock: socket.socket, said: dict[str, Any], fds: Sequence[int] = ()) -> None:
    fdpass.send(sock, json.dumps(said).encode(), fds)


async def _hear(sock: socket.socket, within: float) -> tuple[dict[str, Any], list[int]]:
    """The next message and its descriptors. Raises TimeoutError, or EOFError when the other side is gone."""
    loop = asyncio.get_running_loop()
    come = asyncio.Event()
    loop.add_reader(sock, come.set)
    try:
        async with asyncio.timeout(within):
            await come.wait()
    finally:
        loop.remove_reader(sock)
    try:
        data, fds = fdpass.receive(sock)
    except OSError as error:
        raise EOFError(str(error)) from None
    if not data:
        raise EOFError("the other lb is gone")
    return json.loads(data), fds
