"""Calls of gRPC, over sockets: deadlines, statuses as evidence, retries, figures. The target speaks HTTP/1.1 here; what
is tested is the same for one that speaks HTTP/2.

Numbers in brackets are the behaviours of tests/scenarios/http2.md.
"""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import replace
from pathlib import Path

import pytest

from lb.core.targets import AccessLog, Retries, Timeouts
from lb.http.grpc import read_timeout
from tests.support.eventually import eventually
from tests.support.front import Front, Origin
from tests.support.h2_client import Client
from tests.support.h2_peer import POST, raw
from tests.wire.grpc_messages import HEAD, chunk, message, says, statuses, trailers_only, with_status
from tests.wire.http2 import CANCEL, H2C, RST, silent

CALL = [*POST, ("content-type", "application/grpc+proto"), ("te", "trailers")]


def call(client: Client, stream: int, *more: tuple[str, str]) -> dict[str, str]:
    """Call, and return the fields of the last block."""
    client.send(client.frames.headers(stream, [*CALL, *more], False), client.frames.data(stream, message(b"x"), True))
    client.until(lambda: client.ended(stream) or client.reset(stream) is not None)
    return dict(client.heads[stream][-1])


class TestDeadlines:
    @pytest.mark.timing
    def test_it_ends_the_call(self, front: Front, client: Client) -> None:
        """[39] 300m is 300 milliseconds."""
        front.with_script(silent())
        began = time.monotonic()
        fields = call(client, 1, ("grpc-timeout", "300m"))
        assert 0.25 < time.monotonic() - began < 1.0
        assert (fields[":status"], fields["grpc-status"], fields["grpc-message"]) == (
            "200",
            "4",
            "lb: 504 grpc_deadline",
        )
        assert statuses(front) == {4: 1}
        eventually(lambda: front.origin.ended == 1, within=5)  # the target's work is of no use any more
        assert front.plane.stats.rejected == {"grpc_deadline": 1}

    def test_the_target_gets_what_is_left(self, front: Front, client: Client) -> None:
        front.with_script(says(with_status(0)))
        for stream, (asked, most) in enumerate((("5S", 5.0), ("90M", 5400.0), ("1000000u", 1.0))):
            assert call(client, 2 * stream + 1, ("grpc-timeout", asked))["grpc-status"] == "0"
            lines = [line for line in front.origin.requests[-1].split(b"\r\n") if line.startswith(b"grpc-timeout:")]
            [value] = [line.partition(b": ")[2] for line in lines]
            assert most - 1.0 < read_timeout(value) < most

    def test_another_try_gets_less(self) -> None:
        with Front(origins=2, listener=H2C, retries=Retries(statuses=(503,), per_try=0.3)) as front:
            front.with_script(silent())
            with Client(front) as client:
                fields = call(client, 1, ("grpc-timeout", "2S"), ("idempotency-key", "a"))
                assert fields["grpc-status"] in ("4", "14")
            seen = [
                read_timeout(line.partition(b": ")[2])
                for origin in front.origins
                for request in origin.requests
                for line in request.split(b"\r\n")
                if line.startswith(b"grpc-timeout:")
            ]
            assert len(seen) >= 2
            assert max(seen) - min(seen) > 0.2

    @pytest.mark.timing
    def test_the_earlier_bound_holds(self) -> None:
        with Front(listener=H2C, total=0.3) as front, Client(front) as client:
            front.with_script(silent())
            assert call(client, 1, ("grpc-timeout", "30S"))["grpc-message"] == "lb: 504 timeout_total"

    def test_none_at_all_reaches_no_target(self, front: Front, client: Client) -> None:
        assert call(client, 1, ("grpc-timeout", "0n"))["grpc-status"] == "4"
        assert not front.origin.requests

    def test_one_that_is_none_is_passed_on(self, front: Front, client: Client) -> None:
        front.with_script(says(with_status(0)))
        assert call(client, 1, ("grpc-timeout", "soon"))["grpc-status"] == "0"
        assert b"\r\ngrpc-timeout: soon\r\n" in front.origin.requests[0]

    def test_it_means_nothing_outside_of_grpc(self, front: Front, client: Client) -> None:
        client.ask(1, [*POST, ("content-type", "text/plain"), ("grpc-timeout", "0n")])
        assert client.answer(1)[0] == 200


