"""The statistics of a release: their promises, against simulation, exact sums and each other."""

from __future__ import annotations

import math
import random
from bisect import bisect_left
from functools import cache
from math import ceil

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from lb.core.analysis import (
    LATENCY_SLACK,
    Tally,
    burning,
    errors,
    latency,
    latency_limit,
    lower,
    more_errors,
    proven_above,
    proven_below,
    quantile,
    upper,
)
from lb.core.report import BUCKETS

NAMES = ("green", "blue")


def histogram(seconds: list[float]) -> tuple[int, ...]:
    buckets = [0] * (len(BUCKETS) + 1)
    for value in seconds:
        buckets[bisect_left(BUCKETS, value)] += 1
    return tuple(buckets)


def tally(requests: int, failed: int = 0, seconds: float = 0.02) -> Tally:
    return Tally(requests, failed, histogram([seconds] * requests))


# ---------------------------------------------------------------------------------------------- one share


def test_the_mixture_is_a_martingale():
    """Summed exactly over all outcomes of 30 requests: its mean is 1 at the true share, as Ville's inequality needs."""
    for p in (0.01, 0.2, 0.5):
        mean = 0.0
        for k in range(31):
            log_mixture = math.lgamma(k + 0.5) + math.lgamma(30.5 - k) - math.lgamma(31.0) - 2 * math.lgamma(0.5)
            mean += math.comb(30, k) * math.exp(log_mixture)
        assert mean == pytest.approx(1.0)
        assert not proven_above(0, 0, p, 0.5)


def test_the_promise_holds_exactly_for_a_hundred_looks():
    """The probability that 100 looks in a row ever exclude the true share, by dynamic programming: at most alpha."""
    for p in (0.005, 0.05, 0.3):
        for alpha in (0.01, 0.1):

            @cache
            def alarm(n: int, k: int, p: float = p, alpha: float = alpha) -> float:
                if proven_above(k, n, p, alpha):
                    return 1.0
                if n == 100:
                    return 0.0
                return p * alarm(n + 1, k + 1) + (1 - p) * alarm(n + 1, k)

            assert 0.0 <= alarm(0, 0) <= alpha


@given(st.integers(1, 5000), st.floats(0, 1), st.floats(0.0001, 0.2))
def test_bounds_enclose_what_was_seen_and_match_the_proofs(n, share, alpha):
    k = round(n * share)
    low, high = lower(k, n, alpha), upper(k, n, alpha)
    assert 0.0 <= low <= k / n <= high <= 1.0
    if low > 1e-9:
        assert proven_above(k, n, low * 0.999, alpha)
        assert not proven_above(k, n, min(1.0, low * 1.001 + 1e-9), alpha)
    if high < 1 - 1e-9:
        assert proven_below(k, n, high + (1 - high) * 0.001, alpha)


def test_more_evidence_makes_the_bounds_tighter():
    assert lower(2, 10, 0.01) < lower(20, 100, 0.01) < lower(200, 1000, 0.01) < 0.2
    assert upper(2, 10, 0.01) > upper(20, 100, 0.01) > upper(200, 1000, 0.01) > 0.2
    assert lower(0, 0, 0.01) == 0.0
    assert upper(0, 0, 0.01) == 1.0


# ---------------------------------------------------------------------------------------------- errors


def test_one_failure_proves_nothing():
    """A single 5xx at low volume must not abort a release."""
    for requests in (1, 2, 5, 20):
        finding = errors(tally(requests, 1), tally(400), 0.01, 0.0025, NAMES)
        assert finding.outcome == "unclear"
        assert finding.needed > 0


def test_failures_in_a_row_prove_enough_before_any_minimum():
    assert errors(tally(8, 8), tally(400), 0.01, 0.0025, NAMES).outcome == "worse"


def test_what_befalls_both_speaks_against_neither():
    assert errors(tally(100, 60), tally(1900, 1140), 0.01, 0.0025, NAMES).outcome == "fine"


def test_within_the_margin_is_fine():
    assert errors(tally(1000, 14), tally(9000, 45), 0.01, 0.0025, NAMES).outcome == "fine"
    assert errors(tally(10_000, 300), tally(9000, 45), 0.01, 0.0025, NAMES).outcome == "worse"


def test_without_the_old_pools_figures_nothing_is_proven():
    assert errors(tally(50, 50), Tally(), 0.01, 0.0025, NAMES).outcome == "unclear"


def test_the_text_says_the_figures():
    finding = errors(tally(200, 40), tally(3800, 4), 0.01, 0.0025, NAMES)
    assert finding.text == (
        "green fails 20 % (40 of 200) of its requests, blue 0.105 % (4 of 3800); 1 % more would be accepted"
    )


@settings(max_examples=60, deadline=None)
@example(5, 1684, 0.5)
@example(11, 1209, 0.125)
@given(st.integers(5, 300), st.integers(50, 3000), st.floats(0.02, 0.5))
def test_the_requests_still_needed_do_settle_it(new, old, rate):
    young = tally(new, round(new * rate))
    finding = errors(young, tally(old), 0.01, 0.0025, NAMES)
    if finding.outcome == "unclear" and finding.needed < 100 * new:
        factor = (new + finding.needed) / new * 1.05 + 0.05
        later = errors(
            # Whole requests: the estimate may have rounded one error up, and must not count on less here.
            tally(round(new * factor), ceil(young.errors * factor) + 1),
            tally(round(old * factor)),
            0.01,
            0.0025,
            NAMES,
        )
        assert later.outcome == "worse"


# ---------------------------------------------------------------------------------------------- latency


