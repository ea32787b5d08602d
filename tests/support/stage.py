"""What an end-to-end test stands on: processes that are started, asked, hurt and ended by pid.

Backends are the demo's greeting servers (each can be told to misbehave, see lb/demo/greeting.py). Nothing here sleeps
for a fixed time: `eventually` waits for a condition with a deadline.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self, TypeVar

import pytest

from tests.support import fork_server
from tests.support.eventually import eventually
from tests.support.fork_server import Forked
from tests.support.ports import free_port

T = TypeVar("T")


class Answer:
    """One HTTP answer."""

    def __init__(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.status = status
        self.headers = headers
        self.body = body

    @property
    def json(self) -> Any:
        return json.loads(self.body)


def ask(url: str, method: str = "GET", body: bytes | None = None, headers: dict[str, str] | None = None) -> Answer:
    """One request on a connection of its own."""
    request = urllib.request.Request(url, data=body, method=method, headers=headers or {})
    try:
        with urllib.request.urlopen(request, timeout=10.0) as response:
            return Answer(response.status, dict(response.headers), response.read())
    except urllib.error.HTTPError as error:
        return Answer(error.code, dict(error.headers), error.read())


class Backend:
    """A greeting server in a process of its own."""

    def __init__(self, pool: str = "blue", port: int = 0, host: str = "127.0.0.1") -> None:
        with socket.socket() as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind((host, port or free_port()))
            sock.listen(1024)
            self.port = sock.getsockname()[1]
            self.address = f"{host}:{self.port}"
            self.url = f"http://{self.address}"
            self.pool = pool
            self.process = fork_server.start(
                "lb.demo.greeting",
                *(self.address, "--version", pool, "--fd", str(sock.fileno())),
                inherits=(sock.fileno(),),
            )
        eventually(lambda: ask(f"{self.url}/health/liveness").status == 200, what="the backend answers")

    def toggle(self) -> bool:
        """Turn readiness over; returns what it is now."""
        healthy: bool = ask(f"{self.url}/toggle_health", "POST").json["healthy"]
        return healthy

    def kill(self) -> None:
        """kill -9."""
        self.process.kill()
        self.process.wait(5)


class Lb:
    """A running `lb`."""

    def __init__(self, process: subprocess.Popen[bytes] | Forked, errors: Path, access: Path) -> None:
        self.process = process
        self.errors = errors
        self.access = access
        self.admin = ""
        self.url = ""

    def await_start(self) -> None:
        """Wait until it says where it listens."""

        def told() -> bool:
            if self.process.poll() is not None:
                raise RuntimeError(f"lb ended with {self.process.returncode}:\n{self.errors.read_text()}")
            text = self.errors.read_text()
            admin = re.search(r"admin +(https?://\S+)", text)
            clients = re.search(r"serves (https?://[^\s,]+)", text)
            if admin and clients:
                self.admin, self.url = admin[1], clients[1]
            return bool(self.url)

        eventually(told, 20.0, "lb says where it listens")

    def status(self) -> Any:
        """What /api/v1/status says."""
        return ask(f"{self.admin}/api/v1/status").json

    def state(self, tail: str) -> str:
        """A target's state."""
        targets = [t for s in self.status()["services"] for p in s["pools"] for t in p["targets"]]
        [state] = [t["state"] for t in targets if t["id"].endswith(tail)]
        return str(state)

    def metrics(self) -> dict[str, float]:
        """The samples by their whole name with labels."""
        text = ask(f"{self.admin}/metrics").body.decode()
        return {name: float(value) for name, value in re.findall(r"^(lb_\S+) (\S+)$", text, re.MULTILINE)}

    def cli(self, *arguments: str, timeout: float = 30.0) -> subprocess.CompletedProcess[str]:
        """Run a client command against it."""
        environment = {**os.environ, "LB_ADMIN": self.admin, "NO_COLOR": "1", "COLUMNS": "80"}
        command = [sys.executable, "-m", "lb", *arguments]
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=timeout, check=False)

    def stop(self, number: int = signal.SIGTERM, within: float = 15.0) -> int:
        """Stop it by a signal; returns its exit code."""
        self.process.send_signal(number)
        return self.process.wait(within)


