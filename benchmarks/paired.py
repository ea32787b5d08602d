"""`python -m benchmarks.paired --before CHECKOUT`: this code beside an earlier one, in interleaved rounds.

Both run at once on the same interpreter, each with one worker on the first processor. A ratio below 1 of requests, or
above 1 of CPU time, says that this code is slower. See benchmarks/README.md for what a change to the hot path shows.
"""

from __future__ import annotations

import argparse
import tempfile
from dataclasses import replace
from functools import partial
from pathlib import Path

from benchmarks import origin, report
from benchmarks.processes import Server, stop
from benchmarks.rounds import Measured, compared, run
from benchmarks.scenarios import SCENARIOS, Run
from benchmarks.servers import Setup, lb

#: Scenario → targets in the pool.
WANTED = {"get-32": 1, "get-256": 1, "varied": 1, "1m": 1, "targets": 1000}


def main() -> int:
    options = _options()
    print(" · ".join(f"{key} {value}" for key, value in report.machine().items()), end="\n\n", flush=True)
    print("| after / before | requests per second | CPU time per request | p99 | errors |", flush=True)
    print("| --- | --- | --- | --- | --- |", flush=True)
    for name in options.only or WANTED:
        before, after = _measure(name, options)
        unit = SCENARIOS[name].unit
        done = report.amount(unit)
        cells = [
            f"{name}: {SCENARIOS[name].text}",
            compared(after, before, lambda one, done=done: done(one) / one.seconds, 3),  # type: ignore[misc]
            compared(after, before, report.cost(unit), 3),
            compared(after, before, lambda one: one.latency.get("p99", 0.0), 3),
            f"{after.errors} / {before.errors}",
        ]
        print("| " + " | ".join(cells) + " |", flush=True)
    return 0


def _measure(name: str, options: argparse.Namespace) -> tuple[Measured, Measured]:
    """All rounds of one scenario: (before, after)."""
    scenario, count = SCENARIOS[name], WANTED[name]
    running: dict[str, Server] = {}
    with tempfile.TemporaryDirectory(prefix="lb-bench-") as temporary:
        folder = Path(temporary)
        folder.chmod(0o755)  # nginx's workers may be somebody else
        this = Run(folder, ("lb",), max(options.seconds, scenario.least))
        behind, targets = origin.origin(folder, count)
        try:
            setup = Setup(folder, targets)
            running["before"] = lb(replace(setup, checkout=options.before.resolve()))
            running["after"] = lb(setup)
            measured = run(running, options.rounds, partial(scenario.one, this), folder, warm=scenario.warm)
        finally:
            for server in running.values():
                stop(server.process)
            stop(behind)
    return measured["before"], measured["after"]


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.paired", description=__doc__)
    parser.add_argument("--before", type=Path, required=True, help="a checkout of the earlier code")
    parser.add_argument("--only", action="append", choices=[*WANTED], help="again for more; else all")
    parser.add_argument("--rounds", type=int, default=20, help="interleaved rounds (20), after one that warms up")
    parser.add_argument("--seconds", type=float, default=1.0, help="length of a round (1)")
    return parser.parse_args()


if __name__ == "__main__":
    raise SystemExit(main())
