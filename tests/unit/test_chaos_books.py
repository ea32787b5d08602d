"""The judge of the chaos run: what a killed worker took with it, by lb's account and by what clients have seen."""

from __future__ import annotations

from benchmarks.chaos_books import AT_LAST, Kill, Line, Verdict, judge_kill, judge_log

STOPPED = 100.0  # when the worker was stopped
#: Ports of clients: of a connection that the worker held; of one that was closed; of one with bytes it had not read.
HELD, GONE, UNREAD = 5001, 5002, 5003


def killed(under_way: int, unwritten: int, *, in_hand: int = 0, unread: frozenset[int] = frozenset()) -> Kill:
    return Kill(
        pid=7,
        began=STOPPED,
        seen=STOPPED + 0.01,
        ended=STOPPED + 0.02,
        ports={HELD, UNREAD},
        unread=set(unread),
        account=under_way,
        unwritten=unwritten,
        in_hand=in_hand,
    )


def answered(ended: float = -0.5, *, kind: str = "get", port: int = HELD) -> Line:
    """An answer that is not in the log; its end is told from the worker's stop on."""
    outcome = "1000" if kind == "socket" else "200"
    return Line("c1", kind, outcome, port, STOPPED + ended - 0.01, STOPPED + ended - 0.01, STOPPED + ended)


def lost(given: float = -0.01, *, port: int = HELD) -> Line:
    """A request that the client got no answer to."""
    return Line("c2", "get", "none", port, STOPPED + given, STOPPED + given, STOPPED + 0.02)


def judged(kill: Kill, unlogged: list[Line], without: list[Line], cut: int = 0) -> Verdict:
    verdict = Verdict()
    verdict.unlogged_per_kill[kill.pid] = unlogged
    verdict.lost_per_kill[kill.pid] = without
    verdict.last_moment[kill.pid] = cut
    judge_log(verdict, kill)
    judge_kill(verdict, kill)
    return verdict


def test_lines_that_a_worker_took_along_are_those_of_its_account() -> None:
    assert not judged(killed(1, 2), [answered(), answered()], [lost()]).faults


def test_an_answer_that_had_passed_and_was_not_booked_is_under_way() -> None:
    verdict = judged(killed(2, 1), [answered(), answered(0.004)], [lost()])
    assert not verdict.faults
    assert verdict.at_an_end == {7}


def test_it_is_found_where_later_requests_were_lost_as_well() -> None:
    # Those were written after the stop. In the sum of requests they hide the one that had been answered.
    verdict = judged(killed(2, 1), [answered(), answered(0.004)], [lost(), lost(0.005), lost(0.015)])
    assert not verdict.faults
    assert verdict.at_an_end == {7}
    assert verdict.unbooked[7] == 1


def test_there_is_one_such_answer_at_most() -> None:
    verdict = judged(killed(3, 1), [answered(), answered(-0.001), answered(0.004)], [lost()])
    assert "3 answers are not in the access log, 1 by the proxy's account" in verdict.faults[0]


def test_a_line_that_is_missing_without_an_account_is_a_fault() -> None:
    verdict = judged(killed(1, 1), [answered(), answered()], [lost()])
    assert "2 answers are not in the access log, 1 by the proxy's account" in verdict.faults[0]


def test_one_that_is_missing_was_under_way_or_its_worker_counts_as_one_that_was_reading() -> None:
    # Only as many workers as chance allows may have been reading.
    verdict = judged(killed(1, 1), [answered(), answered(0.004)], [lost()])
    assert not verdict.faults
    assert verdict.being_read == {7}


def test_websockets_are_under_way_until_their_connections_have_ended() -> None:
    sockets = [answered(-1.0, kind="socket"), answered(-AT_LAST / 2, kind="socket", port=GONE)]
    verdict = judged(killed(3, 1), [*sockets, answered()], [lost()])
    assert not verdict.faults
    assert not verdict.at_an_end


def test_a_websocket_whose_connection_had_ended_is_in_the_log() -> None:
    assert judged(killed(1, 0), [answered(-1.0, kind="socket", port=GONE)], []).faults


def test_an_answer_that_was_cut_in_the_last_moment_may_be_either() -> None:
    for under_way, unwritten in ((1, 2), (2, 1)):
        assert not judged(killed(under_way, unwritten), [answered()], [lost()], cut=1).faults
    assert judged(killed(1, 2), [answered()], [lost()]).faults


def test_lines_that_were_being_written_may_be_in_the_log() -> None:
    assert not judged(killed(1, 3, in_hand=2), [answered()], [lost()]).faults
    assert judged(killed(1, 4, in_hand=2), [answered()], [lost()]).faults


def test_requests_that_lay_unread_are_in_no_account() -> None:
    unread = frozenset({UNREAD})
    assert not judged(killed(1, 0, unread=unread), [], [lost(), lost(port=UNREAD)]).faults
    assert judged(killed(2, 0, unread=unread), [], [lost(), lost(port=UNREAD)]).faults
    assert judged(killed(1, 0), [], [lost(), lost(), lost()]).faults


def test_requests_that_nobody_lost_are_not_under_way() -> None:
    verdict = judged(killed(2, 0), [], [lost()])
    assert verdict.faults == [
        "process 7: 2 under way by the proxy's account, but by what clients lost, and by the 0 to 0 that lay unread, "
        "there were 1 to 1"
    ]
