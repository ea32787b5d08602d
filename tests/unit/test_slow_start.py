"""The ramp of a target that enters rotation, against the peers' formulas."""

from __future__ import annotations

import math

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from lb.core.lifecycle import Damping, Ejection, Health, Rules, SlowStart, ramp, shown, under_rules

READY = Health(probe="ready", ever_ready=True)


def entered(at: float, window: float) -> Health:
    return Health(probe="ready", ever_ready=True, rotation_since=at, warm_at=at + window)


def envoy(elapsed: float, window: float, aggression: float, floor: float) -> float:
    """max(min_weight_percent, (max(t, 1) / window) ^ (1 / aggression)), while the window lasts."""
    return 1.0 if elapsed >= window else max(floor, (max(elapsed, 1) / window) ** (1 / aggression))


def haproxy(elapsed: float, window: float, weight: int) -> float:
    """ew = ceil(uweight * w / wmult), w = (wdiv * elapsed + slowstart) / slowstart, as a share of the full weight."""
    wdiv, wmult = 128, 16  # BE_WEIGHT_SCALE round robin: ew is weight * wmult at full
    w = (wdiv * elapsed + window) / window
    return min(1.0, math.ceil(weight * wmult * min(w, wdiv) / wdiv) / (weight * wmult))


@given(st.floats(1, 600), st.floats(1, 600), st.floats(0.1, 10), st.floats(0, 1))
def test_envoys_formula(elapsed, window, aggression, floor):
    assume(abs(elapsed - window) > 1e-6)
    ours = ramp(entered(50.0, window), 50.0 + elapsed, SlowStart(window, aggression, floor))
    assert ours == pytest.approx(min(1.0, envoy(elapsed, window, aggression, floor)), abs=1e-6)


@given(st.floats(0, 0.999), st.floats(5, 600), st.integers(1, 256))
def test_haproxys_line_is_never_far(part, window, weight):
    ours = ramp(entered(50.0, window), 50.0 + part * window, SlowStart(window, floor=0.0))
    assert ours == pytest.approx(haproxy(part * window, window, weight), abs=2 / 128 + 1 / 16)


@given(st.lists(st.floats(0, 100), min_size=2), st.floats(0.1, 10))
def test_it_only_ever_rises_and_ends_full(moments, aggression):
    slow = SlowStart(60.0, aggression)
    shares = [ramp(entered(0.0, 60.0), now, slow) for now in sorted(moments)]
    assert shares == sorted(shares)
    assert ramp(entered(0.0, 60.0), 60.0, slow) == 1.0


def test_aggression_bends_the_curve():
    halfway = entered(0.0, 10.0)
    assert ramp(halfway, 5.0, SlowStart(10.0, 1.0)) == 0.5
    assert ramp(halfway, 5.0, SlowStart(10.0, 2.0)) > 0.7
    assert ramp(halfway, 5.0, SlowStart(10.0, 0.5)) == 0.25


def test_no_window_no_ramp():
    assert ramp(entered(0.0, 0.0), 0.0, SlowStart()) == 1.0


def test_a_kept_verdict_does_not_ramp():
    """A target that was ready before a restart is warm already."""
    assert ramp(READY, 1.0, SlowStart(60.0)) == 1.0


# --- rules that change -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("elapsed", "before", "after", "share"),
    [
        (3.0, 60.0, 12.0, 0.25),  # goes on by the new window
        (3.0, 60.0, 2.0, 1.0),  # which is over
        (3.0, 60.0, 0.0, 1.0),
        (3.0, 12.0, 30.0, 0.1),
        (20.0, 12.0, 60.0, 1.0),  # was over: not begun again
        (1.0, 0.0, 12.0, 1.0),  # there was none
    ],
)
def test_a_warm_up_under_way_goes_on_by_the_new_window(elapsed, before, after, share):
    rules = Rules(slow_start=SlowStart(after))
    health = under_rules(entered(50.0, before), 50.0 + elapsed, rules)
    assert ramp(health, 50.0 + elapsed, rules.slow_start) == pytest.approx(share)
    assert shown(health, 50.0 + elapsed) == ("slow_start" if share < 1 else "ready")
    assert ramp(health, 50.0 + max(after, elapsed), rules.slow_start) == 1.0


def test_no_ejection_and_no_hold_lasts_longer_than_the_new_rules_allow():
    health = Health(ejected_until=400.0, held_until=300.0)
    rules = Rules(ejection=Ejection(longest=60.0), damping=Damping(flaps=3, max_hold=30.0))
    found = under_rules(health, 100.0, rules)
    assert (found.ejected_until, found.held_until) == (160.0, 130.0)
    assert under_rules(found, 100.0, Rules()).held_until == 0.0, "damping is off"
    assert under_rules(Health(), 100.0, rules) == Health()
