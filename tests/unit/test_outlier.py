"""Outlier ejection: Envoy's formulas as oracles, its scenarios, and the bounds that protect a pool."""

from __future__ import annotations

import math
import random
import statistics
from copy import copy
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from lb.core.desired import TargetDesired
from lb.core.lifecycle import Health
from lb.core.outlier import Ejector, Outlier, Window, by_chance, median_without, success_rate_limit
from lb.core.report import Alarm, Report, TargetTally
from lb.core.rotation import ServiceRules
from lb.core.targets import Target
from lb.supervisor.ejections import Ejections

W1, W2 = (1, 100), (2, 200)


class Pool:
    """Lanes of two workers, which count as the data plane does, and an ejector that hears of it."""

    def __init__(self, size: int, rules: Outlier | None = None, workers: int = 1) -> None:
        self.ids = [f"t{index}" for index in range(size)]
        self.workers = (W1, W2)[:workers]
        self.ejector = Ejector(rules or Outlier())
        self.tallies = {(worker, target): TargetTally(target) for worker in self.workers for target in self.ids}
        self.states = dict.fromkeys(self.ids, "in")
        self.now = 1000.0

    def ok(self, target: str, count: int = 1, seconds: float = 0.01, worker: tuple[int, int] = W1) -> None:
        tally = self.tallies[worker, target]
        tally.successes += count
        tally.seconds += seconds * count
        tally.streak = 0

    def fail(self, target: str, count: int = 1, worker: tuple[int, int] = W1, kind: str = "server_errors") -> None:
        tally = self.tallies[worker, target]
        setattr(tally, kind, getattr(tally, kind) + count)
        tally.streak += count

    def report(self) -> None:
        for (worker, _), tally in self.tallies.items():
            self.ejector.tally(worker, copy(tally), self.now)

    def sweep(self, wait: float = 0.5) -> list[str]:
        self.now += wait
        self.report()
        found = self.ejector.sweep(self.states, self.now)
        for each in found:
            self.states[each.target] = "ejected"
        self.last = found
        return [each.target for each in found]


# --- failures in a row -----------------------------------------------------------------------------------------------


def test_five_in_a_row_are_ejected_and_four_are_not():
    pool = Pool(5)
    pool.fail("t0", 4)
    assert pool.sweep() == []
    pool.fail("t0")
    assert pool.sweep() == ["t0"]
    assert pool.last[0].reason == "5 requests in a row failed"


@pytest.mark.parametrize("idle", [1, 5])
def test_idle_targets_make_nobody_dispensable(idle):
    """[envoy#17504] A ready target of weight 0 serves nobody: the only one that does is the last one."""
    pool = Pool(1 + idle, Outlier(max_ejected=1.0))
    pool.states.update(dict.fromkeys(pool.ids[1:], "idle"))
    pool.fail("t0", 50)
    assert pool.sweep() == []
    pool.states["t1"] = "in"
    assert pool.sweep() == ["t0"], "as soon as another one serves"


def test_idle_targets_are_no_part_of_the_share():
    pool = Pool(10, Outlier(max_ejected=0.34))
    pool.states.update(dict.fromkeys(pool.ids[4:], "idle"))
    for target in ("t0", "t1"):
        pool.fail(target, 50)
    pool.ok("t2", 500)
    assert len(pool.sweep()) == 1, "a third of the four that serve, not of all ten"


def test_one_success_in_between_resets():
    pool = Pool(5)
    for _ in range(10):
        pool.fail("t0", 4)
        pool.ok("t0")
        assert pool.sweep(wait=30.0) == []


def test_workers_are_not_added_up():
    """Five in a row as one worker saw them: three here and three there may have had successes in between."""
    pool = Pool(5, workers=2)
    pool.fail("t0", 3, W1)
    pool.fail("t0", 3, W2)
    assert pool.sweep() == []
    pool.fail("t0", 2, W2)
    assert pool.sweep() == ["t0"]


def test_an_alarm_ejects_before_the_next_report():
    pool = Pool(5)
    pool.ejector.alarm(W1, Alarm(1, "t0", "refused", 5, "refused the connection"))
    (found,) = pool.ejector.sweep(pool.states, pool.now)
    assert found.target == "t0"
    assert found.reason == "5 requests in a row failed (last: refused the connection)"