class TestEvidence:
    """[40]"""

    @pytest.mark.parametrize("status", [2, 4, 13, 14, 15])
    @pytest.mark.parametrize("build", [with_status, trailers_only])
    def test_a_failure_counts_as_a_5xx(self, front: Front, client: Client, status: int, build: object) -> None:
        front.with_script(says(build(status)))  # type: ignore[operator]
        for stream in (1, 3, 5):
            assert call(client, stream)["grpc-status"] == str(status)
        lane = next(iter(front.plane.lanes.values()))
        assert front.call(lambda: (lane.tally.server_errors, lane.streak)) == (3, 3)
        assert front.alarms[0].kind == "5xx"
        assert f"grpc-status {status} (" in front.alarms[0].text
        [pool] = front.call(lambda: [t for t in front.plane.stats.pool_tallies().values() if t.requests])
        assert pool.errors == 3  # what the analysis of a rollout compares
        assert front.call(lambda: lane.read_tally().codes) == {200: 3}  # the client's status of HTTP
        assert statuses(front) == {status: 3}

    @pytest.mark.parametrize("status", [0, 1, 3, 5, 6, 7, 8, 9, 10, 11, 12, 16])
    def test_other_statuses_are_the_clients_doing(self, front: Front, client: Client, status: int) -> None:
        front.with_script(says(with_status(14), with_status(status)))
        call(client, 1)
        call(client, 3)
        lane = next(iter(front.plane.lanes.values()))
        assert front.call(lambda: (lane.tally.server_errors, lane.streak)) == (1, 0)

    def test_an_answer_without_a_status_is_unknown(self, front: Front, client: Client) -> None:
        call(client, 1)
        assert statuses(front) == {2: 1}
        assert front.call(lambda: next(iter(front.plane.lanes.values())).tally.server_errors) == 1

    def test_a_call_that_the_client_gives_up(self, front: Front, client: Client) -> None:
        front.with_script(silent())
        client.ask(1, CALL)
        eventually(lambda: front.origin.requests)
        client.send(raw(RST, 0, 1, CANCEL))
        eventually(lambda: statuses(front) == {1: 1})
        assert front.call(lambda: next(iter(front.plane.lanes.values())).tally.server_errors) == 0

    def test_a_status_outside_of_grpc_says_nothing(self, front: Front, client: Client) -> None:
        front.with_script(says(trailers_only(14)))
        client.ask(1, POST)
        client.answer(1)
        assert front.call(lambda: next(iter(front.plane.lanes.values())).tally.server_errors) == 0
        assert statuses(front) == {}

    def test_lbs_own_answers_are_counted(self) -> None:
        with Front(listener=H2C, ports=(1,)) as front, Client(front) as client:
            assert call(client, 1)["grpc-status"] == "14"
            assert statuses(front) == {14: 1}


class TestRetries:
    def front(self, *replies: bytes) -> Front:
        return Front(origins=2, listener=H2C, retries=Retries(statuses=(503,)))

    def test_unavailable_in_a_head_is_tried_elsewhere_where_that_is_safe(self) -> None:
        with self.front() as front, Client(front) as client:
            front.with_script(says(trailers_only(14), with_status(0)))
            assert call(client, 1, ("idempotency-key", "a"))["grpc-status"] == "0"
            assert sum(len(origin.requests) for origin in front.origins) == 2
            assert statuses(front) == {0: 1}

    @pytest.mark.parametrize(
        ("first", "more"),
        [
            (trailers_only(14), ()),  # it may have had an effect
            (trailers_only(13), (("idempotency-key", "a"),)),  # `statuses` has no 500
            (with_status(14), (("idempotency-key", "a"),)),  # the answer has begun
            (trailers_only(14, b"grpc-retry-pushback-ms: -1\r\n"), (("idempotency-key", "a"),)),
            (trailers_only(14, b"grpc-retry-pushback-ms: 500\r\n"), (("idempotency-key", "a"),)),
        ],
    )
    def test_anything_else_is_passed_on(self, first: bytes, more: tuple[tuple[str, str], ...]) -> None:
        with self.front() as front, Client(front) as client:
            front.with_script(says(first, with_status(0)))
            assert call(client, 1, *more)["grpc-status"] in ("13", "14")
            assert sum(len(origin.requests) for origin in front.origins) == 1


def test_the_access_log_has_the_status(tmp_path: Path) -> None:
    path = tmp_path / "access.log"
    with Front(listener=H2C, access_log=AccessLog("json", str(path))) as front, Client(front) as client:
        front.with_script(says(with_status(5)))
        call(client, 1)
        client.ask(3)
        client.answer(3)
        eventually(lambda: path.exists() and path.read_text().count("\n") == 2)
    first, second = map(json.loads, path.read_text().splitlines())
    assert (first["status"], first["grpc_status"]) == (200, 5)
    assert "grpc_status" not in second


