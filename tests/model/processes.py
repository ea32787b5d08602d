"""Processes that are none: supervisors and workers side by side on one loop, each with what a process has of its own.

A process here is a context (`contextvars`): tasks, callbacks and sockets that come into being in it belong to it. So
`kill` does what the kernel does: nothing of it runs any more, and its sockets are closed as they are. Starting one
takes the command line that `lb` uses; process ids are above what a kernel gives, and `os.kill` knows them.
"""

from __future__ import annotations

import asyncio
import contextvars
import json
import os
import signal
import socket
import weakref
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any

from tests.model.clock import CLOCK, Loop, waited

#: Above every process id of a kernel (4,194,304 at most).
FIRST = 1 << 23

_current: contextvars.ContextVar[Process | None] = contextvars.ContextVar("process", default=None)
_Socket = socket.socket
_real_kill = os.kill
_real_getpid = os.getpid


class Socket(socket.socket):
    """A socket that its process is known to own."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        process = _current.get()
        if process is not None:
            process.sockets.add(self)

    def connect(self, *args: Any) -> None:
        waited(self, _Socket.connect, *args)

    def recv(self, *args: Any) -> bytes:
        return bytes(waited(self, _Socket.recv, *args))

    def recvmsg(self, *args: Any) -> Any:
        return waited(self, _Socket.recvmsg, *args)


class Process:
    """One supervisor or worker."""

    def __init__(self, table: Processes, pid: int, kind: str) -> None:
        self.table = table
        self.pid = pid
        self.kind = kind
        self.sockets: weakref.WeakSet[socket.socket] = weakref.WeakSet()
        self.tasks: weakref.WeakSet[asyncio.Task[Any]] = weakref.WeakSet()
        self.handlers: dict[int, Callable[[], object]] = {}
        self.due: list[Callable[[], object]] = []  # handlers of signals that have come
        self.returncode: int | None = None
        self._waiters: list[tuple[Process | None, asyncio.Future[int]]] = []
        self.context = contextvars.copy_context()
        self.context.run(_current.set, self)
        self.body: Any = None  # the `Worker` or `Supervisor`
        self.main: asyncio.Task[Any] | None = None
        self.descriptors: list[int] = []  # others than sockets, closed at its end
        self.fail_installs = 0  # so many snapshots cannot be installed
        self.is_first = True  # no other one was there to go on

    async def wait(self) -> int:
        """As of `asyncio.subprocess.Process`."""
        if self.returncode is None:
            future: asyncio.Future[int] = self.table.loop.create_future()
            self._waiters.append((_current.get(), future))
            return await future
        return self.returncode

    def send_signal(self, number: int) -> None:
        if self.returncode is not None:
            raise ProcessLookupError(3, "No such process")
        handler = self.handlers.get(number)
        if number in (signal.SIGKILL, signal.SIGABRT) or handler is None:
            self.end(-number)
        else:
            self.due.append(handler)
            self.table.loop.call_soon(self._act, context=self.context)

    def _act(self) -> None:
        while self.due:
            self.due.pop(0)()

    def begin(self, coroutine: Coroutine[Any, Any, Any]) -> None:
        """Run its main coroutine; the process ends with it."""
        self.main = self.table.loop.create_task(coroutine, context=self.context)
        self.main.add_done_callback(self._on_main)

    def _on_main(self, task: asyncio.Task[Any]) -> None:
        if self.returncode is not None:
            return
        code = 0
        if task.cancelled():
            code = 1
        elif (error := task.exception()) is not None:
            if type(error).__name__ != "CannotStart" or self.is_first:
                self.table.on_crash(self, error)
            code = 1
        self.context.run(self._act)  # a loop acts on what has come before it closes
        self.end(code)

    def end(self, code: int) -> None:
        """Everything of it is gone, at once."""
        if self.returncode is not None:
            return
        self.returncode = code
        loop = self.table.loop
        # Only a loop's own lists know what a process still has to do.
        for handle in [*loop._ready, *loop._scheduled]:  # type: ignore[attr-defined]  # noqa: SLF001
            if handle._context.get(_current, None) is self:  # noqa: SLF001
                handle.cancel()
        for task in list(self.tasks):
            task._log_destroy_pending = False  # type: ignore[attr-defined]  # noqa: SLF001
            self.table.graveyard.append(task)
        registered = loop.looking.get_map()
        for key in list(registered.values()):
            handles = [handle for handle in key.data if handle is not None]
            if any(handle._context.get(_current, None) is self for handle in handles):  # noqa: SLF001
                for handle in handles:
                    handle.cancel()
                loop.looking.unregister(key.fileobj)
        for sock in sorted(self.sockets, key=socket.socket.fileno):
            if sock.fileno() >= 0:
                loop._transports.pop(sock.fileno(), None)  # type: ignore[attr-defined]  # noqa: SLF001
                with suppress(OSError):
                    os.close(sock.detach())
        for fd in self.descriptors:
            with suppress(OSError):
                os.close(fd)
        self.table.graveyard.append(self.body)
        for waiter, future in self._waiters:
            if not future.done() and (waiter is None or waiter.returncode is None):  # the dead are not woken
                future.set_result(code)


class Processes:
    """All processes of a run."""

    def __init__(self, loop: Loop) -> None:
        self.loop = loop
        self.known: dict[int, Process] = {}
        self.graveyard: list[Any] = []  # what the dead leave is not to be finalized while the others live
        self.crashes: list[str] = []
        self.start_supervisor: Callable[[Process], Coroutine[Any, Any, Any]] | None = None
        self.fail_starts = 0  # so many starts fail with EAGAIN
        self.dead_on_arrival = 0  # so many workers die at once
        self.fail_first_installs = 0  # so many new workers cannot install their first snapshot
        self.failures: list[float] = []  # when a worker could not install a snapshot, or died at its start
        loop.on_signal_handler = self._on_signal_handler
        loop.set_task_factory(self._make_task)

    def install(self) -> None:
        """Take the place of the system's processes."""
        socket.socket = Socket  # type: ignore[misc]
        socket.SocketType = Socket
        os.kill = self.kill
        os.getpid = self.getpid
        asyncio.create_subprocess_exec = self.execute  # type: ignore[assignment]

    # --- in the system's place --------------------------------------------------------------------------------------

    def kill(self, pid: int, number: int) -> None:
        if pid < FIRST:
            raise ProcessLookupError(3, f"{pid} is none of the model's")
        process = self.known.get(pid)
        if process is None or process.returncode is not None:
            raise ProcessLookupError(3, "No such process")
        process.send_signal(number)

    def getpid(self) -> int:
        process = _current.get()
        return process.pid if process is not None else _real_getpid()

    async def execute(self, *command: str, pass_fds: tuple[int, ...] = (), env: Any = None, **_: Any) -> Process:
        """What `asyncio.create_subprocess_exec` would do for the commands that `lb` uses."""
        if self.fail_starts:
            self.fail_starts -= 1
            raise BlockingIOError(11, "Resource temporarily unavailable")
        copies = {fd: os.dup(fd) for fd in pass_fds}
        if "lb.worker.main" in command:
            return self._start_worker(json.loads(command[-1]), copies)
        return self._start_successor(dict(env), copies)

    def _on_signal_handler(self, number: int, handler: Callable[[], object]) -> None:
        process = _current.get()
        if process is not None:
            process.handlers[number] = handler

    def _make_task(self, loop: Any, coroutine: Any, context: Any = None) -> asyncio.Task[Any]:
        task: asyncio.Task[Any] = asyncio.Task(coroutine, loop=loop, context=context)
        process = context.get(_current, None) if context is not None else _current.get()
        if process is not None:
            process.tasks.add(task)
        return task

    # --- starting ---------------------------------------------------------------------------------------------------

    def new(self, kind: str) -> Process:
        pid = FIRST + len(self.known)
        process = self.known[pid] = Process(self, pid, kind)
        return process

    def _start_worker(self, told: dict[str, Any], copies: dict[int, int]) -> Process:
        from lb.worker import main as worker
        from tests.model.watched import WatchedWorker

        worker.Worker = WatchedWorker  # type: ignore[misc]
        worker.say = lambda text: None
        process = self.new("worker")
        shared = {name: copies.get(told[name], -1) for name in ("crash_counters", "rates", "in_flight")}
        if self.dead_on_arrival:
            self.dead_on_arrival -= 1
            self.failures.append(CLOCK.now)
            for fd in copies.values():
                os.close(fd)
            self.loop.call_soon(process.end, -11)
            return process
        if self.fail_first_installs:
            self.fail_first_installs -= 1
            process.fail_installs = 1
        process.descriptors += [fd for fd in shared.values() if fd >= 0]
        ends = {name: copies[told[name]] for name in ("channel", "sockets")}
        process.begin(worker.serve({**told, **shared, **ends}))
        return process

    def _start_successor(self, env: dict[str, str], copies: dict[int, int]) -> Process:
        assert self.start_supervisor is not None
        process = self.new("supervisor")
        process.is_first = False
        from lb.supervisor.upgrade import VARIABLE

        told = json.loads(env[VARIABLE])
        told["fd"] = copies[told["fd"]]
        start = self.start_supervisor

        async def run() -> None:
            os.environ[VARIABLE] = json.dumps(told)
            try:
                await start(process)
            finally:
                os.environ.pop(VARIABLE, None)

        process.begin(run())
        return process

    def living(self, kind: str) -> list[Process]:
        return [process for process in self.known.values() if process.kind == kind and process.returncode is None]

    def on_crash(self, process: Process, error: BaseException) -> None:
        self.crashes.append(f"{process.kind} {process.pid - FIRST}: {type(error).__name__}: {error}")


def current() -> Process | None:
    """The process that runs right now; None: the model itself."""
    return _current.get()


def inside(process: Process, function: Callable[..., Any], *args: Any) -> Any:
    """Call something as a part of a process."""
    return process.context.run(function, *args)
