"""Detection times against a simulation: the monitor's schedule, the lifecycle's counting, random moments."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lb.core.checks import CheckSpec
from lb.core.detection import detection, promised
from lb.core.lifecycle import Probed, Rules, Verdict, initial, pause, step

PASS = Verdict(True, 0.0, "HTTP 200", "passed")
FAIL = Verdict(False, 0.0, "no answer", "timeout")


def simulate(spec: CheckSpec, hung: bool, dice: random.Random, patience: float = 0.0, doubt: str = "") -> float:
    """Seconds from a failure at a random moment until `step` takes the target out; the monitor's own schedule."""
    rules = Rules(rise=spec.rise, fall=spec.fall, grace=0.0, patience=patience)
    health, _ = step(initial(0.0, rules), Probed(PASS), 0.0, rules)
    fails_at = 10 * spec.interval + dice.random() * 10 * spec.interval
    start = 0.0
    while True:
        failing = start >= fails_at
        took = spec.timeout if failing and hung else 0.0
        end = start + took
        health, _ = step(health, Probed(FAIL, doubt) if failing else Probed(PASS), end, rules)
        if health.probe == "unready":
            return end - fails_at
        start = max(start + pause(health, spec) * (1 - spec.jitter * dice.random()), end)


SPECS = st.builds(
    CheckSpec,
    interval=st.floats(0.1, 60),
    timeout=st.floats(0.05, 90),
    fall=st.integers(1, 6),
    jitter=st.floats(0, 0.5),
    fast_interval=st.sampled_from([0.0, 0.05, 1.0]),
)


@given(SPECS, st.booleans(), st.integers(0, 9999))
def test_it_never_takes_longer_than_the_worst_case(spec, hung, seed):
    times = detection(spec)
    assert times is not None
    assert simulate(spec, hung, random.Random(seed)) <= times.worst + 1e-6


@given(SPECS, st.booleans(), st.floats(0, 60), st.sampled_from(["shared", "overloaded"]), st.integers(0, 9999))
def test_nor_longer_than_said_where_it_is_doubted_at_first(spec, hung, patience, doubt, seed):
    took = simulate(spec, hung, random.Random(seed), patience, doubt)
    assert patience - 1e-6 <= took <= promised(spec, patience) + 1e-6


@given(SPECS, st.integers(0, 9999))
def test_nor_less_than_the_best_case(spec, seed):
    times = detection(spec)
    assert times is not None
    assert simulate(spec, False, random.Random(seed)) >= times.best - 1e-6


@settings(max_examples=20, deadline=None)
@given(SPECS)
def test_the_mean_is_the_expected_time(spec):
    times = detection(spec)
    assert times is not None
    dice = random.Random(5)
    mean = sum(simulate(spec, False, dice) for _ in range(400)) / 400
    assert mean == pytest.approx(times.expected, rel=0.1, abs=0.08 * spec.interval)
