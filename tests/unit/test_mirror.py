"""A mirrored copy is no request: it sees the mirror's pool alone, and nothing of the service counts or awaits it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from lb.core.retry import HEAD, REFUSED, RESET, TIMEOUT, Failure
from lb.core.targets import Breaker, Mirror, Preview, Retries, Rotation, Sticky
from lb.proxy.exchange import CONNECTING, QUEUED, Exchange
from lb.proxy.h1.target import Upstream
from lb.proxy.services import LiveService
from tests.support.data_plane import GET, OK, POST, Client, Stage
from tests.support.fake_transport import FakeTransport

MIRROR = Mirror("green", percent=100.0)
BLUE, GREEN = (("blue", 100),), (("green", 100),)
CHUNKED = b"POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n"
NOT_FOUND = b"HTTP/1.1 404 No\r\nContent-Length: 0\r\n\r\n"


def mirrored(targets: int = 1, mirror: Mirror = MIRROR, **options: Any) -> Stage:
    """Blue serves, green gets the copies."""
    stage = Stage(targets=targets, **options)
    stage.rotate(BLUE, mirror=mirror)
    return stage


def service(stage: Stage) -> LiveService:
    return stage.plane.services["s"]


def copy_of(stage: Stage) -> Exchange:
    (copy,) = stage.plane.live.copies
    return copy


def accept(stage: Stage, pool: str) -> tuple[Upstream, FakeTransport]:
    """A target of this pool accepts the connection that is being opened to it."""
    index = next(i for i, (lane, _) in enumerate(stage.connector.opening) if lane.target.pool == pool)
    stage.connector.opening.insert(0, stage.connector.opening.pop(index))
    return stage.accept()


def refuse(stage: Stage, pool: str) -> None:
    """A target of this pool refuses it."""
    index = next(i for i, (lane, _) in enumerate(stage.connector.opening) if lane.target.pool == pool)
    stage.connector.opening.insert(0, stage.connector.opening.pop(index))
    stage.refuse()


def serve(stage: Stage, head: bytes = GET, body: bytes = b"") -> Client:
    """Blue answers a request."""
    client, exchange = stage.ask(head, body)
    if exchange.upstream is None:
        accept(stage, "blue")
    assert exchange.upstream is not None
    assert exchange.upstream.lane.target.pool == "blue"
    exchange.upstream.data_received(OK)
    assert client.status == 200
    return client


def sent_to(stage: Stage, pool: str) -> int:
    """Requests that connections to this pool are carrying."""
    return sum(
        upstream.exchange is not None
        for lane in stage.plane.lanes.values()
        if lane.target.pool == pool
        for upstream in lane.connections
    )


# --- nowhere but to the mirror's pool --------------------------------------------------------------------------------


@pytest.mark.parametrize("targets", [1, 2])
@pytest.mark.parametrize(("head", "body"), [(GET, b""), (POST, b"hello")])
def test_a_copy_that_is_refused_turns_up_nowhere_else(head: bytes, body: bytes, targets: int) -> None:
    stage = mirrored(targets)
    serve(stage, head, body)
    for _ in range(10):
        while stage.connector.opening:
            assert stage.connector.opening[0][0].target.pool == "green"
            refuse(stage, "green")
        stage.loop.fire()
    assert service(stage).mirrored == {"failed": 1}
    assert stage.at_rest()


@pytest.mark.parametrize("shares", [GREEN, (("blue", 50), ("green", 50)), (("blue", 100),)])
def test_a_copy_whose_connection_comes_after_a_switch_stays_in_its_pool(shares: tuple[tuple[str, int], ...]) -> None:
    stage = mirrored()
    serve(stage, POST, b"hello")
    stage.rotate(shares, mirror=MIRROR)
    _, wire = accept(stage, "green")
    assert wire.take().endswith(b"\r\n\r\nhello")
    assert not stage.connector.opening


def test_a_copy_that_fails_during_a_rollout_is_not_retried_in_the_other_pool() -> None:
    stage = mirrored()
    serve(stage)
    stage.rotate((("blue", 90), ("green", 10)), mirror=MIRROR)
    accept(stage, "green")
    copy_of(stage).on_failure(Failure(HEAD, RESET, "reset", unprocessed=True))
    for _ in range(10):
        assert sent_to(stage, "blue") == 0
        stage.loop.fire()
        while stage.connector.opening:
            refuse(stage, "green")
    assert service(stage).mirrored == {"failed": 1}


def test_a_copy_that_is_answered_404_is_asked_of_no_other_pool() -> None:
    stage = mirrored(sticky=Sticky("client", asset_fallback=True))
    serve(stage)
    stage.rotate((("blue", 50), ("green", 50)), mirror=MIRROR)
    accept(stage, "green")[0].data_received(NOT_FOUND)
    assert service(stage).mirrored == {"status_differs": 1}
    assert not stage.connector.opening
    assert sent_to(stage, "blue") == 0


def test_a_copy_goes_to_no_target_that_left_the_rotation_meanwhile() -> None:
    for ready in ("blue", "green"):
        stage = mirrored()
        serve(stage)
        stage.version += 1
        weights = ((ready, ((f"s/{ready}/h:1", 1.0),)),)
        stage.plane.rotate(Rotation("s", stage.version, BLUE, weights, mirror=MIRROR if ready == "blue" else None))
        _, wire = accept(stage, "green")
        assert not wire.take()
        assert service(stage).mirrored == {"dropped": 1}
        assert stage.at_rest()


# --- no pool gets the copy of a request that it serves ---------------------------------------------------------------


def test_the_pool_that_serves_gets_no_copy() -> None:
    stage = mirrored(previews=(Preview("green", header="X-Version"),))
    client, _ = stage.ask(POST + b"X-Version: 2\r\n", b"hello")
    assert not stage.plane.live.copies, "a preview's"
    accept(stage, "green")[0].data_received(OK)
    stage.rotate(GREEN, mirror=MIRROR)
    stage.ask(POST, b"hello")
    assert not stage.plane.live.copies, "the active pool's"
    stage.version += 1
    weights = (("green", (("s/green/h:1", 1.0),)),)
    stage.plane.rotate(Rotation("s", stage.version, BLUE, weights, fallback="green", mirror=MIRROR))
    stage.ask(POST, b"hello")
    assert not stage.plane.live.copies, "the fallback's"
    stage.rotate((("blue", 50), ("green", 50)), mirror=MIRROR)
    pools = [exchange.pool.name for _, exchange in [stage.ask(POST, b"hello") for _ in range(100)]]
    assert pools.count("blue") == len(stage.plane.live.copies) == 50, "a rollout's share"
    assert client.status == 200
    assert service(stage).mirrored == {}


def test_a_request_that_is_switched_to_the_mirrors_pool_is_not_copied() -> None:
    """Its connection to blue comes after the switch; the copy has been made before."""
    stage = mirrored()
    client, _ = stage.ask(POST, b"hello")
    accept(stage, "green")
    assert sent_to(stage, "green") == 0, "the copy waits until it is clear who serves the request"
    stage.rotate(GREEN, mirror=MIRROR)
    accept(stage, "blue")
    (upstream,) = (each for each in stage.plane.lanes["s/green/h:1"].connections if each.exchange is not None)
    upstream.data_received(OK)
    assert client.status == 200
    assert service(stage).mirrored == {"dropped": 1}
    assert not stage.plane.live.copies
    assert sent_to(stage, "green") == 0
    assert stage.at_rest()


def test_a_request_that_was_tried_in_the_mirrors_pool_is_not_copied() -> None:
    stage = mirrored()
    stage.rotate((("blue", 50), ("green", 50)), mirror=MIRROR)
    client, exchange = stage.ask(GET)
    if exchange.pool.name == "green":
        exchange.client_lost()
        stage.connector.opening.clear()
        client, exchange = stage.ask(GET)
    assert exchange.pool.name == "blue"
    accept(stage, "blue")
    exchange.on_failure(Failure(HEAD, RESET, "reset"))
    assert exchange.pool.name == "green"
    while stage.connector.opening:
        accept(stage, "green")
    assert exchange.upstream is not None
    exchange.upstream.data_received(OK)
    assert client.status == 200
    assert service(stage).mirrored == {"dropped": 1}
    assert sent_to(stage, "green") == 0


def test_a_fallback_that_takes_a_request_over_gets_no_copy_of_it() -> None:
    stage = mirrored(breaker=Breaker(connections=1))
    stage.ask(GET)
    client, waits = stage.ask(POST, b"hello")
    assert waits.phase == QUEUED
    stage.version += 1
    weights = (("green", (("s/green/h:1", 1.0),)),)
    stage.plane.rotate(Rotation("s", stage.version, BLUE, weights, fallback="green", mirror=MIRROR))
    while stage.connector.opening:
        stage.accept()
    assert waits.upstream is not None
    assert waits.upstream.lane.target.pool == "green"
    waits.upstream.data_received(OK)
    assert client.status == 200
    assert service(stage).mirrored["dropped"] >= 1


def test_the_copy_of_a_stream_goes_when_the_answer_begins() -> None:
    stage = mirrored()
    client, exchange = stage.ask(GET)
    upstream, _ = accept(stage, "blue")
    upstream.data_received(b"HTTP/1.1 200 OK\r\nDate: now\r\nContent-Length: 50\r\n\r\nhalf")
    _, wire = accept(stage, "green")
    assert wire.take().startswith(b"GET /x")
    exchange.client_lost()
    copy = copy_of(stage)
    assert copy.ends_at < copy.started + 200.0, "it does not outlast its original for ever"
    copy.on_deadline(copy.ends_at)
    assert not stage.plane.live.copies
    assert client.kept is not None
    assert stage.at_rest()


# --- nothing of the service's counts or waits for a copy -------------------------------------------------------------


def test_a_copy_that_hangs_costs_no_bound_and_no_count() -> None:
    stage = mirrored(breaker=Breaker(requests=1, adaptive=True), mirror=replace(MIRROR, concurrency=5))
    for _ in range(20):
        serve(stage)
        if stage.connector.opening:
            accept(stage, "green")
    assert len(stage.plane.live.copies) == 5
    assert service(stage).in_flight == 0
    assert service(stage).mirrored == {"dropped": 15}
    assert stage.plane.stats.rejected == {}
    for copy in list(stage.plane.live.copies):
        copy.on_deadline(copy.deadline)
    assert service(stage).mirrored == {"dropped": 15, "failed": 5}
    lane = stage.plane.lanes["s/green/h:1"]
    lane.settle()
    tally = lane.tally
    assert (tally.timeouts, tally.streak, tally.codes, lane.streak) == (0, 0, {}, 0)
    assert stage.alarms == []
    assert stage.at_rest()


@pytest.mark.parametrize("trouble", ["answer", "reset", "garbage", "timeout"])
def test_what_a_copy_meets_speaks_against_no_target(trouble: str) -> None:
    stage = mirrored(retries=Retries(statuses=(503,)))
    serve(stage)
    upstream, _ = accept(stage, "green")
    if trouble == "answer":
        upstream.data_received(OK.replace(b"200", b"503"))
    elif trouble == "reset":
        upstream.connection_lost(ConnectionResetError())
    elif trouble == "garbage":
        upstream.data_received(b"nonsense\r\n\r\n")
    else:
        copy_of(stage).on_deadline(copy_of(stage).deadline)
    for _ in range(6):
        stage.loop.fire()
        while stage.connector.opening:
            refuse(stage, "green") if trouble == "none" else accept(stage, "green")
    lane = upstream.lane
    lane.settle()
    assert (lane.tally.codes, lane.tally.resets, lane.tally.timeouts, lane.tally.server_errors) == ({}, 0, 0, 0)
    assert lane.streak == 0
    assert stage.alarms == []
    assert service(stage).retried == {}
    assert service(stage).budget.retries == 0


def test_connections_that_are_refused_to_copies_speak_against_no_target() -> None:
    stage = mirrored()
    lane = next(lane for lane in stage.plane.lanes.values() if lane.target.pool == "green")
    for _ in range(4):
        serve(stage)
        for _ in range(3):
            while any(each.target.pool == "green" for each, _ in stage.connector.opening):
                refuse(stage, "green")
            stage.loop.fire()
    assert service(stage).mirrored == {"failed": 4}
    lane.try_out(for_copy=True)  # as for a copy whose idle connection was closed
    refuse(stage, "green")
    lane.settle()
    assert (lane.tally.connect_failures, lane.streak) == (0, 0)
    assert stage.alarms == []


def test_a_whole_copy_is_no_request_of_a_client() -> None:
    stage = mirrored()
    serve(stage)
    accept(stage, "green")[0].data_received(OK)
    lane = stage.plane.lanes["s/green/h:1"]
    lane.settle()
    assert (lane.tally.codes, lane.tally.successes) == ({}, 0)
    assert stage.plane.stats.pool_tally("s", "green").requests == 0
    assert stage.plane.stats.pool_tally("s", "blue").requests == 1
    assert sum(service(stage).mirrored.values()) == 1
    assert service(stage).budget.requests == 1


def test_a_copy_without_room_is_dropped_and_waits_in_no_queue() -> None:
    stage = mirrored(breaker=Breaker(connections=1, pending=10))
    serve(stage)
    accept(stage, "green")
    for _ in range(3):
        serve(stage)
    assert service(stage).mirrored == {"dropped": 3}
    assert service(stage).waiting == []


def test_a_copy_takes_no_idle_connection_beyond_the_bound() -> None:
    """A preview uses the only connection of the mirror's target, and one that was opened in doubt is idle there."""
    stage = mirrored(breaker=Breaker(connections=1), previews=(Preview("green", header="X-Version"),))
    stage.ask(GET + b"X-Version: 2\r\n")
    upstream, _ = accept(stage, "green")
    client, exchange = stage.ask(GET)
    accept(stage, "blue")
    upstream.lane.try_out(for_copy=False)
    accept(stage, "green")
    assert upstream.lane.freshest is not None
    assert exchange.upstream is not None
    exchange.upstream.data_received(OK)
    assert client.status == 200
    assert upstream.lane.active == 1
    assert service(stage).mirrored == {"dropped": 1}


