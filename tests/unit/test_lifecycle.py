"""The three axes of a target's life: the documented tables, two oracles, and that no axis forgets what it knows."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from msgspec import structs

from lb.core import lifecycle
from lb.core.checks import CheckSpec
from lb.core.lifecycle import (
    STATES,
    Damping,
    Drain,
    Eject,
    Ejection,
    Emptied,
    Health,
    Probed,
    Readmit,
    Rules,
    SlowStart,
    Tick,
    Undrain,
    Verdict,
    in_rotation,
    initial,
    pause,
    shown,
    shown_since,
    step,
    times_ejected,
)

PASS = Probed(Verdict(True, 0.01, "HTTP 200", "passed"))
FAIL = Probed(Verdict(False, 0.01, "HTTP 503", "status"))
IGNORED = Probed(Verdict(False, 0.01, "HTTP 100", ignored=True))
SILENCE = Verdict(False, 1.0, "no answer within 1 s", "timeout")
RULES = Rules(rise=2, fall=3, grace=30.0)


def after(health: Health, *events: lifecycle.Event, now: float = 1000.0, rules: Rules = RULES) -> Health:
    for event in events:
        health, _ = step(health, event, now, rules)
    return health


def effects(health: Health, event: lifecycle.Event, now: float = 1000.0, rules: Rules = RULES) -> list[str]:
    return [effect.kind for effect in step(health, event, now, rules)[1]]


NEW = initial(0.0, RULES)
READY = after(NEW, PASS)
UNREADY = after(READY, FAIL, FAIL, FAIL)
NEVER_READY = after(NEW, FAIL, FAIL, FAIL)
EJECTED = after(READY, Eject("5 failures in a row"), now=1000.0)

# --- the documented tables -------------------------------------------------------------------------------------------

#: What each row's event text means: (health to begin with, event, now).
PROBE_ROWS = {
    ("starting", "pass"): (NEW, PASS, 1.0),
    ("starting", "fail within grace"): (structs.replace(NEW, streak=-2), FAIL, 29.9),
    ("starting", "fail, fewer than fall"): (after(NEW, FAIL, now=30.0), FAIL, 32.0),
    ("starting", "fail, fall in a row"): (after(NEW, FAIL, FAIL, now=30.0), FAIL, 34.0),
    ("ready", "pass"): (READY, PASS, 1.0),
    ("ready", "fail, fewer than fall"): (after(READY, FAIL), FAIL, 1.0),
    ("ready", "fail, fall in a row"): (after(READY, FAIL, FAIL), FAIL, 1.0),
    ("unready", "pass, never ready before"): (NEVER_READY, PASS, 1000.0),
    ("unready", "pass, fewer than rise"): (UNREADY, PASS, 1000.0),
    ("unready", "pass, rise in a row"): (after(UNREADY, PASS), PASS, 1000.0),
    ("unready", "pass, rise in a row, held"): (structs.replace(after(UNREADY, PASS), held_until=1001.0), PASS, 1000.0),
    ("unready", "fail"): (after(UNREADY, PASS), FAIL, 1000.0),
}
EJECTION_ROWS = {
    ("in", "eject"): (READY, Eject("x"), 1000.0),
    ("ejected", "eject"): (EJECTED, Eject("x"), 1010.0),
    ("ejected", "pass before its time is over"): (EJECTED, PASS, 1029.9),
    ("ejected", "pass after its time is over"): (EJECTED, PASS, 1030.0),
}
ADMIN_ROWS = {
    ("normal", "drain"): (READY, Drain(), 1.0),
    ("draining", "emptied"): (after(READY, Drain()), Emptied(), 1.0),
    ("draining", "undrain"): (after(READY, Drain()), Undrain(), 1.0),
    ("drained", "undrain"): (after(READY, Drain(), Emptied()), Undrain(), 1.0),
}


def table(*states: str) -> dict[tuple[str, str], str]:
    """The rows of the module's docstring that begin with one of `states`."""
    rows = re.findall(r"^    (\w+) +\| (.+?) +\| (\w+)$", lifecycle.__doc__ or "", re.MULTILINE)
    return {(state, event): becomes for state, event, becomes in rows if state in states}


