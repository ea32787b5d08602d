"""An HTTP/2 connection's flow control, answers, limits and drain, in memory."""

from __future__ import annotations

from collections.abc import Callable

import hpack
import pytest
from hyperframe.frame import DataFrame, GoAwayFrame, PingFrame, RstStreamFrame, WindowUpdateFrame
from hypothesis import given, settings
from hypothesis import strategies as st

from lb.http.h1.parse import read_response, read_response_fields
from lb.http.h2 import hpack as own
from lb.http.h2 import huffman
from lb.http.h2.allowance import FRAME_PAYS, PAID
from lb.http.h2.answer import request_id_field, response_block
from lb.http.h2.connection import CONNECTION_WINDOW, STREAM_WINDOW
from lb.http.h2.sending import HIGH_WATER
from tests.support.h2_peer import GET, POST, PREFACE, Frames, Talk, raw
from tests.support.h2_peer import settings as settings_frame

DATA, HEADERS, PRIORITY, RST, SETTINGS, PUSH, PING, GOAWAY, WINDOW, CONTINUATION = range(10)
CANCEL = bytes(3) + b"\x08"
CALM = 11


def update(stream: int, octets: int) -> bytes:
    return raw(WINDOW, 0, stream, octets.to_bytes(4, "big"))


class TestCompression:
    def test_huffman_code_is_the_rfcs(self) -> None:
        from hpack.huffman_constants import REQUEST_CODES, REQUEST_CODES_LENGTH

        assert list(zip(REQUEST_CODES, REQUEST_CODES_LENGTH, strict=True)) == huffman.CODES

    def test_static_table_is_the_rfcs(self) -> None:
        from hpack.table import HeaderTable

        assert list(HeaderTable.STATIC_TABLE) == own.STATIC

    @given(st.binary(max_size=200))
    def test_huffman_strings_come_back(self, text: bytes) -> None:
        assert huffman.decode(huffman.encode(text)) == text

    @given(st.lists(st.lists(st.tuples(st.binary(max_size=20), st.binary(max_size=300)), max_size=8), max_size=12))
    def test_blocks_of_another_encoder_come_back(self, blocks: list[list[tuple[bytes, bytes]]]) -> None:
        encoder, decoder = hpack.Encoder(), own.Decoder()
        for number, fields in enumerate(blocks):
            encoder.header_table_size = (4096, 100, 0, 4096)[number % 4]
            assert decoder.decode(encoder.encode(fields), 1 << 20, 100) == fields

    @given(st.lists(st.tuples(st.sampled_from([b"date", b"x-a", b":status"]), st.binary(max_size=300)), max_size=8))
    def test_another_decoder_reads_what_is_written(self, fields: list[tuple[bytes, bytes]]) -> None:
        block = b"".join(own.encode_field(*field) for field in fields)
        assert [(*field,) for field in hpack.Decoder().decode(own.NO_TABLE + block, raw=True)] == fields

    @given(st.binary(max_size=100))
    def test_no_block_does_more_than_raise(self, block: bytes) -> None:
        decoder = own.Decoder()
        try:
            fields = decoder.decode(block, 4096, 50)
        except own.BadBlock:
            return
        assert sum(len(name) + len(value) + 32 for name, value in fields) <= 4096

    def test_a_block_over_a_limit_moves_the_table_all_the_same(self) -> None:
        encoder, decoder = hpack.Encoder(), own.Decoder()
        fields = [(b"x-%d" % number, b"v") for number in range(60)]
        assert decoder.decode(encoder.encode(fields), 1 << 20, 50) == []
        assert decoder.too_large
        assert decoder.decode(encoder.encode(fields[40:]), 1 << 20, 50) == fields[40:]
        assert not decoder.too_large


