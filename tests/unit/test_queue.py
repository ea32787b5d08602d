"""Requests that wait for a target with room: each pool has a queue of its own, in order, with one deadline each."""

from __future__ import annotations

import random
import time
from collections.abc import Collection
from dataclasses import replace

import pytest

from lb.core.balance import Balancer, build
from lb.core.retry import HEAD, RESET, Failure
from lb.core.targets import Balance, Breaker, Pool, Preview, Retries, Rotation, Route, Sticky, Target, Timeouts
from lb.proxy.exchange import AWAITING_EVIDENCE, QUEUED, Exchange
from lb.proxy.lane import Lane
from lb.proxy.services import LivePool
from lb.supervisor.totals import Totals
from tests.support.data_plane import GET, OK, POST, Client, Stage, logged_in

PREVIEW = Preview("green", header="X-Version", value="green")
TO_GREEN = GET + b"X-Version: green\r\n"
ONE = Breaker(connections=1, pending=2)


def pool(stage: Stage, name: str) -> LivePool:
    return stage.plane.services["s"].pools[name]


def connected(stage: Stage, *asked: tuple[Client, Exchange]) -> None:
    """The worker knows these clients, as it does when they come by a listener."""
    for client, exchange in asked:
        client.exchange = exchange  # type: ignore[attr-defined]
        stage.plane.clients.add(client)  # type: ignore[arg-type]


def test_a_preview_that_hangs_holds_up_its_own_pool_alone() -> None:
    stage = Stage(targets=1, breaker=ONE, previews=(PREVIEW,))
    hangs, waits = stage.ask(TO_GREEN), stage.ask(TO_GREEN)
    stage.accept()
    first, second = stage.ask(GET), stage.ask(GET)
    upstream, wire = stage.accept()
    assert [exchange.phase for _, exchange in (waits, second)] == [QUEUED, QUEUED]
    wire.take()
    upstream.data_received(OK)
    assert wire.take().startswith(b"GET /x"), "the preview came earlier, but waits for another pool"
    upstream.data_received(OK)
    assert [client.status for client, _ in (first, second)] == [200, 200]
    for _, exchange in (waits, hangs):
        exchange.client_lost()
    assert stage.at_rest()


def test_each_pools_queue_has_the_whole_bound() -> None:
    stage = Stage(targets=1, breaker=ONE, previews=(PREVIEW,))
    previews = [stage.ask(TO_GREEN) for _ in range(4)]
    asked = [stage.ask(GET) for _ in range(4)]
    assert [client.got[9:12] for client, _ in previews] == [b"", b"", b"", b"503"]
    assert [client.got[9:12] for client, _ in asked] == [b"", b"", b"", b"503"]
    totals = Totals()
    totals.take(stage.plane.report())
    assert totals.sums().waiting == {"s": {"blue": 2, "green": 2}}
    assert stage.plane.stats.rejected == {"queue_full": 2}


def test_the_deadline_is_that_of_the_arrival_however_often_it_is_looked() -> None:
    stage = Stage(targets=1, breaker=ONE, timeouts=Timeouts(queue=1.0))
    stage.ask(GET)
    client, exchange = stage.ask(GET)
    deadline = exchange.deadline
    for _ in range(3):
        time.sleep(0.001)
        pool(stage, "blue").wake()
        stage.rotate((("blue", 100),))
        assert exchange.deadline == deadline
    exchange.on_deadline(deadline)
    assert client.status == 503
    assert stage.plane.stats.rejected == {"timeout_queue": 1}


def test_the_deadline_moves_with_the_request_to_another_pool() -> None:
    stage = Stage(targets=1, breaker=ONE, previews=(PREVIEW,))
    stage.ask(TO_GREEN)
    stage.ask(GET)
    client, exchange = stage.ask(GET)
    deadline = exchange.deadline
    stage.rotate((("green", 100),))
    assert exchange in pool(stage, "green").waiting
    assert exchange.deadline == deadline
    exchange.on_deadline(deadline)
    assert client.status == 503
    assert stage.plane.stats.rejected == {"timeout_queue": 1}
    assert not stage.plane.services["s"].waiting


