"""What holds over a restart: verdicts while they are fresh, ejections as long as they last, of the same question."""

from __future__ import annotations

from dataclasses import replace

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lb.core import restore
from lb.core.checks import CheckSpec
from lb.core.lifecycle import (
    Damping,
    Drain,
    Eject,
    Health,
    Probed,
    Rules,
    SlowStart,
    Undrain,
    Verdict,
    in_rotation,
    initial,
    ramp,
    shown,
    step,
)
from lb.core.lifecycle import times_ejected as times
from lb.core.restore import Kept, ejected, held, keep, verdict, warmth

SPEC = CheckSpec(interval=2.0, timeout=1.0, fall=3)
RULES = Rules(grace=0.0)
PASS = Verdict(True, 0.0, "HTTP 200", "passed")
FAIL = Verdict(False, 0.0, "connection refused", "refused")
#: The clocks of the lb that ends and of the one that begins.
NOW, UNIX, LATER = 5000.0, 1.7e9, 40.0


def lived(*events, rules: Rules = RULES) -> Health:
    health = initial(NOW - 100, rules)
    for event in events:
        health, _ = step(health, event, NOW, rules)
    return health


def kept(health: Health, decided: bool = True) -> Kept:
    found = keep("t", "q", health, decided, NOW, UNIX)
    assert found is not None
    return found


def restarted(health: Health, after: float, rules: Rules = RULES, now: float = LATER) -> Health:
    """What the next lb makes of it, `after` seconds later, on a clock of its own."""
    was = kept(health)
    found = verdict(was, SPEC, rules, now, UNIX + after) or initial(now, rules)
    return ejected(was, found, rules, now, UNIX + after) if was.ejections else found


@pytest.mark.parametrize(("after", "state"), [(0.1, "ready"), (6.9, "ready"), (7.1, "starting"), (-1.0, "starting")])
def test_a_verdict_holds_as_long_as_it_takes_to_find_out_better(after, state):
    assert shown(restarted(lived(Probed(PASS)), after), LATER) == state


def test_unready_holds_as_well():
    health = restarted(lived(Probed(PASS), *[Probed(FAIL)] * 3), 1.0)
    assert (health.probe, health.ever_ready, health.streak) == ("unready", True, -1)
    assert health.text == "connection refused (before the restart)"


def test_what_was_never_decided_or_is_on_trial_is_not_kept():
    assert keep("t", "q", lived(), True, NOW, UNIX) is None
    assert keep("t", "q", lived(Probed(PASS)), False, NOW, UNIX) is None


@pytest.mark.parametrize("after", [0.5, 5.0, 20.0])
def test_an_ejected_target_stays_out_for_the_rest_of_its_time(after):
    """Also when lb was away for so long that its verdict is stale."""
    health = restarted(lived(Probed(PASS), Eject("5 requests in a row failed")), after)
    assert shown(health, LATER) == "ejected"
    assert health.ejected_until == pytest.approx(LATER + 30 - after, abs=0.001)
    assert health.ejected_for == "5 requests in a row failed"
    early, _ = step(health, Probed(PASS), LATER + 1, RULES)
    assert not in_rotation(early)
    back, _ = step(early, Probed(PASS), LATER + 31 - after, RULES)
    assert in_rotation(back)


def test_when_its_time_is_over_it_still_returns_through_a_probe():
    health = restarted(lived(Probed(PASS), Eject("…")), 100.0)
    assert not in_rotation(health)
    back, _ = step(health, Probed(PASS), LATER + 1, RULES)
    assert in_rotation(back)


def test_without_probes_its_time_alone_counts():
    rules = Rules(probed=False)
    health = lived(Eject("…"), rules=rules)
    assert not in_rotation(restarted(health, 10.0, rules))
    assert in_rotation(restarted(health, 31.0, rules))


def test_repetition_is_remembered():
    health = lived(Probed(PASS), Eject("…"))
    health, _ = step(health, Probed(PASS), NOW + 31, RULES)
    assert in_rotation(health)
    was = keep("t", "q", health, True, NOW + 32, UNIX + 32)
    assert was is not None
    after = ejected(was, initial(LATER, RULES), RULES, LATER, UNIX + 34)
    assert times(after, LATER, RULES) == 1
    assert after.returned_at == pytest.approx(LATER - 3, abs=0.001)
    again, _ = step(after, Eject("…"), LATER, RULES)
    assert again.ejected_until == LATER + 60


@pytest.mark.parametrize("jump", [-1e6, 1e6])
def test_a_clock_that_was_set_meanwhile_keeps_nobody_out_for_ever(jump):
    health = restarted(lived(Probed(PASS), Eject("…")), jump)
    assert health.ejected_until <= LATER + RULES.ejection.longest
    assert not in_rotation(health)  # not before it has passed a probe


def test_one_that_flaps_is_held_on():
    rules = replace(RULES, damping=Damping(flaps=1, hold=20.0))
    health = lived(Probed(PASS), *[Probed(FAIL)] * 3, rules=rules)
    after = restarted(health, 2.0, rules)
    assert after.held_until == pytest.approx(LATER + 18, abs=0.001)
    assert after.penalty == 1


