"""What an exchange needs of its two sides: other streams than those of HTTP/1 plug in without a change to it."""

from __future__ import annotations

from time import monotonic
from typing import Any

from lb.core.retry import HEAD, RESET, Failure
from lb.core.targets import Listener
from lb.http.message import CHUNKED, ResponseFields, ResponseHead
from lb.proxy.target_stream import SHARED, Requester, TargetStream
from tests.support.data_plane import GET, POST, Stage
from tests.support.fake_transport import FakeTransport

UPLOAD = b"POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n"


class Frames(TargetStream):
    """A stream that carries heads, payload and trailers as values, as a connection of HTTP/2 does."""

    def __init__(self) -> None:
        self.exchange: Requester | None = None
        self.transport: Any = None
        self.idle_since = monotonic()
        self.expires_at = float("inf")
        self.retired = self.pooled = self.blocked = self.reusable = False
        self.private = SHARED
        self.sent: list[tuple[str, bytes]] = []
        self.ended = self.cancelled = self.detached = False

    unsent = gone = False  # type: ignore[assignment]

    def send_request(self, requester: Requester, host: bytes, omit: int, piece: bytes, end: bool) -> None:
        self.exchange = requester
        self.sent.append(("head", requester.head.method + b" " + host + requester.head.target))
        if piece:
            self.sent.append(("body", piece))
        self.ended = end

    def send_body(self, piece: bytes, end: bool) -> None:
        self.sent.append(("body", piece))
        self.ended = end

    def send_trailers(self, lines: bytes) -> None:
        self.sent.append(("trailers", lines))
        self.ended = True

    def cancel(self) -> None:
        self.exchange = None
        self.cancelled = True

    def detach(self, now: float) -> None:
        self.exchange = None
        self.detached = True

    def respond(self, pieces: list[bytes], trailers: bytes = b"") -> None:
        """Answer without a length, piece by piece."""
        fields = ResponseFields()
        fields.has_date = True
        fields.chunked = True
        fields.forwarded_lines = b"X-From: frames\r\n"
        assert self.exchange is not None
        self.exchange.on_response(ResponseHead(200, 1, b"HTTP/1.1 200 OK\r\n", CHUNKED, fields), pieces[0], False)
        for piece in pieces[1:]:
            self.exchange.on_response_body(piece, False)
        if trailers:
            self.exchange.on_response_trailers(trailers)
        else:
            self.exchange.on_response_body(b"", True)


def connected(stage: Stage) -> Frames:
    """The target accepts; the connection that is made speaks in frames."""
    lane, _ = stage.connector.opening.pop(0)
    stream = Frames()
    lane.opened(stream)
    return stream


def test_another_stream_carries_a_request_and_its_answer() -> None:
    stage = Stage()
    client, exchange = stage.ask(GET)
    stream = connected(stage)
    assert stream.sent == [("head", b"GET a/x")]
    assert stream.ended
    stream.respond([b"hello", b" world"])
    assert client.got.startswith(b"HTTP/1.1 200 OK\r\nX-From: frames\r\n")
    assert client.got.endswith(b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n")
    assert client.kept is True
    assert exchange.bytes_out == 11
    assert stream.detached
    assert stage.at_rest()


def test_an_answer_without_a_length_ends_a_connection_of_http_1_0() -> None:
    stage = Stage()
    client, _ = stage.ask(GET.replace(b"1.1", b"1.0"))
    connected(stage).respond([b"hello", b" world"], b"X-Sum: 1\r\n")
    assert client.got.endswith(b"Connection: close\r\n\r\nhello world")
    assert client.kept is False


def test_trailers_pass_both_ways_as_trailers() -> None:
    stage = Stage()
    client, exchange = stage.ask(UPLOAD, b"one", done=False)
    stream = connected(stage)
    exchange.on_request_body(b"two", True, b"X-Sum: 2\r\n")
    assert stream.sent == [("head", b"POST a/x"), ("body", b"one"), ("body", b"two"), ("trailers", b"X-Sum: 2\r\n")]
    stream.respond([b"ok"], b"X-Sum: 1\r\n")
    assert client.got.endswith(b"\r\n\r\n2\r\nok\r\n0\r\nX-Sum: 1\r\n\r\n")


def test_a_body_is_sent_again_as_payload_with_its_trailers() -> None:
    """Kept from one kind of stream, it goes to another kind."""
    stage = Stage()
    client, exchange = stage.ask(UPLOAD, b"one", done=False)
    stream = connected(stage)
    exchange.on_request_body(b"two", True, b"X-Sum: 2\r\n")
    exchange.on_failure(Failure(HEAD, RESET, "reset", unprocessed=True))
    assert stream.cancelled
    upstream, wire = stage.accept()
    assert wire.take().endswith(b"\r\n\r\n6\r\nonetwo\r\n0\r\nX-Sum: 2\r\n\r\n")
    upstream.data_received(b"HTTP/1.1 200 OK\r\nDate: now\r\nContent-Length: 2\r\n\r\nok")
    assert client.status == 200
    assert exchange.bytes_in == 6
    assert stage.at_rest()


def test_a_client_that_leaves_cancels_nothing_but_its_own() -> None:
    stage = Stage()
    _, exchange = stage.ask(POST, b"hello")
    stream = connected(stage)
    exchange.client_lost()
    assert stream.detached
    assert not stream.reusable
    assert stage.at_rest()


def uploading(stage: Stage) -> tuple[Any, FakeTransport]:
    """A client of HTTP/1.1 that begins an upload in chunks."""
    client: Any = stage.plane.downstream(Listener("test"))()
    transport = FakeTransport(("127.0.0.1", 1234))
    client.connection_made(transport)
    client.data_received(UPLOAD.replace(b"POST", b"PUT") + b"\r\n3\r\none\r\n2;x\r\ntw")
    return client, transport


def test_chunks_pass_from_http_1_1_to_http_1_1_as_they_came() -> None:
    stage = Stage()
    client, _ = uploading(stage)
    _, wire = stage.accept()
    assert wire.take().endswith(b"\r\n\r\n3\r\none\r\n2\r\ntw")
    client.data_received(b"\r\n5\r\nth")
    assert wire.take() == b"\r\n5\r\nth"
    client.data_received(b"ree\r\n00\r\nX-Sum: 1\r\n\r\n")
    assert wire.take() == b"ree\r\n0\r\nX-Sum: 1\r\n\r\n"
    assert client.exchange.bytes_in == 10


def test_another_try_frames_anew_what_was_cut_off_within_a_chunk() -> None:
    stage = Stage()
    client, transport = uploading(stage)
    stage.accept()
    client.exchange.on_failure(Failure(HEAD, RESET, "reset", unprocessed=True))
    client.data_received(b"\r\n3\r\ns")
    upstream, wire = stage.accept()
    assert wire.take().endswith(b"\r\n\r\n6\r\nonetws\r\n")
    client.data_received(b"ix\r\n0\r\n\r\n")
    assert wire.take() == b"2\r\nix\r\n0\r\n\r\n"
    upstream.data_received(b"HTTP/1.1 200 OK\r\nDate: now\r\nContent-Length: 2\r\n\r\nok")
    assert transport.take().startswith(b"HTTP/1.1 200 OK")


def test_another_kind_of_target_gets_payload_and_no_framing_piles_up() -> None:
    stage = Stage()
    client, _ = uploading(stage)
    stream = connected(stage)
    client.data_received(b"\r\n3\r\nsix\r\n0\r\n\r\n")
    assert [piece for kind, piece in stream.sent if kind == "body"] == [b"onetw", b"six"]
    assert stream.ended
    assert client.framed_request(stream, False) is None