def test_copies_give_their_connections_to_clients() -> None:
    """The mirror's pool hangs and is full of copies: a preview, or anybody after a switch, finds room all the same."""
    stage = mirrored(breaker=Breaker(connections=2), previews=(Preview("green", header="X-Version"),))
    for _ in range(2):
        serve(stage)
        accept(stage, "green")
    assert sent_to(stage, "green") == 2
    client, exchange = stage.ask(POST + b"X-Version: 2\r\n", b"hello")
    assert exchange.phase != QUEUED
    accept(stage, "green")[0].data_received(OK)
    assert client.status == 200
    assert service(stage).mirrored == {"dropped": 1}


def test_copies_give_the_connections_that_they_wait_for_to_clients() -> None:
    stage = mirrored(breaker=Breaker(connections=2, pending=0), previews=(Preview("green", header="X-Version"),))
    for _ in range(2):
        serve(stage)
    assert [lane.target.pool for lane, _ in stage.connector.opening] == ["green", "green"]
    client, exchange = stage.ask(POST + b"X-Version: 2\r\n", b"hello")
    assert exchange.phase == CONNECTING
    while not client.got:  # a copy that was before it and has not given way gets the first connection
        upstream, _ = accept(stage, "green")
        while upstream.exchange is not None:  # it is handed over when the copy is over
            upstream.data_received(OK)
    assert client.status == 200
    assert exchange.lane is not None
    assert exchange.lane.active <= 2
    assert service(stage).mirrored["dropped"] >= 1


