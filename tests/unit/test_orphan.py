"""A worker without a supervisor serves on for a bounded time, and says so."""

from __future__ import annotations

from math import nextafter

import pytest

from lb.core.orphan import START_TIME, look, span


def life(bound: float, visits: tuple[float, float] = (0.0, 0.0)) -> tuple[list[tuple[float, str]], float]:
    """What a worker says and when, from the loss of its supervisor at 100 s on, and when it ends."""
    said: float | None = None
    texts: list[tuple[float, str]] = []
    now = 100.0
    while True:
        found = look(100.0, said, bound, now, visits[0] <= now - 100.0 < visits[1])
        if found.text:
            said = now
            texts.append((now - 100.0, found.text))
        if found.ends:
            return texts, now - 100.0
        assert found.again > 0
        now += found.again


def test_it_says_so_at_once_and_once_a_minute_until_it_ends() -> None:
    texts, end = life(3600.0)
    assert end == 3600.0
    assert [at for at, _ in texts] == [60.0 * minute for minute in range(61)]
    assert texts[0][1] == (
        "the supervisor is gone: targets are not probed, the verdicts on them are 0 s old. This worker serves on, and "
        "ends in 60 min. Start `lb run` again: it takes this worker over"
    )
    assert texts[5][1] == (
        "the supervisor has been gone for 5 min: targets are not probed, the verdicts on them are 5 min old. This "
        "worker serves on, and ends in 55 min. Start `lb run` again: it takes this worker over"
    )
    assert texts[60][1].startswith(
        "the supervisor has been gone for 60 min (worker_limits.orphan: 60 min): this worker"
    )


@pytest.mark.parametrize("bound", [0.5, 59.0, 61.0, 86_400.0])
def test_it_ends_at_its_bound(bound: float) -> None:
    assert life(bound)[1] == pytest.approx(bound)


def test_a_supervisor_that_starts_holds_up_the_end() -> None:
    assert life(30.0, (25.0, 40.0))[1] == pytest.approx(40.0, abs=1.0)


def test_but_not_for_ever() -> None:
    assert life(30.0, (25.0, 1e9))[1] == pytest.approx(30.0 + START_TIME, abs=1.0)


@pytest.mark.parametrize("now", [nextafter(1024.5, 0.0), nextafter(1064.5, 0.0)], ids=["bound", "message"])
def test_a_look_a_rounding_error_too_early_is_followed_by_one_later(now: float) -> None:
    """The sleep until then moved no clock, and the worker looked again and again."""
    found = look(1004.5, 1004.5, 20.0 if now < 1030 else 3600.0, now, visited=False)
    assert not found.ends
    assert now + found.again > nextafter(now, 2000.0)


@pytest.mark.parametrize(("seconds", "text"), [(0.4, "0 s"), (119, "119 s"), (150, "2 min"), (9000, "2.5 h")])
def test_spans(seconds: float, text: str) -> None:
    assert span(seconds) == text
