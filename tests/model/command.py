"""The command line of the model."""

from __future__ import annotations

import argparse
import logging
import os
import sys
import time

from tests.model import driver


def main() -> None:
    """Run, tell, and exit with 1 where something was found."""
    parser = argparse.ArgumentParser(prog="python -m tests.model", description=__doc__)
    parser.add_argument("--steps", type=int, default=4000, help="steps in all (default: %(default)s)")
    parser.add_argument("--seeds", type=int, default=20, help="runs that share them (default: %(default)s)")
    parser.add_argument("--seed", type=int, help="this run alone")
    parser.add_argument("--first", type=int, default=1, help="the first seed (default: %(default)s)")
    parser.add_argument("--jobs", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--keep-going", action="store_true", help="look for more after a violation")
    parser.add_argument("--no-shorten", action="store_true", help="tell a violation as it was found")
    parser.add_argument("--only", help="numbers of the steps to take, such as 0,3,17")
    parser.add_argument("--without", default="", help="themes, features and steps to leave out, such as restart,mirror")
    parser.add_argument("--with", dest="having", default="", help="themes that each run has, such as found,restart")
    parser.add_argument("-v", "--verbose", action="store_true", help="tell each step")
    wanted = parser.parse_args()
    logging.disable(logging.CRITICAL)
    import lb.supervisor.main
    import lb.worker.main  # noqa: F401 - loaded once, before runs are forked
    from lb.config.load import load_text
    from tests.model import clock, ordered, rules

    ordered.install()
    rules.load_all()
    rules.put_in(name for name in wanted.having.split(",") if name)
    rules.leave_out(name for name in wanted.without.split(",") if name)

    load_text("backends: [http://127.0.0.1:1]\n", "lb.yaml")  # the models are built once, not by each run
    clock.collect()
    clock.freeze()  # runs look through their own objects alone

    began = time.perf_counter()
    seeds = [wanted.seed] if wanted.seed is not None else range(wanted.first, wanted.first + wanted.seeds)
    each = max(1, wanted.steps // (1 if wanted.seed is not None else wanted.seeds))
    if wanted.seed is not None and wanted.steps == 4000:
        each = 400
    numbers = [int(part) for part in wanted.only.split(",")] if wanted.only else list(range(each))
    steps = runs = 0
    found = []
    for result in driver.all_of(((seed, numbers) for seed in seeds), wanted.jobs, wanted.verbose):
        steps += result.steps
        runs += 1
        if not result.ok:
            found.append(result)
            tell(result, shorten=not wanted.no_shorten)
            if not wanted.keep_going:
                break
    print(f"{steps} steps, {runs} seeds, {len(found)} violations", flush=True)
    print(f"({time.perf_counter() - began:.0f} s)", file=sys.stderr)
    sys.stdout.flush()
    os._exit(1 if found else 0)


def tell(result: driver.Result, shorten: bool) -> None:
    """A violation, with the steps that lead to it."""
    print(f"seed {result.seed}, step {result.steps}: {result.invariant}: {result.text}", flush=True)
    if shorten and result.taken and result.invariant != "no end":
        result = driver.shortened(result)
        print(f"shortened: {result.invariant}: {result.text}")
    numbers = ",".join(map(str, result.taken))
    print(f"again: python -m tests.model --seed {result.seed} --only {numbers}")
    for number, said in zip(result.taken, result.told, strict=False):
        print(f"  {number:4d} {said}")
    sys.stdout.flush()