def test_alarms_of_a_new_streak_count_anew():
    pool = Pool(5)
    for streak in (1, 5):
        pool.ejector.alarm(W1, Alarm(1, "t0", "5xx", streak, "HTTP 500"))
    assert pool.ejector.sweep(pool.states, pool.now)
    for streak in (1, 5):  # after a success, of which no report has told yet
        pool.ejector.alarm(W1, Alarm(1, "t0", "5xx", streak, "HTTP 500"))
    assert pool.ejector.sweep(pool.states, pool.now)


def test_connections_that_cannot_be_made_are_a_rule_of_their_own():
    pool = Pool(5)
    pool.ok("t0", 10)
    pool.fail("t0", 2, kind="connect_failures")
    assert pool.sweep() == []
    pool.fail("t0", 1, kind="connect_failures")
    assert pool.sweep() == ["t0"]
    assert pool.last[0].quick
    assert "could not be made" in pool.last[0].reason


def test_mixed_failures_do_not_make_the_connect_rule():
    pool = Pool(5)
    pool.fail("t0", 2, kind="connect_failures")
    pool.fail("t0", 2)
    assert pool.sweep() == []


def test_a_target_that_returns_starts_anew():
    """Envoy #40697: after un-ejection the old count lives on."""
    pool = Pool(5)
    pool.fail("t0", 5)
    assert pool.sweep() == ["t0"]
    pool.fail("t0", 3)  # what was still under way
    assert pool.sweep() == []
    pool.states["t0"] = "in"
    assert pool.sweep() == []
    pool.fail("t0", 4)
    assert pool.sweep() == []
    pool.fail("t0", 1)
    assert pool.sweep() == ["t0"]
    pool.states["t0"] = "in"
    pool.ok("t0")
    pool.sweep()
    pool.fail("t0", 5)
    assert pool.sweep() == ["t0"]


def test_requests_that_fail_right_before_a_return_are_not_held_against_it():
    """They were sent before the target was ejected, and waited (model, seed 92092)."""
    pool = Pool(5)
    pool.fail("t0", 5)
    assert pool.sweep() == ["t0"]
    assert pool.sweep() == []
    pool.fail("t0", 5, kind="timeouts")
    pool.states["t0"] = "in"  # both since the last sweep
    assert pool.sweep() == []
    pool.fail("t0", 4)
    assert pool.sweep() == []
    pool.fail("t0", 1)
    assert pool.sweep() == ["t0"]


def test_a_worker_that_restarts_counts_from_nought():
    pool = Pool(5)
    pool.fail("t0", 4)
    pool.sweep()
    heir = TargetTally("t0", server_errors=1, streak=1)
    pool.ejector.tally((1, 101), heir, pool.now)
    assert pool.ejector.sweep(pool.states, pool.now) == []


def test_failures_in_a_row_end_with_their_worker():
    """No success can end them any more, and they would eject the target at its next failure."""
    pool = Pool(5)
    pool.fail("t0", 5)
    pool.report()
    pool.ejector.gone(W1)
    pool.ejector.tally((1, 101), TargetTally("t0"), pool.now)
    assert pool.ejector.sweep(pool.states, pool.now) == []


def test_a_worker_that_drains_beside_its_replacement_is_counted_once():
    """Each report of either used to drop what was known of the other one, whose whole life then counted again."""
    pool = Pool(5)
    for target in pool.ids:
        pool.fail(target, 40)
        pool.ok(target, 60)
    pool.report()
    pool.now += 20.0  # all of it has left the window
    for success in range(1, 5):
        pool.ejector.tally((1, 101), TargetTally("t0", successes=success), pool.now)
        pool.ok("t0", 10)
        for target in pool.ids[1:]:
            pool.ok(target, 30)
        pool.report()
    assert pool.ejector.sweep(pool.states, pool.now) == []


# --- workers of another supervisor -----------------------------------------------------------------------------------


READY = Health("ready", ever_ready=True)


def tells(ejections: Ejections, *tallies: TargetTally, now: float = 1000.0, incarnation: int = 100) -> list[str]:
    """The targets that are ejected after a worker's report."""
    ejections.report(Report(1, incarnation, 1, 1, list(tallies)), now)
    return [found.target for found in ejections.sweep(dict.fromkeys("abc", READY), {}, now)]