def test_a_copy_of_a_stale_connection_is_sent_again_and_takes_no_budget() -> None:
    stage = mirrored()
    serve(stage)
    accept(stage, "green")[0].data_received(OK)
    serve(stage)
    copy_of(stage).on_failure(Failure(HEAD, RESET, "closed", reused=True, unprocessed=True))
    upstream, wire = accept(stage, "green")
    assert wire.take().startswith(b"GET /x")
    upstream.data_received(OK)
    assert sum(service(stage).mirrored.values()) == 2
    assert "failed" not in service(stage).mirrored
    assert service(stage).retried == {}


# --- bodies, reloads -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("head", [POST.replace(b"5", b"10"), CHUNKED])
@pytest.mark.parametrize("early", [True, False], ids=["before the connection", "after it"])
def test_a_body_that_comes_in_pieces_is_copied_whole(head: bytes, early: bool) -> None:
    pieces = (b"hello", b"world")
    stage = mirrored()
    client, exchange = stage.ask(head, pieces[0], done=False)
    if early:
        exchange.on_request_body(pieces[1], True)
    upstream, _ = accept(stage, "blue")
    if not early:
        exchange.on_request_body(pieces[1], True)
    upstream.data_received(OK)
    assert client.status == 200
    _, wire = accept(stage, "green")
    body = b"".join(pieces)
    assert wire.take().endswith(b"\r\n\r\n" + (body if head is not CHUNKED else b"a\r\n%b\r\n0\r\n\r\n" % body))


