"""Detection times against a simulation of the checker, and against the articles' sums."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lb.core.checks import CheckSpec
from lb.core.detection import detection, formula, worst_case
from lb.core.lifecycle import Probed, Rules, Verdict, initial, pause, step


def simulated(spec: CheckSpec, death: float, hangs: bool, rng: random.Random) -> float:
    """Seconds from `death` until the real lifecycle says unready, with probes scheduled as the monitor does."""
    rules = Rules(rise=spec.rise, fall=spec.fall, grace=0.0)
    health, _ = step(initial(0.0, rules), Probed(Verdict(True, 0.0, "200")), 0.0, rules)
    due = 0.0
    while True:
        due += pause(health, spec) * (1 - spec.jitter * rng.random())
        began = due
        alive = began < death
        seconds = 0.0 if alive or not hangs else spec.timeout
        health, _ = step(health, Probed(Verdict(alive, seconds, "")), began + seconds, rules)
        if health.probe == "unready":
            return began + seconds - death
        due = max(due, began + seconds - pause(health, spec))  # no probe overlaps the one before


seconds = st.integers(1, 400).map(lambda n: n / 20)
specs = st.builds(
    CheckSpec,
    interval=seconds,
    timeout=seconds,
    fall=st.integers(1, 6),
    fast_interval=st.just(0.0) | seconds,
    jitter=st.sampled_from([0.0, 0.1, 0.5]),
)


@given(specs, st.floats(10, 200), st.booleans(), st.integers(0, 2**32))
def test_no_death_is_noticed_later_than_the_worst_case_or_earlier_than_the_best(
    spec: CheckSpec, death: float, hangs: bool, seed: int
) -> None:
    found = detection(spec)
    assert found is not None
    taken = simulated(spec, death, hangs, random.Random(seed))
    assert found.best - 1e-6 <= taken <= found.worst + 1e-6
    assert found.best <= found.expected <= found.worst


@pytest.mark.parametrize(
    "spec",
    [CheckSpec(), CheckSpec(interval=5.0, fast_interval=1.0, fall=4), CheckSpec(interval=10.0, fall=1, jitter=0.5)],
)
def test_the_expected_time_is_the_mean_of_many(spec: CheckSpec) -> None:
    rng = random.Random(7)
    times = [simulated(spec, rng.uniform(100, 200), False, rng) for _ in range(1500)]
    found = detection(spec)
    assert found is not None
    assert sum(times) / len(times) == pytest.approx(found.expected, rel=0.06)


def test_the_marathon_article_sum() -> None:
    """14 s of waiting, then 15 s and 15 s more: the article leaves its 20 s of timeout out of the sum; we do not."""
    article = CheckSpec(interval=15.0, timeout=0.001, fall=3)
    assert worst_case(article) == pytest.approx(45.0, abs=0.01)
    assert worst_case(replace(article, timeout=20.0)) == 15 + 2 * 20 + 20


def test_haproxy_sum() -> None:
    """Section C6: inter + (fall - 1) × fastinter + timeout."""
    spec = CheckSpec(interval=2.0, fast_interval=0.5, timeout=0.3, fall=3)
    assert worst_case(spec) == pytest.approx(2.0 + 2 * 0.5 + 0.3)
    assert formula(spec) == "2 + 2 × 0.5 + 0.3"


def test_the_default_check_takes_seven_seconds_at_worst() -> None:
    assert worst_case(CheckSpec()) == 7.0


def test_who_is_never_probed_is_never_found_dead() -> None:
    assert detection(CheckSpec(protocol="none")) is None
    assert worst_case(CheckSpec(fall=0)) == float("inf")