def ejections(*names: str) -> Ejections:
    """The ejections of one pool."""
    targets = {name: Target(name, "app", "blue", name, 8000) for name in names}
    rules = {"app": ServiceRules()}
    found = Ejections()
    found.configure(targets, rules)
    return found


def test_a_supervisor_inherits_the_failures_that_its_predecessor_has_judged():
    """After an upgrade or a restart, workers report all that they have ever counted (model, seeds 80031 and 80087)."""
    successor = ejections("a", "b", "c")
    assert tells(successor, TargetTally("a", server_errors=5, streak=5), TargetTally("b", successes=60)) == []
    assert tells(successor, TargetTally("a", server_errors=9, streak=9), now=1001.0) == []
    assert tells(successor, TargetTally("a", server_errors=10, streak=10), now=1002.0) == ["a"]


def test_a_supervisor_inherits_no_window():
    successor = ejections("a", "b", "c")
    assert tells(successor, TargetTally("a", server_errors=400, successes=600), TargetTally("b", successes=900)) == []
    assert tells(successor, TargetTally("a", server_errors=400, successes=601), now=1001.0) == []
    found = tells(
        successor,
        TargetTally("a", server_errors=440, successes=601),
        TargetTally("b", successes=990),
        now=1002.0,
    )
    assert found == ["a"]


def test_connections_that_failed_under_the_former_supervisor_are_no_row():
    successor = ejections("a", "b", "c")
    assert tells(successor, TargetTally("a", connect_failures=3, streak=3)) == []
    assert tells(successor, TargetTally("a", connect_failures=5, streak=5), now=1001.0) == []
    assert tells(successor, TargetTally("a", connect_failures=6, streak=6), now=1002.0) == ["a"]


def test_a_target_that_a_known_worker_reports_first_is_judged_by_all_that_it_has_counted():
    """A target that a reload has added, and that refuses its first requests."""
    found = ejections("a", "b", "c")
    assert tells(found) == []
    assert tells(found, TargetTally("a", server_errors=5, streak=5)) == ["a"]


def test_failures_in_a_row_under_a_name_that_this_supervisor_never_knew_are_no_evidence():
    """A target that was renamed while lb was down: its worker counts anew, its failures in a row go on."""
    found = ejections("a", "b", "c")
    assert tells(found) == []
    assert tells(found, TargetTally("a", server_errors=1, streak=6)) == []
    assert tells(found, TargetTally("a", server_errors=5, streak=10), now=1001.0) == ["a"]


def test_an_alarm_of_a_worker_that_drains_says_nothing_of_its_replacement():
    found = ejections("a", "b", "c")
    assert tells(found, TargetTally("a", server_errors=9, streak=9)) == []
    assert tells(found, incarnation=101) == []
    assert tells(found, TargetTally("a", server_errors=1, streak=1), incarnation=101) == []
    found.alarm(Alarm(1, "a", "5xx", 10, "HTTP 500"), 100)
    assert tells(found) == []


def test_a_target_is_judged_by_its_newest_health_wish_and_weight():
    """States are worked out anew only where one of these is another object."""
    found, failing = ejections("a", "b", "c"), TargetTally("a", server_errors=5, streak=5)
    healths = {**dict.fromkeys("abc", READY), "d": Health("ready", ever_ready=True)}
    wishes: dict[str, TargetDesired] = {}
    target = Target("a", "app", "blue", "a", 8000)

    def sweeps(report: TargetTally | None = None) -> list[str]:
        if report is not None:
            found.report(Report(1, 100, 1, 1, [report]), 1000.0)
        return [suspect.target for suspect in found.sweep(healths, wishes, 1000.0)]

    assert tells(found) == []
    healths["a"] = Health("unready", ever_ready=True)
    assert sweeps(failing) == [], "probes have taken it out already"
    healths["a"] = READY
    assert sweeps() == [], "it is back: nothing is held against it"
    wishes = {"a": TargetDesired(draining=True)}
    assert sweeps(TargetTally("a", server_errors=10, streak=10)) == []
    wishes = {}
    assert sweeps() == []
    found.change(("app", "blue"), [replace(target, weight=0)], (), ServiceRules())
    assert sweeps(TargetTally("a", server_errors=15, streak=15)) == []
    found.change(("app", "blue"), [target], ["b"], ServiceRules())
    assert sweeps() == []
    assert sweeps(TargetTally("a", server_errors=20, streak=20)) == ["a"]


