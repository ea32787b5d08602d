"""A container that named itself and stopped: whether it is seen to have gone."""

from __future__ import annotations

import pytest

from lb.core.lifecycle import Seen, Verdict
from lb.supervisor.drains import failed_since

PASS = Verdict(True, 0.001, "200 OK", "passed")
FAIL = Verdict(False, 0.001, "refused", "refused")
IGNORED = FAIL._replace(ignored=True)


@pytest.mark.parametrize(
    ("history", "gone"),
    [
        ((), False),
        (((9.0, PASS), (10.5, PASS)), False),
        (((9.0, PASS), (10.2, FAIL), (10.4, PASS), (10.6, PASS)), True),  # back before anybody looked
        (((9.0, FAIL), (10.0, PASS)), False),  # it failed before it was told that it may stop
        (((10.0, FAIL),), True),
        (((10.5, IGNORED), (11.0, PASS)), False),  # our own standstill says nothing of the container
    ],
)
def test_a_failure_since_it_was_told_that_it_may_stop(history: tuple[tuple[float, Verdict], ...], gone: bool) -> None:
    assert failed_since([Seen(at, verdict) for at, verdict in history], 10.0) is gone