def test_quantile_interpolates_like_prometheus():
    assert quantile(histogram([0.02] * 100), 0.5) == pytest.approx(0.01 + 0.015 * 0.5)
    assert quantile(histogram([0.003] * 98 + [0.7] * 2), 0.99) == pytest.approx(0.75)
    assert quantile(histogram([90.0] * 10), 0.99) == BUCKETS[-1]
    assert quantile((), 0.99) == 0.0


@given(st.lists(st.floats(0.0001, 50.0), min_size=1, max_size=300), st.floats(0.01, 0.999))
def test_quantile_is_within_a_bucket_of_the_true_one(seconds, share):
    true = sorted(seconds)[max(0, math.ceil(share * len(seconds)) - 1)]
    i = bisect_left(BUCKETS, true)
    low = BUCKETS[i - 1] if i else 0.0
    assert low <= quantile(histogram(seconds), share) <= BUCKETS[i] + 1e-9


def test_the_limit_is_a_bound_of_the_histogram():
    old = tally(1000, seconds=0.02)  # p99 about 25 ms
    assert BUCKETS[latency_limit(old, 1.5)] == 0.05
    fast = tally(1000, seconds=0.0004)
    assert BUCKETS[latency_limit(fast, 1.5)] >= LATENCY_SLACK  # ratios of fractions of milliseconds are noise
    assert latency_limit(tally(10, seconds=59.0), 1.5) is None


def slow(requests: int, share: float, seconds: float) -> Tally:
    late = round(requests * share)
    return Tally(requests, 0, histogram([0.02] * (requests - late) + [seconds] * late))


def test_a_slow_tail_is_found():
    finding = latency(slow(200, 0.2, 0.8), tally(3800), 1.5, 0.0025, NAMES)
    assert finding.outcome == "worse"
    assert "20 % (40 of 200) of green's requests take longer than 50 ms, 1 % may" in finding.text


def test_one_slow_request_proves_nothing():
    assert latency(slow(20, 0.05, 9.0), tally(400), 1.5, 0.0025, NAMES).outcome == "unclear"


def test_the_same_slow_tail_on_both_sides_is_fine():
    assert latency(slow(500, 0.1, 0.8), slow(9500, 0.1, 0.8), 1.5, 0.0025, NAMES).outcome == "fine"


def test_without_figures_there_is_nothing_to_compare():
    assert latency(Tally(), tally(100), 1.5, 0.0025, NAMES).outcome == "fine"
    assert latency(tally(100), Tally(), 1.5, 0.0025, NAMES).outcome == "fine"


# ---------------------------------------------------------------------------------------------- burn rate


def test_both_windows_must_burn():
    assert burning((20, 100), (100, 1000), 0.01, 5.0, 0.001)
    assert not burning((0, 100), (100, 1000), 0.01, 5.0, 0.001)  # it is over
    assert not burning((20, 100), (20, 1000), 0.01, 5.0, 0.001)  # a blip
    assert not burning((1, 2), (1, 10), 0.01, 5.0, 0.001)  # chance
    assert not burning((0, 0), (0, 0), 0.01, 5.0, 0.001)
    assert not burning((60, 1000), (600, 10_000), 0.01, 5.0, 0.001, accepted=0.07)  # it was so before the release


# ---------------------------------------------------------------------------------------------- tallies


@given(st.integers(0, 1000), st.integers(0, 1000))
def test_since_and_plus_undo_each_other(a, b):
    one, other = tally(a, a // 3), tally(b, b // 5, 0.3)
    assert one.plus(other).since(one).requests == b
    assert one.plus(other).since(one).buckets == (other.buckets)


def test_counters_that_went_back_begin_anew():
    assert tally(10).since(tally(500)) == tally(10)


# ---------------------------------------------------------------------------------------------- error rates, simulated


def look_every_second(
    rng: random.Random, rps: float, share: float, p_new: float, p_old: float, seconds: int
) -> int | None:
    """The second in which the new pool is called worse; None: never. Both pools are looked at once a second."""
    new = old = new_failed = old_failed = 0
    for second in range(1, seconds + 1):
        fresh_new, fresh_old = int(rps * share + rng.random()), int(rps * (1 - share) + rng.random())
        new, old = new + fresh_new, old + fresh_old
        new_failed += sum(rng.random() < p_new for _ in range(fresh_new))
        old_failed += sum(rng.random() < p_old for _ in range(fresh_old))
        if more_errors(Tally(new, new_failed), Tally(old, old_failed), 0.01, 0.01):
            return second
    return None


@pytest.mark.parametrize(
    ("rps", "share", "p_new", "p_old"),
    [(40, 0.05, 0.0, 0.0), (40, 0.5, 0.02, 0.01), (60, 0.1, 0.06, 0.05), (20, 0.5, 0.21, 0.20)],
)
def test_false_alarms_of_a_release_at_the_very_edge(rps, share, p_new, p_old):
    """The promise is 1 %; 200 releases worse by exactly the accepted margin, looked at 60 times each: 0 or 1."""
    rng = random.Random(20)
    alarms = sum(look_every_second(rng, rps, share, p_new, p_old, 60) is not None for _ in range(200))
    assert alarms <= 1


def test_detection_of_a_bad_release():
    """20 % failures at 5 % of 200 requests a second: found within seconds, and never missed."""
    rng = random.Random(21)
    found = [look_every_second(rng, 200, 0.05, 0.2, 0.001, 60) for _ in range(100)]
    assert None not in found
    assert sorted(found)[50] <= 6
    assert max(found) <= 20
