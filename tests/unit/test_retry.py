"""The retry rules as a table, and the budget's sum."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lb.core.retry import (
    BODY,
    CONNECT,
    CUT,
    FREE,
    GARBAGE,
    GONE,
    HEAD,
    NO_UPGRADE,
    REFUSED,
    REFUSED_STREAM,
    RESET,
    RETRY,
    STATUS,
    TIMEOUT,
    Failure,
    RetryBudget,
    decide,
)

REFUSED_CONNECT = Failure(CONNECT, REFUSED, "refused")
CONNECT_TIMEOUT = Failure(CONNECT, TIMEOUT, "slow", timer="connect")
RESET_HEAD = Failure(HEAD, RESET, "reset")
STALE = Failure(HEAD, RESET, "stale", reused=True)
STALE_PROVEN = Failure(HEAD, RESET, "stale", reused=True, unprocessed=True)
FRESH_PROVEN = Failure(HEAD, RESET, "closed first", unprocessed=True)
NONSENSE = Failure(HEAD, GARBAGE, "nonsense")
SLOW = Failure(HEAD, TIMEOUT, "slow", timer="response")
SLOW_TRY = Failure(HEAD, TIMEOUT, "slow", timer="per_try")
BUSY = Failure(HEAD, STATUS, "503", status=503)
OTHER = Failure(HEAD, STATUS, "500", status=500)
CUT_BODY = Failure(BODY, RESET, "cut")

LEFT_OUT = Failure(HEAD, GONE, "GOAWAY", unprocessed=True)
REFUSED_BY_HTTP2 = Failure(HEAD, REFUSED_STREAM, "REFUSED_STREAM", unprocessed=True)
WEBSOCKET = Failure(HEAD, NO_UPGRADE, "HTTP/2", unprocessed=True)

GET, POST = True, False


@pytest.mark.parametrize(
    ("failure", "idempotent", "expected"),
    [
        (REFUSED_CONNECT, GET, RETRY),
        (REFUSED_CONNECT, POST, RETRY),  # nothing was sent
        (CONNECT_TIMEOUT, POST, RETRY),
        (RESET_HEAD, GET, RETRY),
        (RESET_HEAD, POST, 502),  # it may have been worked on
        (STALE, GET, RETRY),
        (STALE, POST, 502),
        (STALE_PROVEN, POST, RETRY),
        (FRESH_PROVEN, POST, RETRY),
        (LEFT_OUT, POST, RETRY),
        (REFUSED_BY_HTTP2, POST, RETRY),
        (WEBSOCKET, GET, RETRY),
        (NONSENSE, GET, RETRY),
        (NONSENSE, POST, 502),
        (SLOW, GET, 504),  # by choice alone
        (SLOW_TRY, GET, RETRY),
        (SLOW_TRY, POST, 504),
        (BUSY, GET, RETRY),
        (BUSY, POST, 503),
        (OTHER, GET, 500),  # not in the list
    ],
)
def test_who_is_tried_again(failure: Failure, idempotent: bool, expected: int) -> None:
    budget = RetryBudget(0.2, 3, 0.0)
    assert (
        decide(
            failure,
            started=False,
            idempotent=idempotent,
            replayable=True,
            attempt=0,
            attempts=2,
            statuses=(502, 503),
            elsewhere=True,
            budget=budget,
            now=0.0,
        ).action
        == expected
    )


@given(
    st.sampled_from([REFUSED_CONNECT, RESET_HEAD, STALE, STALE_PROVEN, NONSENSE, SLOW, BUSY, CUT_BODY]),
    st.booleans(),
    st.booleans(),
    st.integers(0, 5),
)
def test_never_once_a_byte_went_to_the_client(
    failure: Failure, idempotent: bool, replayable: bool, attempt: int
) -> None:
    budget = RetryBudget(1.0, 100, 0.0)
    decision = decide(
        failure,
        started=True,
        idempotent=idempotent,
        replayable=replayable,
        attempt=attempt,
        attempts=3,
        statuses=(502, 503, 504),
        elsewhere=True,
        budget=budget,
        now=0.0,
    )
    assert decision.action == CUT
    assert budget.retries == 0


@given(st.sampled_from([REFUSED_CONNECT, RESET_HEAD, STALE_PROVEN, BUSY]), st.integers(0, 14), st.integers(0, 3))
def test_attempts_are_bounded(failure: Failure, attempt: int, attempts: int) -> None:
    decision = decide(
        failure,
        started=False,
        idempotent=True,
        replayable=True,
        attempt=attempt,
        attempts=attempts,
        statuses=(503,),
        elsewhere=True,
        budget=RetryBudget(1.0, 100, 0.0),
        now=0.0,
    )
    free = FREE if failure.unprocessed else 0  # what reached nobody is sent again on the house
    assert (decision.action == RETRY) == (attempt < attempts + free)


def test_a_body_that_is_no_longer_held_is_not_replayed() -> None:
    decision = decide(
        RESET_HEAD,
        started=False,
        idempotent=True,
        replayable=False,
        attempt=0,
        attempts=2,
        statuses=(),
        elsewhere=True,
        budget=RetryBudget(1.0, 100, 0.0),
        now=0.0,
    )
    assert decision.action == 502


def test_the_budget_is_a_share_of_the_requests_of_the_last_windows() -> None:
    """Finagle's invariant: however the requests come, retries stay below the share and the floor."""
    rng = random.Random(7)
    budget = RetryBudget(0.2, 1, 0.0)
    now, granted, requests = 0.0, 0, 0
    for _ in range(50_000):
        now += rng.expovariate(500)
        budget.requests += 1
        requests += 1
        if rng.random() < 0.9 and budget.withdraw(now):
            granted += 1
    assert granted <= 0.2 * requests * 1.3 + (now / 10 + 2) * 10
    assert granted >= 0.1 * requests


