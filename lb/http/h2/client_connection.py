"""ClientConnection: lb's side of one HTTP/2 connection to a target: requests out, answers in.

`answer_head` judges the answers. What becomes of them is the user's business. The connection's window is as large as
those of all its streams. So clients that take nothing stop their own streams, and no other one.
"""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING, Final

from lb.core.native import mypyc_attr
from lb.http.h1.parse import BadResponse
from lb.http.h2 import allowance as costs
from lb.http.h2.answer_head import read_answer
from lb.http.h2.endpoint import Endpoint, EndpointUser
from lb.http.h2.fault import Fault
from lb.http.h2.frames import (
    CANCEL,
    ENABLE_CONNECT_PROTOCOL,
    ENABLE_PUSH,
    FRAME_SIZE_ERROR,
    INITIAL_WINDOW_SIZE,
    LARGEST,
    MAX_CONCURRENT_STREAMS,
    MAX_HEADER_LIST_SIZE,
    NO_ERROR,
    PING,
    PREFACE,
    PROTOCOL_ERROR,
    frame,
    goaway,
    settings,
    window_update,
)
from lb.http.h2.request_stream import RequestStream
from lb.http.h2.sending import DEFAULT_WINDOW
from lb.http.h2.stream import HeaderBlock, Stream
from lb.http.message import NONE

if TYPE_CHECKING:
    from lb.http.message import ResponseHead

#: Streams at one time, however many more the target would take.
STREAMS: Final = 100
#: Octets that a target may send ahead, on one stream and on all of them.
STREAM_WINDOW: Final = 1 << 17
CONNECTION_WINDOW: Final = STREAMS * STREAM_WINDOW
#: The largest header block, and its fields, as for HTTP/1.
BLOCK_LIMIT: Final = 65536
FIELD_LIMIT: Final = 200
#: More interim (1xx) answers to one request than this are nonsense.
INTERIM_LIMIT: Final = 64
#: Seconds of silence, with requests under way, until the target is asked whether it is there (PING)…
SILENCE = 15.0
#: …the seconds that it has for its answer, before the connection is given up…
PING_TIME = 15.0
#: …and the seconds until it is asked again in the same silence. Servers of gRPC end a connection on which PINGs come
#: more often than every five minutes while they send nothing.
PING_AGAIN: Final = 305.0
#: Seconds that a PING may be unanswered until the connection gets no further request.
PING_DOUBT: Final = 1.0

_PING: Final = frame(PING, 0, 0, b"lb-alive")


@mypyc_attr(allow_interpreted_subclasses=True)
class ClientConnectionUser(EndpointUser):
    """What a connection calls. Each method is overridden.

    `on_reset` has a text always: the answer is malformed.
    """

    __slots__ = ()

    def on_interim(self, stream: RequestStream, head: ResponseHead) -> None:
        """A 1xx answer."""
        raise NotImplementedError

    def on_answer(self, stream: RequestStream, head: ResponseHead, end: bool) -> None:
        """The final head; with `end` the answer has no body."""
        raise NotImplementedError

    def on_given_up(self, stream: RequestStream, code: int) -> None:
        """The target has reset the stream before its answer was complete."""
        raise NotImplementedError

    def on_unprocessed(self, stream: RequestStream) -> None:
        """The target's GOAWAY says that it has not acted on this request. The stream is over."""
        raise NotImplementedError