# --- bounds ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("size", "most"), [(1, 0), (2, 1), (3, 1), (4, 1), (5, 1), (6, 2), (10, 3)])
def test_at_most_max_ejected_one_always_and_never_the_last(size, most):
    """Envoy: max_ejection_percent, the first ejection always allowed; nginx: a group of one is never marked down."""
    pool = Pool(size, Outlier(max_ejected=0.34))
    out = []
    for target in pool.ids:  # one after another, while the rest serve well
        for other in pool.ids:
            if other != target and pool.states[other] == "in":
                pool.ok(other, 50)
        pool.fail(target, 5)
        out += pool.sweep()
    assert len(out) == most


def test_the_last_in_rotation_is_never_ejected():
    pool = Pool(4, Outlier(max_ejected=1.0))
    pool.states.update(t1="out", t2="out", t3="ejected")
    pool.fail("t0", 50)
    assert pool.sweep() == []


def test_a_poisonous_url_takes_nobody_out():
    """Traefik's passive check, default 1 failure and no cap: one URL that answers 500 takes the service out."""
    pool = Pool(4)
    for _ in range(20):
        for target in pool.ids:
            pool.fail(target, 1)
        assert pool.sweep() == []


# --- shares, deviations, latency -------------------------------------------------------------------------------------


@given(st.lists(st.floats(0, 1), min_size=5, max_size=50), st.floats(0.1, 3))
def test_envoys_success_rate_limit(rates, deviations):
    expected = statistics.mean(rates) - deviations * statistics.pstdev(rates)
    assert success_rate_limit(rates, deviations) == pytest.approx(expected, abs=1e-9)


def test_success_rate_against_the_peers():
    only = Outlier(failure_share=0, consecutive_failures=0, consecutive_connect=0)
    pool = Pool(10, only)
    for target in pool.ids:
        pool.ok(target, 80 if target == "t3" else 100)
        if target == "t3":
            pool.fail(target, 20)
            pool.ok(target, 0)
    assert pool.sweep() == ["t3"]
    assert "success rate 80.0%, below" in pool.last[0].reason


def test_one_of_three_is_never_far_enough_from_the_mean_but_the_share_rule_sees_it():
    pool = Pool(3, Outlier(failure_share=0, consecutive_failures=0))
    pool.ok("t1", 100), pool.ok("t2", 100), pool.fail("t0", 100)
    assert pool.sweep() == []
    pool = Pool(3, Outlier(consecutive_failures=0))
    pool.ok("t1", 100), pool.ok("t2", 100), pool.fail("t0", 50), pool.ok("t0", 50)
    assert pool.sweep() == ["t0"]
    assert pool.last[0].reason == "50% of its 100 requests in 10 s failed, 0% of its peers'"


def test_too_few_requests_say_nothing():
    pool = Pool(10, Outlier(consecutive_failures=0))
    for target in pool.ids[1:]:
        pool.ok(target, 1000)
    pool.fail("t0", 19)
    assert pool.sweep() == []
    pool.fail("t0", 1)
    assert pool.sweep() == ["t0"]


def test_old_requests_leave_the_window():
    pool = Pool(10, Outlier(consecutive_failures=0))
    pool.fail("t0", 15)
    for target in pool.ids[1:]:
        pool.ok(target, 100)
    assert pool.sweep() == []
    pool.fail("t0", 15)
    assert pool.sweep(wait=11.0) == []


def test_latency_against_the_peers_median():
    slow = Outlier(latency=3.0)
    pool = Pool(5, slow)
    for target in pool.ids:
        pool.ok(target, 100, 0.040 if target == "t2" else 0.010)
    assert pool.sweep() == ["t2"]
    assert pool.last[0].reason == "takes 40 ms on average, 4.0 times its peers' median"
    pool = Pool(5)  # off by default
    for target in pool.ids:
        pool.ok(target, 100, 4.0 if target == "t2" else 0.010)
    assert pool.sweep() == []


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000))
def test_one_of_ten_that_fails_half_is_out_within_five_seconds(seed):
    """100 requests a second over ten targets, a report each half second."""
    fails = random.Random(seed).sample([True, False] * 25, 50)  # half of them, in any order
    pool = Pool(10)
    for tick in range(10):
        for target in pool.ids:
            for _ in range(5):
                if target == "t7" and fails.pop():
                    pool.fail(target)
                else:
                    pool.ok(target)
        if "t7" in pool.sweep():
            break
        assert tick < 9
    assert [target for target, state in pool.states.items() if state == "ejected"] == ["t7"]


