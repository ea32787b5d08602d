"""When certificates are renewed, and when failed orders are tried again."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lb.issuing.acme.answers import RenewalInfo, Window
from lb.issuing.acme.backoff import DAY, HOUR, LONGEST_RETRY_AFTER, MINUTE, asks_staging, wait
from lb.issuing.acme.renewal import ASK_AGAIN, ASK_AT_LEAST, ASK_AT_MOST, ASK_EVERY, Ari, asked, renew_at, unanswered


def info(start: float, end: float) -> RenewalInfo:
    return RenewalInfo(Window(datetime.fromtimestamp(start, UTC), datetime.fromtimestamp(end, UTC)), "https://why")


@pytest.mark.parametrize("days", [90, 45, 6])
def test_without_a_window_a_certificate_is_renewed_at_two_thirds_of_its_life(days: int) -> None:
    assert renew_at(1000.0, 1000.0 + days * DAY, Ari()) == pytest.approx(1000.0 + days * DAY * 2 / 3)


def test_the_moment_in_a_window_is_random_and_stays_as_long_as_the_window_does() -> None:
    first = asked(Ari(), "id", info(100.0, 200.0), 0.0, now=0.0, dice=0.25)
    assert (first.chosen, first.ask_at, first.explanation) == (125.0, ASK_EVERY, "https://why")
    again = asked(first, "id", info(100.0, 200.0), 0.0, now=10.0, dice=0.9)
    assert again.chosen == 125.0
    moved = asked(again, "id", info(50.0, 60.0), 0.0, now=10.0, dice=0.5)
    assert moved.chosen == 55.0
    other = asked(again, "another", info(100.0, 200.0), 0.0, now=10.0, dice=0.5)
    assert other.chosen == 150.0


def test_a_window_in_the_past_means_now() -> None:
    ari = asked(Ari(), "id", info(100.0, 200.0), 0.0, now=1000.0, dice=0.5)
    assert renew_at(0.0, 9000.0, ari) <= 1000.0


def test_a_window_behind_the_end_of_the_certificate_does_not_let_it_expire() -> None:
    ari = asked(Ari(), "id", info(9000.0, 9999.0), 0.0, now=0.0, dice=0.5)
    assert renew_at(0.0, 900.0, ari) == pytest.approx(600.0)


def test_a_window_that_ends_before_it_begins_is_no_answer() -> None:
    known = Ari("id", 100.0, 200.0, 150.0)
    found = asked(known, "id", info(300.0, 300.0), 0.0, now=10.0, dice=0.5)
    assert (found.chosen, found.ask_at) == (150.0, 10.0 + ASK_AGAIN)


def test_without_an_answer_the_known_window_stays_but_not_for_another_certificate() -> None:
    known = Ari("id", 100.0, 200.0, 150.0)
    assert unanswered(known, "id", 5.0).chosen == 150.0
    assert unanswered(known, "another", 5.0).chosen == 0.0


@given(st.floats(0, 1e9))
def test_the_authority_is_asked_for_a_window_neither_too_often_nor_never(retry_after: float) -> None:
    found = asked(Ari(), "id", info(1.0, 2.0), retry_after, now=0.0, dice=0.0)
    assert ASK_AT_LEAST <= found.ask_at <= ASK_AT_MOST


def test_failed_orders_wait_longer_and_longer() -> None:
    minutes = [wait(failures, 0.0) / MINUTE for failures in range(1, 30)]
    assert minutes[:6] == [1, 2, 2, 5, 10, 10]
    assert minutes == sorted(minutes)
    assert max(minutes) == 6 * 60


def test_after_thirty_days_one_attempt_a_day_remains() -> None:
    assert wait(500, 30 * DAY) == DAY
    assert wait(500, 30 * DAY - 1) == 6 * HOUR


def test_a_rate_limit_is_waited_for_but_not_for_ever() -> None:
    assert wait(1, 0.0, retry_after=3 * HOUR) == 3 * HOUR
    assert wait(25, 0.0, retry_after=10.0) == 6 * HOUR
    assert wait(1, 0.0, retry_after=1e9) == LONGEST_RETRY_AFTER


@pytest.mark.parametrize(
    ("failures", "has", "passed", "judged", "expected"),
    [
        (0, True, False, True, False),
        (1, True, False, True, True),
        (1, False, False, True, False),
        (1, True, True, True, False),
        (1, True, False, False, False),
        (7, True, False, True, True),
    ],
)
def test_a_refused_order_is_repeated_at_staging_until_it_passes_there(
    failures: int, has: bool, passed: bool, judged: bool, expected: bool
) -> None:
    assert asks_staging(failures, has, passed, judged) is expected
