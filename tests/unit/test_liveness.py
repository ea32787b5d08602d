"""Liveness: the documented table, restarts held back by time, by number and by the hour."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lb.core import liveness
from lb.core.checks import CheckSpec, OnFailure
from lb.core.lifecycle import Verdict
from lb.core.liveness import HOUR, Liveness, being_restarted, restart_at, restarted, step_liveness

PASS = Verdict(True, 0.01, "HTTP 200", "passed")
FAIL = Verdict(False, 0.01, "HTTP 500", "status")
SPEC = CheckSpec(rise=2, fall=3, grace=30.0, interval=10.0, timeout=1.0)
RULES = OnFailure(command=("restart",), backoff=10.0, max_backoff=60.0, per_hour=4)


def after(life: Liveness, *verdicts: Verdict, now: float = 1000.0, spec: CheckSpec = SPEC) -> Liveness:
    for verdict in verdicts:
        life = step_liveness(life, verdict, now, spec)
    return life


NEW = Liveness()
ALIVE = after(NEW, PASS)
DEAD = after(ALIVE, FAIL, FAIL, FAIL)

ROWS = {
    ("unknown", "pass"): lambda: after(NEW, PASS),
    ("unknown", "fail within grace"): lambda: after(NEW, FAIL, FAIL, FAIL, FAIL, now=29.9),
    ("unknown", "fail, fewer than fall"): lambda: after(NEW, FAIL, FAIL),
    ("unknown", "fail, fall in a row"): lambda: after(NEW, FAIL, FAIL, FAIL),
    ("alive", "pass"): lambda: after(ALIVE, PASS),
    ("alive", "fail, fewer than fall"): lambda: after(ALIVE, FAIL, FAIL),
    ("alive", "fail, fall in a row"): lambda: after(ALIVE, FAIL, FAIL, FAIL),
    ("dead", "pass, fewer than rise"): lambda: after(DEAD, PASS),
    ("dead", "pass, rise in a row"): lambda: after(DEAD, PASS, PASS),
    ("dead", "fail"): lambda: after(DEAD, PASS, FAIL),
    ("dead", "restarted"): lambda: restarted(DEAD, 1000.0, SPEC),
}


def test_the_documented_table_is_what_happens():
    rows = re.findall(r"^    (\w+) +\| (.+?) +\| (\w+)$", liveness.__doc__ or "", re.MULTILINE)
    assert {(state, event) for state, event, _ in rows} == ROWS.keys()
    for state, event, becomes in rows:
        assert ROWS[state, event]().state == becomes, (state, event)


def test_fall_nought_never_calls_anyone_dead():
    """Marathon: maxConsecutiveFailures 0 never kills (but 0 of a MESOS_ check kills on the first)."""
    assert after(ALIVE, *[FAIL] * 1000, spec=replace(SPEC, fall=0)).state == "alive"


@given(st.lists(st.sampled_from([PASS, FAIL]), max_size=60))
def test_in_a_row_means_in_a_row(verdicts):
    failures, dead = 0, False
    life = ALIVE
    for verdict in verdicts:
        life = after(life, verdict)
        failures = 0 if verdict.ok else failures + 1
        dead = dead or failures >= 3
        if not dead:
            assert life.state == "alive"
        else:
            break
    assert (life.state == "dead") == dead


def test_the_first_restart_is_at_once_and_the_wait_doubles():
    life, now, waits = DEAD, 1000.0, []
    rules = replace(RULES, per_hour=100)
    for _ in range(5):
        at = restart_at(life, rules, now)
        waits.append(at - now)
        life = restarted(life, at, SPEC)
        now = at
        life = after(life, FAIL, FAIL, FAIL, now=now + 31.0)
        assert life.state == "dead"
    assert waits == [0.0, 10.0, 20.0, 40.0, 60.0]


def test_a_target_that_lived_again_is_restarted_at_once_the_next_time():
    life = restarted(DEAD, 1000.0, SPEC)
    assert (
        restart_at(after(life, PASS, FAIL, FAIL, FAIL, now=1001.0), RULES, 1001.0) == 1010.0
    )  # one pass proves little
    life = after(life, PASS, PASS, FAIL, FAIL, FAIL, now=1001.0)
    assert restart_at(life, RULES, 1001.0) == 1001.0


def test_no_more_than_so_many_in_an_hour():
    life, now = DEAD, 1000.0
    for _ in range(4):
        life = replace(restarted(life, now, SPEC), in_a_row=0)
        now += 60.0
    assert restart_at(life, RULES, now) == 1000.0 + HOUR
    life = restarted(life, 1000.0 + HOUR, SPEC)
    assert len(life.tries) == 4


@given(st.lists(st.floats(0, 2000), max_size=40), st.integers(1, 6))
def test_the_hourly_bound_holds_for_any_history(waits, per_hour):
    rules = replace(RULES, per_hour=per_hour)
    life, now, done = DEAD, 0.0, []
    for wait in waits:
        now += wait
        if restart_at(life, rules, now) <= now:
            life = restarted(life, now, SPEC)
            done.append(now)
    for first in done:
        assert sum(first <= moment < first + HOUR for moment in done) <= per_hour


def test_a_restart_has_its_grace_and_is_then_given_up():
    life = restarted(DEAD, 1000.0, SPEC)
    assert after(life, FAIL, FAIL, FAIL, now=1029.0).state == "unknown"
    assert being_restarted(life, 1060.0)
    assert not being_restarted(life, 1061.0)
    assert not being_restarted(after(life, PASS), 1001.0)
    assert not being_restarted(after(life, FAIL, FAIL, FAIL, now=1031.0), 1031.0)


def test_ignored_verdicts_change_nothing_but_the_text():
    ignored = Verdict(False, 1.0, "our own loop stood still", "timeout", ignored=True)
    life = after(ALIVE, FAIL, FAIL, ignored)
    assert (life.state, life.streak, life.text) == ("alive", -2, "our own loop stood still")


@pytest.mark.parametrize("count", [0, 1, 5])
def test_many_failures_in_a_row_do_not_overflow(count):
    life = replace(DEAD, in_a_row=10**count, tries=(1.0,))
    assert restart_at(life, RULES, 2.0) == 61.0 if count else 11.0
