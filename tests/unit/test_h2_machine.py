"""A connection of HTTP/2 with a client that keeps the rules, in any order of events: python-hyper's h2 is the client,
and raises for whatever lb sends that breaks them. In the end everything arrives whole, and the ledgers are even.

A drain is tested elsewhere: a GOAWAY is the end for this client.
"""

from __future__ import annotations

from typing import Any

import h2.config
import h2.connection
import h2.events
import h2.settings
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from lb.http.h2.connection import CONNECTION_WINDOW, STREAM_WINDOW
from lb.http.h2.hpack import encode_field, encode_status
from tests.support.h2_peer import GET, POST, Request, Server

#: Octets that are no repetition of one another, so that a piece in a wrong place shows.
TEXT = bytes(number * 7 % 251 for number in range(2_000_000))
SIZES = st.sampled_from([0, 1, 100, 16_384, 16_385, 70_000, 600_000])
SELDOM = st.sampled_from([False, False, False, True])
WINDOWS = st.sampled_from([0, 1, 1000, 65_535, 1 << 20])


class Call:
    """A request, as both sides have seen it so far."""

    def __init__(self, id: int) -> None:
        self.id = id
        self.sent = 0  # octets of the request's body
        self.client_ended = False
        self.given_up = False  # the client has reset it
        self.request: Request | None = None
        self.answered = 0  # octets of the answer's body that lb was handed
        self.server_ended = False
        self.cut = False  # lb has reset it
        self.got = b""
        self.trailers: list[Any] | None = None
        self.arrived = False
        self.was_reset = False
        self.begun = False  # lb has sent the head of its answer

    @property
    def alive(self) -> bool:
        return not (self.given_up or self.cut or self.arrived or self.was_reset)


