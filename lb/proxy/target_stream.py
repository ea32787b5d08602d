"""The target's side of an exchange, as narrow as the exchange and the lane see it.

`Upstream` is a `TargetStream` for HTTP/1, `Http2TargetStream` for HTTP/2, and tests have further ones. It calls back a
`Requester`, which the exchange is. `TargetStream` is an interface: each stream overrides what raises
`NotImplementedError` here (see `client_stream`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from lb.core.native import mypyc_attr

if TYPE_CHECKING:
    import asyncio

    from lb.core.retry import Failure
    from lb.http.message import RequestHead, ResponseHead

#: The clients that a connection may serve: all; the client that was offered a login on it; the client that has sent a
#: login. See `proxy.private`.
SHARED: Final = 0
OFFERED: Final = 1
AUTHENTICATED: Final = 2


@mypyc_attr(allow_interpreted_subclasses=True)
class TargetStream:
    """A connection to a target that serves one request at a time, or one stream of a connection that many share.

    Its lane looks at how long it has been idle and whether it may be used again; the exchange that it serves writes to
    it. A subclass sets all of the attributes.
    """

    __slots__ = (
        "blocked",
        "exchange",
        "expires_at",
        "idle_since",
        "pooled",
        "private",
        "retired",
        "reusable",
        "transport",
    )

    transport: asyncio.Transport
    exchange: Requester | None  # the request that it serves
    idle_since: float
    expires_at: float  # when it takes no more requests
    retired: bool  # it takes no request after this one, whatever the answer says
    reusable: bool
    pooled: bool  # it was kept for the next request without having served one
    private: int  # the clients it may serve: SHARED, OFFERED or AUTHENTICATED
    blocked: bool  # its write buffer is full

    # --- of the exchange --------------------------------------------------------------------------------------------

    def send_request(self, requester: Requester, host: bytes, omit: int, piece: bytes, end: bool) -> None:
        """Send the head of a request and what there is of its body. `host` is the value of Host; `omit` is what the
        service wants left out of the head (`http.h1.serialize`). With `end` nothing follows."""
        raise NotImplementedError

    def send_body(self, piece: bytes, end: bool) -> None:
        """Send more of the request's body; with `end` that is its end."""
        raise NotImplementedError

    def send_trailers(self, lines: bytes) -> None:
        """Send the trailer fields, whole lines; that is the end of the request."""
        raise NotImplementedError

    def cancel(self) -> None:
        """Give the request up: no more call-backs, and no further request. `detach` follows."""
        raise NotImplementedError

    def pause(self) -> None:
        """The client takes no more: stop reading."""
        raise NotImplementedError

    def resume(self) -> None:
        """The client takes more again."""
        raise NotImplementedError

    def reserve(self, private: int) -> None:
        """Set the clients that the connection may serve: SHARED, OFFERED or AUTHENTICATED."""
        raise NotImplementedError

    @property
    def unsent(self) -> bool:
        """Whether bytes that were written wait in the transport still."""
        raise NotImplementedError

    def on_stalled(self) -> None:
        """The target has acknowledged no written bytes, or no close, for too long."""
        raise NotImplementedError

    # --- of the lane ------------------------------------------------------------------------------------------------

    def detach(self, now: float) -> None:
        """The exchange is over: back to the idle ones if possible, else closed. (`Lease` counts it.)"""
        raise NotImplementedError

    def retire(self) -> None:
        """Take no request after this one, whatever the answer says."""
        raise NotImplementedError

    def abort(self) -> None:
        """Close at once, throwing away what was not written yet."""
        raise NotImplementedError

    def close(self) -> None:
        """Close an idle connection."""
        raise NotImplementedError

    @property
    def gone(self) -> bool:
        """Whether the connection is over, or about to be."""
        raise NotImplementedError

    def looks_open(self) -> bool:
        """Whether the kernel reports no end of file, reset or stray bytes on this idle connection."""
        raise NotImplementedError


class Requester:
    """The request that a lane and a target's stream serve, as they see it. An interface, as the stream is."""

    __slots__ = ("head", "request_id")

    head: RequestHead
    request_id: bytes

    @property
    def is_copy(self) -> bool:
        """Whether it is a mirrored copy, which counts for nothing: a target that refuses it has failed no client."""
        raise NotImplementedError

    @property
    def passes_trailers(self) -> bool:
        """Whether trailer fields of the answer go on to the client."""
        raise NotImplementedError

    @property
    def client_is_blocked(self) -> bool:
        """Whether the client takes no more for now."""
        raise NotImplementedError

    @property
    def written_at(self) -> float:
        """When the request was written, in seconds (monotonic)."""
        raise NotImplementedError

    # --- of the lane, when it waits for a connection ----------------------------------------------------------------

    def on_connected(self, upstream: TargetStream) -> None:
        """A connection is there."""
        raise NotImplementedError

    def on_failure(self, failure: Failure) -> None:
        """No connection could be opened, or the request's connection has failed it."""
        raise NotImplementedError

    # --- of the stream ----------------------------------------------------------------------------------------------

    def splice(self, head: ResponseHead) -> bool:
        """See `ClientStream.splice`."""
        raise NotImplementedError

    def framed_request(self, stream: TargetStream, begin: bool) -> bytes | None:
        """See `ClientStream.framed_request`."""
        raise NotImplementedError

    def on_interim(self, head: ResponseHead) -> None:
        """A 1xx answer."""
        raise NotImplementedError

    def on_response(self, head: ResponseHead, piece: bytes, done: bool, framing: int = 0) -> None:
        """The answer's head, and the bytes of its body from the same read. `done`: that was all of it. `framing`: so
        many bytes of `piece` are the framing of chunks (a splice)."""
        raise NotImplementedError

    def on_response_body(self, piece: bytes, done: bool, framing: int = 0) -> None:
        """More of the answer's body."""
        raise NotImplementedError

    def on_response_trailers(self, lines: bytes) -> None:
        """The answer's trailer fields, whole lines: its end."""
        raise NotImplementedError

    def on_upgrade(self, head: ResponseHead, rest: bytes) -> None:
        """A 101, and the bytes behind it."""
        raise NotImplementedError

    def upstream_blocked(self) -> None:
        """The target takes no more of the body."""
        raise NotImplementedError

    def upstream_unblocked(self) -> None:
        """The target takes more again."""
        raise NotImplementedError

    def target_stalled(self) -> None:
        """The target has taken nothing of the body for too long."""
        raise NotImplementedError

    def keep_private(self, upstream: TargetStream) -> None:
        """The connection may serve no client but this one."""
        raise NotImplementedError
