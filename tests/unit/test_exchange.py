"""Dialogues with one exchange: two fake ports record what is written, the test plays client and target.

A case reads from top to bottom like a capture: client sends, target is sent, target answers, client gets. No socket,
no event loop: an exchange knows its ports only.
"""

from __future__ import annotations

import math
import random
import socket
from dataclasses import replace
from math import inf

import pytest

from lb.core.retry import BODY, GARBAGE, HEAD, RESET, TIMEOUT, Failure
from lb.core.targets import (
    Balance,
    Breaker,
    Mirror,
    Pool,
    Preview,
    Retries,
    Rotation,
    Route,
    Sticky,
    Target,
    Timeouts,
)
from lb.http.h1.excerpt import excerpt
from lb.http.h1.parse import RequestError
from lb.proxy import connect_pacer
from lb.proxy.exchange import Exchange
from lb.proxy.h1 import target as upstream_module
from lb.proxy.h1.target import Upstream
from lb.proxy.private import PRIVATE_LIMIT
from tests.support.data_plane import GET, NTLM, OFFER, OK, POST, QUIET, Client, Stage, logged_in
from tests.support.fake_transport import FakeTransport


def test_a_request_goes_through_and_the_connection_is_kept() -> None:
    stage = Stage()
    client, _ = stage.ask(GET)
    upstream, wire = stage.accept()
    sent = wire.take()
    assert sent.startswith(b"GET /x HTTP/1.1\r\nHost: a\r\n")
    assert b"X-Forwarded-For: 192.0.2.1\r\n" in sent
    assert b"Via: 1.1 lb\r\n" in sent
    upstream.data_received(OK)
    assert client.got.startswith(b"HTTP/1.1 200 OK\r\n")
    assert client.got.endswith(b"\r\n\r\nok")
    assert client.kept is True
    assert stage.at_rest()
    second, _ = stage.ask(GET)  # round robin: the other target
    stage.accept()[0].data_received(OK)
    third, _ = stage.ask(GET)  # and again the first, on the kept connection
    assert not stage.connector.opening
    assert wire.take().startswith(b"GET /x")
    upstream.data_received(OK)
    assert second.status == third.status == 200


def test_head_and_body_go_out_in_one_write() -> None:
    stage = Stage()
    client, _ = stage.ask(POST, b"hello")
    upstream, wire = stage.accept()
    assert wire.take().endswith(b"\r\n\r\nhello")
    upstream.data_received(OK)
    assert client.status == 200


def test_connect_failure_goes_to_the_next_target_whatever_the_method() -> None:
    stage = Stage()
    client, exchange = stage.ask(POST, b"hello")
    first = stage.refuse()
    upstream, wire = stage.accept()
    assert upstream.lane.id != first
    assert wire.take().endswith(b"hello")
    upstream.data_received(OK)
    assert client.status == 200
    assert len(exchange.attempt_log) == 1
    assert stage.plane.services["s"].retried == {"connect_refused": 1}
    assert stage.at_rest()


def test_all_targets_refuse() -> None:
    stage = Stage()
    client, _ = stage.ask(GET)
    tried = {stage.refuse(), stage.refuse()}
    assert len(tried) == 2, "never the same target while another one is up"
    assert not client.got
    stage.loop.fire()  # everybody was tried: a moment later once more
    stage.refuse()
    assert client.status == 502
    assert b"h:1" not in client.got, "the client is not told addresses"
    assert stage.at_rest()


def test_reset_before_the_answer_is_retried_for_get_and_not_for_post() -> None:
    for head, body, expected in ((GET, b"", 200), (POST, b"hello", 502)):
        stage = Stage()
        client, exchange = stage.ask(head, body)
        stage.accept()
        exchange.on_failure(Failure(HEAD, RESET, "reset"))
        if expected == 200:
            stage.accept()[0].data_received(OK)
        assert client.status == expected
        assert stage.at_rest()


def test_a_stale_pooled_connection_is_not_the_clients_problem() -> None:
    stage = Stage(targets=1)
    client, _ = stage.ask(GET)
    upstream, wire = stage.accept()
    upstream.data_received(OK)
    client, exchange = stage.ask(GET)
    assert wire.take().count(b"GET /x") == 2
    exchange.on_failure(Failure(HEAD, RESET, "closed", reused=True))
    fresh, _ = stage.accept()
    assert fresh is not upstream
    fresh.data_received(OK)
    assert client.status == 200
    assert stage.plane.services["s"].retried == {"stale": 1}


def test_a_post_on_a_stale_connection_is_replayed_only_with_proof() -> None:
    for proof, expected in ((True, 200), (False, 502)):
        stage = Stage(targets=1)
        client, exchange = stage.ask(POST, b"hello")
        stage.accept()
        exchange.on_failure(Failure(HEAD, RESET, "closed", reused=True, unprocessed=proof))
        if proof:
            stage.accept()[0].data_received(OK)
        assert client.status == expected


def test_a_reset_in_doubt_waits_for_evidence() -> None:
    """The target's other connections close at that age: then it was an idle close that crossed our request."""
    for evidence, expected in ((True, 200), (False, 502)):
        stage = Stage(targets=1)
        client, exchange = stage.ask(POST, b"hello")
        upstream, _ = stage.accept()
        exchange.on_failure(Failure(HEAD, RESET, "reset", idle=5.0, elapsed=0.01))
        assert not client.got
        assert stage.connector.opening.pop()[0] is upstream.lane, "is the target there at all?"
        if evidence:
            upstream.lane.idle_limit.closed(5.0, stage.plane.context.now, 60.0)
        stage.loop.fire()
        if evidence:
            stage.loop.fire()  # it is the only target: once more, a moment later
            stage.accept()[0].data_received(OK)
        assert client.status == expected
        assert stage.at_rest()


