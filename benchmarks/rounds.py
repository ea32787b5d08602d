"""Rounds: every server in turn, again and again, and ratios within each turn.

The machine's speed drifts more than most differences; a ratio of two rounds that stand side by side drifts less, and
the median of such ratios less again. Each turn begins with another server, so that none always follows the same one.
A round that began or ended while somebody else had half of the core (`pace.py`) is made again, a few times at most.
"""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from statistics import median, quantiles

from benchmarks.load import Result
from benchmarks.pace import SLOW, Pace
from benchmarks.processes import PROXY_CPU, Server, processor_seconds

#: Logs are emptied beyond this size, bytes: a long run would fill the disk.
LOG_LIMIT = 256 << 20
#: Seconds that a round waits for the machine's full pace, and how often it is made for its sake.
WAIT = 5.0
TRIES = 3


@dataclass(frozen=True)
class Round:
    """One round of one server. Seconds are of CPU time, unless they say otherwise."""

    requests: int
    bytes: float
    seconds: float  # by the wall clock
    errors: int
    latency: dict[str, float]  # p50, p90, p99, p99.9 → seconds
    late: float  # p99 of how late the client itself was; seconds
    cpu: float  # of the processes that carry traffic
    beside: float  # of those that carry none (lb's supervisor, nginx's master)
    foreign: float  # spent by others on the proxy's processor
    resident: int  # bytes, after the round
    pace: float = 1.0  # how many times slower than at its best the machine was, before or after it

    @property
    def rate(self) -> float:
        return self.requests / self.seconds if self.seconds else 0.0


@dataclass
class Measured:
    """All rounds of one server."""

    rounds: list[Round] = field(default_factory=list)

    def middle(self, value: Callable[[Round], float]) -> float:
        """The median of a value over the rounds."""
        return median(map(value, self.rounds)) if self.rounds else 0.0

    @property
    def errors(self) -> int:
        return sum(one.errors for one in self.rounds)


def measure(server: Server, one: Callable[[Server], Result]) -> Round:
    """One round."""
    cpu, beside, processor, began = (
        server.cpu_seconds(),
        server.beside_seconds(),
        processor_seconds(PROXY_CPU),
        time.perf_counter(),
    )
    result = one(server)
    cpu, beside = server.cpu_seconds() - cpu, server.beside_seconds() - beside
    passed = time.perf_counter() - began
    return Round(
        requests=result.requests,
        bytes=result.bytes,
        seconds=result.seconds or passed,
        errors=result.errors,
        latency=result.latency,
        late=result.late,
        cpu=cpu,
        beside=beside,
        foreign=max(0.0, processor_seconds(PROXY_CPU) - processor - cpu - beside),
        resident=server.resident(),
    )


def run(
    servers: Mapping[str, Server], rounds: int, one: Callable[[Server], Result], folder: Path, *, warm: bool = False
) -> dict[str, Measured]:
    """`rounds` turns, each server once in each; the first turn warms up and is not counted.

    `warm`: before each round the server gets the same load for as long, without being measured. It has rested while the
    others had their turns, and to open a thousand connections again is no part of what a request costs.
    """
    measured = {label: Measured() for label in servers}
    labels = list(servers)
    pace = Pace(PROXY_CPU)
    for turn in range(rounds + 1):
        for place in range(len(labels)):
            label = labels[(turn + place) % len(labels)]
            make = partial(_round, servers[label], one, warm)
            if turn:
                measured[label].rounds.append(at_full_pace(make, pace))
            else:
                make()
        _empty_logs(folder)
    return measured


def _round(server: Server, one: Callable[[Server], Result], warm: bool) -> Round:
    if warm:
        one(server)
    return measure(server, one)


def at_full_pace(make: Callable[[], Round], pace: Pace) -> Round:
    """A round that began and ended at the machine's full pace; after some tries the one that came closest to it."""
    rounds: list[Round] = []
    while len(rounds) < TRIES:
        pace.wait(WAIT)
        before = pace.factor()
        made = make()
        rounds.append(replace(made, pace=max(before, pace.factor())))
        if rounds[-1].pace <= SLOW:
            break
    return min(rounds, key=lambda each: each.pace)


