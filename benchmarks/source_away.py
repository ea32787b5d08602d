"""The source that names lb's targets is away for a while, under load: what fails, and when has lb caught up?

    python -m benchmarks.source_away [--seconds 60] [--rate 2000] [--only file,dns,docker,kubernetes,consul]

For each kind of source, a stand-in of it names five targets, and lb serves them with two workers while h2load asks at a
constant rate. Then the source goes: its server takes no more connections, and the file is one that is half written.
Halfway one target is replaced, in the source's data as well, and the old one ends two seconds later. When the source is
back, counted from before it begins to start, the new target is in force once lb shows exactly what the source names,
all ready, and a request has come to the new one. It exits with 1 when a request failed, when status did not say that
the source was away, or when the new target was in force too late.
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from benchmarks.found_targets import CHECK, Targets, counts, h2load
from benchmarks.processes import await_answer, stop
from tests.support.consul_agent import Agent
from tests.support.dns_server import DnsServer
from tests.support.docker_engine import Engine
from tests.support.kubernetes_api import ApiServer, pod
from tests.support.ports import free_port, free_ports

TARGETS = 5
#: Seconds: of load before the source goes and after it is back; that a replaced target still serves; and at most until
#: what changed is in force.
BEFORE, AFTER, GRACE, MOST = 2, 8, 2.0, 2.0
LB = """
listeners: [127.0.0.1:{port}]
admin: {{bind: 127.0.0.1:{admin}}}
state_dir: {folder}/lb.state
access_log: off
services:
  bench:
    pools: {{all: {{discover: {{{discover}}}}}}}
    readiness: {{path: {check}, interval: 500ms}}
