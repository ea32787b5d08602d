"""Load: wrk for closed loops, and an open-loop client of our own that leaves out coordinated omission."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

from benchmarks.servers import LOAD_CPU


@dataclass
class Result:
    """One round."""

    requests: int
    seconds: float
    bytes: float
    errors: int
    latency: dict[str, float]  # p50, p90, p99, p99.9 → seconds

    @property
    def rate(self) -> float:
        return self.requests / self.seconds if self.seconds else 0.0


_UNITS = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0}
_SIZES = {"B": 1, "KB": 1 << 10, "MB": 1 << 20, "GB": 1 << 30}
_REPORT = """
done = function(summary, latency, requests)
  local e = summary.errors
  io.write(string.format("RESULT %d %d %d %d %f %f %f %f\\n", summary.requests, summary.duration, summary.bytes,
    e.connect + e.read + e.write + e.status + e.timeout,
    latency:percentile(50), latency:percentile(90), latency:percentile(99), latency:percentile(99.9)))
end
"""


def wrk(url: str, connections: int, seconds: float, folder: Path, *, script: str = "") -> Result:
    """A closed loop; `script` is Lua that sets up the request."""
    path = folder / "wrk.lua"
    path.write_text(script + _REPORT)
    command = ["taskset", "-c", str(LOAD_CPU), "wrk", "-t1", f"-c{connections}", f"-d{max(1, round(seconds))}s"]
    command += ["--timeout", "20s", "-s", str(path), url]
    out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    match = re.search(r"RESULT (\d+) (\d+) (\d+) (\d+) (\S+) (\S+) (\S+) (\S+)", out)
    if match is None:
        raise RuntimeError(f"wrk said: {out}")
    requests, micros, size, errors = (int(match[i]) for i in range(1, 5))
    points = dict(zip(("p50", "p90", "p99", "p99.9"), (float(match[i]) / 1e6 for i in range(5, 9)), strict=True))
    return Result(requests, micros / 1e6, size, errors, points)


def post(size: int) -> str:
    """wrk's script for a POST with a body of `size` bytes."""
    return f'wrk.method = "POST"\nwrk.body = string.rep("x", {size})\n'


def headers(count: int) -> str:
    """wrk's script for a GET with `count` header fields."""
    return "".join(f'wrk.headers["X-Filler-{i}"] = "value-of-filler-{i}"\n' for i in range(count - 1))


CLOSE = 'wrk.headers["Connection"] = "close"\n'


def paced(port: int, rate: float, seconds: float, connections: int = 32) -> Result:
    """`rate` requests per second, each due at its own time; what it waits for its turn counts as latency."""
    os.sched_setaffinity(0, {LOAD_CPU})
    try:
        import uvloop

        return uvloop.run(_paced(port, rate, seconds, connections))
    finally:
        os.sched_setaffinity(0, set(range(os.cpu_count() or 1)))


class _Client(asyncio.Protocol):
    def __init__(self, free: list[_Client], times: list[float]) -> None:
        self.free, self.times = free, times
        self.due = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        self.free.append(self)

    def send(self, due: float) -> None:
        self.due = due
        self.transport.write(b"GET / HTTP/1.1\r\nHost: bench\r\n\r\n")  # type: ignore[attr-defined]

    def data_received(self, data: bytes) -> None:
        self.times.append(perf_counter() - self.due)
        self.free.append(self)


async def _paced(port: int, rate: float, seconds: float, connections: int) -> Result:
    loop = asyncio.get_running_loop()
    free: list[_Client] = []
    times: list[float] = []
    clients = [
        (await loop.create_connection(lambda: _Client(free, times), "127.0.0.1", port))[1] for _ in range(connections)
    ]
    began = perf_counter()
    sent, total = 0, int(rate * seconds)
    while sent < total:
        now = perf_counter()
        while sent < total and began + sent / rate <= now and free:
            free.pop().send(began + sent / rate)
            sent += 1
        await asyncio.sleep(0 if free else 0.0002)
    until = perf_counter() + 2.0
    while len(times) < sent and perf_counter() < until:  # noqa: ASYNC110 - answers come one by one
        await asyncio.sleep(0.001)
    for client in clients:
        client.transport.close()  # type: ignore[attr-defined]
    times.sort()
    points = (
        {name: times[min(len(times) - 1, int(len(times) * share))] for name, share in _POINTS.items()} if times else {}
    )
    return Result(len(times), seconds, 0, sent - len(times), points)


_POINTS = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "p99.9": 0.999}