@pytest.mark.parametrize("status", [404, 502])
def test_a_request_that_a_target_was_sent_waits_anew(status: int) -> None:
    """The other version is asked, and has no room either."""
    sticky, retries = Sticky(asset_fallback=True), Retries(statuses=(502,))
    stage = Stage(targets=1, breaker=ONE, previews=(PREVIEW,), sticky=sticky, retries=retries)
    stage.ask(TO_GREEN)
    stage.ask(GET)
    _, exchange = stage.ask(GET)
    first = exchange.deadline
    stage.rotate((("blue", 50), ("green", 50)))
    stage.accept()
    upstream, _ = stage.accept()
    upstream.data_received(OK)
    assert exchange.upstream is upstream
    time.sleep(0.001)
    upstream.data_received(b"HTTP/1.1 %d No\r\nContent-Length: 0\r\n\r\n" % status)
    assert exchange in pool(stage, "green").waiting
    assert exchange.deadline > first


def test_the_room_of_a_target_that_lacks_an_asset_goes_to_the_queue() -> None:
    """The other version is asked for the asset, and the answer of that one may take its time."""
    stage = Stage(targets=1, breaker=ONE, previews=(PREVIEW,), sticky=Sticky(asset_fallback=True))
    stage.rotate((("blue", 99), ("green", 1)))
    _, lacks = stage.ask(GET)
    upstream, _ = stage.accept()
    assert upstream.lane.id.startswith("s/blue/")
    _, waits = stage.ask(GET)
    assert waits.phase == QUEUED
    upstream.data_received(b"HTTP/1.1 404 No\r\nContent-Length: 0\r\n\r\n")
    assert lacks.pool.name == "green"
    assert waits.upstream is upstream


def test_an_emptied_pool_releases_all_of_its_queue_at_once() -> None:
    """250 clients: each answer ends a request, and the end of a request wakes the queue."""
    stage = Stage(targets=1, breaker=Breaker(connections=1, pending=1024))
    _, first = stage.ask(GET)
    asked = [stage.ask(GET) for _ in range(250)]
    stage.rotate((("blue", 100),), only="green")
    assert [client.status for client, _ in asked] == [503] * 250
    assert stage.plane.stats.rejected == {"no_target": 250}
    first.client_lost()
    assert stage.at_rest() or stage.connector.opening


def test_after_a_switch_the_queue_goes_to_the_new_pool_in_its_order() -> None:
    stage = Stage(targets=1, breaker=Breaker(connections=1, pending=10))
    stage.ask(GET)
    asked = [stage.ask(GET.replace(b"/x", b"/%d" % number)) for number in range(5)]
    stage.rotate((("green", 100),))
    stage.connector.opening.pop(0)  # blue's
    upstream, wire = stage.accept()
    assert upstream.lane.id.startswith("s/green/")
    for number, (client, _) in enumerate(asked):
        assert wire.take().startswith(b"GET /%d " % number)
        upstream.data_received(OK)
        assert client.status == 200
    assert not stage.connector.opening


def test_a_request_that_finds_no_room_keeps_its_place() -> None:
    stage = Stage(targets=1, breaker=Breaker(connections=1, pending=10))
    stage.ask(GET)
    asked = [stage.ask(GET)[1] for _ in range(3)]
    for _ in range(3):
        pool(stage, "blue").wake()
        assert stage.plane.services["s"].waiting == asked


def test_one_that_keeps_its_place_is_not_refused_for_a_full_queue() -> None:
    """The bound is for newcomers: a reload that lowers it sheds none of the first."""
    stage = Stage(targets=1, breaker=ONE)
    stage.ask(GET)
    asked = [stage.ask(GET)[1] for _ in range(2)]
    service = stage.plane.services["s"]
    service.follow(replace(service.rules, breaker=Breaker(1, pending=0)))
    pool(stage, "blue").wake()
    assert stage.plane.services["s"].waiting == asked


@pytest.mark.parametrize("renamed", ["pool", "service"])
def test_a_reload_with_other_names_loses_nobody_that_waits(renamed: str) -> None:
    stage = Stage(targets=1, breaker=ONE)
    asked = [stage.ask(GET) for _ in range(3)]
    upstream, wire = stage.accept()
    connected(stage, *asked)
    service, blue = ("s", "cyan") if renamed == "pool" else ("t", "blue")
    id = f"{service}/{blue}/h:1"
    pools = (Pool(blue, (Target(id, service, blue, "h", 1),)),)
    rules = replace(stage.snapshot.services[0], name=service, pools=pools)
    rotation = Rotation(service, 9, ((blue, 100),), ((blue, ((id, 1.0),)),))
    stage.plane.apply(
        replace(stage.snapshot, version=9, services=(rules,), routes=(Route(service),), rotations=(rotation,))
    )
    assert not stage.connector.opening, "the target is the same, and has the one connection that it may have"
    assert upstream.lane.id == id
    wire.take()
    upstream.data_received(OK)
    for _ in range(2):
        assert wire.take().startswith(b"GET /x")
        upstream.data_received(OK)
    assert [client.status for client, _ in asked] == [200] * 3
    assert stage.plane.services[service].in_flight == 0


