"""Stream: one request of an HTTP/2 connection and its answer, as the connection sees them."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lb.http.message import RequestHead, ResponseHead


class HeaderBlock:
    """A header block's fields, and the heads that have been made of it: equal blocks share them."""

    __slots__ = ("answer", "count", "fields", "open", "too_large", "whole")

    def __init__(self, fields: list[tuple[bytes, bytes]], too_large: bool, count: int) -> None:
        self.fields = fields
        self.count = count  # of its fields, whether it has them or not
        self.too_large = too_large  # over a limit: it has no fields
        self.whole: RequestHead | None = None  # of a request without a body
        self.open: RequestHead | None = None  # of a request with one
        self.answer: ResponseHead | None = None  # of a target's answer


class Stream:
    """One stream. `id` is 0 once it is over."""

    __slots__ = (
        "ended",
        "finish",
        "held",
        "id",
        "length",
        "moved_at",
        "offset",
        "pending",
        "pending_size",
        "reading",
        "receive_window",
        "received",
        "send_window",
        "trailer_block",
        "trailers",
        "uncredited",
        "unreturned",
        "user",
    )

    def __init__(self, id: int, ended: bool, send_window: int, receive_window: int) -> None:
        self.id = id
        self.user: object | None = None  # whatever the connection's user has for it; None: what comes is held
        # The request.
        self.ended = ended  # the client has sent its end
        self.length = -1  # Content-Length
        self.received = 0  # octets of the body
        self.held: list[bytes] = []  # of it, until there is a user
        self.trailers = b""  # likewise
        self.receive_window = receive_window  # octets that the client may send
        self.reading = False  # what comes is passed on: its window is given back
        self.uncredited = 0  # octets that have come while it was not: neither window has got them back
        self.unreturned = 0  # octets to be given back to the stream's window with the next update
        # The answer.
        self.send_window = send_window
        self.pending: deque[bytes] = deque()  # pieces of the body that wait for a window, or for the transport
        self.offset = 0  # octets of the first one that are sent
        self.pending_size = 0
        self.finish = False  # the end follows what is pending
        self.trailer_block = b""  # …with these
        self.moved_at = 0.0  # when the client last took something of what is pending

    @property
    def waits(self) -> bool:
        """Whether something of the answer is yet to be sent."""
        return self.pending_size > 0 or self.finish
