"""How often a good release is rolled back, and how fast a bad one: simulated releases, thousands of them.

    python -m benchmarks.rollout_alarms [RELEASES]

The figures of docs/blue-green.md come from here. No sockets, no clock: `core.rollout` on made-up totals.
"""

from __future__ import annotations

import argparse
import random
import statistics
from bisect import bisect_left
from math import log, log1p

from lb.core.analysis import Tally
from lb.core.report import BUCKETS
from lb.core.rollout import Bake, Plan, Rollout, Sample, advance, begin

PLAN = Plan("blue", "green", (5, 25, 50, 100), step_time=60.0, bake=Bake(time=120.0))
#: (what, failing before, failing now, slow before, slow now, requests per second)
GOOD = [
    ("never fails", 0.0, 0.0, 0.0, 0.0, 50),
    ("fails 0.1 %, 0.5 % slow", 0.001, 0.001, 0.005, 0.005, 200),
    ("fails 1 %, 1 % slow", 0.01, 0.01, 0.01, 0.01, 100),
    ("fails 5 %, 2 % slow", 0.05, 0.05, 0.02, 0.02, 50),
    ("1 point worse than before, just accepted", 0.005, 0.015, 0.005, 0.005, 100),
]
BAD = [
    ("fails 20 %", 0.001, 0.2, 0.005, 0.005),
    ("fails 5 %", 0.001, 0.05, 0.005, 0.005),
    ("20 % slow", 0.001, 0.001, 0.005, 0.2),
    ("5 % slow", 0.001, 0.001, 0.005, 0.05),
]
RATES = (20, 100, 1000)
QUICK, LATE = bisect_left(BUCKETS, 0.02), bisect_left(BUCKETS, 0.8)


class Pool:
    def __init__(self, failing: float, slow: float) -> None:
        self.failing, self.slow = failing, slow
        self.requests = self.errors = 0
        self.buckets = [0] * (len(BUCKETS) + 1)

    def serve(self, count: int, rng: random.Random) -> None:
        late = drawn(count, self.slow, rng)
        self.requests += count
        self.errors += drawn(count, self.failing, rng)
        self.buckets[QUICK] += count - late
        self.buckets[LATE] += late

    def tally(self) -> Tally:
        return Tally(self.requests, self.errors, tuple(self.buckets))


def drawn(count: int, share: float, rng: random.Random) -> int:
    """Successes of `count` draws; few are counted by the gaps between them."""
    if not share or not count:
        return 0
    if count * share > 50 or share > 0.1:
        return sum(rng.random() < share for _ in range(count))
    found, at = 0, 0
    while True:
        at += int(log(1.0 - rng.random()) / log1p(-share)) + 1
        if at > count:
            return found
        found += 1


def release(seed: int, failing: tuple[float, float], slow: tuple[float, float], rps: float) -> tuple[Rollout, int, int]:
    """(how it ended, after how many seconds, failed requests of the new pool)."""
    rng = random.Random(seed)
    old, new = Pool(failing[0], slow[0]), Pool(failing[1], slow[1])
    old.serve(int(rps * 300), rng)
    rollout, _ = begin(PLAN)
    for second in range(3600):
        share = rps * rollout.share / 100
        new.serve(int(share + rng.random()), rng)
        old.serve(int(rps - share + rng.random()), rng)
        rollout, _ = advance(rollout, Sample(new.tally(), old.tally(), 2, 2, 2, 2), float(second))
        if not rollout.under_way:
            return rollout, second, new.errors
    return rollout, 3600, new.errors


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.rollout_alarms", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("releases", nargs="?", type=int, default=1000, help="of each good kind (1000)")
    releases = parser.parse_args().releases
    print(f"| a good release | requests/s | rolled back, of {releases} |\n| --- | --- | --- |")
    for what, failing, failing_now, slow, slow_now, rps in GOOD:
        ends = [release(seed, (failing, failing_now), (slow, slow_now), rps)[0].phase for seed in range(releases)]
        print(f"| {what} | {rps} | {ends.count('rolled_back')} |", flush=True)
    print("\n| a bad release | requests/s | rolled back | seconds, median (95 %) | failed requests, median (95 %) |")
    print("| --- | --- | --- | --- | --- |")
    for what, failing, failing_now, slow, slow_now in BAD:
        for rps in RATES:
            runs = [release(seed, (failing, failing_now), (slow, slow_now), rps) for seed in range(releases // 5)]
            caught = sum(rollout.phase == "rolled_back" for rollout, _, _ in runs)
            seconds, lost = sorted(run[1] for run in runs), sorted(run[2] for run in runs)
            high = int(0.95 * len(runs))
            print(
                f"| {what} | {rps} | {100 * caught / len(runs):.1f} % | {statistics.median(seconds):.0f} "
                f"({seconds[high]}) | {statistics.median(lost):.0f} ({lost[high]}) |",
                flush=True,
            )


if __name__ == "__main__":
    main()
