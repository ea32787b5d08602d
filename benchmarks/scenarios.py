"""What is measured. A scenario sets up servers alike and says what one round is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from benchmarks import load
from benchmarks.load import Result
from benchmarks.servers import Server


@dataclass(frozen=True)
class Scenario:
    """One kind of load."""

    name: str
    text: str
    one: Callable[[Server, Path, float], Result]
    measure: str = "rate"  # rate | bytes_per_cpu: what the ratio is of
    peers: tuple[str, ...] = ("lb", "nginx", "haproxy", "envoy", "caddy")


def _get(path: str, connections: int, script: str = "") -> Callable[[Server, Path, float], Result]:
    return lambda server, folder, seconds: load.wrk(server.url + path, connections, seconds, folder, script=script)


SCENARIOS = {
    scenario.name: scenario
    for scenario in (
        Scenario("get-1", "small GET, 1 connection", _get("/", 1)),
        Scenario("get-32", "small GET, 32 connections", _get("/", 32)),
        Scenario("get-256", "small GET, 256 connections", _get("/", 256)),
        Scenario("get-2000", "small GET, 2,000 connections", _get("/", 2000)),
        Scenario("post-1k", "POST 1 KiB, 32 connections", _get("/", 32, load.post(1024))),
        Scenario("post-64k", "POST 64 KiB, 32 connections", _get("/", 32, load.post(65536))),
        Scenario("1m", "response of 1 MiB, 16 connections", _get("/files/1m", 16), "bytes_per_cpu"),
        Scenario("100m", "response of 100 MiB, 4 connections", _get("/files/100m", 4), "bytes_per_cpu"),
        Scenario("close", "a new connection for each request, 32 at a time", _get("/", 32, load.CLOSE)),
        Scenario("headers-30", "30 header fields each way, 32 connections", _get("/headers", 32, load.headers(30))),
    )
}
