"""How `lb certificates` and `lb status` say what becomes of a certificate that lb orders."""

from __future__ import annotations

from typing import Any

from lb.cli.certificates import renewal

NOW = 1_000_000.0


def found(**changes: Any) -> dict[str, Any]:
    return {
        "name": "a.example.org",
        "authority": "le",
        "waiting_since": None,
        "next_attempt": NOW + 7200,
        "why": "two thirds of its life are over",
        "under_way": "",
        "failures": 0,
        "failed_at": None,
        "failure": "",
        "in_memory": False,
        **changes,
    }


def test_a_certificate_that_is_well_says_when_it_is_renewed_and_why() -> None:
    assert renewal(found(), NOW) == ["ordered from le: next attempt in 2h00m (two thirds of its life are over)"]


def test_a_name_that_waits_says_since_when_and_until_the_next_attempt() -> None:
    lines = renewal(
        found(waiting_since=NOW - 90, next_attempt=NOW + 60, failures=2, failed_at=NOW - 30, failure="no answer"), NOW
    )
    assert lines == [
        "waiting for le since 1m30s, next attempt in 1m00s",
        "the last attempt failed 30s ago, 2 times in a row: no answer",
    ]


def test_an_order_under_way_and_one_that_is_due_are_told_apart() -> None:
    assert "an order is under way (authorize)" in renewal(found(under_way="authorize"), NOW)[0]
    assert "next attempt now" in renewal(found(next_attempt=NOW - 1), NOW)[0]


def test_what_a_restart_would_lose_is_said() -> None:
    assert renewal(found(in_memory=True), NOW)[-1] == "the disk has not taken it: a restart would lose it"