def ejection(health: Health) -> str:
    return "ejected" if health.ejected_until else "in"


@pytest.mark.parametrize(
    ("documented", "rows", "axis"),
    [
        (table("starting", "ready", "unready"), PROBE_ROWS, lambda health: health.probe),
        (table("in", "ejected"), EJECTION_ROWS, ejection),
        (table("normal", "draining", "drained"), ADMIN_ROWS, lambda health: health.admin),
    ],
    ids=["probe", "ejection", "admin"],
)
def test_the_documented_table_is_what_step_does(documented, rows, axis):
    assert documented.keys() == rows.keys()
    for (state, event), becomes in documented.items():
        health, happened, now = rows[state, event]
        assert axis(health) == state, (state, event)
        assert axis(after(health, happened, now=now)) == becomes, (state, event)


@pytest.mark.parametrize(
    ("health", "event"), [(READY, Emptied()), (READY, Undrain()), (after(READY, Drain()), Drain())]
)
def test_what_the_table_does_not_name_changes_nothing(health, event):
    assert step(health, event, 5.0, RULES) == (health, ())


# --- oracles ---------------------------------------------------------------------------------------------------------


@dataclass
class TwoCounters:
    """The probe axis as anybody would write it at first."""

    rise: int
    fall: int
    state: str = "starting"
    ever: bool = False
    passes: int = 0
    failures: int = 0

    def saw(self, ok: bool) -> None:
        if ok:
            self.passes, self.failures = self.passes + 1, 0
            if self.state != "ready" and (self.passes >= self.rise or not self.ever):
                self.state, self.ever = "ready", True
        else:
            self.passes, self.failures = 0, self.failures + 1
            if self.failures >= self.fall:
                self.state = "unready"


@settings(max_examples=300)
@given(st.integers(1, 5), st.integers(1, 5), st.lists(st.booleans(), max_size=60))
def test_two_counters_agree(rise, fall, results):
    rules = Rules(rise=rise, fall=fall, grace=0.0)
    health, oracle = initial(0.0, rules), TwoCounters(rise, fall)
    for now, ok in enumerate(results):
        health = after(health, PASS if ok else FAIL, now=float(now), rules=rules)
        oracle.saw(ok)
        assert (health.probe, max(health.streak, 0), max(-health.streak, 0)) == (
            oracle.state,
            oracle.passes,
            oracle.failures,
        )


def haproxy(value: int, ok: bool, rise: int, fall: int) -> int:
    """`check.health` of HAProxy: below `rise` down, from `rise` to `rise + fall - 1` up."""
    if ok:
        return rise + fall - 1 if value + 1 >= rise else value + 1
    return value - 1 if value > rise else 0


@settings(max_examples=300)
@given(st.integers(1, 5), st.integers(1, 5), st.lists(st.booleans(), max_size=60))
def test_haproxys_one_integer_agrees_once_ready(rise, fall, results):
    rules = Rules(rise=rise, fall=fall, grace=0.0)
    health, value = after(initial(0.0, rules), PASS, rules=rules), rise + fall - 1
    for now, ok in enumerate(results):
        health = after(health, PASS if ok else FAIL, now=float(now), rules=rules)
        value = haproxy(value, ok, rise, fall)
        assert (health.probe == "ready") == (value >= rise)


# --- axes do not touch each other ------------------------------------------------------------------------------------

PROBES = st.sampled_from([PASS, FAIL, IGNORED, Probed(SILENCE, "own_fault"), Probed(SILENCE, "overloaded")])
EJECTIONS = st.sampled_from([Eject("failures"), Readmit()])
ADMIN = st.sampled_from([Drain(), Undrain(), Emptied()])

