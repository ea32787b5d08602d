"""HTTP/2 from clients, over sockets: requests down to HTTP/1, answers up, time, limits, drains.

Numbers in brackets are the behaviours of tests/scenarios/http2.md.
"""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import trustme

from lb.core.targets import AccessLog, Listener, Retries, Timeouts
from tests.support.eventually import eventually
from tests.support.front import OK, Front, Origin, answers, read_all, read_request, status_of, with_listener
from tests.support.h2_client import Client
from tests.support.h2_peer import GET, POST, PREFACE, raw, settings
from tests.wire.http2 import CANCEL, H2C, RST, WINDOW, silent, update
from tests.wire.messages import get
from tests.wire.peers import server_context, sized

PING, HEADERS, CONTINUATION = 6, 1, 9


def refused(front: Front) -> dict[str, int]:
    return dict(front.call(lambda: front.plane.stats.http2_refused))


# --- which protocol --------------------------------------------------------------------------------------------------


def test_both_protocols_on_one_listener(front: Front) -> None:
    with Client(front) as client:
        client.ask(1)
        status, fields, body = client.answer(1)
    assert (status, fields["content-length"], body) == (200, "2", b"ok")
    assert status_of(front.send(get(b"/"))) == 200


def test_a_preface_in_pieces(front: Front) -> None:
    with Client(front, greet=False) as client:
        client.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in PREFACE + settings() + raw(4, 1, 0):
            client.send(bytes((byte,)))
        client.ask(1)
        assert client.answer(1)[0] == 200


def test_http2_where_it_is_not_spoken() -> None:
    with Front() as front:
        assert status_of(front.send(PREFACE)) == 505


def test_http1_where_it_is_not_spoken() -> None:
    with Front(listener=with_listener(http1=False, http2=True)) as front:
        with Client(front, greet=False) as client:
            client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            client.until_closed()
            assert client.goaways == [(0, 1)]
        with Client(front) as client:
            client.ask(1)
            assert client.answer(1)[0] == 200


def test_a_preface_behind_a_request_is_refused(front: Front) -> None:
    with front.connect() as sock:
        sock.sendall(get(b"/") + PREFACE)
        answer = read_all(sock)
    assert answer.count(b"HTTP/1.1 200 ") == 1
    assert answer.count(b"HTTP/1.1 505 ") == 1


def test_behind_a_proxy_header() -> None:
    with Front(listener=with_listener(http2=True, proxy_protocol=("127.0.0.1/32",))) as front:
        with Client(front, greet=False) as client:
            client.send(b"PROXY TCP4 192.0.2.7 192.0.2.8 1 2\r\n", PREFACE, settings(), raw(4, 1, 0))
            client.ask(1)
            assert client.answer(1)[0] == 200
        assert b"X-Forwarded-For: 192.0.2.7\r\n" in front.origin.requests[0]


@pytest.mark.parametrize(("offered", "version"), [(["h2", "http/1.1"], 2), (["http/1.1"], 1), ([], 1)])
def test_over_tls_as_alpn_has_it(offered: list[str], version: int) -> None:
    authority = trustme.CA()
    context = server_context(authority)
    context.set_alpn_protocols(["h2", "http/1.1"])
    with Front(listener=H2C, tls=context) as front:
        ours = ssl.create_default_context()
        authority.configure_trust(ours)
        if offered:
            ours.set_alpn_protocols(offered)
        sock = ours.wrap_socket(front.connect(), server_hostname="localhost")
        if version == 2:
            with Client(sock) as client:
                client.ask(1)
                assert client.answer(1)[0] == 200
        else:
            sock.sendall(get(b"/", b"Connection: close\r\n"))
            assert status_of(read_all(sock)) == 200
    assert b"X-Forwarded-Proto: https\r\n" in front.origin.requests[0]


# --- requests down to HTTP/1 -----------------------------------------------------------------------------------------


def test_a_request_arrives_as_one_of_http_1(front: Front, client: Client) -> None:
    client.ask(1, [*GET[:3], (":authority", "a.example:81"), ("cookie", "a=1"), ("x-a", "b"), ("cookie", "c=2")])
    client.answer(1)
    lines = front.origin.requests[0].split(b"\r\n")
    assert lines[:2] == [b"GET / HTTP/1.1", b"Host: a.example:81"]
    assert b"cookie: a=1; c=2" in lines
    assert b"Via: 2.0 lb" in lines
    assert b"X-Forwarded-Proto: http" in lines  # [17] the socket's, not the client's
    assert not any(line.lower().startswith((b"transfer-encoding", b"content-length", b"connection")) for line in lines)


