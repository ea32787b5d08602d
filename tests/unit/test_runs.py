"""Probes folded into runs: nothing is lost in the folding, and a check that never settles causes few lines."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lb.core.lifecycle import Verdict
from lb.core.runs import BURST, EVERY, Run, RunFolder, sentence

PASS = Verdict(True, 0.002, "HTTP 200", "passed")
REFUSED = Verdict(False, 0.0001, "connection refused", "refused")
INTERIM = Verdict(False, 1.0, "HTTP 102, ignored as configured", ignored=True)
TARGET = "app/blue/b1:80"


def folded(*verdicts: Verdict, every: float = 1.0, doubt: str = "") -> tuple[list[Run], list[Run]]:
    """(the runs that have ended, those that go on)"""
    folder = RunFolder()
    ended = [folder.saw(TARGET, "readiness", 1000 + i * every, v, doubt) for i, v in enumerate(verdicts)]
    return [run for run in ended if run is not None], folder.open()


def test_alike_is_one_run():
    ended, goes_on = folded(*[PASS._replace(seconds=s / 1000) for s in (2, 1.2, 3.4, 2)])
    assert ended == []
    [run] = goes_on
    assert (run.count, run.passed, run.first, run.last, run.low, run.high) == (4, 4, 1000, 1003, 0.0012, 0.0034)
    assert sentence(run) == "passed ×4 within 3.0 s, 1.2–3.4 ms: HTTP 200"


def test_what_differs_ends_it():
    ended, goes_on = folded(PASS, PASS, REFUSED, REFUSED, REFUSED, PASS)
    assert [(run.kind, run.count) for run in ended + goes_on] == [("passed", 2), ("refused", 3), ("passed", 1)]
    assert sentence(ended[1]) == "failed (refused) ×3 within 2.0 s, 0.1 ms: connection refused"
    assert sentence(goes_on[0]) == "passed, 2.0 ms: HTTP 200"


def test_statuses_differ_and_numbers_within_a_text_do_not():
    statuses = [Verdict(False, 0.0, f"HTTP {n}, expected 200-299", "status") for n in (500, 500, 503)]
    assert [run.count for runs in folded(*statuses) for run in runs] == [2, 1]
    bodies = [
        Verdict(False, 1.0, f"HTTP 200, but its body ({n} bytes so far) did not end", "timeout") for n in range(9)
    ]
    ended, [run] = folded(*bodies)
    assert (ended, run.count) == ([], 9)
    assert "8 bytes so far" in run.text


def test_failures_that_do_not_count_are_a_run_of_their_own():
    folder = RunFolder()
    silent = Verdict(False, 1.0, "no answer", "timeout")
    folder.saw(TARGET, "readiness", 1.0, silent)
    ended = folder.saw(TARGET, "readiness", 2.0, silent, "shared")
    assert ended is not None
    assert ended.doubt == ""
    [run] = folder.open()
    assert sentence(run) == "failed (timeout), 1000.0 ms, not counted (shared): no answer"


def test_liveness_is_told_apart():
    folder = RunFolder()
    folder.saw(TARGET, "readiness", 1.0, PASS)
    assert folder.saw(TARGET, "liveness", 1.1, REFUSED) is None
    assert [sentence(run) for run in folder.open_of(TARGET)] == [
        "passed, 2.0 ms: HTTP 200",
        "liveness failed (refused), 0.1 ms: connection refused",
    ]
    assert [run.check for run in folder.end(TARGET)] == ["readiness", "liveness"]
    assert folder.open() == []


def test_one_that_never_settles_is_told_as_mixed():
    ended, [last] = folded(*[PASS, REFUSED] * 500)
    assert len(ended) <= BURST + 1000 / EVERY + 1
    mixed = ended[-1]
    assert mixed.kind == mixed.result == "mixed"
    assert mixed.passed == mixed.failed == mixed.count / 2
    assert sentence(mixed).startswith(f"{mixed.count} probes in turn, {mixed.passed} passed, {mixed.failed} failed")
    assert sum(run.count for run in [*ended, last]) == 1000


def test_one_that_settles_is_told_one_by_one_again():
    _, [last] = folded(*[PASS, REFUSED] * 20, *[PASS] * 100)
    assert (last.kind, last.result) == ("passed", "passed")
    assert last.count > 50


VERDICTS = st.sampled_from([PASS, REFUSED, INTERIM, Verdict(False, 0.0, "HTTP 500, expected 200-299", "status")])


@given(st.lists(st.tuples(VERDICTS, st.sampled_from(["", "shared"]), st.floats(-5, 60)), min_size=1, max_size=80))
def test_nothing_is_lost_in_any_history(history):
    folder, ended, at, clock = RunFolder(), [], 1000.0, []
    for verdict, doubt, later in history:
        at += later  # the clock may be set back
        clock.append(at)
        run = folder.saw(TARGET, "readiness", at, verdict, doubt)
        if run is not None:
            ended.append(run)
    runs = [*ended, *folder.open()]
    assert sum(run.passed for run in runs) == sum(v.ok for v, _, _ in history)
    assert sum(run.ignored for run in runs) == sum(v.ignored for v, _, _ in history)
    assert sum(run.count for run in runs) == len(history)
    assert all(run.first <= run.last and run.low <= run.high and run.count for run in runs)
    assert [run.first for run in runs[:1]] == clock[:1]
    assert all(
        (run.kind == "mixed") or (sum(map(bool, (run.passed, run.failed, run.ignored))) == 1 and sentence(run))
        for run in runs
    )
    assert (
        len(ended) <= BURST + (max(clock) - min(clock)) / EVERY + sum(max(0.0, later) for *_, later in history) / EVERY
    )


@pytest.mark.parametrize("result", ["passed", "ignored", "mixed"])
def test_result(result):
    assert Run(TARGET, "readiness", result, "", 0, 0, 0, 0).result == result
    assert Run(TARGET, "readiness", "tls", "", 0, 0, 0, 0).result == "failed"