def test_messages_pass_when_they_come(front: Front, client: Client) -> None:
    """[36] Neither side's messages wait for its end."""

    async def echoes(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, origin: Origin) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(HEAD + b"Transfer-Encoding: chunked\r\n\r\n")
        while (size := int(await reader.readline(), 16)) > 0:
            writer.write(chunk(await reader.readexactly(size)))
            await reader.readline()
        writer.write(b"0\r\ngrpc-status: 0\r\n\r\n")
        await reader.read()

    front.with_script(echoes)
    client.ask(1, CALL, end=False)
    for number in range(20):
        client.send(client.frames.data(1, message(b"%d" % number)))
        client.until(lambda said=number: client.body(1).endswith(message(b"%d" % said)))
    client.send(client.frames.data(1, b"", True))
    client.until(lambda: client.ended(1))
    assert client.heads[1][-1][0] == ("grpc-status", "0")


async def speaks_slowly(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, origin: Origin) -> None:
    """A message each 0.2 seconds, six times; then the client's own end is waited for."""
    await reader.readuntil(b"\r\n\r\n")
    writer.write(HEAD + b"Transfer-Encoding: chunked\r\n\r\n")
    for number in range(6):
        await asyncio.sleep(0.2)
        writer.write(chunk(message(b"%d" % number)))
    await reader.readuntil(b"0\r\n\r\n")
    writer.write(b"0\r\ngrpc-status: 0\r\n\r\n")
    await reader.read()


SHORT = replace(H2C, body_timeout=0.3)


class TestSilence:
    """A call is bound by `tunnel` while its client may still send: either side may be silent for longer than `body`
    and `read` allow elsewhere."""

    @pytest.mark.timing
    def test_of_the_client(self) -> None:
        with Front(listener=SHORT) as front, Client(front) as client:
            front.with_script(speaks_slowly)
            client.ask(1, CALL, end=False)
            client.until(lambda: client.body(1).endswith(message(b"5")))
            client.send(client.frames.data(1, message(b"x"), True))
            client.until(lambda: client.ended(1))
            assert client.heads[1][-1][0] == ("grpc-status", "0")

    @pytest.mark.timing
    def test_of_both(self) -> None:
        with Front(listener=SHORT, timeouts=Timeouts(read=0.3)) as front, Client(front) as client:
            front.with_script(speaks_slowly)
            client.ask(1, CALL, end=False)
            client.until(lambda: client.body(1).endswith(message(b"5")))
            time.sleep(1.0)
            client.send(client.frames.data(1, message(b"x"), True))
            client.until(lambda: client.ended(1))
            assert client.heads[1][-1][0] == ("grpc-status", "0")

    @pytest.mark.timing
    def test_of_both_ends_at_last(self) -> None:
        with Front(listener=SHORT, timeouts=Timeouts(tunnel=1.0)) as front, Client(front) as client:
            front.with_script(silent())
            began = time.monotonic()
            client.ask(1, CALL, end=False)
            client.until(lambda: client.ended(1))
            assert 0.9 < time.monotonic() - began < 3.0
            assert front.plane.stats.rejected == {"timeout_tunnel": 1}

    @pytest.mark.timing
    def test_of_the_target_once_the_client_has_ended(self) -> None:
        with Front(listener=SHORT, timeouts=Timeouts(read=0.5)) as front, Client(front) as client:
            front.with_script(begins_and_stops)
            client.ask(1, CALL, end=False)
            client.until(lambda: client.body(1) == message(b"0"))
            time.sleep(1.0)
            assert client.reset(1) is None
            client.send(client.frames.data(1, b"", True))
            client.until(lambda: client.reset(1) is not None)


async def begins_and_stops(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, origin: Origin) -> None:
    await reader.readuntil(b"\r\n\r\n")
    writer.write(HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + chunk(message(b"0")))
    await reader.read()
    await asyncio.sleep(5)


@pytest.mark.timing
def test_a_stream_outlives_the_targets_time_to_answer() -> None:
    with Front(listener=H2C, timeouts=Timeouts(response=0.3)) as front, Client(front) as client:
        front.with_script(says(with_status(0)))
        client.ask(1, CALL, end=False)
        time.sleep(0.6)
        client.send(client.frames.data(1, message(b"x"), True))
        client.until(lambda: client.ended(1))
        assert client.heads[1][-1][0] == ("grpc-status", "0")
