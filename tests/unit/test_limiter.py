"""The adaptive bound on requests in flight, by simulation of a service that can work on `capacity` requests at once."""

from __future__ import annotations

import random

from lb.core.limiter import GradientLimiter


def settle(capacity: int, service_time: float, steps: int = 20_000) -> GradientLimiter:
    """Offer more load than the bound allows; latency grows when more than `capacity` are in flight."""
    limiter = GradientLimiter()
    rng = random.Random(3)
    for step in range(steps):
        in_flight = limiter.limit
        queueing = max(1.0, in_flight / capacity)
        limiter.observe(service_time * queueing * rng.uniform(0.95, 1.05), in_flight, False, step * 0.01)
    return limiter


def test_the_bound_finds_the_order_of_the_capacity() -> None:
    small, large = settle(40, 0.01), settle(400, 0.01)
    assert 20 <= small.limit <= 120
    assert 200 <= large.limit <= 1000


def test_an_idle_service_keeps_its_bound() -> None:
    limiter = GradientLimiter(initial=50)
    for step in range(1000):
        limiter.observe(0.01, 3, False, step * 0.01)
    assert limiter.limit == 50


def test_drops_shrink_the_bound_down_to_the_minimum_and_no_further() -> None:
    limiter = GradientLimiter(initial=200, minimum=10)
    for _ in range(5000):
        limiter.observe(0.01, limiter.limit, True, 0.0)
    assert 10 <= limiter.limit < 60


def test_the_bound_stays_within_its_limits_whatever_is_observed() -> None:
    rng = random.Random(11)
    limiter = GradientLimiter(initial=20, minimum=5, maximum=100)
    for _ in range(20_000):
        limiter.observe(rng.choice([0.0, 1e-6, 0.01, 10.0]), rng.randrange(0, 500), rng.random() < 0.1, rng.random())
        assert 5 <= limiter.limit <= 100


def test_a_service_that_became_slower_for_good_gets_its_bound_back() -> None:
    limiter = GradientLimiter()
    now = 0.0
    for seconds in (0.005, 0.02):
        for _ in range(40_000):
            now += 0.005
            limiter.observe(seconds * max(1.0, limiter.limit / 100), limiter.limit, False, now)
    assert 50 <= limiter.limit <= 300
