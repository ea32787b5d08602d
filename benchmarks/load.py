"""Load: wrk for closed loops; clients of our own for a constant rate and for WebSocket messages."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks.processes import LOAD_CPU, binary

POINTS = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "p99.9": 0.999}


@dataclass
class Result:
    """One round, as the clients saw it."""

    requests: int
    seconds: float
    bytes: float
    errors: int
    latency: dict[str, float] = field(default_factory=dict)  # p50, p90, p99, p99.9 → seconds
    late: float = 0.0  # p99 of how late the client itself was, seconds; known for a constant rate

    @property
    def rate(self) -> float:
        return self.requests / self.seconds if self.seconds else 0.0


# --- closed loop: wrk ------------------------------------------------------------------------------------------------

_REPORT = """
done = function(summary, latency, requests)
  local e = summary.errors
  io.write(string.format("RESULT %d %d %d %d %f %f %f %f\\n", summary.requests, summary.duration, summary.bytes,
    e.connect + e.read + e.write + e.status + e.timeout,
    latency:percentile(50), latency:percentile(90), latency:percentile(99), latency:percentile(99.9)))
end
"""
CLOSE = 'wrk.headers["Connection"] = "close"\n'
#: Each request for another path and with another cookie, as of many users behind one connection.
VARIED = """
local n = 0
request = function()
  n = n + 1
  return "GET /items/" .. n .. " HTTP/1.1\\r\\nHost: bench\\r\\nUser-Agent: Mozilla/5.0 (X11; Linux x86_64)\\r\\n"
    .. "Accept: */*\\r\\nCookie: session=" .. n * 7919 .. "\\r\\n\\r\\n"
end
"""


def post(size: int) -> str:
    """wrk's script for a POST with a body of `size` bytes."""
    return f'wrk.method = "POST"\nwrk.body = string.rep("x", {size})\n'


def headers(count: int) -> str:
    """wrk's script for a GET with `count` header fields."""
    return "".join(f'wrk.headers["X-Filler-{i}"] = "value-of-filler-{i}"\n' for i in range(count - 1))


def routes(count: int) -> str:
    """wrk's script for GETs that go round through the routes /s-0/ … /s-`count - 1`/."""
    return f"""
local paths = {{}}
for i = 0, {count - 1} do paths[i] = "GET /s-" .. i .. "/ HTTP/1.1\\r\\nHost: bench\\r\\n\\r\\n" end
local n = 0
request = function() n = (n + 7) % {count}; return paths[n] end
"""


def wrk(url: str, connections: int, seconds: float, folder: Path, *, script: str = "") -> Result:
    """A closed loop of whole seconds; `script` is Lua that sets up the request."""
    path = folder / "wrk.lua"
    path.write_text(script + _REPORT)
    command = ["taskset", "-c", str(LOAD_CPU), binary("wrk"), "-t1", f"-c{connections}", f"-d{max(1, round(seconds))}s"]
    command += ["--timeout", "20s", "-s", str(path), url]
    out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    match = re.search(r"RESULT (\d+) (\d+) (\d+) (\d+) (\S+) (\S+) (\S+) (\S+)", out)
    if match is None:
        raise RuntimeError(f"wrk said: {out}")
    requests, micros, size, errors = (int(match[i]) for i in range(1, 5))
    latency = {name: float(match[i]) / 1e6 for i, name in enumerate(POINTS, 5)}
    return Result(requests, micros / 1e6, size, errors, latency)


def newcomers(url: str, connections: int, busy: int, seconds: float, folder: Path) -> Result:
    """A closed loop of clients that open a connection for each request, beside `busy` ones that keep theirs."""
    with TemporaryDirectory(dir=folder) as apart, ThreadPoolExecutor(1) as beside:
        others = beside.submit(wrk, url, busy, seconds, Path(apart))
        found = wrk(url, connections, seconds, folder, script=CLOSE)
        others.result()
    return found


# --- our own clients -------------------------------------------------------------------------------------------------


def paced(port: int, rate: float, seconds: float, connections: int = 64) -> Result:
    """`rate` requests per second, each due at its own time; what it waits for its turn counts as latency."""
    told = _client("benchmarks.open_loop", port, rate, seconds, connections)
    late = points(told["late"]).get("p99", 0.0)
    return Result(len(told["times"]), seconds, 0, told["errors"], points(told["times"]), late)


def messages(port: int, connections: int, seconds: float) -> Result:
    """WebSocket messages and their echoes; one under way on each connection."""
    told = _client("benchmarks.websocket", "load", port, connections, seconds)
    return Result(len(told["times"]), seconds, told["bytes"], len(told["errors"]), points(told["times"]))


def points(times: list[float]) -> dict[str, float]:
    """The percentiles of some times."""
    times = sorted(times)
    return {name: times[min(len(times) - 1, int(len(times) * share))] for name, share in POINTS.items() if times}


def _client(module: str, *arguments: object) -> dict[str, Any]:
    command = ["taskset", "-c", str(LOAD_CPU), sys.executable, "-m", module, *map(str, arguments)]
    environ = {**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)}
    out = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=environ).stdout
    told: dict[str, Any] = json.loads(out)
    return told