def test_a_reload_that_removes_the_route_answers_those_that_wait() -> None:
    stage = Stage(targets=1, breaker=ONE)
    asked = [stage.ask(GET) for _ in range(3)]
    connected(stage, *asked)
    stage.plane.apply(replace(stage.snapshot, version=9, services=(), routes=(), rotations=()))
    assert [client.status for client, _ in asked[1:]] == [404, 404]


def test_a_lane_that_is_taken_back_serves_the_queue() -> None:
    """One of two targets refused a connection; the other is full until the first is tried again."""
    stage = Stage(targets=2, breaker=ONE)
    stage.ask(GET)
    blue = pool(stage, "blue")
    busy = stage.connector.opening[0][0]
    free = next(lane for lane in blue.members if lane is not busy)
    blue.cool_down(free, until=5.0)
    _, waits = stage.ask(GET)
    assert waits.phase == QUEUED
    blue.end_cooldown(6.0)
    assert waits.lane is free


def test_shunned_lanes_that_are_all_there_is_serve_the_queue() -> None:
    """The failed connection was opened in doubt: no request's try ends with it."""
    stage = Stage(targets=2, breaker=ONE)
    blue = pool(stage, "blue")
    first, second = blue.members
    blue.cool_down(second, until=5.0)
    _, doubtful = stage.ask(POST, b"hello")
    stage.accept()
    _, expects = stage.ask(GET)
    _, waits = stage.ask(GET)
    doubtful.on_failure(Failure(HEAD, RESET, "reset", idle=5.0, elapsed=0.01))
    assert expects.lane is first
    stage.refuse()
    assert expects.lane is first, "a connection is opened for it"
    assert waits.lane is second


def test_the_room_that_a_failed_try_leaves_goes_to_the_queue() -> None:
    stage = Stage(targets=2, breaker=Breaker(connections=1, pending=5))
    _, fails = stage.ask(GET)
    stage.ask(GET)
    _, waits = stage.ask(GET)
    upstream, _ = stage.accept()
    stage.accept()
    upstream.connection_lost(ConnectionResetError())
    assert fails.phase == QUEUED
    assert waits.lane is upstream.lane


def test_the_room_of_a_connection_that_broke_off_in_doubt_goes_to_the_queue() -> None:
    stage = Stage(targets=1, breaker=Breaker(connections=1, pending=5))
    _, doubtful = stage.ask(POST, b"hello")
    upstream, _ = stage.accept()
    _, waits = stage.ask(GET)
    assert waits.phase == QUEUED
    doubtful.on_failure(Failure(HEAD, RESET, "reset", idle=5.0, elapsed=0.01))
    assert doubtful.phase == AWAITING_EVIDENCE
    assert waits.lane is upstream.lane


def test_a_connection_that_comes_after_a_switch_serves_the_queue_of_its_pool() -> None:
    stage = Stage(targets=1, breaker=Breaker(connections=1, pending=5), previews=(Preview("blue", header="X-Old"),))
    _, moves = stage.ask(GET)
    _, waits = stage.ask(GET + b"X-Old: 1\r\n")
    assert waits.phase == QUEUED
    stage.rotate((("green", 100),))
    assert waits.phase == QUEUED, "a preview stays with its pool"
    upstream, _ = stage.accept()
    assert moves.pool.name == "green"
    assert waits.upstream is upstream


def test_a_switch_takes_those_along_that_wait_behind_a_preview() -> None:
    stage = Stage(targets=1, breaker=Breaker(connections=1, pending=5), previews=(Preview("blue", header="X-Old"),))
    stage.ask(GET)
    stage.accept()
    _, stays = stage.ask(GET + b"X-Old: 1\r\n")
    _, moves = stage.ask(GET)
    _, second = stage.ask(GET)
    stage.rotate((("green", 100),))
    assert stays.phase == QUEUED
    assert moves.lane is not None
    assert (moves.pool.name, second.pool.name) == ("green", "green")
    assert list(pool(stage, "green").waiting) == [second]


