"""`python -m benchmarks`: lb beside nginx, HAProxy, Envoy and Caddy, in interleaved rounds.

What counts is the median of the ratios of rounds that stand side by side, and CPU time per request; absolute figures
are the machine's. See benchmarks/README.md.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from dataclasses import replace
from functools import partial
from pathlib import Path

from benchmarks import memory, report
from benchmarks.processes import MissingError, binary
from benchmarks.report import Results
from benchmarks.rounds import run
from benchmarks.scenarios import SCENARIOS, STAGES, Run, find_capacity
from benchmarks.servers import ALL, PEERS, chosen, needed

QUICK = ("get-32", "get-256")
MEMORY = "idle-10000"


def main() -> int:
    options = _options()
    if options.report:
        results, found = report.load(options.report)
        _show(results)
        if found:
            print("\n".join(memory.table({name: memory.Memory(**values) for name, values in found.items()})))
        if options.out:
            report.picture(results, _folder(options.out) / "ratios.svg")
        return 0
    try:
        for program in ("nginx", "wrk", *needed(options.peers)):
            binary(program)
    except MissingError as missing:
        print(f"benchmarks: {missing}", file=sys.stderr)
        return 1
    names = options.only or ([*QUICK] if options.quick else [*SCENARIOS, MEMORY])
    about = {"machine": report.machine(), "options": {k: str(v) for k, v in vars(options).items() if v}}
    print(" · ".join(f"{key} {value}" for key, value in about["machine"].items()), end="\n\n", flush=True)
    results, found = {}, {}
    with tempfile.TemporaryDirectory(prefix="lb-bench-") as temporary:
        folder = Path(temporary)
        folder.chmod(0o755)  # nginx's workers may be somebody else
        this = Run(folder, options.peers, options.seconds, not options.no_log, options.python)
        for stage in dict.fromkeys(SCENARIOS[name].stage for name in names if name in SCENARIOS):
            for name, measured in _on_stage(stage, names, this, options.rounds):
                results[name] = measured
                _show({name: measured})
                if options.out:
                    report.save(_folder(options.out) / "results.json", about, results, found)
        if MEMORY in names:
            idle = memory.idle(this)
            found = memory.plain(idle)
            print("\n".join(memory.table(idle)), flush=True)
    if options.out:
        report.save(_folder(options.out) / "results.json", about, results, found)
        if not report.picture(results, _folder(options.out) / "ratios.svg"):
            print(
                "no picture: it needs rounds of lb and nginx, and matplotlib (pip install lb[bench])", file=sys.stderr
            )
    return 0


def _on_stage(stage: str, names: list[str], this: Run, rounds: int):  # type: ignore[no-untyped-def]
    """Bring a stage up and run its scenarios; yields (name, rounds of each server)."""
    with STAGES[stage].up(this) as servers:
        this.capacity = {}
        for name in names:
            scenario = SCENARIOS.get(name)
            if scenario is None or scenario.stage != stage:
                continue
            if name.startswith(("paced", "checks-load")) and not this.capacity:
                find_capacity(this, servers)
            length = replace(this, seconds=max(this.seconds, scenario.least))
            one = partial(scenario.one, length)
            yield name, run(servers, rounds, one, this.folder, warm=scenario.warm)


def _show(results: Results) -> None:
    for name, measured in results.items():
        print("\n".join(report.table(SCENARIOS[name], measured)), flush=True)


def _folder(path: Path) -> Path:
    path.mkdir(parents=True, exist_ok=True)
    return path


def _options() -> argparse.Namespace:
    listing = "\n".join(f"  {scenario.name:12} {scenario.text}" for scenario in SCENARIOS.values())
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description=__doc__,
        epilog=f"scenarios:\n{listing}\n  {MEMORY:12} memory with 10,000 idle connections",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    choices = [*SCENARIOS, MEMORY]
    parser.add_argument("--only", action="append", choices=choices, metavar="SCENARIO", help="again for more; else all")
    parser.add_argument("--peers", type=chosen, default=ALL, help=f"some of {','.join(PEERS)} (all)")
    parser.add_argument("--rounds", type=int, default=10, help="interleaved rounds (10), after one that warms up")
    parser.add_argument("--seconds", type=float, default=1.0, help="length of a round (1); some need 2")
    parser.add_argument("--no-log", action="store_true", help="access logs off everywhere; else JSON everywhere")
    parser.add_argument("--quick", action="store_true", help=f"3 rounds of {' and '.join(QUICK)}")
    parser.add_argument("--python", default="", help="lb's interpreter, if not this one")
    parser.add_argument("--out", type=Path, help="folder for results.json and ratios.svg")
    parser.add_argument("--report", type=Path, metavar="FILE", help="measure nothing: show an earlier results.json")
    options = parser.parse_args()
    if options.quick:
        options.rounds = min(options.rounds, 3)
    return options


if __name__ == "__main__":
    raise SystemExit(main())