def test_on_probation_a_quarter_of_the_evidence_is_enough():
    pool = Pool(10, Outlier(consecutive_failures=0))
    costs = []
    for _ in range(4):
        failed = 0
        while "t0" not in pool.sweep(wait=0.1):
            for target in pool.ids[1:]:
                pool.ok(target, 2)
            pool.ok("t0", 1), pool.fail("t0", 1)
            failed += 1
        costs.append(failed)
        for _ in range(300):  # 30 s outside, then back
            for target in pool.ids[1:]:
                pool.ok(target, 2)
            pool.sweep(wait=0.1)
        pool.states["t0"] = "in"
    assert costs[0] >= 10
    assert max(costs[1:]) <= 4


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.floats(0.0, 0.05))
def test_a_healthy_pool_is_left_alone(seed, noise):
    """Success rates that differ by chance alone: the deviation rule must not eject the unluckiest of ten."""
    rng = random.Random(seed)
    pool = Pool(10, Outlier())
    ejected = 0
    for _ in range(20):
        for target in pool.ids:
            for _ in range(20):
                (pool.fail if rng.random() < noise else pool.ok)(target)
        ejected += len(pool.sweep())
    assert ejected == 0


@given(st.integers(1, 60), st.floats(0.001, 0.3), st.data())
def test_chance_is_never_underestimated(requests, usual, data):
    """Chernoff's bound against the binomial sum itself."""
    failed = data.draw(st.integers(0, requests))
    tail = sum(math.comb(requests, k) * usual**k * (1 - usual) ** (requests - k) for k in range(failed, requests + 1))
    if not by_chance(failed, requests, usual):
        assert tail < 1.001e-9


# --- the window ------------------------------------------------------------------------------------------------------


@given(st.lists(st.tuples(st.floats(0, 5), st.integers(0, 9), st.integers(0, 9)), max_size=40))
def test_the_window_against_remembering_everything(history):
    window, now, all_of_it = Window(10.0), 500.0, []
    for wait, ok, failed in history:
        now += wait
        window.add(ok, failed, 0.5, now)
        all_of_it.append((int(now), ok, failed))
        kept = [row for row in all_of_it if row[0] > int(now) - 10]
        ok_sum, failed_sum, seconds = window.sums(now)
        assert (ok_sum, failed_sum) == (sum(row[1] for row in kept), sum(row[2] for row in kept))
        assert seconds == pytest.approx(0.5 * len(kept))


@given(st.lists(st.floats(0, 100), min_size=2, max_size=12), st.data())
def test_the_median_of_the_others(values, data):
    index = data.draw(st.integers(0, len(values) - 1))
    others = values[:index] + values[index + 1 :]
    assert median_without(sorted(values), values[index]) == pytest.approx(statistics.median(others))