def test_doubt_lasts_until_the_target_is_seen_to_accept_or_not() -> None:
    """Several connections broke off at one moment: chance, if the target accepts another. It may take its time."""
    for accepts, expected in ((True, 200), (False, 502), (None, 502)):
        stage = Stage(targets=1)
        client, exchange = stage.ask(POST, b"hello")
        upstream, _ = stage.accept()
        limit = upstream.lane.idle_limit
        limit.closed(5.0, stage.plane.context.now - 60.0, 60.0)
        limit.closed(5.0, exchange.written_at, 60.0)
        limit.closed(4.0, exchange.written_at, 60.0, last=True)
        exchange.on_failure(Failure(HEAD, RESET, "reset", idle=5.0, elapsed=0.01))
        stage.loop.fire()
        assert not client.got, "the connection that is to tell is under way"
        if accepts:
            stage.accept()
        elif accepts is False:
            stage.refuse()
        for _ in range(4):
            stage.loop.fire()
        if accepts:
            while stage.connector.opening:
                stage.accept()
            upstream = next(each for each in upstream.lane.connections if each.exchange is not None)
            upstream.data_received(OK)
        assert client.status == expected, accepts


def test_never_again_once_a_byte_has_gone_to_the_client() -> None:
    stage = Stage()
    client, exchange = stage.ask(GET)
    upstream, _ = stage.accept()
    upstream.data_received(b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\nhalf")
    exchange.on_failure(Failure(BODY, RESET, "reset within its answer"))
    assert client.was_cut
    assert client.got.endswith(b"half")
    assert not stage.connector.opening
    assert stage.at_rest()


def test_nonsense_is_a_502_and_nothing_of_it_reaches_the_client() -> None:
    stage = Stage(targets=1, retries=Retries(attempts=0))
    client, _ = stage.ask(GET)
    upstream, wire = stage.accept()
    upstream.data_received(b"SSH-2.0-OpenSSH_9.2\r\n\r\n")
    assert client.status == 502
    assert b"SSH" not in client.got
    assert wire.closed
    assert stage.alarms[0].kind == "reset"


def test_a_post_that_is_not_tried_again_says_why() -> None:
    stage = Stage()
    client, exchange = stage.ask(POST, b"hello")
    upstream, _ = stage.accept()
    exchange.on_failure(Failure(HEAD, RESET, "reset the connection before it answered"))
    assert client.status == 502
    (told,) = exchange.attempt_log
    assert told.endswith("the target may have acted on it, and its method is not idempotent")
    assert told.count(upstream.lane.id) == 1, "the target is named once"
    assert [record.tries for record in stage.plane.stats.records] == [[told]]


def test_a_long_body_is_given_up_for_replay_but_still_delivered() -> None:
    stage = Stage(retries=Retries(replay=10))
    head = b"PUT /x HTTP/1.1\r\nHost: a\r\nContent-Length: 30\r\n"
    client, exchange = stage.ask(head, b"0123456789", done=False)
    _, wire = stage.accept()
    exchange.on_request_body(b"x" * 20, True)
    assert wire.take().endswith(b"0123456789" + b"x" * 20)
    exchange.on_failure(Failure(HEAD, RESET, "reset"))
    assert client.status == 502, "PUT is idempotent, but its body is no longer held"


def test_a_body_within_the_bound_is_replayed_whole() -> None:
    stage = Stage()
    head = b"PUT /x HTTP/1.1\r\nHost: a\r\nContent-Length: 30\r\n"
    client, exchange = stage.ask(head, b"0123456789", done=False)
    stage.accept()
    exchange.on_request_body(b"x" * 20, True)
    exchange.on_failure(Failure(HEAD, RESET, "reset"))
    upstream, wire = stage.accept()
    assert wire.take().endswith(b"\r\n\r\n0123456789" + b"x" * 20)
    upstream.data_received(OK)
    assert client.status == 200


def test_statuses_are_retried_by_choice_and_the_last_answer_is_shown() -> None:
    stage = Stage(retries=Retries(statuses=(503,)))
    client, _ = stage.ask(GET)
    busy = b"HTTP/1.1 503 Busy\r\nX-From: target\r\nContent-Length: 0\r\n\r\n"
    stage.accept()[0].data_received(busy)
    assert not client.got, "the first answer is thrown away, with its header"
    stage.accept()[0].data_received(busy.replace(b"target", b"second"))
    assert client.status == 503
    assert b"X-From: second" in client.got
    assert b"X-From: target" not in client.got


def test_a_500_is_passed_on_when_it_is_not_in_the_list() -> None:
    stage = Stage(retries=Retries(statuses=(503,)))
    client, _ = stage.ask(GET)
    stage.accept()[0].data_received(b"HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n")
    assert client.status == 500


def test_no_target_is_a_503_with_retry_after() -> None:
    stage = Stage()
    stage.rotate((("blue", 100),), only="green")
    client, _ = stage.ask(GET)
    assert client.status == 503
    assert b"Retry-After: 1\r\n" in client.got
    assert b"Server: lb\r\n" in client.got
    assert stage.plane.stats.rejected == {"no_target": 1}


def test_the_queue_is_bounded_and_served_in_order() -> None:
    stage = Stage(targets=1, breaker=Breaker(connections=1, pending=2))
    first, _ = stage.ask(GET)
    upstream, wire = stage.accept()
    wire.take()
    second, _ = stage.ask(GET.replace(b"/x", b"/second"))
    third, _ = stage.ask(GET.replace(b"/x", b"/third"))
    fourth, _ = stage.ask(GET)
    assert fourth.status == 503
    assert stage.plane.stats.rejected == {"queue_full": 1}
    upstream.data_received(OK)
    assert wire.take().startswith(b"GET /second")
    upstream.data_received(OK)
    assert wire.take().startswith(b"GET /third")
    upstream.data_received(OK)
    assert [c.status for c in (first, second, third)] == [200, 200, 200]
    assert stage.at_rest()


def test_a_reload_forgets_neither_bounds_nor_those_who_wait() -> None:
    stage = Stage(targets=1, breaker=Breaker(connections=1, pending=2, requests=2))
    first, waiting = stage.ask(GET), stage.ask(GET)
    upstream, wire = stage.accept()
    for client, exchange in (first, waiting):
        client.exchange = exchange  # type: ignore[attr-defined]
        stage.plane.clients.add(client)  # type: ignore[arg-type]
    for _ in range(3):
        stage.reload()
    assert stage.plane.services["s"].in_flight == 2
    assert stage.ask(GET)[0].status == 503, "two are under way, whenever they began"
    assert list(stage.plane.services["s"].waiting) == [waiting[1]]
    wire.take()
    upstream.data_received(OK)
    assert wire.take().startswith(b"GET /x"), "the end of one that began before a reload wakes who waits"
    upstream.data_received(OK)
    assert first[0].status == waiting[0].status == 200
    assert stage.at_rest()
    assert stage.plane.report().in_flight == 0


def test_an_answer_head_that_another_target_sent_before_teaches_as_well() -> None:
    """It is read once for all of them, but each says for itself how long it keeps connections."""
    stage = Stage(targets=2)
    answer = b"HTTP/1.1 200 OK\r\nKeep-Alive: timeout=7\r\nContent-Length: 2\r\n\r\nok"
    for _ in range(2):
        client, _ = stage.ask(GET)
        upstream, _ = stage.accept()
        upstream.data_received(answer)
        assert client.status == 200
    assert len(stage.plane.context.reply_heads) == 1
    hints = [lane.idle_limit.hint for id, lane in stage.plane.lanes.items() if "/blue/" in id]
    assert hints == [7.0, 7.0]


def test_answer_heads_are_remembered_within_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upstream_module, "MEMO_HEADS", 3)
    stage = Stage(targets=1)
    for number in range(10):
        client, _ = stage.ask(GET)
        if number == 0:
            upstream, _ = stage.accept()
        upstream.data_received(b"HTTP/1.1 200 OK\r\nETag: %d\r\nContent-Length: 2\r\n\r\nok" % number)
        assert client.status == 200
        assert len(stage.plane.context.reply_heads) <= 3