def test_the_scheme_of_the_client_is_not_believed(front: Front, client: Client) -> None:
    client.ask(1, [(":method", "GET"), (":scheme", "https"), *GET[2:]])
    client.answer(1)
    assert b"X-Forwarded-Proto: http\r\n" in front.origin.requests[0]


def test_a_body_with_a_length(front: Front, client: Client) -> None:
    client.ask(1, [*POST, ("content-length", "6")], end=False)
    client.send(client.frames.data(1, b"abc"), client.frames.data(1, b"def", end=True))
    assert client.answer(1)[0] == 200
    request = front.origin.requests[0]
    assert b"content-length: 6\r\n" in request
    assert request.endswith(b"\r\n\r\nabcdef")


def test_a_body_without_a_length_goes_in_chunks(front: Front, client: Client) -> None:
    client.ask(1, POST, end=False)
    client.send(client.frames.data(1, b"abc"))
    client.send(client.frames.data(1, end=True))
    assert client.answer(1)[0] == 200
    request = front.origin.requests[0]
    assert b"Transfer-Encoding: chunked\r\n" in request
    assert request.endswith(b"3\r\nabc\r\n0\r\n\r\n")


def test_a_large_body_passes_all_windows(front: Front, client: Client) -> None:
    body = bytes(range(256)) * 16384  # 4 MiB
    client.ask(1, [*POST, ("content-length", str(len(body)))], end=False)
    sent, window, seen = 0, 65536, 0
    while sent < len(body):
        size = min(16384, window, len(body) - sent)
        if not size:
            client.read()
            for frame in client.got[seen:]:
                if frame.type == WINDOW and frame.stream_id == 1:
                    window += frame.window_increment
            seen = len(client.got)
            continue
        client.send(client.frames.data(1, body[sent : sent + size], end=sent + size == len(body)))
        sent += size
        window -= size
    assert client.answer(1)[0] == 200
    assert front.origin.requests[0].endswith(body)


def test_trailers_of_a_request(front: Front, client: Client) -> None:
    client.ask(1, [*POST, ("te", "trailers")], end=False)
    client.send(client.frames.data(1, b"abc"), client.frames.headers(1, [("x-sum", "1"), ("content-length", "9")]))
    assert client.answer(1)[0] == 200
    request = front.origin.requests[0]
    assert b"TE: trailers\r\n" in request
    assert request.endswith(b"3\r\nabc\r\n0\r\nx-sum: 1\r\n\r\n")


def test_a_body_that_breaks_off_never_looks_whole(front: Front, client: Client) -> None:
    begun: list[bytes] = []
    got: list[bytes] = []

    async def takes_all(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, origin: Origin) -> None:
        begun.append(await reader.readuntil(b"abc"))
        got.append(begun[-1] + await reader.read(-1))

    front.with_script(takes_all)
    for fields in (POST, [*POST, ("content-length", "10")]):
        begun.clear()
        got.clear()
        with Client(front) as other:
            other.ask(1, fields, end=False)
            other.send(other.frames.data(1, b"abc"))
            eventually(lambda: bool(begun), within=5)
            other.send(raw(RST, 0, 1, CANCEL))
            eventually(lambda: bool(got), within=5)
            assert not got[0].endswith(b"0\r\n\r\n")
            assert got[0].endswith((b"abc", b"abc\r\n"))
    eventually(front.at_rest, within=5)


@pytest.mark.parametrize("length", ["2", "4"])
def test_a_body_of_another_length_reaches_no_reused_connection(front: Front, client: Client, length: str) -> None:
    """[14]"""
    client.ask(1, [*POST, ("content-length", length)], end=False)
    client.send(client.frames.data(1, b"abc", end=True))
    client.until(lambda: client.reset(1) is not None)
    assert client.reset(1) == 1
    client.ask(3)
    assert client.answer(3)[0] == 200
    assert [request.split(b" ")[0] for request in front.origin.requests] == [b"GET"]
    assert refused(front) == {"malformed": 1}