class Anything(RuleBasedStateMachine):
    """Whatever workers report: never too many out, never the last one, and nobody without failures of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.pool = Pool(6, Outlier(max_ejected=0.5, window=5.0, minimum=5), workers=2)
        self.failed: set[str] = set()

    @rule(number=st.integers(0, 5), worker=st.sampled_from([W1, W2]), count=st.integers(1, 30))
    def succeeds(self, number, worker, count):
        self.pool.ok(f"t{number}", count, worker=worker)

    @rule(
        number=st.integers(0, 5),
        worker=st.sampled_from([W1, W2]),
        count=st.integers(1, 30),
        kind=st.sampled_from(["server_errors", "connect_failures", "resets", "timeouts"]),
    )
    def fails(self, number, worker, count, kind):
        self.pool.fail(f"t{number}", count, worker, kind)
        self.failed.add(f"t{number}")

    @rule(wait=st.floats(0.1, 20.0))
    def sweep(self, wait):
        rotating = sum(state == "in" for state in self.pool.states.values())
        out = self.pool.sweep(wait)
        assert set(out) <= self.failed
        assert len(out) < max(rotating, 1)

    @rule(number=st.integers(0, 5), state=st.sampled_from(["in", "out"]))
    def moves(self, number, state):
        self.pool.states[f"t{number}"] = state

    @invariant()
    def no_more_than_half_are_out(self):
        assert sum(state == "ejected" for state in self.pool.states.values()) <= 3


TestAnything = Anything.TestCase
TestAnything.settings = settings(max_examples=50, stateful_step_count=40, deadline=None)


def test_evidence_of_a_window_of_another_length_is_dropped():
    """A reload: what was gathered by the old window says nothing about the new one."""

    def failing(*windows: float) -> Ejector:
        """One that has seen `a` fail, before these windows were configured one after the other."""
        ejector = Ejector(Outlier(window=10.0, failure_share=0.9))
        tell(ejector, 100.0, 50)
        for window in windows:
            ejector.configure(Outlier(window=window, failure_share=0.5))
        return ejector

    def tell(ejector: Ejector, now: float, count: int) -> None:
        ejector.tally(W1, TargetTally("a", server_errors=count), now)
        ejector.tally(W1, TargetTally("b", successes=count), now)

    def found(ejector: Ejector, now: float) -> list[str]:
        return [each.target for each in ejector.sweep({"a": "in", "b": "in"}, now)]

    assert found(failing(10.0), 100.0) == ["a"]
    assert found(failing(2.0), 100.0) == []
    assert found(failing(2.0, 10.0), 100.0) == []
    ejector = failing(2.0)
    tell(ejector, 100.0, 100)
    assert found(ejector, 103.0) == [], "what comes is gathered by the new one"
    tell(ejector, 103.0, 150)
    assert found(ejector, 103.0) == ["a"]


def test_failures_that_led_to_an_ejection_eject_under_no_new_name():
    """Workers go on with the failures in a row that they have counted, whatever the target's name."""
    blue, teal = Ejector(Outlier()), Ejector(Outlier())
    ids = ["a", "b", "c"]
    blue.tally(W1, TargetTally("blue/a", server_errors=5, streak=5), 1000.0)
    states = {f"blue/{id}": "in" for id in ids}
    assert [found.target for found in blue.sweep(states, 1000.0)] == ["blue/a"]
    blue.sweep({**states, "blue/a": "ejected"}, 1000.5)
    teal.rename("blue/a", "teal/a", blue)
    teal.tally(W1, TargetTally("teal/a", streak=5), 1001.0)
    assert teal.sweep({f"teal/{id}": "in" for id in ids}, 1001.0) == []
    teal.tally(W1, TargetTally("teal/a", server_errors=5, streak=10), 1002.0)
    assert [found.target for found in teal.sweep({f"teal/{id}": "in" for id in ids}, 1002.0)] == ["teal/a"]


@pytest.mark.parametrize(
    ("more", "at", "ejected"),
    [
        (0, 102.0, False),
        (1, 102.0, True),  # with the ten from before: a quarter of the minimum
        (10, 159.5, False),
        (11, 159.5, True),  # a quarter of the minimum, all of it under the new name
        (11, 160.5, False),  # six windows are over
    ],
)
def test_probation_and_evidence_go_along_with_a_new_name(more: int, at: float, ejected: bool) -> None:
    rules = Outlier(minimum=44)
    blue, teal = Ejector(rules), Ejector(rules)
    blue.tally(W1, TargetTally("blue/a", server_errors=50), 100.0)
    blue.sweep({"blue/a": "ejected", "blue/b": "in"}, 100.0)
    blue.sweep({"blue/a": "in", "blue/b": "in"}, 100.5)
    blue.tally(W1, TargetTally("blue/a", server_errors=60), 101.0)
    teal.rename("blue/a", "teal/a", blue)
    teal.tally(W1, TargetTally("teal/a", server_errors=more), at)  # workers count anew under the new name
    teal.tally(W1, TargetTally("teal/b", successes=500), at)
    assert bool(teal.sweep({"teal/a": "in", "teal/b": "in"}, at)) is ejected