def _empty_logs(folder: Path) -> None:
    for log in (*folder.glob("*.log"), *folder.glob("*.out")):
        if log.stat().st_size > LOG_LIMIT:
            os.truncate(log, 0)


@dataclass(frozen=True)
class Ratio:
    """The median of paired ratios, and their spread: the quartiles, the least and the greatest."""

    middle: float
    low: float
    high: float
    least: float
    most: float


def ratio(ours: Measured, theirs: Measured, value: Callable[[Round], float]) -> Ratio | None:
    """How `value` of each of our rounds compares with theirs of the same turn; None without rounds to compare."""
    pairs = [value(a) / value(b) for a, b in zip(ours.rounds, theirs.rounds, strict=False) if value(a) and value(b)]
    if not pairs:
        return None
    low, _, high = quantiles(pairs, n=4, method="inclusive") if len(pairs) > 1 else (pairs[0],) * 3
    return Ratio(median(pairs), low, high, min(pairs), max(pairs))


def compared(ours: Measured, theirs: Measured, value: Callable[[Round], float], digits: int = 2) -> str:
    """The median of paired ratios and their quartiles, in words."""
    found = ratio(ours, theirs, value)
    return f"{found.middle:.{digits}f} [{found.low:.{digits}f}–{found.high:.{digits}f}]" if found else "–"


def tabulate(
    running: Mapping[str, Server],
    scenarios: Mapping[str, tuple[str, Callable[[Server], Result]]],
    rounds: int,
    folder: Path,
) -> None:
    """Measure each scenario, and print it as a row: what a request costs each server, and lb beside each other one.

    The interpreted form, beside a compiled lb, has a row of its own. Below the table are named the servers that were
    left out of a scenario, because they cannot do it. Raises RuntimeError if lb cannot.
    """
    others = [label for label in running if label != "lb"]
    heads = " | ".join(f"lb / {label}: per second | per CPU second" for label in others)
    print(f"| | CPU µs each: {', '.join(running)} | {heads} | errors |")
    print("| --- " * (3 + 2 * len(others)) + "|", flush=True)
    left_out: list[str] = []
    for name, (text, one) in scenarios.items():
        failing = unable(running, one)
        if "lb" in failing:
            raise RuntimeError(f"{name}: lb: {failing['lb']}")
        left_out += [f"{label} is left out of {name}: {why}" for label, why in failing.items()]
        able = {label: server for label, server in running.items() if label not in failing}
        found = run(able, rounds, one, folder)
        costs = ", ".join(f"{found[label].middle(_cost) * 1e6:.1f}" if label in found else "–" for label in running)
        errors = " / ".join(str(found[label].errors) if label in found else "–" for label in running)
        measured = {label: found.get(label, Measured()) for label in running}
        ratios = _ratios(measured, "lb", others)
        print(f"| {name}: {text} | {costs} | {ratios} | {errors} |", flush=True)
        if "interpreted" in running:
            print(f"| {name}, interpreted | | {_ratios(measured, 'interpreted', others)} | |", flush=True)
    for line in ["", *left_out] if left_out else []:
        print(line, flush=True)


def unable(running: Mapping[str, Server], one: Callable[[Server], Result]) -> dict[str, str]:
    """The servers for which most of a round's requests fail, or its client, and why."""
    failing: dict[str, str] = {}
    for label, server in running.items():
        try:
            tried = one(server)
        except (OSError, RuntimeError, subprocess.CalledProcessError) as why:
            failing[label] = str(why)
        else:
            if tried.requests <= tried.errors:
                failing[label] = f"{tried.errors} requests failed, {tried.requests} did not"
    return failing


def _ratios(measured: Mapping[str, Measured], ours: str, others: list[str]) -> str:
    """Cells: requests per second and per CPU second as ratios to each other server's."""
    cells: list[str] = []
    for label in others:
        for value in (_per_second, _per_cpu_second):
            cells.append("–" if label == ours else compared(measured[ours], measured[label], value))
    return " | ".join(cells)


def _per_second(one: Round) -> float:
    return one.rate


def _cost(one: Round) -> float:
    return one.cpu / one.requests if one.requests else 0.0


def _per_cpu_second(one: Round) -> float:
    return one.requests / one.cpu if one.cpu else 0.0