def test_an_expectation_is_passed_on(front: Front, client: Client) -> None:
    async def continues(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, origin: Origin) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        body = await reader.readexactly(3)
        origin.requests.append(head + body)
        writer.write(OK)

    front.with_script(continues)
    client.ask(1, [*POST, ("content-length", "3"), ("expect", "100-continue")], end=False)
    client.until(lambda: client.heads.get(1))
    assert client.heads[1] == [[(":status", "100")]]
    client.send(client.frames.data(1, b"abc", end=True))
    assert client.answer(1)[0] == 200


def test_a_refused_request_gets_an_answer_and_a_log_line(tmp_path: Path) -> None:
    path = tmp_path / "log"
    with Front(listener=H2C, access_log=AccessLog("json", str(path))) as front, Client(front) as client:
        client.ask(1, [*GET, ("host", "b.example")])
        status, _, body = client.answer(1)
        assert status == 400
        assert body.startswith(b"400 Bad Request: the Host field differs")
        client.ask(3, [(":method", "CONNECT"), (":authority", "a:443")])
        assert client.answer(3)[0] == 501
        client.ask(7, [(":method", "HEAD"), *GET[1:], ("host", "b.example")])
        status, fields, body = client.answer(7)
        assert (status, body) == (400, b"")
        assert int(fields["content-length"]) > 0
        client.ask(9)
        assert client.answer(9)[0] == 200
        eventually(lambda: path.exists() and path.read_text().count("\n") == 4, within=5)
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [line["protocol"] for line in lines] == ["HTTP/2.0"] * 4
    assert [line.get("reason") for line in lines] == ["bad_host", "method_not_proxied", "bad_host", None]
    assert lines[0]["host"] == "a.example"


# --- answers up ------------------------------------------------------------------------------------------------------