class Machine(RuleBasedStateMachine):
    """One connection."""

    def __init__(self) -> None:
        super().__init__()
        # As many points as it takes: what floods cost is tested elsewhere.
        self.server = Server()
        self.client = h2.connection.H2Connection(h2.config.H2Configuration(validate_outbound_headers=False))
        self.calls: dict[int, Call] = {}

    @initialize(window=WINDOWS)
    def greet(self, window: int) -> None:
        self.client.local_settings = h2.settings.Settings(
            client=True, initial_values={h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: window}
        )
        self.client.initiate_connection()
        self.exchange()

    # --- the wire ---------------------------------------------------------------------------------------------------

    def exchange(self, cut: int = 1 << 30) -> None:
        """Let all bytes pass both ways, the client's in pieces of `cut` octets."""
        connection = self.server.connection
        while True:
            data = self.client.data_to_send()
            self.server.now += 1.0
            for at in range(0, len(data), cut):
                connection.receive(data[at : at + cut], self.server.now)
            for request in self.server.requests:
                call = self.calls.get(request.stream.id)
                if call is not None and call.request is None:
                    call.request = request
            out = b"".join(connection.out)
            connection.out.clear()
            if not data and not out:
                return
            for event in self.client.receive_data(out):
                self.on_event(event)

    def on_event(self, event: h2.events.Event) -> None:
        if isinstance(event, h2.events.DataReceived):
            self.calls[event.stream_id].got += event.data
        elif isinstance(event, h2.events.TrailersReceived):
            self.calls[event.stream_id].trailers = list(event.headers or ())
        elif isinstance(event, h2.events.StreamEnded):
            self.calls[event.stream_id].arrived = True
        elif isinstance(event, h2.events.StreamReset):
            self.calls[event.stream_id].was_reset = True
        else:
            assert not isinstance(event, h2.events.ConnectionTerminated), event

    def of(self, data: st.DataObject, *, open: bool = False, answers: bool = False) -> Call | None:
        """Some call that is under way: whose client still sends, or that lb is yet to answer whole."""
        calls = [
            call
            for call in self.calls.values()
            if call.alive
            and not (open and call.client_ended)
            and not (answers and (call.request is None or call.server_ended or not call.request.stream.id))
        ]
        return data.draw(st.sampled_from(calls), label="call") if calls else None

    # --- the client -------------------------------------------------------------------------------------------------

    @precondition(lambda self: self.client.open_outbound_streams <= 96)
    @rule(bodies=st.lists(st.booleans(), min_size=1, max_size=4), cut=st.sampled_from([1, 7, 1 << 30]))
    def ask(self, bodies: list[bool], cut: int) -> None:
        asked = []
        for body in bodies:
            id = self.client.get_next_available_stream_id()
            call = self.calls[id] = Call(id)
            call.client_ended = not body
            self.client.send_headers(id, POST if body else GET, end_stream=not body)
            asked.append(call)
        self.exchange(cut)
        assert all(call.request is not None for call in asked)

    @rule(data=st.data(), size=SIZES, end=SELDOM, padding=st.sampled_from([None, 0, 9]))
    def send(self, data: st.DataObject, size: int, end: bool, padding: int | None) -> None:
        call = self.of(data, open=True)
        if call is None:
            return
        extra = 0 if padding is None else padding + 1
        while True:  # as many frames as it takes; more than the connection's window may come to
            room = min(self.client.local_flow_control_window(call.id), 16_384) - extra
            part = min(size, room)
            last = part == size
            if part < 0 or (not part and not (last and end)):
                return
            piece = TEXT[call.sent : call.sent + part]
            call.sent += len(piece)
            call.client_ended = last and end
            self.client.send_data(call.id, piece, call.client_ended, padding)
            self.exchange()
            size -= part
            if last:
                return

    @rule(data=st.data())
    def end_with_trailers(self, data: st.DataObject) -> None:
        call = self.of(data, open=True)
        if call is not None:
            call.client_ended = True
            self.client.send_headers(call.id, [("x-sum", "1")], end_stream=True)
            self.exchange()
            assert call.request is not None
            assert call.request.trailers == b"x-sum: 1\r\n"

    @rule(data=st.data())
    def give_up(self, data: st.DataObject) -> None:
        call = self.of(data)
        if call is not None:
            call.given_up = True
            self.client.reset_stream(call.id, 8)
            self.exchange()

    @rule(data=st.data(), octets=st.sampled_from([1, 1000, 100_000]))
    def widen(self, data: st.DataObject, octets: int) -> None:
        call = self.of(data)
        self.client.increment_flow_control_window(octets)
        if call is not None:
            self.client.increment_flow_control_window(octets, call.id)
        self.exchange()

    @rule(window=WINDOWS)
    def resize(self, window: int) -> None:
        self.client.update_settings({h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: window})
        self.exchange()

    @rule()
    def ping(self) -> None:
        self.client.ping(b"12345678")
        self.exchange()

    # --- lb ---------------------------------------------------------------------------------------------------------

    @rule(data=st.data(), size=SIZES, end=st.booleans())
    def answer(self, data: st.DataObject, size: int, end: bool) -> None:
        call = self.of(data, answers=True)
        if call is None or call.request is None:
            return
        stream, wire = call.request.stream, self.server.connection
        piece = TEXT[call.answered : call.answered + size]
        if not call.begun:
            call.begun = True
            wire.send_head(stream, encode_status(200), piece, end)
        else:
            wire.send_body(stream, piece, end)
        call.answered += len(piece)
        call.server_ended = end
        self.exchange()

    @rule(data=st.data())
    def answer_trailers(self, data: st.DataObject) -> None:
        call = self.of(data, answers=True)
        if call is not None and call.request is not None and call.begun:
            call.server_ended = True
            self.server.connection.send_trailers(call.request.stream, encode_field(b"grpc-status", b"0"))
            self.exchange()

    @rule(data=st.data())
    def cut(self, data: st.DataObject) -> None:
        call = self.of(data, answers=True)
        if call is not None and call.request is not None:
            call.cut = call.server_ended = True
            self.server.connection.reset(call.request.stream)
            self.exchange()

    @rule(data=st.data(), reading=st.booleans())
    def pause(self, data: st.DataObject, reading: bool) -> None:
        call = self.of(data, answers=True)
        if call is not None and call.request is not None:
            self.server.connection.read_on(call.request.stream, reading)
            self.exchange()

    @rule(writable=st.booleans())
    def block(self, writable: bool) -> None:
        if writable:
            self.server.connection.write_on(self.server.now)
        else:
            self.server.connection.writable = False
        self.exchange()

    # --- what always holds ------------------------------------------------------------------------------------------

    @invariant()
    def ledgers_are_even(self) -> None:
        connection = self.server.connection
        assert connection.failed is None
        assert not self.server.refused
        assert not self.server.errors
        streams = connection.streams
        assert connection.pending_size == sum(stream.pending_size for stream in streams.values())
        assert all(stream.waits == (id in connection.waiting) for id, stream in streams.items())
        assert set(connection.waiting) <= set(streams)
        # Both sides have the same ledgers: all bytes have passed.
        assert connection.receiver.window == self.client.outbound_flow_control_window
        assert connection.send_window == self.client.inbound_flow_control_window
        assert 0 <= connection.receiver.window <= CONNECTION_WINDOW
        assert all(0 <= stream.receive_window <= STREAM_WINDOW for stream in streams.values())

    @invariant()
    def nothing_waits_that_could_go_on(self) -> None:
        connection = self.server.connection
        if connection.writable and connection.send_window > 0:
            assert all(stream.send_window <= 0 for stream in connection.waiting.values())

    @invariant()
    def octets_are_in_their_places(self) -> None:
        for call in self.calls.values():
            assert call.got == TEXT[: len(call.got)]
            if call.request is not None:
                assert call.request.body == TEXT[: len(call.request.body)]
                assert len(call.request.body) <= call.sent

    def teardown(self) -> None:
        """Both sides go on until nothing is left."""
        connection = self.server.connection
        connection.write_on(self.server.now)
        self.client.update_settings({h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: 1 << 24})
        self.client.increment_flow_control_window(1 << 28)
        self.exchange()
        for call in self.calls.values():
            request = call.request
            if request is None or not call.alive:
                continue
            connection.read_on(request.stream, True)
            if not call.client_ended:
                self.client.end_stream(call.id)
                call.client_ended = True
            self.exchange()
            assert request.ended and len(request.body) == call.sent
            if not call.server_ended:
                if not call.begun:
                    connection.send_head(request.stream, encode_status(200), b"", False)
                connection.send_body(request.stream, b"", True)
                self.exchange()
            assert call.arrived
            assert call.got == TEXT[: call.answered]
        assert not connection.streams
        assert not connection.waiting
        assert connection.pending_size == 0
        self.ledgers_are_even()


def test_any_order_of_events() -> None:
    run_state_machine_as_test(Machine, settings=settings(max_examples=80, stateful_step_count=60, deadline=None))
