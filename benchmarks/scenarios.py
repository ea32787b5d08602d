"""What is measured. A stage brings servers up alike; a scenario says what one round on a stage is, and what compares.

On the stages of one name for each proxy ("nginx"), lb is compared with each of the others. On the other stages each
server stands for a variant of its proxy ("nginx, 1,000 targets") and is compared with the first variant of the same.
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import median

from benchmarks import load, origin
from benchmarks.load import Result
from benchmarks.processes import Server, stop
from benchmarks.servers import PEERS, Setup

#: lb's service with everything on that can be on for a plain request, and with everything off.
ALL_ON = """retries: {statuses: [502, 503, 504], per_try: 10s}
    outlier: {latency: 5}
    breaker: {requests: 10000}"""
ALL_OFF = "retries: {attempts: 0}\n    outlier: {enabled: false}"


@dataclass
class Run:
    """The options of one run, and what is known by now."""

    folder: Path
    peers: tuple[str, ...]
    seconds: float = 1.0  # of a round
    log: bool = True
    python: str = ""  # lb's interpreter; "": this one
    capacity: dict[int, float] = field(default_factory=dict)  # by port: requests per second in a closed loop

    def setup(self, targets: tuple[str, ...]) -> Setup:
        setup = Setup(self.folder, targets, log=self.log)
        return replace(setup, python=self.python) if self.python else setup


Variants = Callable[[Setup], Mapping[str, Setup]]


@dataclass(frozen=True)
class Stage:
    """Servers that run at one time: for each proxy its variants, "" being the plain one."""

    variants: Variants = lambda setup: {"": setup}
    targets: int = 1
    peers: tuple[str, ...] = tuple(PEERS)
    echo: bool = False  # behind it stands the WebSocket echo, and not nginx

    @contextmanager
    def up(self, run: Run) -> Iterator[dict[str, Server]]:
        """Bring it up; everything is ended by its pid afterwards."""
        behind: subprocess.Popen[bytes] | None = None
        running: dict[str, Server] = {}
        try:
            behind, targets = origin.echo(run.folder) if self.echo else origin.origin(run.folder, self.targets)
            for peer in run.peers:
                if peer in self.peers:
                    for variant, setup in self.variants(run.setup(targets)).items():
                        running[f"{peer}, {variant}" if variant else peer] = PEERS[peer](setup)
            yield running
        finally:
            for server in running.values():
                stop(server.process)
            if behind is not None:
                stop(behind)


@dataclass(frozen=True)
class Scenario:
    """One kind of load on a stage."""

    name: str
    text: str
    stage: str
    one: Callable[[Run, Server], Result]
    unit: str = "request"  # what CPU time is counted by: request | newcomer | MiB | message | second
    least: float = 1.0  # seconds that a round takes at least
    warm: bool = False  # a round follows a like one that is not counted: connections are open, and nobody has rested


def _get(path: str, connections: int, script: str = "") -> Callable[[Run, Server], Result]:
    return lambda run, server: load.wrk(server.url + path, connections, run.seconds, run.folder, script=script)


def _paced(share: float, same: bool = False) -> Callable[[Run, Server], Result]:
    """A constant rate: a share of the server's own capacity, or with `same` of the weakest one's on the stage."""

    def one(run: Run, server: Server) -> Result:
        capacity = min(run.capacity.values()) if same else run.capacity[server.port]
        return load.paced(server.port, share * capacity, run.seconds)

    return one


def find_capacity(run: Run, servers: Mapping[str, Server]) -> None:
    """Requests per second of each server in a closed loop of 64 connections: the median of three rounds."""
    rates: dict[int, list[float]] = {server.port: [] for server in servers.values()}
    for _ in range(3):
        for server in servers.values():
            rates[server.port].append(load.wrk(f"{server.url}/", 64, 1.0, run.folder).rate)
    run.capacity = {port: median(found) for port, found in rates.items()}


def _rest(run: Run, server: Server) -> Result:
    """No load at all: what a server does by itself."""
    time.sleep(run.seconds)
    return Result(0, run.seconds, 0, 0)


def _services(setup: Setup) -> dict[str, Setup]:
    return {"1 service": setup, "1,000 services": replace(setup, services=1000)}


def _routes(setup: Setup) -> dict[str, Setup]:
    return {"1 route": setup, "1,000 routes": replace(setup, routes=1000)}


def _targets(setup: Setup) -> dict[str, Setup]:
    return {
        f"{count:,} target{'s' if count > 1 else ''}": replace(setup, targets=setup.targets[:count])
        for count in (1, 10, 100, 1000)
    }


def _features(setup: Setup) -> dict[str, Setup]:
    return {
        "all off": replace(setup, log=False, features=ALL_OFF),
        "log on": replace(setup, log=True, features=ALL_OFF),
        "all on": replace(setup, log=True, features=ALL_ON),
    }


def _workers(setup: Setup) -> dict[str, Setup]:
    return {f"{n} worker{'s' if n > 1 else ''}": replace(setup, workers=n) for n in (1, 2)}


def _checks(setup: Setup) -> dict[str, Setup]:
    return {"no checks": setup, "1,000 checks a second": replace(setup, checks="1s")}


STAGES = {
    "plain": Stage(),
    "targets": Stage(_targets, targets=1000),
    "routes": Stage(_routes, peers=("lb", "nginx")),
    "services": Stage(_services, targets=10, peers=("lb", "nginx", "haproxy", "envoy")),
    "features": Stage(_features, peers=("lb",)),
    "workers": Stage(_workers),
    "checks": Stage(_checks, targets=1000, peers=("lb", "haproxy", "envoy")),
    "websocket": Stage(lambda setup: {"": replace(setup, websocket=True)}, echo=True),
}

SCENARIOS = {
    scenario.name: scenario
    for scenario in (
        Scenario("get-1", "small GET, 1 connection", "plain", _get("/", 1)),
        Scenario("get-32", "small GET, 32 connections", "plain", _get("/", 32)),
        Scenario("get-256", "small GET, 256 connections", "plain", _get("/", 256)),
        Scenario("get-2000", "small GET, 2,000 connections", "plain", _get("/", 2000), least=2.0),
        Scenario(
            "varied", "GET, each with another path and cookie, 32 connections", "plain", _get("/", 32, load.VARIED)
        ),
        Scenario("post-1k", "POST 1 KiB, 32 connections", "plain", _get("/", 32, load.post(1024))),
        Scenario("post-64k", "POST 64 KiB, 32 connections", "plain", _get("/", 32, load.post(65536))),
        Scenario("1m", "responses of 1 MiB, 16 connections", "plain", _get("/files/1m", 16), "MiB"),
        Scenario("100m", "responses of 100 MiB, 4 connections", "plain", _get("/files/100m", 4), "MiB", least=2.0),
        Scenario("close", "a new connection for each request, 32 at a time", "plain", _get("/", 32, load.CLOSE)),
        Scenario(
            "newcomers",
            "a new connection for each request, 32 at a time, beside 1,000 busy clients (whose CPU time is counted)",
            "plain",
            lambda run, server: load.newcomers(f"{server.url}/", 32, 1000, run.seconds, run.folder),
            "newcomer",
            least=3.0,
        ),
        Scenario(
            "headers-30", "30 header fields each way, 32 connections", "plain", _get("/headers", 32, load.headers(30))
        ),
        Scenario("paced-50", "constant rate, half of each one's capacity", "plain", _paced(0.5), least=2.0),
        Scenario("paced-80", "constant rate, 80 % of each one's capacity", "plain", _paced(0.8), least=2.0),
        Scenario("paced-same", "constant rate, half of the weakest's capacity", "plain", _paced(0.5, True), least=2.0),
        Scenario("targets", "targets in a pool, 32 connections", "targets", _get("/", 32), warm=True),
        Scenario("routes", "routes to one service, 32 connections", "routes", _get("/", 32, load.routes(1000))),
        Scenario("services", "services with routes, 32 connections", "services", _get("/", 32, load.routes(1000))),
        Scenario("features", "features, 32 connections", "features", _get("/", 32)),
        Scenario(
            "workers", "workers on both processors, which the load shares, 64 connections", "workers", _get("/", 64)
        ),
        Scenario("checks-rest", "health checks, no load", "checks", _rest, "second", least=2.0),
        Scenario("checks-load", "health checks under load, half the capacity", "checks", _paced(0.5, True), least=2.0),
        Scenario(
            "websocket",
            "WebSocket echo messages of 64 bytes, 32 connections",
            "websocket",
            lambda run, server: load.messages(server.port, 32, run.seconds),
            "message",
        ),
    )
}
