"""What status and `lb switch --wait` say of a rollout that is over."""

from __future__ import annotations

from typing import Any

import pytest

from lb.cli.status import notes
from lb.cli.switch import missed

LAST = {
    "from": "blue",
    "to": "green",
    "result": "rolled_back",
    "at": 940.0,
    "text": "blue → green was rolled back: why",
}


def service(**more: Any) -> dict[str, Any]:
    plain = {"active": "blue", "configured": "blue", "previous": None, "since": 0.0, "rollout": None, "detection": None}
    return {**plain, "last_rollout": None, **more}


def said(**more: Any) -> list[str]:
    return [note for note, _ in notes(service(**more), 1000.0)]


def test_status_says_why_a_release_was_taken_back() -> None:
    assert said() == []
    assert said(last_rollout=LAST) == ["last rollout, 1m00s ago: blue → green was rolled back: why"]


def test_status_says_nothing_old_beside_a_rollout_or_of_one_that_went_through() -> None:
    assert said(last_rollout=LAST, rollout={"text": "blue → green at 5 %"}) == ["blue → green at 5 %"]
    assert said(last_rollout={**LAST, "result": "done"}) == []


@pytest.mark.parametrize(
    ("more", "why"),
    [
        ({"active": "green", "last_rollout": {**LAST, "result": "done"}}, ""),
        ({"last_rollout": LAST}, "blue → green was rolled back: why."),
        ({"rollout": {"text": "blue → green frozen at 5 %: why"}}, "blue → green frozen at 5 %: why."),
        ({}, ""),
    ],
)
def test_the_end_of_the_wait_says_why_the_traffic_is_not_there(more: dict[str, Any], why: str) -> None:
    assert missed(service(**more), "green") == why