ANSWERS: dict[str, tuple[bytes, int, bytes]] = {
    "with a length": (OK, 200, b"ok"),
    "in chunks": (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n1\r\n!\r\n0\r\n\r\n", 200, b"ok!"),
    "of HTTP/1.0": (b"HTTP/1.0 200 OK\r\n\r\nuntil the end", 200, b"until the end"),
    "without a body": (b"HTTP/1.1 204 No Content\r\n\r\n", 204, b""),
    "not modified": (b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n", 304, b""),
    "empty": (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", 200, b""),
}


@pytest.mark.parametrize("name", ANSWERS)
def test_answer(front: Front, client: Client, name: str) -> None:
    data, status, body = ANSWERS[name]
    front.with_script(answers(data, close=b"HTTP/1.0" in data))
    client.ask(1)
    got, fields, content = client.answer(1)
    assert (got, content) == (status, body)
    assert {"date", "x-request-id"} <= set(fields)
    assert not {"transfer-encoding", "connection", "keep-alive"} & set(fields)


def test_head_has_no_body(front: Front, client: Client) -> None:
    client.ask(1, [(":method", "HEAD"), *GET[1:]])
    status, fields, body = client.answer(1)
    assert (status, fields["content-length"], body) == (200, "2", b"")


def test_connection_fields_of_a_target_stay_here(front: Front, client: Client) -> None:
    """[26]"""
    front.with_script(
        answers(
            b"HTTP/1.1 200 OK\r\nConnection: close, X-A\r\nX-A: 1\r\nX-B: 2\r\nContent-Length: 0\r\n\r\n", close=True
        )
    )
    for stream in (1, 3):
        client.ask(stream)
        _, fields, _ = client.answer(stream)
        assert "x-a" not in fields
        assert fields["x-b"] == "2"


def test_interim_answers_come_at_once(front: Front, client: Client) -> None:
    """[25]"""
    hint = b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\n"
    front.with_script(answers(hint + hint, pause=OK))
    client.ask(1)
    client.answer(1)
    statuses = [dict(head)[":status"] for head in client.heads[1]]
    assert statuses == ["103", "103", "200"]
    assert ("link", "</a.css>") in client.heads[1][0]


def test_trailers_of_an_answer(front: Front, client: Client) -> None:
    front.with_script(
        answers(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\ngrpc-status: 0\r\n\r\n")
    )
    client.ask(1, [*GET, ("te", "trailers")])
    assert client.answer(1)[2] == b"ok"
    assert client.heads[1][1] == [("grpc-status", "0")]


BROKEN = {
    "in chunks": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab",
    "with a length": b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc",
}


@pytest.mark.parametrize("name", BROKEN)
def test_an_answer_that_breaks_off_is_reset(front: Front, client: Client, name: str) -> None:
    """[21]"""
    front.with_script(answers(BROKEN[name], close=True))
    client.ask(1)
    client.until(lambda: client.reset(1) is not None)
    assert client.reset(1) == 2
    assert not client.ended(1)
    front.with_script(answers(OK))
    client.ask(3)
    assert client.answer(3)[0] == 200


@pytest.mark.parametrize(
    "data",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\nok",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
        b"nonsense\r\n\r\n",
    ],
)
def test_a_nonsensical_answer_is_a_502(front: Front, client: Client, data: bytes) -> None:
    """[22]"""
    front.with_script(answers(data, close=True))
    client.ask(1)
    assert client.answer(1)[0] == 502


def test_an_answer_before_the_body_has_ended(front: Front, client: Client) -> None:
    """[24]"""

    async def early(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, origin: Origin) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(OK)
        await reader.read(-1)

    front.with_script(early)
    client.ask(1, [*POST, ("content-length", "1000")], end=False)
    assert client.answer(1)[2] == b"ok"
    client.until(lambda: client.reset(1) is not None)
    assert client.reset(1) == 0
    client.send(client.frames.data(1, bytes(1000), end=True))
    front.with_script(answers(OK))
    client.ask(3)
    assert client.answer(3)[0] == 200


def test_a_large_answer_comes_whole(front: Front, client: Client) -> None:
    front.with_script(sized(3_000_000, "chunked"))
    client.ask(1)
    assert client.answer(1, within=20)[2] == b"x" * 3_000_000


def test_many_streams_at_a_time(front: Front, client: Client) -> None:
    for stream in range(1, 200, 2):
        client.ask(stream, [*GET, ("x-n", str(stream))])
    for stream in range(1, 200, 2):
        assert client.answer(stream)[0] == 200
    assert len(front.origin.requests) == 100
    eventually(front.at_rest, within=5)


def test_both_ways_at_a_time(front: Front, client: Client) -> None:
    """[36]"""

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, origin: Origin) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        while size := int(await reader.readline(), 16):
            piece = await reader.readexactly(size + 2)
            writer.write(b"%x\r\n" % size + piece)
        await reader.readline()
        writer.write(b"0\r\n\r\n")

    front.with_script(echo)
    client.ask(1, POST, end=False)
    for number in range(20):
        client.send(client.frames.data(1, b"message"))
        client.until(lambda number=number: client.body(1) == b"message" * (number + 1))
    client.send(client.frames.data(1, end=True))
    client.until(lambda: client.ended(1))


# --- streams behind the exchange -------------------------------------------------------------------------------------


def test_a_target_that_refuses_is_tried_elsewhere() -> None:
    with Front(origins=2, listener=H2C) as front, Client(front) as client:
        front.call(front.origins[0].refuse)
        for stream in (1, 3, 5, 7):
            client.ask(stream, [*POST, ("content-length", "2")], end=False)
            client.send(client.frames.data(stream, b"ab", end=True))
            assert client.answer(stream)[0] == 200


def test_an_unwelcome_status_is_tried_elsewhere() -> None:
    with Front(origins=2, listener=H2C, retries=Retries(statuses=(503,))) as front, Client(front) as client:
        front.origins[0].script = answers(b"HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n")
        for stream in (1, 3, 5, 7):
            client.ask(stream)
            assert client.answer(stream)[0] == 200


def test_a_client_that_resets_frees_the_target(front: Front, client: Client) -> None:
    front.with_script(silent())
    client.ask(1)
    eventually(lambda: len(front.origin.requests) == 1, within=5)
    client.send(raw(RST, 0, 1, CANCEL))
    eventually(lambda: front.origin.ended == 1 and front.at_rest(), within=5)
    front.with_script(answers(OK))
    client.ask(3)
    assert client.answer(3)[0] == 200


def test_a_request_reset_in_the_same_read_reaches_no_target(front: Front, client: Client) -> None:
    client.ask(1)
    client.answer(1)
    client.send(*(client.frames.headers(n) + raw(RST, 0, n, CANCEL) for n in range(3, 41, 2)))
    client.ask(101)
    client.answer(101)
    assert len(front.origin.requests) == 2


def test_a_client_that_goes_frees_all_targets(front: Front) -> None:
    front.with_script(silent())
    with Client(front) as client:
        for stream in range(1, 20, 2):
            client.ask(stream)
        eventually(lambda: len(front.origin.requests) == 10, within=5)
    eventually(front.at_rest, within=5)
    eventually(lambda: front.call(lambda: not front.plane.clients and not front.plane.front.multiplexed), within=5)


def test_a_client_that_takes_nothing_stops_the_target(front: Front) -> None:
    sent = 0

    async def endless(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, origin: Origin) -> None:
        nonlocal sent
        await read_request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 50000000\r\n\r\n")
        for _ in range(500):
            writer.write(bytes(100_000))
            await writer.drain()
            sent += 100_000

    front.with_script(endless)
    with Client(front, window=1000) as client:
        client.ask(1)
        client.until(lambda: len(client.body(1)) == 1000)
        time.sleep(0.3)
        before = sent
        time.sleep(0.2)
        assert sent == before < 20_000_000

        def waits() -> int:
            return sum(connection.wire.pending_size for connection in front.plane.front.multiplexed)

        assert front.call(waits) < 1_000_000
        client.send(update(1, 50_000_000))
        client.until(lambda: len(client.body(1)) > 5_000_000, within=20)


def test_a_target_that_takes_nothing_stops_the_client(front: Front, client: Client) -> None:
    async def stubborn(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, origin: Origin) -> None:
        reader._transport.pause_reading()  # type: ignore[attr-defined]  # noqa: SLF001
        await asyncio.sleep(30)

    front.with_script(stubborn)
    client.ask(1, POST, end=False)
    sent, window, seen = 0, 65536, 0
    while sent < 30_000_000:
        if window < 16384:
            if not client.read(0.5):
                break
            window += sum(f.window_increment for f in client.got[seen:] if f.type == WINDOW and f.stream_id == 1)
            seen = len(client.got)
            continue
        client.send(client.frames.data(1, bytes(16384)))
        sent += 16384
        window -= 16384
    assert sent < 20_000_000
    client.ask(3, POST, end=False)  # the connection's window is no reason for others to wait
    client.send(client.frames.data(3, bytes(1000)))


def test_a_body_over_the_limit(front: Front) -> None:
    with Front(listener=H2C, max_body=10) as limited, Client(limited) as client:
        client.ask(1, POST, end=False)
        client.send(client.frames.data(1, bytes(11)))
        assert client.answer(1)[0] == 413
        client.ask(3)
        assert client.answer(3)[0] == 200


@pytest.fixture
def release(front: Front) -> asyncio.Event:
    """The target answers when it is set, and not before."""
    release = asyncio.Event()

    async def waits(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, origin: Origin) -> None:
        origin.requests.append(await read_request(reader))
        await release.wait()
        writer.write(OK)

    front.with_script(waits)
    return release


def test_a_reload_keeps_streams(front: Front, client: Client, release: asyncio.Event) -> None:
    client.ask(1)
    eventually(lambda: len(front.origin.requests) == 1, within=5)
    front.call(front.apply)
    assert front.call(lambda: front.plane.services["s"].in_flight) == 1
    front.call(release.set)
    assert client.answer(1)[0] == 200
    eventually(front.at_rest, within=5)


@pytest.mark.parametrize("log", ["off", "json", "combined"])
def test_records_name_the_protocol(tmp_path: Path, log: str) -> None:
    with Front(listener=H2C, access_log=AccessLog(log, str(tmp_path / "log"))) as front, Client(front) as client:
        client.ask(1)
        _, fields, _ = client.answer(1)
        client.ask(3, [*GET, ("host", "b.example")])
        _, refused_fields, _ = client.answer(3)
        front.call(lambda: front.plane.recall(fields["x-request-id"]))
        records = {record.id: record.protocol for record in front.call(front.plane.report).records}
    assert records[fields["x-request-id"]] == "HTTP/2.0"
    assert records[refused_fields["x-request-id"]] == "HTTP/2.0"


def test_counts(front: Front, client: Client) -> None:
    front.with_script(silent())
    client.ask(1)
    eventually(lambda: len(front.origin.requests) == 1, within=5)
    report = front.call(front.plane.report)
    assert (report.downstream, report.in_flight, report.http2_streams) == (1, 1, 1)


# --- gRPC ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("content_type", ["application/grpc", "application/grpc+proto", "application/grpc; a=b"])
def test_lbs_own_answer_to_grpc(content_type: str) -> None:
    """[37] [38]"""
    with Front(listener=H2C, ports=(1,)) as front, Client(front) as client:
        client.ask(1, [*POST, ("content-type", content_type), ("te", "trailers")], end=False)
        client.until(lambda: client.ended(1))
        (fields,) = client.heads[1]
        assert fields[0] == (":status", "200")
        assert dict(fields)["content-type"] == "application/grpc"
        assert dict(fields)["grpc-status"] == "14"
        assert dict(fields)["grpc-message"] == "lb: 502 connect_refused"
        assert client.body(1) == b""
        client.ask(3, [*POST, ("content-type", "application/grpc-web")])
        assert client.answer(3)[0] == 502


# --- time ------------------------------------------------------------------------------------------------------------


def timed(**changes: float) -> Listener:
    return with_listener(http2=True, **changes)


def test_no_preface_in_time() -> None:
    with (
        Front(listener=with_listener(http1=False, http2=True, header_timeout=0.3)) as front,
        Client(front, greet=False) as client,
    ):
        assert client.until_closed() < 3


def test_settings_alone_do_not_keep_a_connection() -> None:
    with Front(listener=timed(header_timeout=0.3)) as front, Client(front, greet=False) as client:
        client.send(PREFACE, settings())
        assert client.until_closed() < 3


def test_settings_that_are_not_acknowledged(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lb.proxy.h2.client.SETTINGS_TIME", 0.3)
    with Front(listener=timed()) as front, Client(front, greet=False) as client:
        client.send(PREFACE, settings())
        client.ask(1)
        client.answer(1)
        client.until_closed()
        assert client.goaways[-1][1] == 4
        assert refused(front) == {"settings_timeout": 1}


def test_a_header_block_without_end() -> None:
    with Front(listener=timed(header_timeout=0.3)) as front, Client(front) as client:
        client.ask(1)
        client.answer(1)
        client.send(raw(HEADERS, 1, 3))
        client.until_closed()
        assert client.goaways[-1][1] == 11
        assert refused(front) == {"header_timeout": 1}


def test_an_idle_connection_is_told_before_it_is_closed() -> None:
    """[27]"""
    with Front(listener=timed(idle_timeout=0.3)) as front, Client(front) as client:
        client.ask(1)
        client.answer(1)
        client.until(lambda: len(client.goaways) == 2)
        assert client.goaways == [((1 << 31) - 1, 0), (1, 0)]
        client.sock.close()
        eventually(lambda: front.call(lambda: not front.plane.clients), within=5)


def test_a_body_that_stands_still() -> None:
    with Front(listener=timed(body_timeout=0.3)) as front, Client(front) as client:
        client.ask(1, POST, end=False)
        assert client.answer(1)[0] == 408
        client.ask(3)
        assert client.answer(3)[0] == 200


def test_a_closed_window_has_an_end() -> None:
    with Front(listener=timed(send_timeout=0.5)) as front, Client(front, window=0) as client:
        front.with_script(sized(100_000))
        client.ask(1)
        client.ask(3, [(":method", "HEAD"), *GET[1:]])
        client.until(lambda: client.reset(1) is not None)
        eventually(front.at_rest, within=5)
        assert front.call(lambda: front.plane.stats.rejected) == {"timeout_client_send": 1}


def test_a_small_answer_behind_a_closed_window_has_an_end_too() -> None:
    with Front(listener=timed(send_timeout=0.5)) as front, Client(front, window=0) as client:
        client.ask(1)
        client.until(lambda: client.reset(1) is not None)
        assert client.reset(1) == 8


def test_a_target_that_is_too_slow() -> None:
    with Front(listener=H2C, timeouts=Timeouts(response=0.3)) as front, Client(front) as client:
        front.with_script(silent())
        client.ask(1)
        assert client.answer(1)[0] == 504


# --- drain -----------------------------------------------------------------------------------------------------------


def test_a_drain_has_two_steps_and_loses_nothing(front: Front, client: Client, release: asyncio.Event) -> None:
    """[27]"""
    client.ask(1)
    eventually(lambda: len(front.origin.requests) == 1, within=5)
    front.call(lambda: front.plane.drain(10.0))
    client.until(lambda: any(frame.type == PING for frame in client.got))
    assert client.goaways == [((1 << 31) - 1, 0)]
    client.ask(3)  # was under way
    ping = next(frame for frame in client.got if frame.type == PING)
    client.send(raw(PING, 1, 0, ping.opaque_data))
    client.until(lambda: len(client.goaways) == 2)
    assert client.goaways[1] == (3, 0)
    client.ask(5)  # too late: to be sent elsewhere
    front.call(release.set)
    assert client.answer(1)[0] == 200
    assert client.answer(3)[0] == 200
    client.until_closed()
    assert client.reset(5) is None
    assert len(front.origin.requests) == 2


def test_a_client_that_answers_no_ping_is_drained_all_the_same(front: Front, client: Client) -> None:
    client.ask(1)
    client.answer(1)
    front.call(lambda: front.plane.drain(10.0))
    client.until(lambda: len(client.goaways) == 2)
    client.until_closed()


def test_streams_that_outlast_a_drain_are_cancelled(front: Front, client: Client) -> None:
    front.with_script(answers(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc"))
    client.ask(1)
    client.until(lambda: client.body(1) == b"abc")
    front.call(lambda: front.plane.drain(0.1))
    front.call(front.plane.close)
    client.until_closed()
    assert client.reset(1) == 8


def test_the_worker_stops_while_a_connection_ends(front: Front, client: Client) -> None:
    client.send(raw(PING, 0, 1, bytes(8)))  # a fault: its end lingers
    client.until(lambda: client.goaways)
    front.call(front.plane.close)
    client.until_closed()
    assert len(client.goaways) == 1


def test_requests_per_connection() -> None:
    """[27]"""
    with Front(listener=with_listener(http2=True, requests_per_connection=3)) as front, Client(front) as client:
        for stream in (1, 3, 5):
            client.ask(stream)
            assert client.answer(stream)[0] == 200
        client.until(lambda: len(client.goaways) == 2)
        assert client.goaways[1] == (5, 0)
        client.until_closed(within=8)


# --- abuse -----------------------------------------------------------------------------------------------------------

FLOODS: dict[str, tuple[Callable[[Client, int], bytes], str]] = {
    "rapid reset": (lambda c, n: c.frames.headers(n) + raw(RST, 0, n, CANCEL), "flood_reset"),
    "MadeYouReset": (lambda c, n: c.frames.headers(n, POST, False) + update(n, 0), "flood_reset"),
    "PING": (lambda c, n: raw(PING, 0, 0, bytes(8)), "flood_ping"),
    "SETTINGS": (lambda c, n: raw(4, 0, 0), "flood_settings"),
    "PRIORITY": (lambda c, n: raw(2, 0, 1001, b"\0\0\0\1\x10"), "flood_priority"),
    "one-octet windows": (lambda c, n: update(0, 1), "flood_window"),
}


@pytest.mark.parametrize("name", FLOODS)
def test_a_flood_is_sent_away_and_others_are_served(front: Front, client: Client, name: str) -> None:
    build, reason = FLOODS[name]
    with Client(front) as other:
        other.ask(1)
        other.answer(1)
        client.ask(1)
        client.answer(1)
        for number in range(3, 6000, 2):
            client.send(build(client, number))
            if client.broken:
                break
        assert client.until_closed() < 3
        assert client.goaways[-1][1] == 11
        assert refused(front)[reason] == 1
        other.ask(3)
        assert other.answer(3)[0] == 200
        eventually(front.at_rest, within=5)


def test_an_address_that_floods_gets_less(front: Front) -> None:
    counts = []
    for _ in range(3):
        with Client(front) as client:
            client.until(lambda client=client: client.greeted)
            count = 0
            while count < 1000 and not (client.closed or client.broken):
                client.send(raw(PING, 0, 0, bytes(8)))
                count += 1
                if count % 10 == 0:
                    client.read(0.05)
            counts.append(count)
    assert counts[0] > 2 * counts[1] > 2 * counts[2]


def test_too_many_streams(front: Front, client: Client) -> None:
    front.with_script(silent())
    for stream in range(1, 203, 2):
        client.ask(stream)
    client.until(lambda: client.reset(201) is not None)
    assert client.reset(201) == 7
    eventually(lambda: len(front.origin.requests) == 100, within=5)


def test_no_request_begins_while_much_of_earlier_answers_waits(front: Front) -> None:
    front.with_script(sized(150_000))
    with Client(front, window=0) as client:
        for stream in range(1, 100, 2):
            client.ask(stream)
        time.sleep(0.5)
        begun = len(front.origin.requests)

        def waits() -> int:
            return sum(connection.wire.pending_size for connection in front.plane.front.multiplexed)

        assert front.call(waits) < 50 * 150_000
        client.send(settings(window=1 << 24))
        for stream in range(1, 100, 2):
            assert len(client.answer(stream, within=20)[2]) == 150_000
        assert begun <= 50
