"""The ramp of a target that enters rotation, against the peers' formulas."""

from __future__ import annotations

import math

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from lb.core.lifecycle import Health, SlowStart, ramp

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