PROBE_AXIS = ("probe", "streak", "ever_ready", "probe_since", "checked", "text", "weight", "asks_drain", "relief",
              "doubt", "doubt_since", "penalty", "held_until")  # fmt: skip
EJECTION_AXIS = ("ejected_until", "ejected_at", "ejections", "ejected_for", "returned_at")
ADMIN_AXIS = ("admin", "admin_since")


@settings(max_examples=400)
@given(st.lists(st.tuples(st.floats(0, 40), st.one_of(PROBES, EJECTIONS, ADMIN)), max_size=40))
def test_any_interleaving_leaves_each_axis_as_its_own_events_do(history):
    rules = Rules(rise=2, fall=2, grace=20.0, damping=Damping(flaps=2))
    together = initial(0.0, rules)
    alone = dict.fromkeys((PROBE_AXIS, EJECTION_AXIS, ADMIN_AXIS), together)
    now = 0.0
    for wait, event in history:
        now += wait
        together = after(together, event, now=now, rules=rules)
        hears = {
            PROBE_AXIS: isinstance(event, Probed),
            EJECTION_AXIS: isinstance(event, Eject | Readmit | Probed),  # an ejection ends with a passed probe
            ADMIN_AXIS: isinstance(event, Drain | Undrain | Emptied),
        }
        for axis, heard in hears.items():
            if heard:
                alone[axis] = after(alone[axis], event, now=now, rules=rules)
    for axis, health in alone.items():
        assert [getattr(together, name) for name in axis] == [getattr(health, name) for name in axis]


class WorkerProcess(RuleBasedStateMachine):
    """Any order of anything: the invariants that traffic relies on."""

    def __init__(self) -> None:
        super().__init__()
        self.rules = Rules(rise=2, fall=3, grace=5.0, slow_start=SlowStart(10.0), damping=Damping(flaps=3))
        self.now = 0.0
        self.health = initial(0.0, self.rules)
        self.passed = False
        self.rotating = False

    def tell(self, event: lifecycle.Event) -> None:
        self.health, happened = step(self.health, event, self.now, self.rules)
        kinds = [effect.kind for effect in happened]
        self.rotating = (self.rotating or "enter" in kinds) and "leave" not in kinds
        assert not ("enter" in kinds and "leave" in kinds)

    @rule(seconds=st.floats(0.0, 50.0))
    def wait(self, seconds):
        self.now += seconds
        self.tell(Tick())

    @rule(weight=st.none() | st.floats(0.0, 1.0), drain=st.booleans())
    def probe_passes(self, weight, drain):
        self.passed = True
        self.tell(Probed(Verdict(True, 0.0, "HTTP 200", "passed", weight, drain)))

    @rule(doubt=st.sampled_from(["", "own_fault", "shared", "overloaded"]))
    def probe_fails(self, doubt):
        self.tell(Probed(SILENCE, doubt))

    @rule(event=EJECTIONS)
    def is_ejected_or_readmitted(self, event):
        self.tell(event)

    @rule(event=ADMIN)
    def operator(self, event):
        self.tell(event)

    @invariant()
    def effects_tell_who_rotates(self):
        assert self.rotating == in_rotation(self.health)

    @invariant()
    def nobody_rotates_before_a_passed_check(self):
        assert self.passed or not in_rotation(self.health)

    @invariant()
    def the_name_fits_the_axes(self):
        name = shown(self.health, self.now)
        assert name in STATES
        assert (name in ("ready", "slow_start")) == in_rotation(self.health)
        assert shown_since(self.health, self.now) <= self.now

    @invariant()
    def shares_are_shares(self):
        assert 0.0 <= self.health.weight <= 1.0
        assert 0.1 <= self.health.relief <= 1.0


TestLife = WorkerProcess.TestCase
TestLife.settings = settings(max_examples=60, stateful_step_count=40)

# --- one by one ------------------------------------------------------------------------------------------------------


