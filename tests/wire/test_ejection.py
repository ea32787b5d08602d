"""What real requests say of a target: what counts against it, what does not, and that it leaves when enough has."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping

import pytest

from lb.core.outlier import Ejector, Outlier
from lb.core.report import TargetTally
from lb.core.targets import Retries
from tests.support.eventually import eventually
from tests.support.front import Front, Origin, answers, answers_ok, read_request, status_of

GET = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"


def tallies(front: Front) -> Mapping[str, TargetTally]:
    return {tally.target: tally for tally in front.call(lambda: front.plane.report(full=True)).targets}


def ejected(front: Front) -> list[str]:
    """Who would be taken out for what the plane reports."""
    ejector = Ejector(Outlier())
    states = {target.id: "in" for target in front.targets}
    for tally in tallies(front).values():
        ejector.tally((0, 0), tally, 1000.0)
    return [found.target for found in ejector.sweep(states, 1000.0)]


@pytest.mark.parametrize(("status", "out"), [(404, False), (429, False), (500, True), (503, True)])
def test_a_target_is_ejected_for_5xx_and_not_for_4xx(status: int, out: bool) -> None:
    """[nginx proxy_next_upstream] And where the status is tried elsewhere, clients see the other one's 200."""
    retries = Retries(attempts=1, budget=1.0, statuses=(503,))
    with Front(origins=2, retries=retries) as front:
        front.origins[0].script = answers(b"HTTP/1.1 %d x\r\nContent-Length: 0\r\n\r\n" % status)
        seen = [status_of(front.send(GET)) for _ in range(14)]
        assert seen.count(200) == (14 if status == 503 else 7)
        assert len(front.origins[0].requests) >= 7
        assert ejected(front) == ([front.targets[0].id] if out else [])


def test_a_target_that_closes_often_is_ejected_and_no_client_notices() -> None:
    """[nginx upstream.t] Two targets, one of which takes requests and closes."""

    async def takes_and_closes(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, origin: Origin) -> None:
        origin.requests.append(await read_request(reader))

    with Front(origins=2) as front:
        front.origins[0].script = takes_and_closes
        assert [status_of(front.send(GET)) for _ in range(30)] == [200] * 30
        assert ejected(front) == [front.targets[0].id]


def test_a_client_that_leaves_is_not_held_against_the_target() -> None:
    """[Caddy TestClientDisconnectRecordsStatus]"""

    async def slow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, origin: Origin) -> None:
        origin.requests.append(await read_request(reader))
        await reader.read()

    with Front() as front:
        front.origin.script = slow
        for number in range(8):
            sock = front.connect()
            sock.sendall(GET)
            eventually(lambda number=number: len(front.origin.requests) > number)
            sock.close()
        eventually(front.at_rest)
        [tally] = tallies(front).values()
        assert (tally.resets, tally.timeouts, tally.server_errors, tally.connect_failures, tally.streak) == (0,) * 5
        front.origin.script = answers_ok
        assert status_of(front.send(GET)) == 200


def test_a_worker_leaves_one_alone_that_refuses_at_once_and_says_so() -> None:
    """It does not wait for a verdict: after the first refusals nothing goes there for a while, and lb is alarmed."""
    with Front(origins=2) as front:
        front.call(front.origins[0].refuse)
        eventually(lambda: front.alarms or status_of(front.send(GET)) != 200)
        assert front.alarms[0].target == front.targets[0].id
        began = time.monotonic()
        before = tallies(front)[front.targets[0].id].connect_failures
        assert [status_of(front.send(GET)) for _ in range(20)] == [200] * 20
        if time.monotonic() - began < 0.5:
            assert tallies(front)[front.targets[0].id].connect_failures - before <= 2
