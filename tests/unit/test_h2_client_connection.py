"""lb's side of a connection to a target, in memory: the target's frames are hyperframe's, its blocks hpack's."""

from __future__ import annotations

from typing import Any

import pytest
from hyperframe.frame import Frame, GoAwayFrame, HeadersFrame, PingFrame, RstStreamFrame, WindowUpdateFrame
from hypothesis import given
from hypothesis import strategies as st

from lb.http.h2 import client_connection
from lb.http.h2.client_connection import CONNECTION_WINDOW, STREAM_WINDOW, ClientConnection, ClientConnectionUser
from lb.http.h2.request_stream import RequestStream
from lb.http.h2.stream import Stream
from lb.http.message import ResponseHead
from tests.support.h2_peer import PREFACE, Frames, raw, settings

GET = b"\x82\x86\x84\x01\x01a"
OK = [(":status", "200")]
PROTOCOL, FLOW, STREAM_CLOSED, SIZE, COMPRESSION, CALM = 1, 3, 5, 6, 9, 11


class User(ClientConnectionUser):
    """Takes down what happens."""

    def __init__(self) -> None:
        self.events: list[tuple[Any, ...]] = []

    def on_interim(self, stream: RequestStream, head: ResponseHead) -> None:
        self.events.append(("interim", head.status))

    def on_answer(self, stream: RequestStream, head: ResponseHead, end: bool) -> None:
        self.events.append(("head", head.status, end))

    def on_body(self, stream: Stream, piece: bytes, end: bool) -> None:
        self.events.append(("body", piece, end))

    def on_trailers(self, stream: Stream, lines: bytes) -> None:
        self.events.append(("trailers", lines))

    def on_reset(self, stream: Stream, reason: str) -> None:
        self.events.append(("malformed", reason))

    def on_given_up(self, stream: RequestStream, code: int) -> None:
        self.events.append(("given up", code))

    def on_unprocessed(self, stream: RequestStream) -> None:
        self.events.append(("unprocessed", stream.user))

    def on_room(self, stream: Stream) -> None:
        self.events.append(("room",))

    def on_refused(self, reason: str) -> None:
        pass

    def on_idle(self) -> None:
        pass


class Talk:
    """A connection, and the target's side of it."""

    def __init__(self, greet: bool = True) -> None:
        self.now = 1000.0
        self.user = User()
        self.wire = ClientConnection(self.user, self.now)
        self.frames = Frames()
        self.got: list[Frame] = []
        assert self.wire.out[0] == PREFACE
        del self.wire.out[0]
        if greet:
            self.send(settings(), raw(4, 1, 0))

    def ask(self, piece: bytes = b"", end: bool = True, head_only: bool = False, user: object = "r") -> RequestStream:
        return self.wire.begin(user, GET, piece, end, head_only, self.now)

    def send(self, *data: bytes) -> list[tuple[Any, ...]]:
        """Hand bytes over; returns what happened."""
        self.user.events.clear()
        for each in data:
            self.wire.receive(each, self.now)
        self.take()
        return list(self.user.events)

    def take(self) -> None:
        out = self.wire.out
        self.got += self.frames.read(b"".join(out))
        out.clear()

    def head(self, stream: int, *more: tuple[str, str], status: int = 200, end: bool = False) -> bytes:
        return self.frames.headers(stream, [(":status", str(status)), *more], end)

    def codes(self, stream: int) -> list[int]:
        return [f.error_code for f in self.got if isinstance(f, RstStreamFrame) and f.stream_id == stream]

    @property
    def failed(self) -> int | None:
        """The code of lb's GOAWAY."""
        codes = [frame.error_code for frame in self.got if isinstance(frame, GoAwayFrame)]
        return codes[0] if codes else None


# --- an answer -------------------------------------------------------------------------------------------------------


def test_an_answer_with_everything() -> None:
    talk = Talk()
    talk.ask()
    assert talk.send(talk.head(1, status=103)) == [("interim", 103)]
    assert talk.send(talk.head(1)) == [("head", 200, False)]
    assert talk.send(talk.frames.data(1, b"abc")) == [("body", b"abc", False)]
    assert talk.send(talk.frames.headers(1, [("x-sum", "3")])) == [("trailers", b"x-sum: 3\r\n")]
    assert not talk.wire.streams
    assert talk.failed is None


def test_equal_heads_are_read_once() -> None:
    talk = Talk()
    encoder = talk.frames.encoder
    block = encoder.encode([(":status", "200"), ("x", "y")])
    heads = []
    for number in range(3):
        stream = talk.ask()
        talk.send(talk.frames.headers(1 + 2 * number, block if not number else encoder.encode([*OK, ("x", "y")])))
        heads.append(stream.head)
    assert heads[1] is heads[2]


def test_a_stream_stays_until_both_ends_are_there() -> None:
    talk = Talk()
    stream = talk.ask(b"a", end=False)
    assert talk.send(talk.head(1, end=True)) == [("head", 200, True)]
    assert talk.wire.streams
    talk.wire.send_body(stream, b"b", True)
    assert not talk.wire.streams