def test_fall_counts_results_in_a_row():
    """Caddy: one failure, a thousand passes, two failures make "three fails"."""
    health = after(READY, FAIL, *[PASS] * 1000, FAIL, FAIL)
    assert health.probe == "ready"
    assert after(health, FAIL).probe == "unready"


def test_alternating_results_change_nothing():
    health = READY
    for _ in range(50):
        health = after(health, FAIL, FAIL, PASS)
        assert health.probe == "ready"
    health = UNREADY
    for _ in range(50):
        health = after(health, PASS, FAIL)
        assert health.probe == "unready"


def test_fall_takes_out_on_the_failure_it_names():
    """Marathon's maxConsecutiveFailures 3 kills on the fourth."""
    assert after(READY, FAIL, FAIL).probe == "ready"
    assert after(READY, FAIL, FAIL, FAIL).probe == "unready"


def test_one_pass_does_not_restore_a_fallen_target():
    """Marathon: one pass restores health, whatever the record."""
    assert after(UNREADY, PASS).probe == "unready"
    assert after(UNREADY, PASS, PASS).probe == "ready"


def test_an_unexpected_status_does_not_ignore_the_threshold():
    """Envoy: an unexpected status makes a host unhealthy at once."""
    assert after(READY, Probed(Verdict(False, 0.0, "HTTP 404", "status"))).probe == "ready"


def test_grace_ends_with_the_first_pass():
    health = after(NEW, FAIL, now=1.0)
    assert (health.probe, health.streak) == ("starting", 0)
    health = after(health, PASS, now=2.0)
    assert after(health, FAIL, FAIL, FAIL, now=3.0).probe == "unready"


def test_a_target_never_ready_enters_with_one_pass_even_after_its_grace():
    """Envoy: the first success makes a new host healthy, whatever the threshold."""
    assert NEVER_READY.probe == "unready"
    assert in_rotation(after(NEVER_READY, PASS))


def test_fall_zero_never_takes_out():
    rules = replace(RULES, fall=0)
    assert after(READY, *[FAIL] * 100, rules=rules).probe == "ready"


def test_ignored_verdicts_change_no_streak():
    health = after(READY, FAIL, FAIL, IGNORED)
    assert health.streak == -2
    assert after(health, FAIL).probe == "unready"


def test_undrain_remembers_probes():
    health = after(READY, Drain(), FAIL, FAIL, FAIL, Undrain())
    assert shown(health, 1000.0) == "unready"
    assert not in_rotation(health)


def test_ejection_outlasts_a_drain():
    health = after(READY, Eject("x"), Drain(), Emptied(), Undrain())
    assert shown(health, 1000.0) == "ejected"


def test_precedence_of_the_public_name():
    def named(admin: str, ejected: bool, probe: str, warm: bool) -> str:
        health = structs.replace(
            READY, admin=admin, ejected_until=2000.0 * ejected, probe=probe, warm_at=1010.0 if warm else 0.0
        )
        return shown(health, 1000.0)

    for ejected, probe, warm in product((True, False), ("starting", "ready", "unready"), (True, False)):
        assert named("drained", ejected, probe, warm) == "drained"
        assert named("draining", ejected, probe, warm) == "draining"
        rest = "ejected" if ejected else "slow_start" if probe == "ready" and warm else probe
        assert named("normal", ejected, probe, warm) == rest


def test_ejections_grow_and_are_capped():
    """Envoy: base × times in a row, at most the longest; #26758: the back-off that did not grow."""
    rules = replace(RULES, ejection=Ejection(base=30.0, longest=100.0, calm=10.0))
    health, now, lasted = READY, 1000.0, []
    for _ in range(5):
        health = after(health, Eject("x"), now=now, rules=rules)
        lasted.append(health.ejected_until - now)
        now = health.ejected_until
        health = after(health, PASS, now=now, rules=rules)
        now += 5.0  # less than a calm span
    assert lasted == [30.0, 60.0, 90.0, 100.0, 100.0]
    assert times_ejected(health, health.returned_at + 20.0, rules) == 3
    assert times_ejected(health, health.returned_at + 1000.0, rules) == 0


