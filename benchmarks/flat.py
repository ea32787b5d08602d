"""Does a request cost the same with many targets and many routes? lb against itself, interleaved."""

from __future__ import annotations

from pathlib import Path
from statistics import median

from benchmarks import load, servers
from benchmarks.rounds import run
from benchmarks.servers import Setup

#: Ports that the origin listens on; more targets than that stand on further loopback addresses.
ORIGIN_PORTS = 1000


def flat(folder: Path, rounds: int, seconds: float) -> list[str]:
    """Lines of a report: CPU per request with 10, 100, 1,000 targets and 1,000 routes, against 1."""
    ports = sorted({servers.free_port() for _ in range(ORIGIN_PORTS)})
    origin = servers.backend(folder, ports)
    running = {}
    try:
        for name, targets, routes in (
            ("1", 1, 1),
            ("10", 10, 1),
            ("100", 100, 1),
            ("1000", len(ports), 1),
            ("1000 routes", 1, 1000),
        ):
            running[name] = servers.lb(Setup(folder, backends=ports[:targets], routes=routes))
        measured = run(running, rounds, lambda server: load.wrk(f"{server.url}/", 32, seconds, folder))
    finally:
        for server in running.values():
            servers.stop(server.process)
        servers.stop(origin)
    base = measured["1"]
    lines = [
        "### Cost per request with many targets or routes (32 connections)",
        "",
        "| targets | CPU µs/request | ratio to 1 |",
        "| --- | --- | --- |",
    ]
    for name, m in measured.items():
        ratio = median(a / b for a, b in zip(m.cpu, base.cpu, strict=False))
        lines.append(f"| {name} | {median(m.cpu) * 1e6:.1f} | {ratio:.2f} |")
    return [*lines, ""]