def test_a_request_that_is_given_up_is_cancelled() -> None:
    talk = Talk()
    stream = talk.ask()
    talk.wire.give_up(stream)
    assert talk.send(talk.head(1), talk.frames.data(1, b"abc", True)) == []
    assert (talk.codes(1), talk.failed) == ([8], None)


# --- faults ----------------------------------------------------------------------------------------------------------

#: Frames behind HEADERS on stream 1 → the code of a connection's error.
FAULTS = {
    "headers on an idle stream": (raw(1, 5, 3, b"\x88"), PROTOCOL),
    "headers on an even stream": (raw(1, 5, 2, b"\x88"), PROTOCOL),
    "data on an idle stream": (raw(0, 0, 3, b"a"), PROTOCOL),
    "data on the connection": (raw(0, 0, 0, b"a"), PROTOCOL),
    "a push": (raw(5, 4, 1, b"\0\0\0\2\x88"), PROTOCOL),
    "reset of an idle stream": (raw(3, 0, 3, b"\0\0\0\0"), PROTOCOL),
    "reset of a wrong size": (raw(3, 0, 1, b"\0"), SIZE),
    "window of an idle stream": (raw(8, 0, 3, b"\0\0\0\1"), PROTOCOL),
    "a window of nothing": (raw(8, 0, 0, b"\0\0\0\0"), PROTOCOL),
    "a window too large": (raw(8, 0, 0, b"\x7f\xff\xff\xff"), FLOW),
    "settings of a wrong size": (raw(4, 0, 0, b"\0"), SIZE),
    "settings on a stream": (raw(4, 0, 1, b""), PROTOCOL),
    "a push that is enabled": (settings(push=1), PROTOCOL),
    "extended CONNECT that is neither": (raw(4, 0, 0, b"\0\x08\0\0\0\x02"), PROTOCOL),
    "extended CONNECT taken back": (raw(4, 0, 0, b"\0\x08\0\0\0\x01\0\x08\0\0\0\0"), PROTOCOL),
    "a window setting too large": (settings(window=1 << 31), FLOW),
    "a frame size out of range": (settings(frame=1), PROTOCOL),
    "a ping of a wrong size": (raw(6, 0, 0, b"\0"), SIZE),
    "a goaway on a stream": (raw(7, 0, 1, bytes(8)), PROTOCOL),
    "a goaway of a wrong size": (raw(7, 0, 0, bytes(7)), SIZE),
    "a frame too large": (raw(0, 0, 1, length=16385), SIZE),
    "an index of no table": (raw(1, 5, 1, b"\xff\xff\x01"), COMPRESSION),
    "a continuation without headers": (raw(9, 4, 1, b""), PROTOCOL),
    "a frame within a block": (raw(1, 0, 1, b"\x88") + raw(6, 0, 0, bytes(8)), PROTOCOL),
    "a block without end": (raw(1, 0, 1, b"\x88") + raw(9, 0, 1, b"") * 70, CALM),
    "padding longer than its frame": (raw(1, 4, 1, b"\x88") + raw(0, 8, 1, b"\x05a"), PROTOCOL),
    "more pings than are useful": (raw(6, 0, 0, bytes(8)) * 600, CALM),
    "more settings than are useful": (settings() * 300, CALM),
}


@pytest.mark.parametrize(("data", "code"), FAULTS.values(), ids=FAULTS)
def test_fault(data: bytes, code: int) -> None:
    """[6] and all of RFC 9113 that concerns a client's connection."""
    talk = Talk()
    talk.ask(b"a", end=False)
    talk.send(data)
    assert talk.failed == code
    assert talk.wire.room == 0


MALFORMED = {
    "data before its head": lambda talk: raw(0, 0, 1, b"a"),
    "an interim answer with an end": lambda talk: talk.head(1, status=100, end=True),
    "interim answers without end": lambda talk: b"".join(talk.head(1, status=100) for _ in range(65)),
    "status 101": lambda talk: talk.head(1, status=101),
    "trailers without an end": lambda talk: talk.head(1) + talk.frames.headers(1, [("x", "y")], False),
    "a pseudo-header field in trailers": lambda talk: talk.head(1) + talk.frames.headers(1, OK),
    "a window of nothing": lambda talk: raw(8, 0, 1, b"\0\0\0\0"),
    "a window too large": lambda talk: raw(8, 0, 1, b"\x7f\xff\xff\xff"),
    "data over its length": lambda talk: talk.head(1, ("content-length", "1")) + raw(0, 0, 1, b"ab"),
    "an end before its length": lambda talk: talk.head(1, ("content-length", "1"), end=True),
    "a body to 204": lambda talk: talk.head(1, status=204) + raw(0, 0, 1, b"a"),
    "many fields": lambda talk: talk.head(1, *[("x", "y")] * 500),
}


@pytest.mark.parametrize("data", MALFORMED.values(), ids=MALFORMED)
def test_a_malformed_answer_ends_its_stream_alone(data: Any) -> None:
    talk = Talk()
    talk.ask(b"a", end=False)
    events = talk.send(data(talk))
    assert events[-1][0] == "malformed"
    assert talk.failed is None
    assert len(talk.codes(1)) == 1
    talk.ask()
    assert talk.send(talk.head(3, end=True))[-1] == ("head", 200, True)