def test_a_body_that_is_held_no_more_is_counted_as_dropped() -> None:
    stage = mirrored(retries=Retries(replay=4))
    _, exchange = stage.ask(POST.replace(b"5", b"10"), b"hello", done=False)
    accept(stage, "blue")
    exchange.on_request_body(b"world", True)
    assert service(stage).mirrored == {"dropped": 1}


def test_a_reload_keeps_the_bound_of_copies_and_drops_those_of_a_mirror_that_is_gone() -> None:
    stage = mirrored(mirror=replace(MIRROR, concurrency=2))
    _, first = stage.ask(GET)
    _, second = stage.ask(GET)
    for client, exchange in ((Client(), first), (Client(), second)):
        client.exchange = exchange  # type: ignore[attr-defined]
        stage.plane.clients.add(client)  # type: ignore[arg-type]
    stage.reload()
    stage.rotate(BLUE, mirror=replace(MIRROR, concurrency=2))
    assert service(stage).in_flight == 2, "copies are not among them"
    stage.ask(GET)[1].client_lost()
    assert service(stage).mirrored == {"dropped": 1}, "two are under way still"
    stage.reload()
    first.client_lost()
    second.client_lost()
    stage.loop.turn()
    while stage.connector.opening:
        stage.accept()
    assert service(stage).mirrored == {"dropped": 3}
    assert stage.at_rest()