class TestAnswers:
    def test_an_answer_of_one_piece(self) -> None:
        talk = Talk()
        fields = read_response_fields(b"Content-Type: text/plain\r\nDate: x\r\nX-A: b\r\n")
        line = b"HTTP/1.1 200 OK"
        response = read_response(line + b"\r\n", len(line), fields, b"GET")
        stream = talk.ask(1).stream
        talk.server.connection.send_head(stream, response_block(response) + request_id_field(b"abc"), b"hello", True)
        talk.take()
        assert talk.fields(1) == [
            [(":status", "200"), ("content-type", "text/plain"), ("date", "x"), ("x-a", "b"), ("x-request-id", "abc")]
        ]
        assert talk.body(1) == b"hello"
        assert talk.ended(1)
        assert not talk.server.connection.streams

    def test_an_answer_without_a_body_ends_with_its_head(self) -> None:
        talk = Talk()
        talk.server.answer(talk.ask(1), b"")
        (frame,) = talk.take()
        assert set(frame.flags) == {"END_HEADERS", "END_STREAM"}

    def test_a_head_larger_than_a_frame_goes_in_continuations(self) -> None:
        talk = Talk()
        talk.server.answer(talk.ask(1), b"", lines=b"X-A: " + b"{" * 20000 + b"\r\n")
        frames = talk.take()
        assert len(frames) == 2
        talk.frames.decoder.max_header_list_size = 1 << 20
        assert len(talk.fields(1)[0][1][1]) == 20000

    def test_trailers_follow_the_body(self) -> None:
        talk = Talk()
        request = talk.ask(1)
        talk.server.answer(request, b"x", end=False)
        talk.server.connection.send_trailers(request.stream, own.encode_field(b"grpc-status", b"0"))
        talk.take()
        assert talk.fields(1)[1] == [("grpc-status", "0")]
        assert talk.ended(1)

    def test_interim_heads_come_at_once(self) -> None:
        talk = Talk()
        request = talk.ask(1)
        for _ in range(2):
            talk.server.connection.send_interim(request.stream, own.encode_status(103))
        assert len(talk.take()) == 2
        talk.server.answer(request, b"")
        talk.take()
        assert [block[0] for block in talk.fields(1)] == [(":status", "103"), (":status", "103"), (":status", "200")]

    def test_an_answer_before_the_body_has_ended_asks_for_no_more(self) -> None:
        talk = Talk()
        talk.server.answer(talk.ask(1, POST, end=False))
        frames = talk.take()
        assert isinstance(frames[-1], RstStreamFrame)
        assert frames[-1].error_code == 0
        # The client's further DATA is ignored, and the connection's window is not used up by it.
        for _ in range(2 * CONNECTION_WINDOW // 16384):
            talk.send(talk.frames.data(1, bytes(16384)))
        assert talk.error is None
        assert sum(f.window_increment for f in talk.got if isinstance(f, WindowUpdateFrame)) > CONNECTION_WINDOW

    def test_repeated_blocks_are_read_once(self) -> None:
        talk = Talk()
        heads = [talk.ask(stream).head for stream in (1, 3, 5, 7)]
        assert heads[1] is heads[3]
        other = talk.ask(9, [*GET, ("x-new", "1")]).head  # moves the table
        assert talk.ask(11).head is not heads[3]
        assert other.fields.value(b"x-new") == b"1"

    def test_equal_blocks_differ_by_their_body(self) -> None:
        talk = Talk()
        first = [talk.ask(stream, POST, end=False).head for stream in (1, 3, 5)][-1]
        second = talk.ask(7, POST, end=True).head
        assert first.fields.chunked
        assert not second.fields.chunked


class TestSending:
    def test_an_answer_waits_for_the_streams_window(self) -> None:
        talk = Talk(greet=False)
        talk.send(PREFACE, settings_frame(window=10))
        talk.server.answer(talk.ask(1), b"x" * 25)
        talk.take()
        assert talk.body(1) == b"x" * 10
        talk.send(update(1, 10))
        assert talk.body(1) == b"x" * 20
        assert not talk.ended(1)
        talk.send(update(1, 5))
        assert talk.body(1) == b"x" * 25
        assert talk.ended(1)

    def test_a_lowered_window_may_become_negative(self) -> None:
        talk = Talk(greet=False)
        talk.send(PREFACE, settings_frame(window=20))
        request = talk.ask(1)
        talk.server.answer(request, b"x" * 15, end=False)
        talk.send(settings_frame(window=3))  # -12 are left
        talk.server.connection.send_body(request.stream, b"y" * 10, True)
        talk.send(update(1, 12))
        assert talk.body(1) == b"x" * 15
        talk.send(update(1, 4))
        assert talk.body(1) == b"x" * 15 + b"y" * 4
        talk.send(settings_frame(window=30))
        assert talk.ended(1)

    def test_streams_take_turns_within_the_connections_window(self) -> None:
        talk = Talk(greet=False)
        talk.send(PREFACE, settings_frame(window=1 << 20))
        for stream in (1, 3, 5):
            talk.server.answer(talk.ask(stream), bytes(200_000))
        talk.send(update(0, 300_000))
        sizes = [len(talk.body(stream)) for stream in (1, 3, 5)]
        assert sum(sizes) == 65535 + 300_000
        assert min(sizes[1:]) > 80_000
        talk.send(update(0, 1 << 20))
        assert [len(talk.body(stream)) for stream in (1, 3, 5)] == [200_000] * 3
        assert talk.server.connection.pending_size == 0

    def test_a_stream_whose_window_is_shut_holds_up_no_other_one(self) -> None:
        """It waits for its own client's update; an answer of several frames once stopped behind it after the first."""
        talk = Talk(greet=False)
        talk.send(PREFACE, settings_frame(window=50_000), update(0, 1 << 20))
        talk.server.answer(talk.ask(1), bytes(60_000))
        talk.server.answer(talk.ask(3), bytes(50_000))
        talk.take()
        assert [len(talk.body(stream)) for stream in (1, 3)] == [50_000, 50_000]
        assert talk.ended(3)

    def test_nothing_is_written_while_the_transport_takes_nothing(self) -> None:
        talk = Talk()
        request = talk.ask(1)
        talk.server.connection.writable = False
        talk.server.answer(request, b"hello")
        talk.take()
        assert talk.body(1) == b""
        talk.server.connection.write_on(1001.0)
        talk.take()
        assert talk.body(1) == b"hello"
        assert talk.ended(1)

    def test_many_small_pieces_cost_no_more_than_their_number(self) -> None:
        talk = Talk(greet=False)
        talk.send(PREFACE, settings_frame(window=0))
        request = talk.ask(1)
        talk.server.answer(request, b"", end=False)
        for _ in range(HIGH_WATER):
            talk.server.connection.send_body(request.stream, b"x", False)
        talk.send(update(1, HIGH_WATER))
        talk.send(update(0, HIGH_WATER))
        assert len(talk.body(1)) == HIGH_WATER

    def test_a_reset_answer_never_looks_whole(self) -> None:
        talk = Talk()
        request = talk.ask(1)
        talk.server.answer(request, b"half", end=False)
        talk.server.connection.reset(request.stream)
        talk.take()
        assert talk.error == ("stream", 2)
        assert not talk.ended(1)
        talk.server.connection.send_body(request.stream, b"more", True)  # too late, and harmless
        assert talk.take() == []


class TestReceiving:
    def test_windows_are_given_back_while_the_stream_is_read(self) -> None:
        talk = Talk()
        request = talk.ask(1, POST, end=False)
        for _ in range(100):
            talk.send(talk.frames.data(1, bytes(16384)))
        assert talk.error is None
        assert len(request.body) == 100 * 16384

    def test_a_paused_stream_gets_no_window(self) -> None:
        talk = Talk()
        request = talk.ask(1, POST, end=False)
        talk.server.connection.read_on(request.stream, False)
        for _ in range(STREAM_WINDOW // 16384):
            talk.send(talk.frames.data(1, bytes(16384)))
        assert talk.error is None
        talk.send(talk.frames.data(1, b"x"))
        assert talk.error == ("stream", 3)

    def test_all_paused_streams_share_the_connections_window(self) -> None:
        talk = Talk()
        streams = [2 * n + 1 for n in range(CONNECTION_WINDOW // STREAM_WINDOW + 1)]
        for stream in streams:
            talk.server.connection.read_on(talk.ask(stream, POST, end=False).stream, False)
        for stream in streams[:-1]:
            for _ in range(STREAM_WINDOW // 16384):
                talk.send(talk.frames.data(stream, bytes(16384)))
        assert talk.error is None
        talk.send(talk.frames.data(streams[-1], b"x"))
        assert talk.error == ("connection", 3)

    def test_reading_on_gives_both_windows_back(self) -> None:
        talk = Talk()
        request = talk.ask(1, POST, end=False)
        connection = talk.server.connection
        connection.read_on(request.stream, False)
        for _ in range(STREAM_WINDOW // 16384):
            talk.send(talk.frames.data(1, bytes(16384)))
        connection.read_on(request.stream, True)
        (frame,) = talk.take()
        assert isinstance(frame, WindowUpdateFrame)
        assert (frame.stream_id, frame.window_increment) == (1, STREAM_WINDOW)

    def test_a_stream_that_ends_gives_the_connections_window_back(self) -> None:
        talk = Talk()
        for stream in range(1, 301, 2):
            request = talk.ask(stream, POST, end=False)
            talk.server.connection.read_on(request.stream, False)
            for _ in range(STREAM_WINDOW // 16384):
                talk.send(talk.frames.data(stream, bytes(16384)))
            talk.server.connection.reset(request.stream)
        assert talk.server.connection.failed is None

    def test_padding_counts_and_is_given_back(self) -> None:
        talk = Talk()
        talk.ask(1, POST, end=False)
        for _ in range(10_000):
            talk.send(talk.frames.data(1, b"x", padding=255))
        assert talk.error is None


def rapid_reset(talk: Talk, number: int) -> bytes:
    return talk.frames.headers(2 * number + 1) + raw(RST, 0, 2 * number + 1, CANCEL)


def provoked_reset(talk: Talk, number: int) -> bytes:
    """MadeYouReset: lb is the side that resets."""
    return talk.frames.headers(2 * number + 1, POST, False) + update(2 * number + 1, 0)


def malformed(talk: Talk, number: int) -> bytes:
    return talk.frames.headers(2 * number + 1, [*GET, ("connection", "x")])


FLOODS: dict[str, tuple[Callable[[Talk, int], bytes], str]] = {
    "rapid reset": (rapid_reset, "flood_reset"),
    "MadeYouReset": (provoked_reset, "flood_reset"),
    "malformed requests": (malformed, "flood_reset"),
    "more streams than allowed": (lambda t, n: t.frames.headers(2 * n + 1, POST, False), "flood_streams"),
    "PING": (lambda t, n: raw(PING, 0, 0, bytes(8)), "flood_ping"),
    "SETTINGS": (lambda t, n: raw(SETTINGS, 0, 0), "flood_settings"),
    "SETTINGS of many": (lambda t, n: raw(SETTINGS, 0, 0, bytes(6) * 2000), "flood_settings"),
    "PRIORITY": (lambda t, n: raw(PRIORITY, 0, 3, b"\0\0\0\1\x10"), "flood_priority"),
    "unknown frames": (lambda t, n: raw(0x77, 0, 0), "flood_unknown"),
    "PRIORITY_UPDATE": (lambda t, n: raw(0x10, 0, 0, b"\0\0\0\1u=1"), "flood_unknown"),
    "window dribble": (lambda t, n: update(0, 1), "flood_window"),
    "large windows": (lambda t, n: update(0, 2048) * 10, "flood_window"),
    "DATA on closed streams": (lambda t, n: t.frames.data(1, b""), "flood_data"),
}


class TestAbuse:
    @pytest.mark.parametrize("name", FLOODS)
    def test_flood(self, name: str) -> None:
        build, reason = FLOODS[name]
        talk = Talk()
        talk.server.answer(talk.ask(1))
        for number in range(1, 2000):
            talk.send(build(talk, number))
            if talk.server.connection.failed is not None:
                break
        assert talk.error is not None
        assert any(isinstance(frame, GoAwayFrame) and frame.error_code == CALM for frame in talk.got)
        assert talk.server.refused[-1] == reason
        assert talk.server.connection.failed is not None
        assert talk.send(talk.frames.headers(9999)) == []  # nothing more is served

    def test_empty_data(self) -> None:
        talk = Talk()
        talk.ask(1, POST, end=False)
        for _ in range(2000):
            talk.send(talk.frames.data(1))
        assert talk.server.refused == ["flood_data"]

    def test_continuations_by_number(self) -> None:
        talk = Talk()
        talk.send(raw(HEADERS, 1, 1), *(raw(CONTINUATION, 0, 1) for _ in range(65)))
        assert talk.error == ("connection", CALM)
        assert talk.server.refused == ["flood_continuation"]

    def test_continuations_by_size(self) -> None:
        talk = Talk()
        talk.send(raw(HEADERS, 1, 1), *(raw(CONTINUATION, 0, 1, bytes(16384)) for _ in range(3)))
        assert talk.error == ("connection", CALM)

    def test_a_bomb_of_references_is_the_last_block(self) -> None:
        """Its fields are decoded for the table's sake, which takes a processor a few milliseconds."""
        talk = Talk()
        talk.send(talk.frames.headers(1, Frames().block(GET) + b"\x40\x01x\x05aaaaa"))
        talk.send(talk.frames.headers(3, Frames().block(GET)[:3] + b"\xbe" * 16_000))
        assert talk.error == ("connection", CALM)
        assert talk.server.refused[-1] == "flood_fields"

    def test_a_client_with_too_many_fields_is_told_so_again_and_again(self) -> None:
        talk = Talk()
        for stream in range(1, 41, 2):
            talk.send(talk.frames.headers(stream, [*GET, *((f"x-{n}", "y") for n in range(250))]))
        assert talk.error is None
        assert [error.status for error in talk.server.errors] == [431] * 20

    def test_a_bomb_of_references_is_thrown_away(self) -> None:
        talk = Talk()
        big = b"\x40\x01a" + b"\x7f\xa1\x1e" + b"x" * (127 + 0x21 + (0x1E << 7))
        bomb = talk.frames.block(GET) + big + b"\xbe" * 10_000
        talk.send(talk.frames.headers(1, bomb))
        assert [error.status for error in talk.server.errors] == [431]
        assert not talk.server.requests

    def test_a_bomb_of_cookie_crumbs(self) -> None:
        talk = Talk()
        talk.send(talk.frames.headers(1, [*GET, *(("cookie", f"a{n}=1") for n in range(300))]))
        assert [error.status for error in talk.server.errors] == [431]
        talk.ask(3, [*GET, *(("cookie", f"a{n}=1") for n in range(150))])  # a browser's

    def test_a_busy_client_earns_what_its_habits_cost(self) -> None:
        talk = Talk()
        for number in range(5000):
            stream = 2 * number + 1
            request = talk.ask(stream)
            talk.server.answer(request)
            talk.send(raw(PING, 0, 0, bytes(8)), update(0, 2))
        assert talk.server.connection.failed is None

    def test_replies_to_small_messages_cost_nothing(self) -> None:
        """gRPC's clients widen both windows for each message, and measure the delay."""
        talk = Talk()
        request = talk.ask(1, POST, end=False)
        talk.server.answer(request, b"message", end=False)
        for _ in range(5000):
            talk.server.connection.send_body(request.stream, b"message", False)
            talk.send(update(0, 7), update(1, 7), raw(PING, 0, 0, bytes(8)))
        assert talk.server.connection.failed is None

    def test_replies_that_come_late_cost_nothing_either(self) -> None:
        """What was sent long ago has been paid for, though points were at their most."""
        talk = Talk()
        request = talk.ask(1, POST, end=False)
        talk.server.answer(request, b"message", end=False)
        for _ in range(5000):
            talk.server.connection.send_body(request.stream, b"message", False)
        talk.send((update(0, 7) + update(1, 7)) * 5000)
        assert talk.server.connection.failed is None

    def test_what_is_paid_for_ahead_is_bounded(self) -> None:
        talk = Talk()
        request = talk.ask(1, POST, end=False)
        talk.server.answer(request, b"x", end=False)
        for _ in range(PAID // FRAME_PAYS + 10):
            talk.server.connection.send_body(request.stream, b"x", False)
        talk.send(update(0, 1) * PAID)
        assert talk.server.connection.failed is None
        talk.send(update(0, 1) * 1001)
        assert talk.server.refused == ["flood_window"]

    def test_an_answer_octet_by_octet(self) -> None:
        """Frames that the client's windows have cut pay for nothing."""
        talk = Talk()
        talk.send(settings_frame(window=0))
        talk.server.answer(talk.ask(1), bytes(100_000))
        for _ in range(1100):
            talk.send(update(1, 1))
        assert talk.server.refused == ["flood_window"]

    def test_time_gives_points_back(self) -> None:
        talk = Talk()
        for _ in range(4000):
            talk.send(raw(PING, 0, 0, bytes(8)))
            talk.server.now += 0.05
        assert talk.server.connection.failed is None

    def test_no_points_come_back_while_the_client_does_not_read(self) -> None:
        talk = Talk()
        talk.server.connection.writable = False
        for _ in range(600):
            talk.send(raw(PING, 0, 0, bytes(8)))
            talk.server.now += 1.0
        assert talk.server.refused == ["flood_ping"]

    def test_fewer_points_for_an_address_with_a_record(self) -> None:
        talk = Talk(points=50.0)
        for _ in range(30):
            talk.send(raw(PING, 0, 0, bytes(8)))
        assert talk.server.refused == ["flood_ping"]


class TestDrain:
    def test_two_steps(self) -> None:
        talk = Talk()
        first = talk.ask(1)
        connection = talk.server.connection
        connection.begin_drain()
        notice, ping = talk.take()
        assert isinstance(notice, GoAwayFrame)
        assert isinstance(ping, PingFrame)
        assert (notice.last_stream_id, notice.error_code) == ((1 << 31) - 1, 0)
        crossing = talk.ask(3)  # was under way: it is served
        (final,) = talk.send(raw(PING, 1, 0, ping.opaque_data))
        assert isinstance(final, GoAwayFrame)
        assert final.last_stream_id == 3
        talk.send(talk.frames.headers(5, POST, False), talk.frames.data(5, bytes(1000)))
        assert len(talk.server.requests) == 2  # ignored, without a reset
        talk.server.answer(crossing)
        assert talk.server.idle == 0
        talk.server.answer(first)
        assert talk.server.idle == 1
        talk.take()
        assert talk.ended(1)
        assert talk.ended(3)
        assert talk.error is None

    def test_ignored_streams_move_the_table_and_give_their_window_back(self) -> None:
        talk = Talk()
        talk.server.answer(talk.ask(1), end=False)
        connection = talk.server.connection
        connection.end_drain()
        for number in range(200):
            talk.send(talk.frames.headers(3 + 2 * number, [*POST, ("x-n", str(number))], False))
            talk.send(talk.frames.data(3 + 2 * number, bytes(16384)))
        assert connection.failed is None

    def test_the_clients_goaway_ends_an_idle_connection(self) -> None:
        talk = Talk()
        talk.send(raw(GOAWAY, 0, 0, bytes(8)))
        assert talk.server.connection.leaving
        assert talk.server.idle == 1


# --- fuzz ------------------------------------------------------------------------------------------------------------

frames_strategy = st.one_of(
    st.builds(
        raw,
        st.integers(0, 12),
        st.integers(0, 255),
        st.sampled_from([0, 1, 3, 5, 7, 2]),
        st.one_of(
            st.binary(max_size=40),
            st.sampled_from([Frames().block(GET), Frames().block(POST), bytes(8), bytes(4), CANCEL, bytes(6)]),
        ),
    ),
    st.binary(max_size=30),
)


class TestFuzz:
    @given(st.lists(frames_strategy, max_size=30), st.data())
    @settings(max_examples=300, deadline=None)
    def test_no_bytes_do_more_than_end_the_connection(self, frames: list[bytes], data: st.DataObject) -> None:
        talk = Talk()
        server = talk.server
        for frame in frames:
            talk.send(frame)
            for request in server.requests:
                if request.stream.id and data.draw(st.booleans()):
                    server.answer(request, bytes(data.draw(st.sampled_from([0, 5, 70_000]))))
            connection = server.connection
            assert connection.pending_size == sum(stream.pending_size for stream in connection.streams.values())
            assert set(connection.waiting) <= set(connection.streams)
            assert 0 <= connection.receiver.window <= CONNECTION_WINDOW or connection.failed is not None
            for stream in connection.streams.values():
                assert stream.receive_window <= STREAM_WINDOW
                assert stream.waits == (stream.id in connection.waiting)
        talk.take()
        for request in server.requests:
            assert not (talk.ended(request.stream.id) and request.reset)

    @given(st.lists(st.tuples(st.sampled_from([1, 3]), st.integers(1, 40_000)), max_size=40), st.integers(1, 30_000))
    @settings(max_examples=100, deadline=None)
    def test_answers_arrive_whole_and_within_the_windows(self, grants: list[tuple[int, int]], window: int) -> None:
        talk = Talk(greet=False)
        talk.send(PREFACE, settings_frame(window=window))
        allowed = {1: window, 3: window}
        for stream in (1, 3):
            talk.server.answer(talk.ask(stream), bytes([stream]) * 50_000)
        for stream, grant in grants:
            talk.send(update(stream, grant), update(0, grant))
            allowed[stream] += grant
            for each in (1, 3):
                sent = sum(
                    f.flow_controlled_length for f in talk.got if isinstance(f, DataFrame) and f.stream_id == each
                )
                assert sent <= allowed[each]
        talk.send(update(0, 1 << 20), settings_frame(window=1 << 20))
        for stream in (1, 3):
            assert talk.body(stream) == bytes([stream]) * 50_000
            assert talk.ended(stream)