"""


class Server(Protocol):
    """What names targets, and may go and come back."""

    def start(self) -> None: ...

    def stop(self) -> None: ...


class Source(NamedTuple):
    """A source, whether it is away or not."""

    discover: str  # what the configuration says of it
    server: Server
    say: Callable[[list[str]], None]  # the hosts that it names from now on


class File:
    """A file that is half written while it is away."""

    def __init__(self, path: Path) -> None:
        self.path, self.text, self.away = path, "", False

    def say(self, text: str) -> None:
        self.text = text
        if not self.away:
            self.start()

    def start(self) -> None:
        self.away = False
        whole = self.path.with_suffix(".new")
        whole.write_text(self.text)
        whole.replace(self.path)

    def stop(self) -> None:
        self.away = True
        self.path.write_text(self.text[: len(self.text) // 2])


class Dns:
    """A DNS server that comes back at its port, with its records."""

    def __init__(self) -> None:
        self.server = DnsServer(port=free_port())

    def __enter__(self) -> Dns:
        self.server.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        records, self.server = self.server.records, DnsServer(port=self.server.port)
        self.server.records = records
        self.server.__enter__()

    def stop(self) -> None:
        self.server.__exit__()


def file(folder: Path, port: int, _: ExitStack) -> Source:
    found = File(folder / "found.json")
    return Source(
        f"file: {found.path}", found, lambda hosts: found.say(json.dumps([f"http://{host}:{port}" for host in hosts]))
    )


def dns(_: Path, port: int, stack: ExitStack) -> Source:
    names, name = stack.enter_context(Dns()), "pool.test"
    return Source(
        f'dns: {{name: {name}, port: {port}, resolvers: ["{names.server.address}"]}}',
        names,
        lambda hosts: names.server.say(name, *hosts),
    )


def docker(folder: Path, port: int, stack: ExitStack) -> Source:
    engine = stack.enter_context(Engine(folder / "docker.sock"))
    running: dict[str, str] = {}  # host → container

    def say(hosts: list[str]) -> None:
        for host in set(running) - set(hosts):
            engine.end(running.pop(host))
        running.update({host: engine.run(f"of-{host}", host, port=port) for host in hosts if host not in running})

    return Source(f'docker: {{label: pool=main, socket: "{engine.url}"}}', engine, say)


def kubernetes(folder: Path, port: int, stack: ExitStack) -> Source:
    api = stack.enter_context(ApiServer())
    ports = [{"name": "http", "port": port, "protocol": "TCP"}]
    return Source(
        f"kubernetes: {{service: web, kubeconfig: {api.kubeconfig(folder / 'kubeconfig')}}}",
        api,
        lambda hosts: api.put("web-1", *map(pod, hosts), ports=ports),
    )


def consul(_: Path, port: int, stack: ExitStack) -> Source:
    agent = stack.enter_context(Agent())
    registered: set[str] = set()

    def say(hosts: list[str]) -> None:
        agent.deregister(*registered - set(hosts))
        for host in set(hosts) - registered:
            agent.register(host, host, port)
        registered.clear()
        registered.update(hosts)

    return Source(f'consul: {{service: web, address: "{agent.url}"}}', agent, say)


SOURCES = {each.__name__: each for each in (file, dns, docker, kubernetes, consul)}


class Result(NamedTuple):
    """What was seen of one source."""

    source: str
    requests: int
    failed: int
    noticed: float  # seconds from its end until status said so; infinite: it never did
    in_force: float  # seconds from its return until the replaced target was; infinite: it never was

    @property
    def good(self) -> bool:
        return not self.failed and math.isfinite(self.noticed) and self.in_force <= MOST


def run(name: str, seconds: float, rate: int) -> Result:
    """One source that is away for so long, at so many requests per second."""
    with tempfile.TemporaryDirectory(prefix=f"lb-{name}-away-") as temporary, ExitStack() as stack:
        folder = Path(temporary)
        port, admin, target = free_ports(3)
        source = SOURCES[name](folder, target, stack)
        targets = stack.enter_context(Targets(source.say, target, TARGETS))
        path = folder / "lb.yaml"
        path.write_text(LB.format(port=port, admin=admin, folder=folder, discover=source.discover, check=CHECK))
        process = subprocess.Popen(
            [sys.executable, "-m", "lb", "run", str(path), "--workers", "2"], stderr=subprocess.DEVNULL
        )
        stack.callback(stop, process)
        await_answer(f"http://127.0.0.1:{port}/", process)

        def pool() -> Any:
            with urllib.request.urlopen(f"http://127.0.0.1:{admin}/api/v1/status", timeout=10) as response:
                return json.load(response)["services"][0]["pools"][0]

        def in_force() -> bool:
            shown = {each["address"]: each["state"] for each in pool()["targets"]}
            return shown == {f"{each.host}:{each.port}": "ready" for each in targets.serving}

        if not math.isfinite(_until(in_force, 30.0)):
            raise RuntimeError(f"{name}: not all targets are ready")
        load = h2load(f"http://127.0.0.1:{port}/", math.ceil(BEFORE + seconds + AFTER), rate)
        stack.callback(load.kill)  # unless it has ended
        time.sleep(BEFORE)
        began = time.monotonic()
        source.server.stop()
        noticed = _until(lambda: not pool()["discovery"]["up"], seconds / 2, began)
        time.sleep(max(0.0, began + seconds / 2 - time.monotonic()))
        new = targets.replace(0, GRACE)
        time.sleep(max(0.0, began + seconds - time.monotonic()))
        if new.asked:
            raise RuntimeError(f"{name}: the source has told of a change while it was away")
        began = time.monotonic()
        source.server.start()
        caught_up = _until(lambda: new.asked > 0 and in_force(), AFTER / 2, began)
        counted = counts(load, 60)
        return Result(name, counted.requests, counted.failed, noticed, caught_up)


def _until(condition: Callable[[], bool], within: float, began: float | None = None) -> float:
    """Seconds from `began`, or now, until it was true; infinite when it was not `within` so many."""
    began = time.monotonic() if began is None else began
    while not condition():
        if time.monotonic() > began + within:
            return math.inf
        time.sleep(0.02)
    return time.monotonic() - began


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.source_away", description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=60.0, help="how long each source is away")
    parser.add_argument("--rate", type=int, default=2000, help="requests per second")
    parser.add_argument("--only", default=",".join(SOURCES), help="kinds of sources")
    options = parser.parse_args()
    print("| source | requests | failed | status said that it is away after | a change was in force after its return |")
    print("| --- | ---: | ---: | ---: | ---: |", flush=True)
    good = True
    for name in options.only.split(","):
        result = run(name, options.seconds, options.rate)
        good &= result.good
        print(
            f"| {name} | {result.requests:,} | {result.failed:,} | {result.noticed:.2f} s | {result.in_force:.2f} s |",
            flush=True,
        )
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