def test_an_idle_budget_still_allows_the_floor_and_forgets_old_traffic() -> None:
    budget = RetryBudget(0.2, 3, 0.0)
    budget.requests = 10_000
    assert budget.withdraw(1.0)
    # Two windows later the busy time is forgotten: only the floor is left.
    granted = sum(budget.withdraw(1000.0) for _ in range(100))
    assert granted == 30


@pytest.mark.parametrize(
    ("failure", "expected"),
    [(RESET_HEAD, 502), (BUSY, 503), (SLOW_TRY, 504), (STALE, RETRY), (STALE_PROVEN, RETRY), (REFUSED_CONNECT, RETRY)],
)
def test_the_only_target_is_not_asked_again_once_it_had_the_request(failure: Failure, expected: int) -> None:
    decision = decide(
        failure,
        started=False,
        idempotent=True,
        replayable=True,
        attempt=0,
        attempts=2,
        statuses=(503,),
        elsewhere=False,
        budget=RetryBudget(1.0, 100, 0.0),
        now=0.0,
    )
    assert decision.action == expected


@pytest.mark.parametrize(
    ("failure", "idempotent", "more", "why"),
    [
        (RESET_HEAD, POST, {}, "the target may have acted on it, and its method is not idempotent"),
        (RESET_HEAD, GET, {"elsewhere": False}, "there is no other target to try"),
        (RESET_HEAD, GET, {"attempt": 2}, "`retries.attempts: 2` is used up"),
        (RESET_HEAD, GET, {"replayable": False}, "its body is longer than `retries.replay`"),
        (RESET_HEAD, GET, {"budget": RetryBudget(0.0, 0, 0.0)}, "`retries.budget` is used up"),
        (RESET_HEAD, GET, {"started": True}, "its answer had begun"),
        (SLOW, GET, {}, "`retries.statuses` does not list 504"),
        (OTHER, GET, {}, "`retries.statuses` does not list 500"),
        (RESET_HEAD, GET, {}, ""),
    ],
)
def test_what_is_not_tried_again_has_a_reason(
    failure: Failure, idempotent: bool, more: dict[str, Any], why: str
) -> None:
    usual = {"started": False, "replayable": True, "attempt": 0, "elsewhere": True, "budget": RetryBudget(1, 9, 0.0)}
    decision = decide(failure, idempotent=idempotent, attempts=2, statuses=(503,), now=0.0, **{**usual, **more})
    assert decision.why == why
    assert (decision.action == RETRY) == (not why)


@pytest.mark.parametrize(
    ("failure", "attempt", "bounded"), [(LEFT_OUT, 3, 0), (REFUSED_BY_HTTP2, 0, 0), (REFUSED_BY_HTTP2, 1, 1)]
)
def test_a_second_refusal_of_a_stream_takes_from_the_budget(failure: Failure, attempt: int, bounded: int) -> None:
    budget = RetryBudget(1.0, 100, 0.0)
    decision = decide(
        failure,
        started=False,
        idempotent=False,
        replayable=True,
        attempt=attempt,
        attempts=2,
        statuses=(),
        elsewhere=True,
        budget=budget,
        now=0.0,
    )
    assert (decision.action, budget.retries) == (RETRY, bounded)


@pytest.mark.parametrize("elsewhere", [False, True])
def test_a_websocket_is_tried_at_all_targets_each_once(elsewhere: bool) -> None:
    decision = decide(
        WEBSOCKET,
        started=False,
        idempotent=True,
        replayable=True,
        attempt=50,
        attempts=2,
        statuses=(),
        elsewhere=elsewhere,
        budget=RetryBudget(0.0, 0, 0.0),
        now=0.0,
    )
    assert decision.action == (RETRY if elsewhere else 502)
