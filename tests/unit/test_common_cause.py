"""Whose fault a failed probe is: the checker's, something shared, an overload, or the target's own."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from lb.core.common_cause import CommonCause, overloaded, stalled
from lb.core.lifecycle import Verdict

PASS = Verdict(True, 0.01, "HTTP 200", "passed")
SILENT = Verdict(False, 1.0, "connected, but no answer within 1 s", "timeout")
DOWN = Verdict(False, 0.0, "HTTP 503, expected 200-299", "status")
REFUSED = Verdict(False, 0.0, "connection refused", "refused")


def known(pools: dict[str, int]) -> CommonCause:
    common_cause = CommonCause(window=3.0)
    for pool, size in pools.items():
        for index in range(size):
            common_cause.set_ready(pool, f"{pool}{index}", True)
    return common_cause


def doubts(common_cause: CommonCause, pool: str, size: int, verdict: Verdict, at: float = 10.0, apart: float = 0.1):
    return [common_cause.judge(pool, f"{pool}{i}", verdict, at + i * apart).doubt for i in range(size)]


def test_one_silent_target_is_its_own_fault():
    common_cause = known({"a": 5, "b": 5})
    assert doubts(common_cause, "a", 1, SILENT) == [""]


def test_everybody_silent_together_is_our_fault():
    common_cause = known({"a": 3, "b": 3})
    found = doubts(common_cause, "a", 3, SILENT) + doubts(common_cause, "b", 3, SILENT, at=11.0)
    assert found[-1] == "own_fault"
    assert doubts(common_cause, "a", 3, SILENT, at=12.0) == ["own_fault"] * 3
    notices = common_cause.judge("b", "b0", PASS, 13.0).notices
    assert [(notice.scope, notice.began) for notice in notices if notice.cause == "own_fault"] == [("all", False)]
    assert common_cause.judge("a", "a0", SILENT, 13.0).doubt == "shared"


def test_it_is_said_once_when_it_begins():
    common_cause = known({"a": 4})
    notices = [n for i in range(4) for n in common_cause.judge("a", f"a{i}", SILENT, 10.0 + i / 10).notices]
    assert [(notice.scope, notice.cause, notice.began) for notice in notices] == [
        ("a", "shared", True),
        ("all", "own_fault", True),
    ]
    assert "all 4 ready targets" in notices[1].text
    assert common_cause.judge("a", "a0", SILENT, 12.0).notices == ()


def test_one_after_another_over_a_long_time_is_no_common_cause():
    common_cause = known({"a": 4})
    assert doubts(common_cause, "a", 4, SILENT, apart=2.0) == ["", "", "", ""]


def test_most_of_a_pool_silent_is_shared():
    common_cause = known({"a": 5, "b": 1})
    assert doubts(common_cause, "a", 3, SILENT) == ["", "", "shared"]
    assert common_cause.judge("a", "a4", PASS, 11.0).doubt == ""
    assert common_cause.judge("b", "b0", SILENT, 11.0).doubt == ""


def test_two_of_two_may_be_chance():
    assert doubts(known({"a": 2}), "a", 2, SILENT) == ["", ""]


def test_what_targets_say_themselves_is_reported_but_never_doubted():
    """Readiness gates traffic: however many say no, no is what they said."""
    for verdict in (DOWN, REFUSED):
        common_cause = known({"a": 4, "b": 4})
        findings = [common_cause.judge("a", f"a{i}", verdict, 10.0) for i in range(4)]
        assert [finding.doubt for finding in findings] == [""] * 4
        assert [notice.cause for finding in findings for notice in finding.notices] == ["shared"]


def test_different_answers_are_not_alike():
    common_cause = known({"a": 4})
    verdicts = [DOWN, REFUSED, DOWN._replace(text="HTTP 500, expected 200-299"), SILENT]
    assert [common_cause.judge("a", f"a{i}", v, 10.0) for i, v in enumerate(verdicts)] == [("", ())] * 4


def test_our_own_shortage_is_our_own_fault_at_once():
    local = Verdict(False, 0.0, "cannot probe: too many open files", "local")
    assert known({"a": 9}).judge("a", "a0", local, 1.0).doubt == "own_fault"


def test_a_canary_settles_it():
    common_cause = known({"a": 2, "b": 2})
    common_cause.canary = True
    assert doubts(common_cause, "a", 2, SILENT) + doubts(common_cause, "b", 2, SILENT) == ["", "", "", ""]
    common_cause.canary = False
    assert common_cause.judge("a", "a0", SILENT, 12.0).doubt == "own_fault"


def test_who_is_out_is_not_asked():
    common_cause = known({"a": 4})
    assert doubts(common_cause, "a", 3, SILENT)[-1] == "shared"
    for index in range(3):
        common_cause.set_ready("a", f"a{index}", False)
    assert common_cause.judge("a", "a3", SILENT, 11.0).doubt == ""
    assert common_cause.judge("a", "a0", SILENT, 11.0).doubt == ""


def test_a_stalled_loop_is_told_from_a_slow_target():
    assert stalled(0.25, 1.0, SILENT)
    assert not stalled(0.24, 1.0, SILENT)
    assert not stalled(5.0, 1.0, DOWN)
    assert not stalled(5.0, 1.0, PASS)


def test_busy_and_still_answering_is_overloaded_but_hung_is_hung():
    assert overloaded(SILENT, in_flight=20, completed=3)
    assert not overloaded(SILENT, in_flight=20, completed=0)  # it stopped: kill -STOP under load looks like this
    assert not overloaded(SILENT, in_flight=2, completed=3)
    assert not overloaded(DOWN, in_flight=20, completed=3)


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["a", "b", "c"]),
            st.integers(0, 4),
            st.sampled_from([PASS, SILENT, DOWN, REFUSED, True, False]),
            st.floats(0, 2),
        ),
        max_size=80,
    )
)
def test_the_books_agree_with_counting_anew(history):
    """The counters against a naive rewrite that keeps every target's last word and counts each time."""
    common_cause = CommonCause(window=3.0)
    ready: set[str] = set()
    silent: dict[str, float] = {}
    now = 0.0
    for pool, index, said, wait in history:
        now += wait
        target = f"{pool}{index}"
        if isinstance(said, bool):
            common_cause.set_ready(pool, target, said)
            (ready.add if said else ready.discard)(target)
            if not said:
                silent.pop(target, None)
            continue
        doubt = common_cause.judge(pool, target, said, now).doubt
        if target not in ready:
            assert doubt == ""
            continue
        if said is SILENT:
            silent.setdefault(target, now)
        else:
            silent.pop(target, None)
        everything = set(silent) == ready and len(ready) >= 3 and max(silent.values()) - min(silent.values()) <= 3.0
        mine = {t: since for t, since in silent.items() if t[0] == pool}
        of_pool = len([t for t in ready if t[0] == pool])
        most = len(mine) >= 3 and len(mine) > of_pool / 2 and max(mine.values()) - min(mine.values()) <= 3.0
        assert doubt == (("own_fault" if everything else "shared" if most else "") if said is SILENT else "")