EVENTS = st.lists(
    st.sampled_from([Probed(PASS), Probed(FAIL), Eject("slow"), Eject("refused", quick=True)]), max_size=12
)


@given(EVENTS, st.floats(-1000, 1000), st.floats(0, 1e6))
def test_a_restart_never_brings_anybody_in_who_was_out(events, after, now):
    """Whatever happened, however long it took, whatever the clocks say."""
    health = lived(*events)
    if keep("t", "q", health, True, NOW, UNIX) is None:
        return
    found = restarted(health, after, now=now)
    assert in_rotation(health) or not in_rotation(found)
    assert found.ejected_until <= now + RULES.ejection.longest


# --- what goes on by time --------------------------------------------------------------------------------------------

RAMP = replace(RULES, slow_start=SlowStart(60.0))


@pytest.mark.parametrize("after", [0.0, 2.0, 6.9])
def test_a_warm_up_goes_on_where_it_was(after):
    """It was 3 s into a window of 60 s. The time without lb does not count: it may have had no traffic."""
    health, _ = step(initial(NOW - 3, RAMP), Probed(PASS), NOW - 3, RAMP)
    health, _ = step(health, Probed(PASS), NOW, RAMP)
    found = restarted(health, after, RAMP)
    assert shown(found, LATER) == "slow_start"
    assert ramp(found, LATER + 27, RAMP.slow_start) == pytest.approx(0.5)
    assert ramp(found, LATER + 57, RAMP.slow_start) == 1.0


def test_a_warm_target_stays_warm_and_a_new_window_counts():
    health, _ = step(initial(NOW - 100, RAMP), Probed(PASS), NOW - 100, RAMP)
    health, _ = step(health, Probed(PASS), NOW, RAMP)
    assert ramp(restarted(health, 1.0, RAMP), LATER, RAMP.slow_start) == 1.0
    cold, _ = step(initial(NOW - 3, RAMP), Probed(PASS), NOW - 3, RAMP)
    cold, _ = step(cold, Probed(PASS), NOW, RAMP)
    shorter = replace(RULES, slow_start=SlowStart(6.0))
    assert ramp(restarted(cold, 1.0, shorter), LATER, shorter.slow_start) == pytest.approx(0.5)


@given(st.floats(0, 100), st.floats(-1e6, 1e6), st.floats(0, 1e6), st.booleans())
def test_no_clock_makes_a_cold_target_warmer(lived_for, after, now, drained):
    health, _ = step(initial(NOW - lived_for, RAMP), Probed(PASS), NOW - lived_for, RAMP)
    health, _ = step(health, Probed(PASS), NOW, RAMP)
    if drained:
        for event in (Drain(), Undrain()):
            health, _ = step(health, event, NOW, RAMP)
    found = restarted(health, after, RAMP, now)
    if in_rotation(found):
        assert ramp(found, now, RAMP.slow_start) == pytest.approx(ramp(health, NOW, RAMP.slow_start), abs=1e-6)


def test_one_that_is_not_probed_goes_on_warming_as_well():
    rules = replace(RAMP, probed=False)
    cold, warm = initial(NOW - 15, rules), initial(NOW - 100, rules)
    anew = initial(LATER, rules)
    assert ramp(warmth(kept(cold), anew, rules, LATER), LATER, RAMP.slow_start) == pytest.approx(0.25)
    assert ramp(warmth(kept(warm), anew, rules, LATER), LATER, RAMP.slow_start) == 1.0


def test_what_a_target_asked_for_holds_until_it_says_something_else():
    asks = PASS._replace(weight_hint=0.25, drain_hint=True)
    found = restarted(lived(Probed(PASS), Probed(asks)), 1.0)
    assert (found.weight, found.asks_drain, in_rotation(found)) == (0.25, True, False)


@pytest.mark.parametrize(("after", "left"), [(2.0, 18.0), (15.0, 5.0), (-1e6, 300.0), (1e6, 0.0)])
def test_a_hold_outlives_a_verdict_that_is_stale(after, left):
    rules = replace(RULES, damping=Damping(flaps=1, hold=20.0))
    was = kept(lived(Probed(PASS), *[Probed(FAIL)] * 3, rules=rules))
    found = held(was, initial(LATER, rules), rules, LATER, UNIX + after)
    assert max(0.0, found.held_until - LATER) == pytest.approx(left, abs=0.001)
    passed, _ = step(found, Probed(PASS), LATER, rules)
    assert in_rotation(passed) == (not left)
    off = held(was, initial(LATER, RULES), RULES, LATER, UNIX + after)
    assert not off.held_until, "damping is off now"


def test_a_former_check_leaves_no_header_value_on_the_disk() -> None:
    former = CheckSpec(protocol="http", path="/old", headers=(("Authorization", "s3cr3t"), ("X-A", "1")))
    kept = restore.with_former(Kept("a/b/c:1", "89ab", True, True, 1.5e9, "HTTP 200"), former)
    assert b"s3cr3t" not in msgspec.json.encode(kept)
    assert kept.former is not None
    present = replace(former, path="/new")
    assert restore.unsealed(kept.former, present) == former
    assert restore.unsealed(kept.former, replace(present, headers=(("Authorization", "other"), ("X-A", "1")))) is None
    assert restore.unsealed(kept.former, replace(present, headers=())) is None
