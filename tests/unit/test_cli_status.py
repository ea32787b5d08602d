"""`lb status`: what a picture shows of many targets, and what the filter leaves."""

from __future__ import annotations

from typing import Any

import pytest

from lb.cli.status import FOLDED_ABOVE, badness, folded, matching, picture
from lb.cli.terminal import Ink, plain_length

NOW = 1000.0


def target(number: int, state: str = "ready", **more: Any) -> dict[str, Any]:
    usual = {
        "id": f"s/blue/10.1.0.{number}:8080",
        "address": f"10.1.0.{number}:8080",
        "state": state,
        "since": 1.0,
        "reason": "" if state == "ready" else "HTTP 503, expected 200-299",
        "trial": "",
        "serves": state == "ready",
        "in_flight": 0,
        "rate": 12.5,
        "error_rate": 0.0,
        "p50": 0.004,
        "p99": 0.012,
        "weight": 1.0,
        "configured_weight": None,
        "tunnels": 0,
        "replaced": False,
    }
    return {**usual, **more}


def status(targets: list[dict[str, Any]]) -> dict[str, Any]:
    pool = {"name": "blue", "active": True, "share": 100, "healthy": 0, "requested": len(targets), "targets": targets}
    service = {
        "name": "s",
        "rate": 1.0,
        "error_rate": 0.0,
        "p50": None,
        "since": 0.0,
        "active": "blue",
        "configured": "blue",
        "rollout": None,
        "last_rollout": None,
        "detection": None,
        "pools": [pool],
    }
    return {
        "version": "0",
        "ready": True,
        "listeners": [],
        "started_at": 1.0,
        "workers": [1],
        "worker_restarts": 0,
        "config": {"last_reload_ok": True, "unconfirmed": []},
        "state_trouble": "",
        "access_log_trouble": "",
        "services": [service],
    }


def lines(answer: dict[str, Any], everything: bool = False) -> list[str]:
    return picture(answer, NOW, Ink(False), everything)


def test_of_a_thousand_targets_the_worst_are_shown_and_the_rest_is_counted() -> None:
    targets = [target(number) for number in range(1000)]
    targets[700] = target(700, "unready")
    targets[900] = target(900, "ejected")
    targets[950] = target(950, error_rate=0.2)
    shown = lines(status(targets))
    assert len(shown) < 24, "a picture fits a terminal"
    assert max(map(plain_length, shown)) <= 80
    rows = [line for line in shown if "10.1.0." in line]
    assert len(rows) == FOLDED_ABOVE - 2
    assert [next(n for n in ("700", "900", "950") if f".{n}:" in row) for row in rows[:3]] == ["700", "900", "950"]
    assert "… and 990 more: 990 ready (--all shows each)" in shown[-1]
    assert sum("10.1.0." in line for line in lines(status(targets), everything=True)) == 1000


def test_few_targets_keep_the_order_of_the_file() -> None:
    targets = [target(1), target(2, "unready")]
    assert folded(targets) == (targets, [])


@pytest.mark.parametrize(
    ("worse", "better"),
    [
        (target(1, "unready"), target(2, "starting")),
        (target(1, "ready", serves=False), target(2)),
        (target(1, trial="on trial"), target(2, error_rate=0.5)),
        (target(1, "new in a later version"), target(2, "unready")),
    ],
)
def test_what_needs_a_look_comes_first(worse: dict[str, Any], better: dict[str, Any]) -> None:
    assert badness(worse) < badness(better)


@pytest.mark.parametrize(
    ("only", "left"),
    [("ready", [1]), ("unready", [2]), ("0.2:", [2]), ("HTTP 503", [2]), ("", [1, 2]), ("elsewhere", [])],
)
def test_the_filter(only: str, left: list[int]) -> None:
    answer = matching(status([target(1), target(2, "unready")]), only)
    found = [t["id"] for service in answer["services"] for pool in service["pools"] for t in pool["targets"]]
    assert found == [f"s/blue/10.1.0.{number}:8080" for number in left]


def test_refused_requests_and_retries_are_shown_where_there_are_any() -> None:
    answer = status([target(1)])
    assert "4xx" not in "\n".join(picture(answer, 2.0, Ink(False)))
    assert "waiting" not in "\n".join(picture(answer, 2.0, Ink(False)))
    answer["services"][0]["pools"][0]["waiting"] = 7
    assert any(line.endswith("ready · 7 waiting") for line in picture(answer, 2.0, Ink(False)))
    answer["services"][0].update(client_error_rate=0.25, retry_rate=1.5)
    assert any("0% errors · 25% 4xx · 1.5 retries/s" in line for line in picture(answer, 2.0, Ink(False)))
