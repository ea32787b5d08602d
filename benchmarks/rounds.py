"""Rounds: every server in turn, again and again, and ratios within each turn.

The machine's speed drifts more than most differences; a ratio of two rounds that stand side by side drifts less, and
the median of such ratios less again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from statistics import median

from benchmarks.load import Result
from benchmarks.servers import Server


@dataclass
class Measured:
    """All rounds of one server."""

    rates: list[float] = field(default_factory=list)  # requests per second
    cpu: list[float] = field(default_factory=list)  # seconds per request
    bytes_per_cpu: list[float] = field(default_factory=list)
    latency: list[dict[str, float]] = field(default_factory=list)
    resident: int = 0
    errors: int = 0


def run(servers: Mapping[str, Server], rounds: int, one: Callable[[Server], Result]) -> dict[str, Measured]:
    """`rounds` turns, each server once in each; the first turn warms up and is not counted."""
    measured = {name: Measured() for name in servers}
    for turn in range(rounds + 1):
        for name, server in servers.items():
            before = server.cpu_seconds()
            result = one(server)
            spent = server.cpu_seconds() - before
            if not turn or not result.requests:
                continue
            m = measured[name]
            m.rates.append(result.rate)
            m.cpu.append(spent / result.requests)
            m.bytes_per_cpu.append(result.bytes / spent if spent else 0.0)
            m.latency.append(result.latency)
            m.errors += result.errors
            m.resident = server.resident()
    return measured


def ratios(ours: list[float], theirs: list[float]) -> tuple[float, float, float]:
    """(median, least, greatest) of the paired ratios."""
    pairs = [a / b for a, b in zip(ours, theirs, strict=False) if b]
    return (median(pairs), min(pairs), max(pairs)) if pairs else (0.0, 0.0, 0.0)
