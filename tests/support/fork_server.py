"""Processes of `lb` and of its demo backends, forked from one that has imported everything.

A start of `lb` is mostly imports, and the tests start it hundreds of times. What runs is the same: `python -m MODULE`
by runpy, with a working directory, an environment, descriptors and an exit status of its own. Workers are started by
the supervisor as ever. Tests of starting itself have the mark `real_start`, and each `lb` is a `subprocess.Popen`.

    python -m tests.support.fork_server DESCRIPTOR

is the other half: the process that forks. It ends with the tests that have started it.
"""

from __future__ import annotations

import contextlib
import fcntl
import importlib
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path

import lb

#: What an `lb run` imports, and a backend (whose own module runs as `__main__`).
IMPORTS = (
    "aiohttp.web", "argparse", "asyncio", "lb.cli.run", "lb.control.api.app", "lb.supervisor.explanations",
    "lb.supervisor.main", "lb.supervisor.metrics", "lb.supervisor.operations", "lb.supervisor.views",
)  # fmt: skip
#: Descriptors from here on are free while a new process sorts those that it was given.
HIGH = 500
#: Bytes of an order at most.
ORDER = 1 << 17


class Forked:
    """A process that was forked. It is used as a `subprocess.Popen` is."""

    def __init__(self, pid: int, ended: int, args: Sequence[str]) -> None:
        self.pid = pid
        self.args = args
        self.returncode: int | None = None
        self._ended = ended  # its exit status comes here
        self._lock = threading.Lock()

    def poll(self) -> int | None:
        """Its exit code, if it has ended."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.wait(0)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Its exit code, when it has ended."""
        with self._lock:
            if self.returncode is None:
                waiting = select.poll()
                waiting.register(self._ended, select.POLLIN)
                if not waiting.poll(None if timeout is None else timeout * 1000):
                    raise subprocess.TimeoutExpired(self.args, timeout or 0)
                status = os.read(self._ended, 16)
                os.close(self._ended)
                self.returncode = os.waitstatus_to_exitcode(int(status))
            return self.returncode

    def send_signal(self, number: int) -> None:
        """Send a signal, unless it has ended."""
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):  # the server has reaped it, and is about to say so
                os.kill(self.pid, number)

    def terminate(self) -> None:
        """SIGTERM."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """SIGKILL."""
        self.send_signal(signal.SIGKILL)


class ForkServer:
    """The process that forks, as the tests use it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._sock, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        root = Path(lb.__file__).parents[1]  # of the form that is tested: the checkout, or its compiled copy
        self._process = subprocess.Popen(
            [sys.executable, "-m", __name__, str(other.fileno())],
            cwd=root,
            stdin=subprocess.DEVNULL,
            pass_fds=(other.fileno(),),
        )
        other.close()

    def start(
        self, module: str, *arguments: str, cwd: Path | None = None, stderr: int = -1, inherits: tuple[int, ...] = ()
    ) -> Forked:
        """Run `python -m MODULE ARGUMENTS` in the environment of this process. `stderr`: a descriptor; else nothing is
        kept. `inherits`: descriptors that it has under the same numbers."""
        ended, ends = os.pipe()
        numbers = [2, *inherits] if stderr >= 0 else [*inherits]
        order = {"module": module, "arguments": arguments, "cwd": str(cwd or Path.cwd()), "numbers": numbers}
        message = json.dumps(order | {"environment": dict(os.environ)}).encode()
        with self._lock:
            socket.send_fds(self._sock, [message], [ends, *([stderr] if stderr >= 0 else []), *inherits])
            os.close(ends)
            pid = int(self._sock.recv(16))
        return Forked(pid, ended, [module, *arguments])


_server: ForkServer | None = None
_starting = threading.Lock()


def start(
    module: str, *arguments: str, cwd: Path | None = None, stderr: int = -1, inherits: tuple[int, ...] = ()
) -> Forked:
    """`ForkServer.start`, of the one server of this process."""
    global _server
    with _starting:
        _server = _server or ForkServer()
    return _server.start(module, *arguments, cwd=cwd, stderr=stderr, inherits=inherits)


# --- the process that forks ------------------------------------------------------------------------------------------


def serve(orders: socket.socket) -> None:
    """Fork as ordered, and pass on exit statuses. Returns when the tests have ended, and in each new process."""
    woken, waking = os.pipe()
    os.set_blocking(woken, False)
    os.set_blocking(waking, False)
    signal.set_wakeup_fd(waking, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    ends: dict[int, int] = {}  # process → where its exit status goes
    while True:
        readable, _, _ = select.select([orders, woken], [], [])
        if woken in readable:
            with contextlib.suppress(BlockingIOError):
                os.read(woken, 4096)
            _pass_on(ends)
        if orders not in readable:
            continue
        message, given, _, _ = socket.recv_fds(orders, ORDER, 64)
        if not message:
            return
        pid = os.fork()
        if pid:
            ends[pid] = given[0]
            for each in given[1:]:
                os.close(each)
            orders.send(str(pid).encode())
            continue
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        for each in (*ends.values(), given[0], orders.detach(), woken, waking):
            os.close(each)
        run(json.loads(message), given[1:])


def _pass_on(ends: dict[int, int]) -> None:
    while ends:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if not pid:
            return
        with contextlib.suppress(BrokenPipeError):  # nobody waits for it
            os.write(ends[pid], str(status).encode())
        os.close(ends.pop(pid))


def run(order: Mapping[str, object], given: Sequence[int]) -> None:
    """Be the new process, and end with its exit code."""
    numbers, arguments, environment = order["numbers"], order["arguments"], order["environment"]
    assert isinstance(numbers, list) and isinstance(arguments, list) and isinstance(environment, dict)
    high = [fcntl.fcntl(each, fcntl.F_DUPFD_CLOEXEC, HIGH) for each in given]
    for each in given:
        os.close(each)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)
    os.close(nowhere)
    for number, each in zip(numbers, high, strict=True):
        os.dup2(each, number)
        os.close(each)
    os.chdir(str(order["cwd"]))
    os.environ.clear()
    os.environ.update(environment)
    module = str(order["module"])
    sys.orig_argv = [sys.executable, "-m", module, *arguments]
    sys.argv = ["", *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)
    sys.exit()


def main() -> None:
    for name in IMPORTS:
        importlib.import_module(name)
    from lb.config.load import load_text

    load_text("backends: [http://127.0.0.1:1]")  # the model's schema is made at its first use
    serve(socket.socket(fileno=int(sys.argv[1])))


if __name__ == "__main__":
    main()
