"""Exact sums: reports of workers, with deaths, repeated reports and heirs in between, add up to what was counted."""

from __future__ import annotations

import copy
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from lb.core.report import BUCKETS, PoolTally, Report, TargetTally, empty_tally, removed_id
from lb.supervisor.rates import Rates
from lb.supervisor.totals import Counters, Totals


class Worker:
    """Counts as a worker does: cumulative since its start."""

    def __init__(self, incarnation: int) -> None:
        self.report = Report(0, incarnation, 0, 0)
        self.tallies: dict[str, TargetTally] = {}
        self.folded: list[str] = []
        self.pool = PoolTally("s", "p", buckets=[0] * (len(BUCKETS) + 1))

    def serve(self, target: str) -> None:
        tally = self.tallies.setdefault(target, empty_tally(target))
        tally.codes[200] = tally.codes.get(200, 0) + 1
        tally.buckets[3] += 1
        tally.in_flight = 1
        self.pool.requests += 1

    def remove(self, target: str) -> None:
        """As `DataPlane` does with a target that is gone."""
        if target in self.tallies:
            place = removed_id("s", "p")
            self.tallies.setdefault(place, empty_tally(place)).add(self.tallies.pop(target), gauges=False)
            self.folded.append(target)

    def tell(self) -> Report:
        self.report.targets = list(self.tallies.values())
        self.report.folded, self.folded = self.folded, []
        self.report.pools = [self.pool]
        self.report.in_flight = 1
        return copy.deepcopy(self.report)


ACTS = ["serve", "serve", "tell", "die", "twice", "remove", "ask"]


@given(st.lists(st.tuples(st.integers(0, 2), st.sampled_from(ACTS), st.booleans())))
def test_any_history_adds_up(history: list[tuple[int, str, bool]]) -> None:
    totals, counted = Totals(), 0
    incarnations = iter(range(1, 10_000))
    workers = {number: Worker(next(incarnations)) for number in range(3)}
    for number, what, first in history:
        worker = workers[number]
        if what == "serve":
            worker.serve("s/p/a" if first else "s/p/b")
            counted += 1
        elif what == "remove":  # a reload without the target; it may come back
            for each in workers.values():
                each.remove("s/p/a")
                totals.take(each.tell())
            totals.forget({"s/p/b"})
        elif what == "ask":  # what is known by then must not stand for what comes after
            totals.sums()
        elif what in ("tell", "twice"):
            for _ in range(1 + (what == "twice")):
                totals.take(worker.tell())
        else:
            totals.take(worker.tell())  # its last report
            totals.gone(worker.report.incarnation)
            workers[number] = Worker(next(incarnations))
    for worker in workers.values():
        totals.take(worker.tell())
    sums = totals.sums()
    assert sum(sum(tally.codes.values()) for tally in sums.targets.values()) == counted
    assert sum(tally.buckets[3] for tally in sums.targets.values()) == counted
    assert sum(pool.requests for pool in sums.pools.values()) == counted
    assert sums.in_flight == 3, "gauges are those of the living"
    known = totals.sums({"s/p/b"})
    assert set(known.targets) <= {"s/p/b", "s/p/removed"}, "series do not pile up"
    assert sum(sum(tally.codes.values()) for tally in known.targets.values()) == counted
    heir = Totals()
    heir.inherit(totals.gone_sums())
    for worker in workers.values():
        heir.take(worker.tell())
    assert heir.sums() == sums, "and a successor knows the same"


def test_sums_are_a_value_of_their_own() -> None:
    totals, worker = Totals(), Worker(1)
    worker.serve("a")
    totals.take(worker.tell())
    before = totals.sums()
    worker.serve("a")
    totals.take(worker.tell())
    assert before.targets["a"].codes == Counter({200: 1})


def test_rates_look_back_over_a_window_and_survive_its_end() -> None:
    rates = Rates()
    tally = TargetTally("a", buckets=[0] * (len(BUCKETS) + 1))
    pool = PoolTally("s", "p", buckets=[0] * (len(BUCKETS) + 1))
    assert rates.of_target("a").rate == 0.0
    assert rates.of_target("a").percentile(0.99) is None
    for second in range(30):
        retries = {"s": {"reset": 2 * second, "connect": second}}
        seen = Counters(targets={"a": copy.deepcopy(tally)}, pools={("s", "p"): pool}, retries=retries)
        rates.sample(seen, float(second))
        tally.codes[200] = tally.codes.get(200, 0) + 50
        tally.codes[404] = tally.codes.get(404, 0) + 50
        tally.buckets[5] += 45
        tally.buckets[9] += 5
        pool.requests += 50
        pool.errors += 5
        pool.codes[413] += 10
        pool.codes[503] += 1
        pool.buckets[5] += 50
    assert rates.of_target("a").rate == 100.0
    assert rates.of_target("a").client_error_rate == 0.5
    assert BUCKETS[4] < (rates.of_target("a").percentile(0.5) or 0) <= BUCKETS[5]
    assert BUCKETS[8] < (rates.of_target("a").percentile(0.99) or 0) <= BUCKETS[9]
    assert rates.of_service("s").rate == rates.of_pool("s", "p").rate == 50.0
    assert rates.of_pool("s", "p").error_rate == 0.1
    assert rates.of_service("s").client_error_rate == rates.of_pool("s", "p").client_error_rate == 0.2
    assert rates.of_service("s").retry_rate == 3.0
    assert rates.of_pool("s", "q").rate == 0.0


def test_results_of_steps_add_up_and_end_with_their_route() -> None:
    totals = Totals()
    one, two = Report(0, 1, 1, 0), Report(1, 2, 1, 0)
    one.steps = {"/a": {"rate_limit": {"passed": 2}}, "/b": {"rate_limit": {"passed": 1}}}
    two.steps = {"/a": {"rate_limit": {"passed": 3, "rate_limited": 1}}}
    for report in (one, two):
        totals.take(report)
    later = Report(0, 1, 2, 0)
    later.steps = {"/a": {"rate_limit": {"passed": 5}}}  # the changed ones alone
    totals.take(later)
    totals.gone(2)
    expected = {"/a": {"rate_limit": {"passed": 8, "rate_limited": 1}}, "/b": {"rate_limit": {"passed": 1}}}
    assert totals.sums().steps == expected
    assert totals.sums().steps == expected, "sums share nothing with what they are made of"
    totals.forget((), {"/b"})
    assert totals.sums().steps == {"/b": {"rate_limit": {"passed": 1}}}