def test_an_ejected_target_returns_through_a_probe():
    health, happened = step(READY, Eject("5 failures in a row"), 1000.0, RULES)
    assert [effect.at for effect in happened if effect.kind == "probe"] == [1030.0]
    health = after(health, Tick(), FAIL, now=1031.0)
    assert shown(health, 1031.0) == "ejected"
    assert shown(after(health, PASS, now=1032.0), 1032.0) == "ready"


def test_an_ejected_target_that_is_not_probed_returns_by_time():
    rules = replace(RULES, probed=False)
    health = after(initial(0.0, rules), Eject("x"), now=1000.0, rules=rules)
    assert shown(after(health, Tick(), now=1029.0, rules=rules), 1029.0) == "ejected"
    assert in_rotation(after(health, Tick(), now=1030.0, rules=rules))


def test_an_active_pass_does_not_end_an_ejection_early():
    """Envoy's default lets a passed probe un-eject: wrong when the probe does not exercise the data path."""
    assert shown(after(EJECTED, *[PASS] * 10, now=1010.0), 1010.0) == "ejected"


def test_entering_begins_slow_start_also_the_first_time():
    """HAProxy has no slow start at boot."""
    rules = replace(RULES, slow_start=SlowStart(20.0))
    health = after(initial(0.0, rules), PASS, now=3.0, rules=rules)
    assert shown(health, 3.0) == "slow_start"
    assert shown(health, 22.9) == "slow_start"
    assert shown(health, 23.0) == "ready"
    assert shown_since(health, 30.0) == 23.0


def test_effects_of_entering_and_leaving():
    assert effects(NEW, PASS, now=1.0) == ["say", "enter"]
    assert effects(after(READY, FAIL, FAIL), FAIL) == ["say", "leave"]
    assert effects(READY, PASS) == []
    assert effects(READY, Drain()) == ["say", "leave"]
    assert effects(after(READY, FAIL, FAIL, FAIL), Drain()) == ["say"]


def test_what_a_step_says_has_a_cause_that_programs_can_compare():
    drained = after(READY, Drain())
    asks = Verdict(True, 0.0, "HTTP 200", "passed", None, True)
    busy = Probed(SILENCE, "overloaded")
    damped = replace(RULES, damping=Damping(flaps=1))
    for health, event, rules, causes in [
        (NEW, PASS, RULES, ["passed"]),
        (after(READY, FAIL, FAIL), FAIL, RULES, ["status"]),
        (after(READY, FAIL, FAIL), Probed(SILENCE), RULES, ["timeout"]),
        (after(READY, FAIL, FAIL), FAIL, damped, ["status", "flapping"]),
        (READY, busy, RULES, ["overloaded"]),
        (READY, Probed(asks), RULES, ["drain_hint"]),
        (READY, Eject("5 errors in a row"), RULES, ["ejected"]),
        (after(READY, Eject("5 errors in a row")), Readmit(), RULES, ["readmitted"]),
        (READY, Drain(), RULES, ["drain"]),
        (drained, Emptied(), RULES, ["emptied"]),
        (drained, Undrain(), RULES, ["undrain"]),
    ]:
        said = [effect for effect in step(health, event, 1000.0, rules)[1] if effect.kind == "say"]
        assert [effect.cause for effect in said] == causes
        assert set(causes) <= lifecycle.CAUSES | lifecycle.FAILURES