class ClientConnection(Endpoint):
    """One connection to a target."""

    __slots__ = (
        "_asker",
        "_moved_at",
        "_pinged_at",
        "extended_connect",
        "goaway_code",
        "heard_at",
        "limit",
        "ping_due",
    )

    def __init__(self, user: ClientConnectionUser, now: float) -> None:
        Endpoint.__init__(
            self, user, False, BLOCK_LIMIT, FIELD_LIMIT, CONNECTION_WINDOW, STREAM_WINDOW, now, costs.POINTS
        )
        self._asker = user
        self.last = -1  # lb's newest stream; the first one is 1
        self.limit = STREAMS  # streams that may be open at one time
        self._pinged_at = -inf  # when the target was last asked whether it is there
        self._moved_at = now  # when it last sent a part of an answer
        self.ping_due = inf  # when its answer is due; inf: it was not asked
        self.heard_at = now  # when anything of it has come
        self.goaway_code = NO_ERROR
        self.extended_connect = False  # the target takes WebSockets on streams (RFC 8441 section 3)
        self.out.append(PREFACE)
        self.out.append(
            settings({ENABLE_PUSH: 0, INITIAL_WINDOW_SIZE: STREAM_WINDOW, MAX_HEADER_LIST_SIZE: BLOCK_LIMIT})
        )
        self.out.append(window_update(0, CONNECTION_WINDOW - DEFAULT_WINDOW))

    # --- requests ---------------------------------------------------------------------------------------------------

    @property
    def greeted(self) -> bool:
        """Whether the target's settings have come."""
        return self._greeted

    @property
    def room(self) -> int:
        """Requests that may begin now."""
        if self.leaving or self.failed is not None or self.last >= LARGEST - 1:
            return 0
        return self.limit - len(self.streams)

    def is_in_doubt(self, now: float) -> bool:
        """Whether the target has left a PING unanswered for a moment."""
        return now > self.ping_due - PING_TIME + PING_DOUBT

    def begin(self, user: object, block: bytes, piece: bytes, end: bool, head_only: bool, now: float) -> RequestStream:
        """Send a request's head and what there is of its body; with `end` nothing follows. There is room for it."""
        self._now = now
        self.last = id = self.last + 2
        stream = RequestStream(id, user, head_only, self._initial_window, STREAM_WINDOW)
        self.streams[id] = stream
        self.send_head(stream, block, piece, end)
        return stream

    def give_up(self, stream: Stream) -> None:
        """The request needs no more: reset it, unless it is over anyway."""
        if not stream.id:
            return
        if stream.ended and isinstance(stream, RequestStream) and stream.end_sent:
            self._drop(stream)
        else:
            self.reset(stream, NO_ERROR if stream.ended else CANCEL)

    def leave(self) -> None:
        """lb opens no further stream, and closes the connection."""
        self.out.append(goaway(0, NO_ERROR))

    def _on_sent(self, stream: Stream) -> None:
        if isinstance(stream, RequestStream):
            stream.end_sent = True
            stream.finish = False  # it waits for nothing more, and goes on until its answer has come
            self._close_if_done(stream)

    def _close_if_done(self, stream: Stream) -> None:
        if stream.id and stream.ended and isinstance(stream, RequestStream) and stream.end_sent:
            self._drop(stream)

    # --- silence ----------------------------------------------------------------------------------------------------

    def ask(self, now: float) -> None:
        """Ask the target whether it is there, unless it was asked in this silence."""
        may_ask = self._pinged_at < self._moved_at or now - self._pinged_at >= PING_AGAIN
        if may_ask and self.ping_due == inf:
            self._pinged_at = now
            self.ping_due = now + PING_TIME
            self.out.append(_PING)

    def look(self, now: float) -> bool:
        """Ask a silent target whether it is there. False: it has not answered in time."""
        if self.ping_due != inf:
            return now < self.ping_due
        if self.streams and now - self.heard_at >= SILENCE:
            self.ask(now)
        return True

    def _on_pong(self, payload: bytes) -> None:
        self.ping_due = inf

    # --- answers ----------------------------------------------------------------------------------------------------

    def receive(self, data: bytes, now: float) -> None:
        self.heard_at = now
        if not self._greeted and data.startswith(b"HTTP/1"):
            self.fail(PROTOCOL_ERROR, "protocol", "an answer of HTTP/1: HTTP/2 is not spoken here")
            return
        Endpoint.receive(self, data, now)

    def _on_block(self, id: int, end: bool, data: bytes) -> None:
        block = self.blocks.decode(data)
        if id > self.last:
            raise Fault(PROTOCOL_ERROR, "protocol", "HEADERS on an idle stream")  # RFC 9113 section 5.1
        stream = self.streams.get(id)
        if not isinstance(stream, RequestStream):
            self._spend(costs.UNKNOWN, "flood_reset")  # lb has given it up
        elif block.too_large:
            self.refuse(stream, PROTOCOL_ERROR, f"more than {BLOCK_LIMIT} bytes of header fields, or too many")
        elif stream.head is not None:
            self._moved_at = self._now
            self._on_trailers(stream, end, block)
            self._close_if_done(stream)
        else:
            self._on_head(stream, end, block)

    def _on_head(self, stream: RequestStream, end: bool, block: HeaderBlock) -> None:
        head = block.answer
        if head is None or stream.head_only:
            try:
                head = read_answer(block.fields, stream.head_only)
            except BadResponse as error:
                self.refuse(stream, PROTOCOL_ERROR, str(error))
                return
            if not stream.head_only:
                block.answer = head
        self._moved_at = self._now
        if head.status < 200:
            stream.interim += 1
            if end:
                self.refuse(stream, PROTOCOL_ERROR, "an end behind an interim answer")  # section 8.1
            elif stream.interim > INTERIM_LIMIT:
                self.refuse(stream, PROTOCOL_ERROR, f"more than {INTERIM_LIMIT} interim answers")
            else:
                self._asker.on_interim(stream, head)
            return
        stream.bodiless = head.framing == NONE
        stream.length = 0 if stream.bodiless else head.fields.length
        if end and stream.length > 0:
            self.refuse(stream, PROTOCOL_ERROR, "a body of another length than Content-Length")  # section 8.1.1
            return
        stream.head = head
        if end:
            stream.ended = True
            self._allowance.earn(costs.ANSWER_EARNS)
            self._close_if_done(stream)
        self._asker.on_answer(stream, head, end)

    def _on_data(self, flags: int, id: int, payload: bytes) -> None:
        stream = self.streams.get(id)
        if isinstance(stream, RequestStream):
            if stream.head is None:
                self.receiver.take(len(payload))
                self.receiver.give_back(len(payload))
                self.refuse(stream, PROTOCOL_ERROR, "a body before its head")  # section 8.1
                return
            self._moved_at = self._now
            self._allowance.earn(costs.FRAME_EARNS)
            Endpoint._on_data(self, flags, id, payload)
            self._close_if_done(stream)
            return
        Endpoint._on_data(self, flags, id, payload)

    def _ignores(self, id: int) -> bool:
        return True  # lb has given the stream up

    # --- control ----------------------------------------------------------------------------------------------------

    def _on_reset(self, id: int, payload: bytes) -> None:
        if len(payload) != 4:
            raise Fault(FRAME_SIZE_ERROR, "frame_size", "RST_STREAM of a wrong size")  # RFC 9113 section 6.4
        if not id or id > self.last:
            raise Fault(PROTOCOL_ERROR, "protocol", "RST_STREAM on an idle stream")
        stream = self.streams.get(id)
        if isinstance(stream, RequestStream):
            self._drop(stream)
            if not stream.ended:
                self._asker.on_given_up(stream, int.from_bytes(payload, "big"))

    def _on_setting(self, key: int, value: int) -> None:
        if key == MAX_CONCURRENT_STREAMS:
            self.limit = value if value < STREAMS else STREAMS
        elif key == ENABLE_PUSH and value:
            raise Fault(PROTOCOL_ERROR, "protocol", "ENABLE_PUSH, which is a client's")  # section 6.5.2
        elif key == ENABLE_CONNECT_PROTOCOL:
            if value > 1 or (self.extended_connect and not value):  # RFC 8441 section 3
                raise Fault(PROTOCOL_ERROR, "protocol", "ENABLE_CONNECT_PROTOCOL is neither 0 nor 1, or taken back")
            self.extended_connect = value == 1

    def _on_goaway(self, last: int, code: int) -> None:
        self.goaway_code = code
        # Section 8.7: what it has not acted on may be sent elsewhere, whatever the method.
        for stream in [each for number, each in self.streams.items() if number > last]:
            self._drop(stream)
            if isinstance(stream, RequestStream) and not stream.ended:
                self._asker.on_unprocessed(stream)

    def _spend_reply(self, cost: float, reason: str) -> None:
        # Servers may answer each small piece of a body by two updates of windows, however it was cut: no cost.
        if reason != "flood_window":
            Endpoint._spend_reply(self, cost, reason)

    def blame(self) -> None:
        """A malformed answer is the request's failure, and no reason to end the connection."""

    def fail(self, code: int, reason: str = "", text: str = "") -> None:
        if self.failed is None:
            self.failed = Fault(code, reason, text)
            self.out.append(goaway(0, code, text.encode()))
