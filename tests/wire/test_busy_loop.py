"""What a busy event loop does to those who are not its busiest clients."""

from __future__ import annotations

import asyncio
import socket
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import uvloop

from lb.core.targets import Listener
from lb.proxy.h1.client import Downstream
from lb.proxy.plane import DataPlane
from lb.worker import acceptor
from lb.worker.acceptor import Acceptor
from tests.support.eventually import eventually
from tests.support.front import OK, Front, Origin, read_answer, read_request, status_of
from tests.wire.messages import get

GET = get(b"/")


def looks_until_all_are_in(newcomers: int) -> int:
    """How often the loop looks at its sockets until so many clients, who come at once, have been let in."""

    async def run() -> int:
        loop = asyncio.get_running_loop()
        plane = DataPlane(worker=0, loop=loop, alarm=lambda alarm: None)
        with socket.socket() as door, socket.socket() as busy:
            door.bind(("127.0.0.1", 0))
            door.listen(newcomers)
            desk = Acceptor(
                loop, door, lambda: Downstream(plane.live, plane.front, Listener("x")), asyncio.ensure_future
            )
            server = await loop.create_server(desk, sock=door.dup(), backlog=newcomers)
            looks = 0

            def look() -> None:
                nonlocal looks
                looks += 1
                time.sleep(2 * acceptor.LONG_AGO)  # the others' requests

            busy.bind(("127.0.0.1", 0))
            loop.add_writer(busy, look)  # always ready: once in each look
            clients = [socket.create_connection(door.getsockname()) for _ in range(newcomers)]
            looks = 0
            while plane.stats.accepted < newcomers:  # noqa: ASYNC110 - each look counts
                await asyncio.sleep(0)
            loop.remove_writer(busy)
            for client in clients:
                client.close()
            server.close()
            plane.close()
            return looks

    return uvloop.run(run())


@pytest.mark.timing
def test_newcomers_come_in_by_dozens_beside_busy_clients() -> None:
    assert looks_until_all_are_in(60) < 15, "libuv alone lets one in per look"


@pytest.mark.timing
def test_only_so_many_come_in_at_once() -> None:
    assert looks_until_all_are_in(4 * acceptor.AT_ONCE) >= 4, "the others have their turn in between"


def test_a_deferred_read_is_over_with_the_loops_turn() -> None:
    """A client that is not read from in an overlong turn is read from in the next."""
    with Front() as front, front.connect() as sock:
        sock.sendall(GET)
        assert status_of(read_answer(sock)) == 200

        def deferred() -> bool:
            [client] = front.plane.clients
            client.defer_read()
            return bool(client.transport.is_reading())

        assert front.call(deferred) is False
        sock.sendall(GET)
        assert status_of(read_answer(sock)) == 200
        assert front.call(lambda: [client.transport.is_reading() for client in front.plane.clients]) == [True]


def test_hundreds_at_once_share_few_connections_to_a_quick_target() -> None:
    async def quick(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, origin: Origin) -> None:
        while True:
            origin.requests.append(await read_request(reader))
            writer.write(OK)

    with Front() as front:
        front.with_script(quick)
        socks = [front.connect() for _ in range(400)]
        eventually(lambda: front.call(lambda: len(front.plane.clients)) == 400)
        front.call(lambda: [sock.sendall(GET) for sock in socks])  # the loop finds them all at once
        with ThreadPoolExecutor(4) as readers:
            assert set(readers.map(lambda sock: status_of(read_answer(sock)), socks)) == {200}
        assert len(front.origin.requests) == 400
        assert front.origin.connections < 200
        assert front.at_rest()
        for sock in socks:
            sock.close()
