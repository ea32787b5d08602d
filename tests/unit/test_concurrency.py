"""Requests under way: counted by key over all workers, until each of them ends, whatever becomes of its worker."""

from __future__ import annotations

import pytest

from lb.core.targets import Concurrency
from lb.http.h1.replies import Reply
from lb.proxy.exchange import Exchange
from lb.proxy.in_flight_table import FULL, REGIONS, UNCOUNTED, WAYS, InFlightTable, Regions
from lb.proxy.services import LiveRoute, Step
from lb.proxy.steps.concurrency import ConcurrencyStep
from tests.support.data_plane import GET, OK, Client, Stage


class Refuse(Step):
    def before(self, exchange: Exchange) -> Reply | None:
        return Reply(403, "client_address", "no")


def limited(rule: Concurrency, *more: Step) -> Stage:
    stage = Stage(targets=1)
    step = ConcurrencyStep(rule, "/", stage.plane.context)
    stage.plane.live.only_route = LiveRoute(stage.plane.services["s"], 0, 0.0, (step, *more), title="/")
    return stage


def status(client: Client) -> int:
    return client.status if client.got else 0


def test_no_more_than_the_limit_are_under_way() -> None:
    stage = limited(Concurrency(2))
    asked = [stage.ask(GET) for _ in range(4)]
    assert [status(client) for client, _ in asked] == [0, 0, 503, 503]
    assert b"Retry-After: 1\r\n" in asked[2][0].got
    assert asked[2][1].reason == "concurrency"
    upstream, _ = stage.accept()
    upstream.data_received(OK)
    assert [status(client) for client, _ in asked[:2]].count(200) == 1
    client, exchange = stage.ask(GET)
    assert status(client) == 0, "the end of an answer makes room"
    exchange.client_lost()
    client, exchange = stage.ask(GET)
    assert status(client) == 0, "and a client that goes away"
    assert status(stage.ask(GET)[0]) == 503
    for _, each in (*asked, (client, exchange)):
        each.client_lost()
    assert stage.plane.services["s"].in_flight == 0
    assert stage.plane.stats.step_results(full=True) == {"/": {"concurrency": {"concurrency": 3}}}


def test_a_request_that_a_later_step_refuses_is_over() -> None:
    stage = limited(Concurrency(1), Refuse())
    assert [status(stage.ask(GET)[0]) for _ in range(3)] == [403, 403, 403]


@pytest.mark.parametrize("key", ["header:x-key", "cookie:id"])
def test_each_key_has_its_count(key: str) -> None:
    stage = limited(Concurrency(1, key))
    fields = [b"X-Key: a\r\nCookie: id=a\r\n", b"X-Key: b\r\nCookie: id=b\r\n"]
    asked = [stage.ask(GET + fields[place]) for place in (0, 1, 0, 1)]
    assert [status(client) for client, _ in asked] == [0, 0, 429, 429]


def test_a_dry_run_lets_all_pass() -> None:
    stage = limited(Concurrency(1, dry_run=True))
    asked = [stage.ask(GET) for _ in range(3)]
    assert [status(client) for client, _ in asked] == [0, 0, 0]
    assert stage.plane.stats.step_results(full=True) == {"/": {"concurrency": {"dry_run": 2}}}
    assert b"over the limit (dry run)" in asked[2][1].route_fragment


def test_workers_count_together_and_a_dead_one_holds_nothing() -> None:
    regions = Regions()
    numbers = [regions.give() for _ in range(3)]
    tables = [InFlightTable(regions.fd, number) for number in numbers]
    mark = tables[0].mark(b"limit", b"key")
    assert {table.mark(b"limit", b"key") for table in tables} == {mark}
    slots = [table.enter(mark, 3) for table in tables]
    assert min(slots) >= 0
    assert [table.enter(mark, 3) for table in tables] == [FULL] * 3
    regions.take_back(numbers[1])
    assert tables[0].enter(mark, 3) == slots[0]
    assert tables[2].enter(mark, 3) == FULL
    assert regions.give() == numbers[1]
    tables[2].leave(slots[2])
    assert InFlightTable(regions.fd, numbers[1]).enter(mark, 3) >= 0
    assert [regions.give() for _ in range(REGIONS)][-1] == -1, "there are so many"
    regions.close()


def test_more_keys_than_a_set_holds_pass_uncounted() -> None:
    table = InFlightTable(sets=1)
    marks = [table.mark(b"limit", b"%d" % number) for number in range(WAYS + 1)]
    slots = [table.enter(mark, 1) for mark in marks]
    assert slots[-1] == UNCOUNTED
    assert len(set(slots)) == WAYS + 1
    table.leave(slots[0])
    assert table.enter(marks[-1], 1) == slots[0], "a slot without requests is free"
    assert table.enter(marks[0], 1) == UNCOUNTED
