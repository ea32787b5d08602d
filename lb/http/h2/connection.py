"""Connection: the server's side of one HTTP/2 connection: requests in, answers out, a drain in two steps.

`fields` judges the requests. What becomes of a request is the user's business.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from lb.core.native import mypyc_attr
from lb.http.h1.parse import RequestError
from lb.http.h2 import allowance as costs
from lb.http.h2.endpoint import Endpoint, EndpointUser
from lb.http.h2.fault import Fault
from lb.http.h2.fields import Malformed, read_request
from lb.http.h2.frames import (
    ENABLE_CONNECT_PROTOCOL,
    ENABLE_PUSH,
    INITIAL_WINDOW_SIZE,
    LARGEST,
    MAX_CONCURRENT_STREAMS,
    MAX_HEADER_LIST_SIZE,
    NO_ERROR,
    PING,
    PROTOCOL_ERROR,
    REFUSED_STREAM,
    STREAM_CLOSED,
    frame,
    goaway,
    rst_stream,
    settings,
    window_update,
)
from lb.http.h2.sending import DEFAULT_WINDOW
from lb.http.h2.stream import HeaderBlock, Stream

if TYPE_CHECKING:
    from lb.http.message import RequestHead

#: Streams at one time (nginx: 128; HAProxy: 100).
STREAMS: Final = 100
#: Octets that a client may send ahead, on one stream and on all of them.
STREAM_WINDOW: Final = 65536
CONNECTION_WINDOW: Final = 1 << 20
#: The PING between the two GOAWAY frames of a drain.
_DRAIN_PING: Final = b"lb-drain"


@mypyc_attr(allow_interpreted_subclasses=True)
class ConnectionUser(EndpointUser):
    """What a connection calls. Each method is overridden."""

    __slots__ = ()

    def on_request(self, stream: Stream, head: RequestHead) -> None:
        """A new request. Its body, as far as there is one, is held until the stream has a user."""
        raise NotImplementedError

    def on_unwelcome(self, stream: Stream, error: RequestError, fields: list[tuple[bytes, bytes]]) -> None:
        """A new request that is not forwarded, but answered; `fields` are empty where they were too large."""
        raise NotImplementedError


class Connection(Endpoint):
    """One connection. `line_limit`, `header_size` and `header_count` bound a request's head, as for HTTP/1."""

    __slots__ = (
        "_drain_ping",
        "_header_count",
        "_header_size",
        "_line_limit",
        "_server",
        "final",
        "noticed",
        "requests",
    )

    def __init__(
        self,
        user: ConnectionUser,
        line_limit: int,
        header_size: int,
        header_count: int,
        now: float,
        points: float = costs.POINTS,
    ) -> None:
        Endpoint.__init__(self, user, True, header_size, header_count, CONNECTION_WINDOW, STREAM_WINDOW, now, points)
        self._server = user
        self._line_limit = line_limit
        self._header_size = header_size
        self._header_count = header_count
        self.requests = 0
        self.noticed = False  # a GOAWAY without a last stream was sent: more will follow
        self.final = -1  # the last stream that is served; -1: that is open
        self._drain_ping = False
        limits = {
            MAX_CONCURRENT_STREAMS: STREAMS,
            INITIAL_WINDOW_SIZE: STREAM_WINDOW,
            MAX_HEADER_LIST_SIZE: header_size,
            ENABLE_CONNECT_PROTOCOL: 1,  # RFC 8441 section 3
        }
        self.out.append(settings(limits))
        self.out.append(window_update(0, CONNECTION_WINDOW - DEFAULT_WINDOW))

    # --- requests ---------------------------------------------------------------------------------------------------

    def _on_block(self, id: int, end: bool, data: bytes) -> None:
        block = self.blocks.decode(data)
        if block.too_large:
            self._spend(block.count * costs.FIELD, "flood_fields")
        stream = self.streams.get(id)
        if stream is not None:
            self._on_trailers(stream, end, block)
            return
        if id <= self.last:
            if id not in self._resets:
                raise Fault(STREAM_CLOSED, "protocol", "HEADERS on a closed stream")  # RFC 9113 section 5.1
            self._spend(costs.UNKNOWN, "flood_reset")
            return
        self.last = id
        if 0 <= self.final < id:
            return  # section 6.8: it was told that this stream is not served
        if len(self.streams) >= STREAMS:
            self._user.on_refused("streams")
            self._note_reset(id)
            self.out.append(rst_stream(id, REFUSED_STREAM))  # section 5.1.2
            self._spend(costs.REFUSED, "flood_streams")
            return
        stream = Stream(id, end, self._initial_window, STREAM_WINDOW)
        self.streams[id] = stream
        self.requests += 1
        head = block.whole if end else block.open
        try:
            if head is None:
                head = self._judge(block, end)
        except Malformed as malformed:  # a name of its own: compiled, a variable has one type
            self.refuse(stream, PROTOCOL_ERROR, str(malformed))
        except RequestError as error:
            self._server.on_unwelcome(stream, error, block.fields)
            self.blame()
        else:
            stream.length = head.fields.length
            self._server.on_request(stream, head)

    def _judge(self, block: HeaderBlock, end: bool) -> RequestHead:
        """The request of a block that was not met before. Raises `Malformed` and `RequestError`."""
        if block.too_large:
            raise RequestError(431, "header_too_large", f"the header fields are more than {self._header_size} bytes")
        head = read_request(block.fields, end, self._line_limit, self._header_size, self._header_count)
        if end:
            block.whole = head
        elif not head.fields.upgrade:  # each WebSocket gets a key of its own
            block.open = head
        return head

    def _on_setting(self, key: int, value: int) -> None:
        if key == ENABLE_PUSH and value > 1:
            raise Fault(PROTOCOL_ERROR, "protocol", "ENABLE_PUSH is neither 0 nor 1")  # RFC 9113 section 6.5.2

    def _ignores(self, id: int) -> bool:
        return id in self._resets or 0 <= self.final < id

    # --- ends -------------------------------------------------------------------------------------------------------

    def _on_sent(self, stream: Stream) -> None:
        """The answer is sent whole. A request whose body has not ended needs no more of it (RFC 9113 section 8.1)."""
        self._allowance.sent(costs.ANSWER_EARNS)
        if not stream.ended:
            self.out.append(rst_stream(stream.id, NO_ERROR))
            self._note_reset(stream.id)
        self._drop(stream)

    def begin_drain(self) -> None:
        """Tell the client to go elsewhere. Streams that are under way to lb are served still (section 6.8)."""
        if not self.noticed and self.final < 0:
            self.noticed = True
            self._drain_ping = True
            self.out.append(goaway(LARGEST, NO_ERROR))
            self.out.append(frame(PING, 0, 0, _DRAIN_PING))

    def end_drain(self) -> None:
        """From now on serve no further stream: the client has had its notice, or the time for it."""
        if self.final < 0:
            self._drain_ping = False
            self.final = self.last
            self.out.append(goaway(self.last, NO_ERROR))
            if not self.streams:
                self._user.on_idle()

    def _on_pong(self, payload: bytes) -> None:
        if self._drain_ping and payload == _DRAIN_PING:
            self.end_drain()
