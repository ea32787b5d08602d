"""A target that is given by name: requests go to the addresses that lb has told, and leave those that it tells no more.

Connections also have a greatest age (`timeouts.lifetime`).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from lb.core.targets import Retries, Target, Targets, Timeouts
from tests.support.eventually import eventually
from tests.support.front import OK, Front, Origin, read_answer, read_request, status_of
from tests.wire.messages import GET

ONE, TWO = "127.0.0.1", "127.0.0.2"


class Named:
    """A front before one target with a name, and two origins at two addresses."""

    def __init__(self, front: Front) -> None:
        self.front = front
        self.first, self.second = front.origin, Origin()
        self.future = asyncio.run_coroutine_threadsafe(self.second.start(TWO, front.origin.port), front.loop)
        self.future.result(10)
        self.id = f"s/p/web.test:{front.origin.port}"
        front.targets = (Target(self.id, "s", "p", "web.test", front.origin.port),)

    def apply(self, *addresses: str, **changes: Any) -> None:
        """A snapshot by which the name stands for these addresses."""
        self.front.call(lambda: self.front.apply(addresses={self.id: addresses}, **changes))

    def move(self, *addresses: str) -> None:
        """A change of the target alone."""
        self.front.version += 1
        [target] = self.front.targets
        changes = Targets(self.front.version, (replace(target, addresses=addresses),))
        self.front.call(lambda: self.front.plane.change(changes))

    def requests(self) -> tuple[int, int]:
        return len(self.first.requests), len(self.second.requests)


@pytest.fixture
def named() -> Iterator[Named]:
    with Front(retries=Retries(attempts=0), timeouts=Timeouts(connect=5.0)) as front:
        made = Named(front)
        yield made
        asyncio.run_coroutine_threadsafe(made.second.stop(), front.loop).result(10)


def test_all_requests_go_to_the_address_that_passed(named: Named) -> None:
    named.apply(TWO)
    assert [status_of(named.front.send(GET)) for _ in range(6)] == [200] * 6
    assert named.requests() == (0, 6)


def test_a_name_without_an_address_is_an_error_that_says_so(named: Named) -> None:
    named.front.call(named.front.apply)
    answer = named.front.send(GET)
    assert status_of(answer) == 502
    assert any("not resolved" in alarm.text for alarm in named.front.alarms)


@pytest.mark.parametrize("by", ["change", "snapshot"])
def test_after_a_move_no_pooled_connection_takes_requests_to_the_old_address(named: Named, by: str) -> None:
    named.apply(ONE)
    with named.front.connect() as one, named.front.connect() as other:
        for client in (one, other):
            client.sendall(GET)
        assert all(status_of(read_answer(client)) == 200 for client in (one, other))
        (named.move if by == "change" else named.apply)(TWO)
        for _ in range(3):
            for client in (one, other):
                client.sendall(GET)
                assert status_of(read_answer(client)) == 200
    assert named.requests() == (2, 6)
    eventually(lambda: named.first.ended == named.first.connections, 5.0)


def test_a_request_under_way_ends_where_it_is_and_its_connection_is_not_kept(named: Named) -> None:
    go = asyncio.Event()

    async def slow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, origin: Origin) -> None:
        while True:
            origin.requests.append(await read_request(reader))
            await go.wait()
            writer.write(OK)

    named.first.script = slow
    named.apply(ONE)
    with named.front.connect() as client:
        client.sendall(GET)
        eventually(lambda: named.first.requests)
        named.move(TWO)
        named.front.call(go.set)
        assert status_of(read_answer(client)) == 200
        client.sendall(GET)
        assert status_of(read_answer(client)) == 200
    assert named.requests() == (1, 1)
    eventually(lambda: named.first.ended == 1, 5.0)
    assert named.front.at_rest()


def test_a_connection_that_is_opened_during_a_move_carries_no_request_to_the_old_address(named: Named) -> None:
    named.apply(ONE)

    def move_while_connecting() -> None:
        lane = named.front.plane.lanes[named.id]
        reach = lane.context.loop.sock_connect

        async def connect(sock: Any, address: Any) -> None:
            await reach(sock, address)
            lane.move((TWO,))

        class Loop:
            sock_connect = staticmethod(connect)

            def __getattr__(self, name: str) -> Any:
                return getattr(named.front.loop, name)

        lane.context.loop = Loop()  # type: ignore[assignment]

    named.front.call(move_while_connecting)
    assert status_of(named.front.send(GET)) == 200
    assert named.requests() == (0, 1)


@pytest.mark.parametrize("dead", ["2001:db8::1", "127.0.0.9"], ids=["no route", "refused"])
def test_of_several_addresses_the_first_that_accepts_is_used(named: Named, dead: str) -> None:
    named.apply(dead, TWO)
    assert [status_of(named.front.send(GET)) for _ in range(4)] == [200] * 4
    assert named.requests() == (0, 4)


def test_another_address_behind_the_one_in_use_closes_nothing(named: Named) -> None:
    named.apply(ONE)
    named.front.send(GET)
    named.move(ONE, TWO)
    named.front.send(GET)
    assert named.first.connections == 1
    named.move(ONE)
    named.front.send(GET)
    assert named.first.connections == 2, "connections to an address that is gone may be among the pooled ones"


@pytest.mark.timing
def test_a_connection_takes_no_request_beyond_its_greatest_age(named: Named) -> None:
    """However busy it is: it is never seen idle between two requests."""
    named.apply(ONE, timeouts=Timeouts(lifetime=0.5))
    began = time.monotonic()
    with named.front.connect() as client:
        while time.monotonic() - began < 3.0 and named.first.connections < 3:
            client.sendall(GET)
            assert status_of(read_answer(client)) == 200
    assert named.first.connections >= 3
    eventually(lambda: named.first.ended >= 2, 5.0)


def test_an_idle_connection_of_the_greatest_age_is_closed(named: Named) -> None:
    named.apply(ONE, timeouts=Timeouts(lifetime=0.2))
    named.front.send(GET)
    eventually(lambda: named.first.ended == 1, 5.0)


def test_without_a_greatest_age_connections_stay(named: Named) -> None:
    named.apply(ONE, timeouts=Timeouts(lifetime=0.0))
    for _ in range(3):
        named.front.send(GET)
        time.sleep(0.15)
    assert named.first.connections == 1
