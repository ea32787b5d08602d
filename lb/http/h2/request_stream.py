"""RequestStream: one request that lb has sent to a target over HTTP/2, and its answer."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lb.http.h2.stream import Stream

if TYPE_CHECKING:
    from lb.http.message import ResponseHead


class RequestStream(Stream):
    """One stream of a connection to a target. What it receives is the answer, what it sends is the request."""

    __slots__ = ("bodiless", "end_sent", "head", "head_only", "interim")

    def __init__(self, id: int, user: object, head_only: bool, send_window: int, receive_window: int) -> None:
        Stream.__init__(self, id, False, send_window, receive_window)
        self.user = user
        self.reading = True
        self.head_only = head_only  # the request is HEAD
        self.end_sent = False  # all of the request is written
        self.head: ResponseHead | None = None  # the final one
        self.interim = 0  # heads before it
        self.bodiless = False  # the answer has no body, whatever its Content-Length says
