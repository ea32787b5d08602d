"""The target's side of an exchange, as narrow as the exchange and the lane see it.

`Upstream` is a `TargetStream`, and tests have others. It calls back a `Requester`, which the exchange is.
`TargetStream` is an interface: each stream overrides what raises `NotImplementedError` here (see `client_stream`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol

if TYPE_CHECKING:
    import asyncio

    from lb.core.retry import Failure
    from lb.http.message import RequestHead, ResponseHead

#: Whom a connection may serve: anybody; the client that was offered a login on it; the one that has sent a login. See
#: `proxy.private`.
SHARED: Final = 0
OFFERED: Final = 1
AUTHENTICATED: Final = 2


class TargetStream:
    """A connection to a target that serves one request at a time.

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
    private: int  # whom it may serve: SHARED, OFFERED or AUTHENTICATED
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
        """Give the request up: nothing more of it is told, and the stream serves no other one. `detach` follows."""
        raise NotImplementedError

    def pause(self) -> None:
        """The client takes no more: stop reading."""
        raise NotImplementedError

    def resume(self) -> None:
        """The client takes more again."""
        raise NotImplementedError

    def reserve(self, private: int) -> None:
        """Serve one client alone from now on, or anybody again: SHARED, OFFERED or AUTHENTICATED."""
        raise NotImplementedError

    @property
    def unsent(self) -> bool:
        """Whether bytes that were written wait in the transport still."""
        raise NotImplementedError

    def on_stalled(self) -> None:
        """The target has taken nothing of what was written, or of the close, for too long."""
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
        """Whether the kernel knows of no end of file, reset or stray bytes on this idle connection."""
        raise NotImplementedError


class Requester(Protocol):
    """What a target's stream asks and tells of the request that it serves."""

    head: RequestHead
    request_id: bytes

    @property
    def is_copy(self) -> bool: ...  # a mirrored copy counts for nothing

    @property
    def passes_trailers(self) -> bool: ...  # trailer fields of the answer go on to the client

    @property
    def client_is_blocked(self) -> bool: ...  # the client takes no more for now

    @property
    def written_at(self) -> float: ...  # when the request was written, in seconds (monotonic)

    def splice(self, head: ResponseHead) -> bool: ...  # see `ClientStream.splice`

    def framed_request(self, stream: TargetStream, begin: bool) -> bytes | None: ...  # see `ClientStream`

    def on_interim(self, head: ResponseHead) -> None: ...

    def on_response(self, head: ResponseHead, piece: bytes, done: bool, framing: int = 0) -> None: ...

    def on_response_body(self, piece: bytes, done: bool, framing: int = 0) -> None: ...

    def on_response_trailers(self, lines: bytes) -> None: ...

    def on_upgrade(self, head: ResponseHead, rest: bytes) -> None: ...

    def on_failure(self, failure: Failure) -> None: ...

    def upstream_blocked(self) -> None: ...

    def upstream_unblocked(self) -> None: ...

    def target_stalled(self) -> None: ...

    def keep_private(self, upstream: TargetStream) -> None: ...  # the connection may serve nobody but this client
