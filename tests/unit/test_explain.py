"""Explanations: every axis, doubt and wait has its sentence, with the counters and what comes next."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lb.core.checks import CheckSpec
from lb.core.explain import explain, runs, span
from lb.core.lifecycle import (
    Damping,
    Drain,
    Eject,
    Emptied,
    Health,
    Probed,
    Rules,
    Seen,
    SlowStart,
    Undrain,
    Verdict,
    initial,
    step,
)
from lb.core.liveness import Liveness

SPEC = CheckSpec(protocol="http", interval=2.0, timeout=1.0, rise=2, fall=3)
RULES = Rules(rise=2, fall=3, grace=30.0)
PASS = Verdict(True, 0.0123, "HTTP 200", "passed")
FAIL = Verdict(False, 0.004, "HTTP 503, expected 200-299", "status")


def say(health: Health, now: float = 100.0, rules: Rules = RULES, spec: CheckSpec = SPEC, **more) -> str:
    found = explain("app/blue/b1:1", health, rules, spec, now, **more)
    assert found.summary == f"app/blue/b1:1 {found.predicate}"
    return "\n".join([found.summary, *found.lines])


def after(*events, now: float = 90.0, rules: Rules = RULES) -> Health:
    health = initial(0.0, rules)
    for event in events:
        health, _ = step(health, event, now, rules)
    return health


READY = after(Probed(PASS))


def test_a_ready_target():
    text = say(READY, seen=[Seen(98.0, PASS)], next_probe=100.5, weight=2.0)
    assert text.startswith("app/blue/b1:1 gets traffic: ready for 10 s\n")
    assert "The last probe, 2.0 s ago, passed after 12.3 ms: HTTP 200." in text
    assert "1 probes passed in a row; 3 failures in a row take it out; the next probe is due in 0.5 s." in text
    assert "Its weight in the rotation is 2." in text
    assert "a failure takes it out after 4.8 s as a rule and 7.0 s at worst." in text


SAID = FAIL._replace(excerpt="database:\nno connection")


def test_a_failure_is_shown_with_the_body_of_its_answer():
    text = say(after(Probed(SAID)), seen=[Seen(98.0, SAID)])
    assert "HTTP 503, expected 200-299.\nThe answer's body begins: database: no connection\n" in text
    assert "body" not in say(after(Probed(FAIL)), seen=[Seen(98.0, FAIL)])


def test_the_last_failure_is_shown_behind_later_passes():
    failure = "The last failure, 5.0 s ago: HTTP 503, expected 200-299."
    text = say(READY, seen=[Seen(92.0, FAIL), Seen(95.0, SAID), Seen(98.0, PASS)])
    assert f"{failure} The answer's body began: database: no connection\n" in text
    assert f"{failure}\n" in say(READY, seen=[Seen(95.0, FAIL), Seen(98.0, PASS)])
    ignored = SAID._replace(ignored=True)
    assert "failure, " not in say(READY, seen=[Seen(95.0, ignored), Seen(98.0, PASS)])


def test_counters_against_thresholds():
    text = say(after(Probed(PASS), Probed(FAIL), Probed(FAIL)), next_probe=101.0)
    assert "2 of 3 failures in a row; 1 more take it out; the next probe is due in 1.0 s." in text
    text = say(after(Probed(PASS), *[Probed(FAIL)] * 3, Probed(PASS)), next_probe=101.0)
    assert "gets no traffic: unready for 10 s" in text
    assert "1 of 2 passes in a row; 1 more bring it in, in 1.0 s at the earliest" in text
    text = say(after(Probed(PASS), *[Probed(FAIL)] * 3), next_probe=101.0)
    assert "0 of 2 passes in a row; 2 more bring it in, in 3.0 s at the earliest" in text


def test_a_starting_target():
    text = say(initial(90.0, RULES), next_probe=99.0)
    assert "gets no traffic: starting" in text
    assert "nothing is sent to it before it has" in text
    assert "Its failures do not count for 20 s more (`grace`)." in text
    assert "0 of 1 passes in a row, enough for a first entry; 1 more bring it in" in text
    assert "the next probe is under way" in text


def test_ready_and_without_traffic():
    text = say(READY, idle="its weight is 0: set by an operator")
    assert text.startswith("app/blue/b1:1 gets no traffic: ready for 10 s, but its weight is 0: set by an operator\n")
    assert "unready" in say(after(*[Probed(FAIL)] * 3, now=40.0), now=50.0, idle="no matter").splitlines()[0]


def test_unready_and_with_traffic():
    text = say(after(Probed(PASS), *[Probed(FAIL)] * 3), weight=1.0)
    assert text.startswith("app/blue/b1:1 gets traffic: unready for 10 s\n")
    assert "`panic: spread`" in text


def test_operators_and_agents():
    assert "An operator is draining it" in say(after(Probed(PASS), Drain()))
    assert "its last request has ended" in say(after(Probed(PASS), Drain(), Emptied()))
    assert "undrain" not in say(after(Probed(PASS), Drain(), Undrain()))
    asks = Probed(PASS._replace(drain_hint=True, weight_hint=0.5))
    assert "It asks for no new requests itself" in say(after(asks))
    assert "It asked for 50% of its weight itself." in say(after(Probed(PASS._replace(weight_hint=0.5))))


def test_ejections():
    health = after(Probed(PASS), Eject("5 requests in a row failed"))
    text = say(health)
    assert "Ejected 10 s ago for its own traffic: 5 requests in a row failed." in text
    assert "It stays out for 20 s more; then a passed probe brings it back." in text
    assert "Its time is over: the next passed probe brings it back." in say(health, now=121.0)
    health, _ = step(health, Probed(PASS), 121.0, RULES)
    assert "It was ejected 1 times of late" in say(health, now=122.0)


def test_doubts_slow_start_damping_and_trials():
    silent = Probed(FAIL._replace(kind="timeout"), "overloaded")
    text = say(after(Probed(PASS), silent))
    assert "Its failed probes are not counted for 5.0 s more, because it is busy and still answers clients." in text
    assert "It is relieved to 50% of its weight while it is overloaded." in text
    slow = replace(RULES, slow_start=SlowStart(40.0))
    assert "Slow start: it gets 25% of its weight, all of it in 30 s." in say(
        after(Probed(PASS), rules=slow), rules=slow
    )
    damped = replace(RULES, fall=1, damping=Damping(flaps=1, hold=60.0))
    health = after(Probed(PASS), Probed(FAIL), rules=damped)
    text = say(health, rules=damped)
    assert "flapping and is held out for 50 s more (`damping`)" in text
    assert "in 50 s at the earliest" in text
    trial = after(Probed(FAIL), Probed(FAIL))
    text = say(READY, trial=trial)
    assert "the new one has not passed here yet (failed 2 times in a row: HTTP 503, expected 200-299)" in text


def test_unprobed_and_never_out():
    none = replace(RULES, probed=False)
    text = say(initial(0.0, none), rules=none, spec=CheckSpec(protocol="none"))
    assert "It is not probed (`protocol: none`) and taken as ready." in text
    assert "Failed probes never take it out" in say(READY, rules=replace(RULES, fall=0), spec=replace(SPEC, fall=0))


def test_liveness_is_told_beside_it():
    life = Liveness("dead", -3, since=70.0, text="HTTP 500")
    assert "Liveness: dead for 30 s; HTTP 500." in say(READY, life=life)
    life = replace(life, state="unknown", tries=(95.0,), in_a_row=1, waits_for=140.0)
    assert "It is being restarted (try 1)." in say(READY, life=life)
    assert "It was restarted 1 min 5 s ago; 1 times within the hour." in say(READY, now=160.0, life=life)


def test_probes_fold_into_runs():
    seen = [Seen(float(i), PASS) for i in range(5)] + [Seen(5.0, FAIL), Seen(6.0, FAIL), Seen(7.0, PASS)]
    assert [(count, first.at, last.at) for count, first, last in runs(seen)] == [
        (5, 0.0, 4.0),
        (2, 5.0, 6.0),
        (1, 7.0, 7.0),
    ]
    assert "The last 5 probes said the same, since 10 s ago." in say(READY, now=10.0, seen=seen[:5])


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(-1, "0.0 s"), (0.04, "0.0 s"), (9.94, "9.9 s"), (9.96, "10 s"), (59.4, "59 s"), (60, "1 min"), (185, "3 min 5 s"),
     (3600, "1 h"), (7800, "2 h 10 min"), (86400, "1 d"), (270000, "3 d 3 h")],
)  # fmt: skip
def test_span(seconds, text):
    assert span(seconds) == text


@given(
    st.lists(
        st.sampled_from(
            [Probed(PASS), Probed(FAIL), Probed(FAIL, "shared"), Eject("x"), Drain(), Emptied(), Undrain()]
        ),
        max_size=20,
    ),
    st.floats(0, 1000),
)
def test_any_health_can_be_explained(events, later):
    rules = replace(RULES, slow_start=SlowStart(20.0), damping=Damping(flaps=2))
    health = after(*events, rules=rules)
    found = explain("t", health, rules, SPEC, 90.0 + later, next_probe=91.0)
    assert found.lines
    assert all((line.endswith(".") and line[0].isupper()) or line[0].isdigit() for line in found.lines)