def test_nothing_is_left_of_copies_when_the_worker_ends() -> None:
    stage = mirrored()
    serve(stage)
    _, wire = accept(stage, "green")
    assert stage.plane.live.copies
    for copy in list(stage.plane.live.copies):
        copy.cut_for_drain()
    assert not stage.plane.live.copies
    assert wire.closed
    assert stage.at_rest()


def test_connect_failures_of_copies_go_to_another_target_of_the_mirror() -> None:
    stage = mirrored(targets=2)
    client, exchange = stage.ask(GET)
    accept(stage, "blue")
    refuse(stage, "green")  # while the copy waits for its original
    assert not any(lane.target.pool == "green" for lane, _ in stage.connector.opening)
    assert exchange.upstream is not None
    exchange.upstream.data_received(OK)
    assert client.status == 200
    upstream, wire = accept(stage, "green")
    assert wire.take().startswith(b"GET /x")
    upstream.data_received(OK)
    assert "failed" not in service(stage).mirrored
    assert stage.at_rest()


def test_the_causes_of_failures_are_those_of_the_retry_rules() -> None:
    """A timeout of a copy is over at once: neither a budget nor another target is asked."""
    stage = mirrored(targets=2, retries=Retries(statuses=(504,)))
    serve(stage)
    accept(stage, "green")
    for cause in (TIMEOUT, REFUSED):
        if stage.plane.live.copies:
            copy_of(stage).on_failure(Failure(HEAD, cause, "trouble", timer="response"))
    assert service(stage).mirrored == {"failed": 1}
    assert not stage.connector.opening