def test_agent_words_weigh_and_drain():
    half = Probed(Verdict(True, 0.0, "HTTP 200", "passed", 0.5))
    health = after(READY, half)
    assert health.weight == 0.5
    assert effects(READY, half) == ["reweigh"]
    assert effects(structs.replace(READY, ejected_until=99.0), half, now=1.0) == ["reweigh"]
    assert after(health, PASS).weight == 1.0
    drain = Probed(Verdict(True, 0.0, "HTTP 200", "passed", None, True))
    health = after(READY, drain)
    assert (shown(health, 1000.0), in_rotation(health)) == ("draining", False)
    assert in_rotation(after(health, PASS))


# --- doubts ----------------------------------------------------------------------------------------------------------


def test_a_failure_in_doubt_is_not_counted_but_only_for_a_while():
    rules = replace(RULES, patience=10.0)
    doubted = Probed(SILENCE, "own_fault")
    health = after(READY, FAIL, FAIL, now=100.0, rules=rules)
    for now in (101.0, 105.0, 110.9):
        health = after(health, doubted, now=now, rules=rules)
        assert (health.probe, health.streak) == ("ready", -2)
    assert after(health, doubted, now=111.0, rules=rules).probe == "unready"


def test_a_pass_renews_the_patience():
    rules = replace(RULES, patience=10.0, fall=1)
    health = after(READY, Probed(SILENCE, "shared"), now=100.0, rules=rules)
    health = after(health, PASS, now=108.0, rules=rules)
    assert after(health, Probed(SILENCE, "shared"), now=115.0, rules=rules).probe == "ready"


def test_a_doubt_never_makes_anyone_ready():
    assert after(UNREADY, PASS, Probed(SILENCE, "shared"), PASS).probe == "unready"
    assert after(UNREADY, PASS, Probed(SILENCE, "own_fault"), PASS).probe == "ready"  # nothing was learnt


def test_overload_takes_weight_and_passes_give_it_back():
    busy = Probed(SILENCE, "overloaded")
    health = after(READY, busy, busy)
    assert (health.probe, health.relief) == ("ready", 0.25)
    assert after(health, *[busy] * 10).relief == 0.1
    assert after(health, PASS).relief == 0.5
    assert after(health, PASS, PASS, PASS).relief == 1.0


# --- damping ---------------------------------------------------------------------------------------------------------

DAMPED = replace(RULES, rise=1, fall=1, damping=Damping(flaps=3, half_life=1000.0, hold=10.0, max_hold=30.0))


def test_a_flapping_target_is_held_out_longer_each_time():
    health, now, held = READY, 100.0, []
    for _ in range(6):
        health = after(health, FAIL, now=now, rules=DAMPED)
        down = now
        while health.probe != "ready":
            now += 1.0
            health = after(health, PASS, now=now, rules=DAMPED)
        held.append(now - down)
        now += 1.0
    assert held[:2] == [1.0, 1.0]
    assert held[2] == 1.0  # the penalty has decayed a little below 3
    assert held[3:] == [10.0, 20.0, 30.0]


def test_damping_forgets():
    health = READY
    for flap in range(10):
        health = after(health, FAIL, now=flap * 5000.0, rules=DAMPED)
        health = after(health, PASS, now=flap * 5000.0 + 1.0, rules=DAMPED)
        assert health.probe == "ready"


def test_damping_is_off_by_default():
    health = READY
    for flap in range(50):
        health = after(health, FAIL, FAIL, FAIL, PASS, PASS, now=1000.0 + flap)
        assert health.probe == "ready"


# --- the pace --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("health", "seconds"),
    [
        (READY, 10.0),
        (after(READY, FAIL), 1.0),
        (UNREADY, 30.0),
        (after(UNREADY, PASS), 1.0),
        (NEW, 1.0),
        (after(READY, Probed(SILENCE, "own_fault")), 1.0),
    ],
    ids=["ready", "doubtful", "out", "recovering", "starting", "in doubt"],
)
def test_interval_depends_on_the_state(health, seconds):
    spec = CheckSpec(interval=10.0, fast_interval=1.0, down_interval=30.0)
    assert pause(health, spec) == seconds
    assert pause(health, CheckSpec(interval=10.0)) == 10.0