def test_the_parts_of_a_report_are_the_whole() -> None:
    stage = Stage(targets=7)
    stage.ask(GET)
    upstream, _ = stage.accept()
    upstream.data_received(OK)
    seen = [stage.plane.report(part=part, parts=3) for part in range(3)]
    told = [tally.target for report in seen for tally in report.targets]
    assert sorted(told) == sorted(stage.plane.lanes), "each in one part"
    assert sum(tally.codes.get(200, 0) for report in seen for tally in report.targets) == 1
    assert sum(pool.requests for report in seen for pool in report.pools) == 1
    again = [stage.plane.report(part=part, parts=3) for part in range(3)]
    assert not any(report.targets or report.pools for report in again), "and then only what has changed"


def test_the_queue_has_a_deadline() -> None:
    stage = Stage(targets=1, breaker=Breaker(connections=1))
    stage.ask(GET)
    stage.accept()
    waiting, exchange = stage.ask(GET)
    assert exchange.timer == "queue"
    exchange.on_deadline(exchange.deadline)
    assert waiting.status == 503
    assert stage.plane.stats.rejected == {"timeout_queue": 1}
    assert not stage.plane.services["s"].waiting


@pytest.mark.parametrize(("timer", "status"), [("response", 504), ("per_try", 200)])
def test_a_slow_target(timer: str, status: int) -> None:
    stage = Stage(retries=Retries(per_try=0.5 if timer == "per_try" else 0.0))
    client, exchange = stage.ask(GET)
    stage.accept()
    assert exchange.timer == timer
    exchange.on_deadline(exchange.deadline)
    if status == 200:
        stage.accept()[0].data_received(OK)
    else:
        assert f"timeout: {timer}".encode() in client.got
    assert client.status == status


def test_the_whole_request_has_a_deadline_of_its_own() -> None:
    stage = Stage(timeouts=Timeouts(total=3.0))
    client, exchange = stage.ask(GET)
    stage.accept()
    exchange.on_deadline(exchange.ends_at)
    assert client.status == 504
    assert stage.plane.stats.rejected == {"timeout_total": 1}


def test_a_client_that_leaves_is_nobodys_failure() -> None:
    stage = Stage()
    client, exchange = stage.ask(GET)
    upstream, wire = stage.accept()
    exchange.client_lost()
    assert wire.closed, "the target sees the end"
    tally = upstream.lane.tally
    assert tally.codes == {499: 1}
    assert (tally.server_errors, tally.resets, upstream.lane.streak) == (0, 0, 0)
    assert stage.at_rest()
    assert not client.got


def test_a_client_that_leaves_during_retries_ends_them() -> None:
    stage = Stage(targets=1)
    _, exchange = stage.ask(GET)
    stage.refuse()
    exchange.client_lost()
    stage.loop.fire()
    assert not stage.connector.opening
    assert stage.at_rest()