def test_a_client_that_waits_for_its_own_connection_holds_up_nobody() -> None:
    stage = Stage(targets=2, breaker=Breaker(connections=1, pending=5))
    client, own = logged_in(stage)
    strangers = [stage.ask(GET) for _ in range(2)]
    others = {upstream.lane: upstream for upstream, _ in (stage.accept(), stage.accept())}
    full = others.pop(own.lane)
    (other,) = others.values()
    _, mine = stage.ask(GET, client=client)
    _, behind = stage.ask(GET)
    _, last = stage.ask(GET)
    other.data_received(OK)
    assert behind.upstream is other
    assert list(pool(stage, "blue").waiting) == [mine, last], "both keep their places"
    full.data_received(OK)
    assert mine.upstream is own
    assert last.phase == QUEUED
    own.data_received(OK)
    other.data_received(OK)
    assert last.upstream is not None
    last.upstream.data_received(OK)
    assert [asked.status for asked, _ in strangers] == [200, 200]
    assert stage.at_rest()


def test_a_request_that_may_not_use_the_room_there_is_holds_up_nobody() -> None:
    """The first of the queue has tried the target that has room."""
    stage = Stage(targets=2, breaker=Breaker(connections=1, pending=5))
    _, fails = stage.ask(GET)
    stage.ask(GET)
    upstream, _ = stage.accept()
    stage.accept()
    upstream.connection_lost(ConnectionResetError())
    assert fails.phase == QUEUED
    stage.ask(GET)
    _, behind = stage.ask(GET)
    assert behind.phase == QUEUED
    again, _ = stage.accept()
    assert again.lane is upstream.lane
    again.data_received(OK)
    assert behind.upstream is again
    assert list(pool(stage, "blue").waiting) == [fails]


class Watched(Balancer[Lane]):
    """Takes down which of a pool's waiting requests are let try."""

    def __init__(self, of: LivePool) -> None:
        self.pool, self.balancer = of, of.balancer
        self.looked: list[Exchange | None] = []

    def pick(self, key: int = 0, avoid: Collection[Lane] = (), now: float = 0.0) -> Lane | None:
        self.looked.append(self.pool.trying)
        return self.balancer.pick(key, avoid, now)


def test_the_queue_is_not_looked_through_while_no_target_has_room() -> None:
    stage = Stage(targets=2, breaker=Breaker(connections=1, pending=100))
    for _ in range(2):
        stage.ask(GET)
    asked = [stage.ask(GET)[1] for _ in range(50)]
    blue = pool(stage, "blue")
    blue.balancer = watched = Watched(blue)
    blue.wake()
    assert watched.looked == asked[:1]


def test_a_request_that_is_answered_while_it_waits_leaves_its_place_at_once() -> None:
    stage = Stage(targets=1, breaker=ONE)
    stage.ask(GET)
    _, waits = stage.ask(GET)
    client, cut = stage.ask(GET)
    cut.cut_for_drain()
    assert client.status == 503
    assert list(pool(stage, "blue").waiting) == [waits]
    _, comes = stage.ask(GET)
    assert comes.phase == QUEUED, "there is a place for it"


def test_an_idle_connection_is_no_room_beyond_the_bound() -> None:
    """One that was opened in doubt comes when its target has as many in use as it may have."""
    stage = Stage(targets=1, breaker=ONE)
    stage.ask(GET)
    upstream, _ = stage.accept()
    upstream.lane.try_out(for_copy=False)
    spare, _ = stage.accept()
    _, waits = stage.ask(GET)
    assert waits.phase == QUEUED
    assert upstream.lane.active == 1
    upstream.data_received(OK)
    assert waits.upstream in (upstream, spare)
    assert upstream.lane.active == 1


def test_the_idle_connection_of_the_other_target_that_has_room_is_used() -> None:
    stage = Stage(targets=2, breaker=ONE)
    for _ in range(2):
        stage.ask(GET)
    for upstream, _ in [stage.accept() for _ in range(2)]:
        upstream.data_received(OK)
    blue = pool(stage, "blue")
    blue.balancer = build(Balance(), [(blue.members[0], 1.0)], random.Random(1))  # it always picks the first one
    for _ in range(2):
        _, exchange = stage.ask(GET)
    assert not stage.connector.opening
    assert exchange.upstream is not None
    assert exchange.lane is blue.members[1]


def test_a_request_that_has_tried_all_targets_takes_any_with_room() -> None:
    stage = Stage(targets=2, breaker=ONE)
    blue = pool(stage, "blue")
    first, second = blue.members
    blue.balancer = build(Balance(), [(first, 1.0)], random.Random(1))
    stage.ask(GET)
    stage.ask(GET)
    _, waits = stage.ask(GET)
    waits.tried = [second]
    _, behind = stage.ask(GET)
    behind.tried = [first, second]
    stage.connector.opening.pop(0)
    upstream, _ = stage.accept()
    assert upstream.lane is second
    upstream.data_received(OK)
    assert behind.upstream is upstream
    assert list(blue.waiting) == [waits]