def test_http1_is_told_apart() -> None:
    talk = Talk(greet=False)
    talk.send(b"HTTP/1.1 400 Bad Request\r\n\r\n")
    assert talk.wire.failed is not None
    assert "HTTP/1" in talk.wire.failed.text


@given(st.lists(st.binary(min_size=1, max_size=60), max_size=20))
def test_no_bytes_do_more_than_fail(pieces: list[bytes]) -> None:
    talk = Talk()
    talk.ask()
    for piece in pieces:
        talk.wire.receive(piece, talk.now)


# --- settings, windows -----------------------------------------------------------------------------------------------


def test_the_targets_limit_of_streams() -> None:
    talk = Talk()
    assert talk.wire.room == 100
    talk.send(raw(4, 0, 0, b"\0\3\0\0\0\2"))
    talk.ask(), talk.ask()
    assert talk.wire.room == 0
    talk.send(raw(4, 0, 0, b"\0\3\0\0\0\0"))
    assert talk.wire.room < 0
    talk.send(raw(4, 0, 0, b"\0\3\0\0\7\0"))
    assert talk.wire.room == 98


def test_an_answer_that_is_not_passed_on_keeps_its_own_window_shut() -> None:
    talk = Talk()
    stream = talk.ask()
    talk.send(talk.head(1))
    talk.wire.read_on(stream, False)
    for _ in range(STREAM_WINDOW // 16384):
        assert talk.send(talk.frames.data(1, bytes(16384)))[-1][0] == "body"
    assert not [frame for frame in talk.got if isinstance(frame, WindowUpdateFrame) and frame.stream_id == 1]
    talk.wire.read_on(stream, True)
    talk.take()
    assert [f.window_increment for f in talk.got if isinstance(f, WindowUpdateFrame) and f.stream_id] == [STREAM_WINDOW]
    assert CONNECTION_WINDOW >= 100 * STREAM_WINDOW  # so that all streams may be shut, and a further one is not


def test_more_than_the_streams_window_is_malformed() -> None:
    talk = Talk()
    stream = talk.ask()
    talk.send(talk.head(1))
    talk.wire.read_on(stream, False)
    events = talk.send(*[talk.frames.data(1, bytes(16384))] * (STREAM_WINDOW // 16384 + 1))
    assert events[-1][0] == "malformed"
    assert talk.codes(1) == [FLOW]


def test_small_updates_for_small_pieces_are_no_flood() -> None:
    """gRPC's messages are small, and some servers give each back by two updates."""
    talk = Talk()
    stream = talk.ask(b"", end=False)
    for _ in range(5000):
        talk.wire.send_body(stream, b"abc", False)
        talk.send(raw(8, 0, 1, b"\0\0\0\3"), raw(8, 0, 0, b"\0\0\0\3"))
    assert talk.failed is None


# --- ends and silence ------------------------------------------------------------------------------------------------


def test_a_goaway_leaves_out_what_is_behind_its_last_stream() -> None:
    """[31]"""
    talk = Talk()
    for name in "abc":
        talk.ask(user=name)
    assert talk.send(raw(7, 0, 0, b"\x7f\xff\xff\xff" + bytes(4))) == []
    assert talk.wire.room == 0
    assert talk.send(raw(7, 0, 0, b"\0\0\0\3" + bytes(4))) == [("unprocessed", "c")]
    assert talk.send(talk.head(3, end=True)) == [("head", 200, True)]
    assert talk.send(raw(7, 0, 0, bytes(8))) == [("unprocessed", "a")]


def test_a_silent_target_is_asked_once() -> None:
    """[34] Servers of gRPC end a connection on which PINGs come more often than they like."""
    talk = Talk()

    def pings() -> int:
        talk.take()
        return sum(isinstance(frame, PingFrame) for frame in talk.got)

    talk.now += 100
    assert talk.wire.look(talk.now)
    assert pings() == 0  # nothing is under way
    talk.ask()
    assert talk.wire.look(talk.now)
    assert pings() == 1
    assert not talk.wire.is_in_doubt(talk.now + 0.5)
    assert talk.wire.is_in_doubt(talk.now + 2.0)
    talk.now += 10
    talk.send(raw(6, 1, 0, b"lb-alive"))
    assert not talk.wire.is_in_doubt(talk.now + 5.0)
    for _ in range(29):
        talk.now += 10
        assert talk.wire.look(talk.now)
    assert pings() == 1
    talk.now += 20
    assert talk.wire.look(talk.now)
    assert pings() == 2
    assert talk.wire.look(talk.now + client_connection.PING_TIME - 0.1)
    assert not talk.wire.look(talk.now + client_connection.PING_TIME)


def test_heads_that_lb_writes_are_read_by_hpack() -> None:
    talk = Talk()
    talk.ask()
    talk.take()
    (frame,) = [frame for frame in talk.got if isinstance(frame, HeadersFrame)]
    fields = talk.frames.decoder.decode(frame.data)
    assert fields == [(":method", "GET"), (":scheme", "http"), (":path", "/"), (":authority", "a")]