def test_backpressure_both_ways() -> None:
    stage = Stage()
    head = b"PUT /x HTTP/1.1\r\nHost: a\r\nContent-Length: 30\r\n"
    client, exchange = stage.ask(head, b"0123456789", done=False)
    upstream, wire = stage.accept()
    upstream.pause_writing()
    assert client.paused
    upstream.resume_writing()
    assert not client.paused
    exchange.on_request_body(b"x" * 20, True)
    upstream.data_received(b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\nhalf")
    exchange.client_blocked()
    assert wire.paused
    exchange.client_unblocked()
    assert not wire.paused


def test_reading_that_was_stopped_goes_on_before_the_connection_is_pooled() -> None:
    stage = Stage(targets=1)
    client, exchange = stage.ask(GET)
    upstream, wire = stage.accept()
    upstream.data_received(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nha")
    exchange.client_blocked()
    assert wire.paused
    upstream.data_received(b"lf")  # the transport had read it already
    assert client.kept is True
    assert not wire.paused
    assert upstream.lane.idle == [upstream]


def test_a_connection_with_bytes_of_the_last_request_serves_nobody_else() -> None:
    stage = Stage(targets=1)
    client, exchange = stage.ask(b"PUT /x HTTP/1.1\r\nHost: a\r\nContent-Length: 30\r\n", b"0123456789", done=False)
    upstream, wire = stage.accept()
    exchange.on_request_body(b"x" * 20, True)
    wire.waits = 20
    upstream.data_received(OK)
    assert client.status == 200
    assert wire.closed
    assert not upstream.lane.idle
    assert stage.at_rest()


def test_an_answer_that_begins_while_the_client_takes_nothing_waits_at_once() -> None:
    """The transport has told it long ago, to an earlier try or of interim answers."""
    stage = Stage()
    client, exchange = stage.ask(GET)
    upstream, wire = stage.accept()
    client.blocked = True
    upstream.data_received(b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\nhalf")
    assert wire.paused
    assert exchange.deadline == inf, "the target is not to blame"
    client.blocked = False
    exchange.client_unblocked()
    assert not wire.paused
    assert exchange.timer == "read"
    assert exchange.deadline < inf


def test_a_body_that_is_sent_again_to_a_target_that_takes_none_stops_the_client() -> None:
    stage = Stage()
    client, exchange = stage.ask(b"PUT /x HTTP/1.1\r\nHost: a\r\nContent-Length: 30\r\n", b"0123456789", done=False)
    lane, _ = stage.connector.opening.pop(0)
    upstream, wire = Upstream(lane, QUIET), FakeTransport()
    wire.on_write = upstream.pause_writing
    upstream.connection_made(wire)  # type: ignore[arg-type]
    lane.opened(upstream)
    assert exchange.upstream is upstream
    assert client.paused
    upstream.resume_writing()
    assert not client.paused


@pytest.mark.parametrize("timer", ["per_try", "response"])
def test_a_target_that_takes_more_again_has_its_own_time(timer: str) -> None:
    """Writing that goes on ends the time for writing, and no other."""
    stage = Stage(retries=Retries(per_try=0.5 if timer == "per_try" else 0.0))
    _, exchange = stage.ask(b"PUT /x HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n", b"abc")
    upstream, _ = stage.accept()
    before = exchange.deadline
    upstream.pause_writing()
    assert exchange.deadline == (before if timer == "per_try" else inf)
    assert upstream in stage.plane.context.sending
    upstream.resume_writing()
    assert exchange.timer == timer
    assert exchange.deadline < inf
    assert not stage.plane.context.sending


def test_a_target_that_takes_nothing_of_a_body_is_given_up() -> None:
    stage = Stage(retries=Retries(attempts=0))
    client, _ = stage.ask(b"PUT /x HTTP/1.1\r\nHost: a\r\nContent-Length: 30\r\n", b"0123456789", done=False)
    upstream, wire = stage.accept()
    wire.waits = 10
    upstream.pause_writing()
    upstream.on_stalled()
    assert client.status == 504
    assert b"timeout: send" in client.got
    assert wire.closed
    assert stage.at_rest()


def test_an_early_answer_closes_both_connections() -> None:
    stage = Stage()
    head = b"POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n"
    client, _ = stage.ask(head, b"start", done=False)
    upstream, wire = stage.accept()
    upstream.data_received(b"HTTP/1.1 403 No\r\nContent-Length: 0\r\n\r\n")
    assert client.status == 403
    assert b"Connection: close" in client.got
    assert client.kept is False
    assert wire.closed
    assert stage.at_rest()


def test_a_body_over_the_routes_limit_is_refused_before_and_within() -> None:
    stage = Stage(max_body=100)
    client, _ = stage.ask(b"POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 101\r\n", b"x", done=False)
    assert client.status == 413
    assert not stage.connector.opening
    head = b"POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n"
    client, exchange = stage.ask(head, b"40\r\n" + b"x" * 64 + b"\r\n", done=False)
    _, wire = stage.accept()
    exchange.on_request_body(b"40\r\n" + b"x" * 64 + b"\r\n", False)
    assert client.status == 413
    assert wire.closed


class TestManyAtOnce:
    """Requests that find no idle connection: a few connections are begun per turn, and what comes first is taken."""

    def test_so_many_connections_are_begun_in_a_turn_and_the_others_later(self) -> None:
        stage = Stage(targets=1)
        asked = [stage.ask(GET) for _ in range(40)]
        assert len(stage.connector.opening) == 16
        stage.loop.turn()
        assert len(stage.connector.opening) == 32
        stage.loop.turn()
        stage.loop.turn()
        assert len(stage.connector.opening) == 40
        wires = [stage.accept()[0] for _ in asked]
        for upstream in wires:
            upstream.data_received(OK)
        assert [client.status for client, _ in asked] == [200] * 40
        assert stage.at_rest()

    def test_a_connection_that_becomes_idle_serves_whoever_waits_and_no_more_are_begun(self) -> None:
        stage = Stage(targets=1)
        asked = [stage.ask(GET) for _ in range(40)]
        upstream, _ = stage.accept()
        for client, _ in asked:
            upstream.data_received(OK)
            assert client.status == 200, "in the order of their coming"
        stage.loop.turn()
        assert len(stage.connector.opening) == 15, "those that had been begun; nobody needs another"
        for _ in range(15):
            stage.accept()
        assert len(upstream.lane.idle) == 16
        assert stage.at_rest()

    def test_what_may_not_be_sent_twice_rides_no_connection_that_is_not_quiet(self) -> None:
        stage = Stage(targets=1)
        first, _ = stage.ask(GET)
        second, _ = stage.ask(POST, b"hello")
        upstream, wire = stage.accept()
        here, there = socket.socketpair()
        there.close()  # the kernel knows of its end, the loop does not yet
        upstream.sock = here
        upstream.data_received(OK)
        assert first.status == 200
        assert wire.take().count(b" /x HTTP/1.1") == 1
        stage.accept()[0].data_received(OK)
        assert second.status == 200

    def test_a_failure_meets_only_who_waited_when_the_connection_was_begun(self) -> None:
        stage = Stage(targets=1)
        first, _ = stage.ask(GET)
        stage.ask(GET)
        upstream, _ = stage.accept()
        lane = upstream.lane
        upstream.data_received(OK)  # the second rides it as well: its own connection is still being opened
        upstream.data_received(OK)
        busy, _ = stage.ask(GET)
        late, _ = stage.ask(GET)
        assert [each[0] for each in stage.connector.opening] == [lane, lane]
        stage.refuse()  # the second's
        assert not late.got
        stage.accept()[0].data_received(OK)
        assert late.status == 200
        upstream.data_received(OK)
        assert first.status == busy.status == 200
        assert stage.at_rest()

    def test_a_spare_connection_that_turns_out_to_be_stale_is_not_the_clients_problem(self) -> None:
        stage = Stage(targets=1)
        asked = [stage.ask(GET) for _ in range(2)]
        upstream, _ = stage.accept()
        upstream.data_received(OK)
        upstream.data_received(OK)
        spare, wire = stage.accept()
        upstream.lane.forget(upstream)
        client, _ = stage.ask(GET)
        assert wire.take().startswith(b"GET /x"), "it rides the connection that was opened for somebody else"
        spare.connection_lost(ConnectionResetError())
        stage.loop.fire()
        stage.accept()[0].data_received(OK)
        assert [each.status for each in (asked[0][0], asked[1][0], client)] == [200] * 3
        assert stage.at_rest()

    def test_who_leaves_before_its_turn_makes_room(self) -> None:
        stage = Stage(targets=1, breaker=Breaker(connections=20))
        asked = [stage.ask(GET) for _ in range(20)]
        for _, exchange in asked[:16]:
            exchange.client_lost()
        for _, exchange in asked[16:]:
            exchange.client_lost()
        stage.loop.turn()
        while stage.connector.opening:
            stage.refuse()
        assert stage.at_rest()

    def test_the_room_of_one_that_left_goes_to_the_next_in_the_queue_at_once(self) -> None:
        for accepted in (True, False):
            stage = Stage(targets=1, breaker=Breaker(connections=1, pending=1))
            _, leaves = stage.ask(GET)
            waits, _ = stage.ask(GET)
            leaves.client_lost()
            if accepted:
                upstream, _ = stage.accept()
            else:
                stage.refuse()
                upstream, _ = stage.accept()
            upstream.data_received(OK)
            assert waits.status == 200
            assert stage.at_rest()

    def test_after_a_switch_the_waiting_go_where_they_belong(self) -> None:
        stage = Stage(targets=1)
        asked = [stage.ask(GET) for _ in range(3)]
        stage.rotate((("green", 100),))
        for _ in range(3):
            _, wire = stage.accept()
            assert not wire.take()
        wires = [stage.accept()[0] for _ in asked]
        for upstream in wires:
            assert upstream.lane.id.startswith("s/green/")
            upstream.data_received(OK)
        assert [client.status for client, _ in asked] == [200] * 3
        assert stage.at_rest()


def test_a_client_rests_when_the_loops_turn_has_lasted_long() -> None:
    for late, rests in ((0.1, False), (0.3, True)):
        stage = Stage()
        client, exchange = stage.ask(GET)
        upstream, _ = stage.accept()
        stage.plane.context.now = exchange.started - late  # the timer that sets it has not had its turn since
        upstream.data_received(OK)
        assert client.status == 200
        assert client.rests is rests


def test_after_a_switch_nothing_more_enters_the_old_pool() -> None:
    stage = Stage()
    client, _ = stage.ask(GET)  # a connection to blue is being opened
    stage.rotate((("green", 100),))
    _, wire = stage.accept()
    assert not wire.take(), "blue's connection is there, but the request belongs to green now"
    upstream, wire = stage.accept()
    assert upstream.lane.id.startswith("s/green/")
    upstream.data_received(OK)
    assert client.status == 200
    client, exchange = stage.ask(GET)
    stage.accept()
    stage.rotate((("blue", 100),))
    exchange.on_failure(Failure(HEAD, RESET, "reset"))
    upstream, _ = stage.accept()
    assert upstream.lane.id.startswith("s/blue/"), "nor does a retry"


def test_previews_choose_a_pool_that_is_not_active() -> None:
    stage = Stage(
        previews=(Preview("green", header="X-Preview", value="green"), Preview("green", cookie="v", value="g"))
    )
    for extra, pool in ((b"", "blue"), (b"X-Preview: green\r\n", "green"), (b"Cookie: a=b; v=g\r\n", "green")):
        stage.ask(GET + extra)
        lane, _ = stage.connector.opening.pop(0)
        assert lane.target.pool == pool


def test_shares_are_exact_and_sticky_clients_stay() -> None:
    stage = Stage(sticky=Sticky(by="header:X-User"))
    seen: dict[bytes, str] = {}
    moved = 0
    for share in (5, 25, 50, 100):
        stage.rotate((("green", share), ("blue", 100 - share)) if share < 100 else (("green", 100),))
        for number in range(200):
            user = b"user-%d" % number
            _, exchange = stage.ask(GET + b"X-User: " + user + b"\r\n")
            pool = exchange.pool.name
            if seen.get(user) == "green":
                assert pool == "green", "no client goes back within a rollout"
            moved += seen.get(user) not in (None, pool)
            seen[user] = pool
            exchange.client_lost()
            stage.connector.opening.clear()
    assert set(seen.values()) == {"green"}
    assert moved


def test_an_asset_that_one_version_lacks_is_asked_of_the_other() -> None:
    stage = Stage(targets=1, sticky=Sticky(by="client", asset_fallback=True))
    stage.rotate((("blue", 50), ("green", 50)))
    client, exchange = stage.ask(GET)
    first = exchange.pool.name
    stage.accept()[0].data_received(b"HTTP/1.1 404 No\r\nContent-Length: 0\r\n\r\n")
    assert not client.got
    upstream, _ = stage.accept()
    assert upstream.lane.target.pool != first
    upstream.data_received(OK)
    assert client.status == 200
    assert stage.at_rest()


def test_mirrored_copies_never_touch_the_original() -> None:
    stage = Stage(targets=1)
    mirror = Mirror("green", percent=100.0)
    stage.rotate((("blue", 100),), mirror=mirror)
    client, _ = stage.ask(POST, b"hello")
    copy, original = stage.connector.opening
    assert [lane.target.pool for lane, _ in (copy, original)] == ["green", "blue"]
    stage.connector.opening = [original]
    stage.accept()[0].data_received(OK)
    assert client.status == 200
    stage.connector.opening = [copy]
    upstream, wire = stage.accept()
    assert wire.take().endswith(b"\r\n\r\nhello")
    upstream.data_received(b"HTTP/1.1 500 Oops\r\nContent-Length: 4\r\n\r\noops")
    assert client.got.count(b"HTTP/1.1") == 1
    assert stage.plane.services["s"].mirrored == {"failed": 1}
    assert stage.plane.stats.pool_tally("s", "green").requests == 0
    assert stage.at_rest()


def test_mirroring_is_bounded() -> None:
    stage = Stage(targets=1)
    stage.rotate((("blue", 100),), mirror=Mirror("green", percent=50.0, concurrency=2))
    exchanges = [stage.ask(GET)[1] for _ in range(10)]
    assert len(stage.plane.live.copies) == 2
    assert stage.plane.services["s"].mirrored == {"dropped": 3}
    for exchange in exchanges:
        exchange.client_lost()


def test_adaptive_concurrency_sheds_early() -> None:
    stage = Stage(targets=1, breaker=Breaker(adaptive=True))
    bound = stage.plane.services["s"].bound()
    asked = [stage.ask(GET) for _ in range(bound + 5)]
    assert [client.status for client, _ in asked[bound:]] == [503] * 5
    assert stage.plane.stats.rejected == {"overload": 5}


def test_request_refused_before_a_pool_is_chosen_counts_for_its_service() -> None:
    stage = Stage(targets=1, breaker=Breaker(requests=1))
    stage.ask(GET)
    assert stage.ask(GET)[0].status == 503
    assert stage.plane.stats.pool_tally("s", "none").codes == {503: 1}
    assert not stage.plane.live.no_service.no_pool.counts.tally.codes[503]


@pytest.mark.parametrize("per_turn", [1, connect_pacer.PER_TURN])
def test_random_trouble_always_ends_at_rest(per_turn: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever happens, each request gets one answer at most, and nothing stays counted."""
    monkeypatch.setattr(connect_pacer, "PER_TURN", per_turn)
    for seed in range(300):
        rng = random.Random(seed)
        stage = Stage(retries=Retries(statuses=(503,)), breaker=Breaker(connections=2, pending=3))
        live: list[tuple[Client, Exchange]] = []
        wires: list[Upstream] = []
        for _ in range(60):
            if rng.random() < 0.5:
                stage.loop.turn()
            deed = rng.randrange(9)
            waiting = [pair for pair in live if pair[0].kept is None and not pair[0].was_cut]
            busy = [upstream for upstream in wires if upstream.exchange is not None]
            if deed <= 2:
                live.append(stage.ask(rng.choice([GET, POST]), b"hello"))
            elif deed == 3 and stage.connector.opening:
                wires.append(stage.accept()[0])
            elif deed == 4 and stage.connector.opening:
                stage.refuse()
            elif deed == 5 and busy:
                answers = [OK, OK.replace(b"200", b"503"), b"nonsense\r\n\r\n", OK[:-1], b"HTTP/1.1 100 Go\r\n\r\n"]
                rng.choice(busy).data_received(rng.choice(answers))
            elif deed == 6 and busy:
                exchange = rng.choice(busy).exchange
                assert exchange is not None
                cause = rng.choice([RESET, GARBAGE, TIMEOUT])
                exchange.on_failure(Failure(HEAD, cause, "trouble", timer="response" if cause == TIMEOUT else ""))
            elif deed == 7 and waiting:
                rng.choice(waiting)[1].client_lost()
            elif deed == 8:
                stage.rotate(rng.choice([(("blue", 100),), (("green", 100),), (("blue", 30), ("green", 70))]))
            if rng.random() < 0.3:
                stage.loop.fire()
        for client, exchange in live:
            if client.kept is None and not client.was_cut:
                exchange.client_lost()
            assert client.got.count(b"HTTP/1.1 200") + client.got.count(b"HTTP/1.1 50") <= 1
        while stage.connector.opening or stage.loop.soon:
            stage.loop.turn()
            if stage.connector.opening:
                stage.accept() if rng.random() < 0.5 else stage.refuse()
        assert stage.at_rest()
        assert not any(lane.waiters for lane in stage.plane.lanes.values())


def test_a_drain_under_way_ends_when_the_new_time_limit_says() -> None:
    """A reload changes `timeouts.drain`, of a target that drains and of a pool that has lost its traffic."""
    stage = Stage(targets=1)
    client, _ = stage.ask(GET)
    stage.accept()[0].data_received(OK)
    assert client.status == 200
    plane = stage.plane
    begun = plane.context.now
    stage.version += 1
    weights = tuple((pool, (("s/" + pool + "/h:1", 1.0),)) for pool in ("blue", "green"))
    rotation = Rotation("s", stage.version, (("green", 100),), weights, draining=("s/blue/h:1",))
    plane.rotate(rotation)
    lane, pool = plane.lanes["s/blue/h:1"], plane.services["s"].pools["blue"]
    assert (lane.drained_at, pool.leaves_at) == (begun + 30.0, begun + 30.0)
    for drain, ends in ((5.0, 5.0), (60.0, 60.0), (0.0, math.inf), (10.0, 10.0)):
        plane.context.now = begun + 3.0
        service = replace(stage.snapshot.services[0], timeouts=Timeouts(drain=drain))
        stage.version += 1
        rotation = replace(rotation, version=stage.version)
        plane.apply(replace(stage.snapshot, version=stage.version, services=(service,), rotations=(rotation,)))
        if drain == 10.0:
            ends += 3.0  # there was no limit: it begins now
        pool = plane.services["s"].pools["blue"]
        assert plane.lanes["s/blue/h:1"] is lane
        assert lane.drained_at == pytest.approx(begun + ends, abs=1e-6)
        assert pool.leaves_at == pytest.approx(0.0 if drain == 0.0 else begun + ends, abs=1e-6)


# --- private connections ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "field",
    [
        b"Authorization: NTLM TlRM",
        b"authorization: negotiate YII=",
        b"Proxy-Authorization: Negotiate YII=",
        b"Authorization: NTLM",
    ],
)
def test_a_connection_with_a_login_serves_that_client_alone(field: bytes) -> None:
    stage = Stage(targets=1)
    client, upstream = logged_in(stage, GET + field + b"\r\n")
    stage.ask(GET)
    assert stage.connector.opening, "a stranger gets a new connection"
    stage.accept()[0].data_received(OK)
    _, mine = stage.ask(GET, client=client)
    assert mine.upstream is upstream
    upstream.data_received(OK)
    assert client.status == 200
    assert stage.at_rest()


@pytest.mark.parametrize("field", [b"Authorization: Basic eDp5", b"Authorization: NTLMx y", b"X-Auth: NTLM x"])
def test_other_logins_share_connections(field: bytes) -> None:
    stage = Stage(targets=1)
    logged_in(stage, GET + field + b"\r\n")
    stage.ask(GET)
    assert not stage.connector.opening


def test_a_login_goes_on_over_the_connection_that_was_offered_it() -> None:
    stage = Stage(targets=2)
    client, _ = stage.ask(GET)
    upstream, _ = stage.accept()
    upstream.data_received(OFFER)
    for _ in range(2):
        stage.ask(GET)
        other, _ = stage.accept()  # a stranger is given neither that connection nor …
        other.data_received(OFFER)  # … one that was offered to another stranger
    _, mine = stage.ask(NTLM, client=client)
    assert mine.upstream is upstream
    upstream.data_received(OK)


def test_an_offer_that_is_not_taken_up_leaves_the_connection_to_all() -> None:
    stage = Stage(targets=1)
    client, _ = stage.ask(GET)
    upstream, _ = stage.accept()
    upstream.data_received(OFFER)
    stage.ask(GET, client=client)
    upstream.data_received(OK)
    _, stranger = stage.ask(GET)
    assert stranger.upstream is upstream


def test_a_private_connection_is_not_used_for_a_target_out_of_rotation() -> None:
    stage = Stage(targets=1)
    client, upstream = logged_in(stage)
    stage.rotate((("green", 100),))
    _, after = stage.ask(GET, client=client)
    other, _ = stage.accept()
    assert other.lane.target.pool == "green"
    other.data_received(OK)
    stage.rotate((("blue", 100),), only="green")
    client, _ = stage.ask(GET, client=client)
    assert client.status == 503
    stage.rotate((("blue", 100),))
    _, again = stage.ask(GET, client=client)
    assert again.upstream is upstream, "the login is still there after a rollback"
    assert after.upstream is None


def test_during_a_rollout_a_client_stays_where_it_is_logged_in() -> None:
    stage = Stage(targets=2)
    client, upstream = logged_in(stage)
    stage.rotate((("blue", 50), ("green", 50)))
    for _ in range(20):
        _, exchange = stage.ask(GET, client=client)
        assert exchange.upstream is upstream
        assert exchange.pool.name == "blue"
        upstream.data_received(OK)
    assert stage.at_rest()


def test_a_preview_is_served_by_its_pool_and_its_connection_by_nobody_else() -> None:
    stage = Stage(targets=1, previews=(Preview("green", header="x-preview", value="1"),))
    client, _ = stage.ask(NTLM + b"X-Preview: 1\r\n")
    green, _ = stage.accept()
    assert green.lane.target.pool == "green"
    green.data_received(OK)
    stage.ask(GET, client=client)
    blue, _ = stage.accept()
    assert blue.lane.target.pool == "blue"
    blue.data_received(OK)
    _, exchange = stage.ask(GET + b"X-Preview: 1\r\n", client=client)
    assert exchange.upstream is green


def test_a_drain_ends_private_connections() -> None:
    stage = Stage(targets=2)
    client, upstream = logged_in(stage)
    stage.version += 1
    weights = (("blue", (("s/blue/h:2", 1.0),)),)
    stage.plane.rotate(Rotation("s", stage.version, (("blue", 100),), weights, draining=(upstream.lane.id,)))
    assert upstream.gone
    stage.ask(GET, client=client)
    assert stage.accept()[0].lane.id == "s/blue/h:2"


def test_private_connections_have_a_greatest_age_and_end_when_the_target_moves() -> None:
    stage = Stage(targets=1)
    _, upstream = logged_in(stage)
    upstream.expires_at = 1.0
    upstream.lane.expire(2.0)
    assert upstream.gone
    _, upstream = logged_in(stage)
    upstream.lane.retire_all()
    assert upstream.gone


def test_a_private_connection_that_the_target_closed_is_replaced() -> None:
    stage = Stage(targets=1)
    client, upstream = logged_in(stage)
    assert upstream.eof_received() is False
    upstream.connection_lost(None)
    stage.ask(GET, client=client)
    other, _ = stage.accept()
    other.data_received(OK)
    assert client.status == 200
    assert stage.at_rest()


def test_private_connections_are_within_the_bound_of_connections() -> None:
    stage = Stage(targets=1, breaker=Breaker(connections=1, pending=5))
    client, upstream = logged_in(stage)
    stranger, _ = stage.ask(GET)
    other, _ = stage.accept()
    _, mine = stage.ask(GET, client=client)
    assert mine.upstream is None, "it waits for the one connection that may be in use"
    other.data_received(OK)
    assert mine.upstream is upstream
    upstream.data_received(OK)
    assert stranger.status == client.status == 200
    assert stage.at_rest()


def test_a_client_has_few_private_connections() -> None:
    stage = Stage(targets=PRIVATE_LIMIT + 2)
    client = Client()
    for name in stage.names:  # each time another target is the only one in rotation
        stage.names = [name]
        stage.rotate((("blue", 100),))
        stage.ask(NTLM, client=client)
        stage.accept()[0].data_received(OK)
    assert client.private is not None
    assert len(client.private) == PRIVATE_LIMIT
    assert sum(not each.gone for lane in stage.plane.lanes.values() for each in lane.connections) == PRIVATE_LIMIT


def test_a_copy_of_a_login_keeps_no_connection() -> None:
    stage = Stage(targets=1)
    stage.rotate((("blue", 100),), mirror=Mirror("green", 100.0))
    stage.ask(NTLM)
    upstreams = [stage.accept()[0] for _ in range(2)]
    for upstream in upstreams:
        upstream.data_received(OK)
    assert [upstream.gone for upstream in upstreams if upstream.lane.target.pool == "green"] == [True]


# --- counting payload ------------------------------------------------------------------------------------------------


def test_an_interim_answer_starts_the_wait_for_the_final_one_anew() -> None:
    for rules in ({"retries": Retries(per_try=0.5)}, {}, {"retries": Retries(attempts=0)}):
        stage = Stage(targets=1, timeouts=Timeouts(response=30.0), **rules)
        client, exchange = stage.ask(GET)
        upstream, _ = stage.accept()
        exchange.deadline = exchange.started + 0.1
        upstream.data_received(b"HTTP/1.1 102 Processing\r\n\r\n")
        assert exchange.timer == "response"
        assert exchange.deadline >= exchange.started + 30.0
        exchange.on_deadline(exchange.deadline)
        assert b"504" in client.got


def test_an_interim_answer_does_not_start_a_time_that_does_not_run() -> None:
    stage = Stage(targets=1)
    _, exchange = stage.ask(POST, b"he", done=False)
    upstream, _ = stage.accept()
    assert exchange.deadline == inf
    upstream.data_received(b"HTTP/1.1 103 Early Hints\r\n\r\n")
    assert exchange.deadline == inf
    exchange.upstream_blocked()
    upstream.data_received(b"HTTP/1.1 102 Processing\r\n\r\n")
    assert exchange.timer == "send"


@pytest.mark.parametrize(("service", "pool"), [("s", "teal"), ("t", "blue"), ("t", "teal")])
def test_a_lane_is_the_same_under_another_name(service: str, pool: str) -> None:
    """What a reload renames keeps its connections and what is learnt of it, and counts anew without losing a count."""
    stage = Stage(targets=2, balance=Balance("peak_ewma"))
    plane = stage.plane
    clients = [stage.ask(GET)[0] for _ in range(2)]
    upstreams = [stage.accept()[0] for _ in range(2)]
    upstreams[0].data_received(OK)
    lane = upstreams[0].lane
    assert lane.freshest is upstreams[0]
    before = plane.report(full=True)
    ids = [f"{service}/{pool}/{name}" for name in stage.names]
    blue = Pool(pool, tuple(Target(id, service, pool, "h", int(id[-1])) for id in ids))
    green = stage.snapshot.services[0].pools[1]
    targets = tuple(replace(t, id=t.id.replace("s/", f"{service}/", 1), service=service) for t in green.targets)
    targets = tuple(replace(t, id=t.id.replace("h:", "g:"), host="g") for t in targets)
    rules = replace(stage.snapshot.services[0], name=service, pools=(blue, Pool("green", targets)))
    weights = ((pool, tuple((id, 1.0) for id in ids)),)
    rotation = Rotation(service, 9, ((pool, 100),), weights)
    old = [lane.id for lane in (upstreams[0].lane, upstreams[1].lane)]
    plane.apply(replace(stage.snapshot, version=9, services=(rules,), routes=(Route(service),), rotations=(rotation,)))
    assert lane.freshest is upstreams[0] and not upstreams[0].transport.is_closing()
    assert plane.lanes[lane.id] is lane and lane.id in ids
    assert f'"pool":"{pool}"'.encode() in lane.log_fragment
    assert not lane.draining and not lane.drained_at
    upstreams[1].data_received(OK)
    assert [client.status for client in clients] == [200, 200]
    after = plane.report()
    assert set(old) <= set(after.folded)
    counted = {tally.target: sum(tally.codes.values()) for tally in after.targets}
    assert sum(counted.values()) == 2, "each request is counted once"
    assert sum(sum(tally.codes.values()) for tally in before.targets) == 1
    assert plane.services[service].in_flight == 0
    stage.ask(GET)
    assert not stage.connector.opening, "on a kept connection"


def test_what_is_about_to_be_reported_is_not_recalled_as_less() -> None:
    plane = Stage().plane
    plane.recent.append((b"id1", 0.0, 0.1, 400, b"GET", b"/", b"192.0.2.1", ""))
    seen = excerpt(b"GET / HTTP/1.1\r\n")
    plane.context.refused(RequestError(400, "bad_framing", "two lengths"), b"192.0.2.1", b"id1", 10, seen)
    plane.recall("id1")
    assert [record.refused for record in plane.stats.records] == ["two lengths"]


def test_the_record_of_a_refused_request_says_what_could_be_read_of_it() -> None:
    """With or without an access log, and safe for a terminal."""
    plane = Stage().plane
    head = b"GET /x\x1b[2J HTTP/1.1\r\nHost: shop\r\nCookie: hunter2\r\n"
    plane.context.refused(
        RequestError(400, "bad_target", "a control character"), b"192.0.2.1", b"id1", 10, excerpt(head)
    )
    [record] = plane.stats.records
    assert (record.method, record.path, record.host) == ("GET", "/x", "shop"), "up to what no terminal should get"
    assert "hunter2" not in f"{record}"


def test_whom_a_stopping_worker_cuts_is_not_told_of_a_drained_target() -> None:
    stage = Stage(targets=1)
    client, exchange = stage.ask(GET)
    stage.accept()
    client.exchange = exchange  # type: ignore[attr-defined]
    stage.plane.clients.add(client)  # type: ignore[arg-type]
    stage.plane.close()
    assert client.status == 503 and b"the worker stopped before a target answered" in client.got
    assert exchange.reason == "drain_cut"