class Stage:
    """Everything one test has started."""

    def __init__(self, folder: Path, real_start: bool = False) -> None:
        self.folder = folder
        self.real_start = real_start
        self.backends: list[Backend] = []
        self.running: list[Lb] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for lb in self.running:
            if lb.process.poll() is None:
                pids = []
                with contextlib.suppress(OSError, ValueError, KeyError, AssertionError):
                    pids = lb.status()["workers"] if lb.admin else []
                lb.process.terminate()
                try:
                    lb.process.wait(5)
                except subprocess.TimeoutExpired:
                    lb.process.kill()
                    lb.process.wait(5)
                for pid in pids:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
        for doorway in self.folder.rglob("workers/*.sock"):  # of workers that have outlived their supervisor
            with contextlib.suppress(ProcessLookupError, ValueError):
                os.kill(int(doorway.stem), signal.SIGKILL)
        for backend in self.backends:
            backend.kill()

    def backend(self, pool: str = "blue", port: int = 0, host: str = "127.0.0.1") -> Backend:
        """Start a backend."""
        made = Backend(pool, port, host)
        self.backends.append(made)
        return made

    def pool(self, name: str, count: int) -> list[Backend]:
        """Start several."""
        return [self.backend(name) for _ in range(count)]

    def file(self, text: str, name: str = "lb.yaml") -> Path:
        """Write a configuration file."""
        path = self.folder / name
        path.write_text(text)
        return path

    def config(self, pools: dict[str, list[Backend]], *, service: str = "", top: str = "") -> Path:
        """A file with one service `greeting`, quick checks, free ports; `service` and `top` are added to it."""
        lines = ["listeners: [127.0.0.1:0]", "admin: {bind: 127.0.0.1:0}", "state_dir: ./state"]
        lines += [f"access_log: {{path: {self.folder / 'access.log'}}}", *top.strip().splitlines()]
        lines += ["services:", "  greeting:", "    pools:"]
        lines += [f"      {name}: [{', '.join(b.url for b in backends)}]" for name, backends in pools.items()]
        lines += [f"    active: {next(iter(pools))}"]
        if "readiness:" not in service:
            lines += ["    readiness: {path: /health/readiness, interval: 200ms, timeout: 500ms, rise: 2, fall: 2}"]
        lines += [f"    {line}" for line in service.strip().splitlines()]
        return self.file("\n".join(lines) + "\n")

    def start(
        self, path: Path, workers: int = 2, *arguments: str, ready: bool = True, inherits: tuple[int, ...] = ()
    ) -> Lb:
        """Run `lb run` on a file and wait until it serves. `inherits`: descriptors that are left to it."""
        errors = self.folder / f"lb-{len(self.running)}.err"
        words = ["run", str(path), *(["--workers", str(workers)] if workers else []), *arguments]
        process: subprocess.Popen[bytes] | Forked
        with errors.open("wb") as sink:
            if self.real_start:
                process = subprocess.Popen(
                    [sys.executable, "-m", "lb", *words],
                    stdout=subprocess.DEVNULL,
                    stderr=sink,
                    cwd=self.folder,
                    pass_fds=inherits,
                )
            else:
                process = fork_server.start("lb", *words, cwd=self.folder, stderr=sink.fileno(), inherits=inherits)
        lb = Lb(process, errors, self.folder / "access.log")
        self.running.append(lb)
        lb.await_start()
        if ready:
            eventually(lambda: ask(f"{lb.admin}/readyz").status == 200, what="lb is ready")
        return lb


@pytest.fixture
def stage(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Stage]:
    """Starts backends and an lb, and ends whatever was started."""
    with Stage(tmp_path, request.node.get_closest_marker("real_start") is not None) as made:
        yield made


class Load:
    """Clients that ask again and again, each on a kept connection (or a new one each time), and count what they get.

    They pause a little in between: what is to be seen is whether requests fail, and others need the processor too.
    """

    PAUSE = 0.001

    def __init__(
        self, url: str, clients: int = 4, path: str = "/greeting", body: bytes | None = None, keep: bool = True
    ) -> None:
        self._keep = keep
        host, _, port = url.removeprefix("http://").partition(":")
        self._address = (host, int(port))
        method = b"POST" if body is not None else b"GET"
        length = b"Content-Length: %d\r\n" % len(body) if body is not None else b""
        self._request = b"%b %b HTTP/1.1\r\nHost: test\r\n%b\r\n" % (method, path.encode(), length) + (body or b"")
        self.statuses: dict[int, int] = {}
        self.trouble: list[str] = []
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._threads = [threading.Thread(target=self._run, daemon=True) for _ in range(clients)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def count(self) -> int:
        return sum(self.statuses.values())

    @property
    def failed(self) -> list[str]:
        """Everything that a client would call an error."""
        bad = [f"{count} × {status}" for status, count in self.statuses.items() if status >= 400]
        return bad + self.trouble

    def stop(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(10)

    def _run(self) -> None:
        sock: socket.socket | None = None
        while not self._stop.wait(self.PAUSE):
            try:
                if sock is None:
                    sock = socket.create_connection(self._address, 10)
                sock.sendall(self._request)
                status, close = read_answer(sock)
                with self._lock:
                    self.statuses[status] = self.statuses.get(status, 0) + 1
                if close or not self._keep:
                    sock.close()
                    sock = None
            except (OSError, ValueError) as error:
                if not self._stop.is_set():
                    with self._lock:
                        self.trouble.append(repr(error))
                if sock is not None:
                    sock.close()
                sock = None
        if sock is not None:
            sock.close()


def read_answer(sock: socket.socket) -> tuple[int, bool]:
    """Read one answer with Content-Length; returns (status, whether the connection closes)."""
    data = b""
    while b"\r\n\r\n" not in data:
        more = sock.recv(65536)
        if not more:
            raise ValueError(f"the connection closed within a head: {data!r}")
        data += more
    head, _, body = data.partition(b"\r\n\r\n")
    match = re.search(rb"(?i)content-length: *([0-9]+)", head)
    if match is None:
        raise ValueError(f"no Content-Length: {head!r}")
    left = int(match[1]) - len(body)
    while left > 0:
        more = sock.recv(65536)
        if not more:
            raise ValueError("the connection closed within a body")
        left -= len(more)
    return int(head[9:12]), b"connection: close" in head.lower()
