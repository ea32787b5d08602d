"""One question over HTTP/2 on a new connection, as `protocol: grpc` and checks of targets that speak HTTP/2 ask it.

The connection is the one that requests use (`http.h2.client_connection`): an answer that lb would refuse is no sign of
readiness.
"""

from __future__ import annotations

import asyncio
from time import monotonic
from typing import TYPE_CHECKING, Any

from lb.core.lifecycle import Verdict
from lb.core.printable import printable
from lb.health.probes.answer import Answer
from lb.health.probes.dial import unprepared
from lb.health.probes.http import HttpProbe
from lb.health.probes.inline import OnVerdict, PendingProbe
from lb.http.h2.client_connection import ClientConnection, ClientConnectionUser
from lb.http.h2.frames import NO_ERROR, REFUSED_STREAM
from lb.http.h2.hpack import encode_plain
from lb.net.tls.contexts import HTTP2

if TYPE_CHECKING:
    from lb.http.h2.request_stream import RequestStream
    from lb.http.h2.stream import Stream
    from lb.http.message import ResponseHead

#: Bytes that a target may send in answer to one probe, beside the body that is read.
LIMIT = 65536


class Http2Call(ClientConnectionUser, asyncio.Protocol):
    """One request, sent once the target's settings have come, and its answer.

    `fields` are the request's, in order. At most `limit` bytes of the answer's body are kept; then it is over.
    """

    def __init__(
        self, fields: list[tuple[str, str]], body: bytes, head_only: bool, limit: int, done: asyncio.Future[None]
    ) -> None:
        self._block = b"".join([encode_plain(name.encode(), value.encode("latin-1")) for name, value in fields])
        self._request_body = body
        self._head_only = head_only
        self._limit = limit
        self._done = done
        self._received = 0
        self._begin = b""  # of what has come
        self._asked = False
        self.wire = ClientConnection(self, monotonic())
        self.transport: Any = None
        self.heads: list[ResponseHead] = []  # interim ones, then the final one
        self.body = b""
        self.trailers = b""
        self.broken = ""  # why there is no whole answer
        self.ended = False

    # --- of the event loop ------------------------------------------------------------------------------------------

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        handshake = transport.get_extra_info("ssl_object")
        if handshake is not None and handshake.selected_alpn_protocol() != "h2":
            self._break("not HTTP/2: the TLS handshake (ALPN) has not chosen it")
        else:
            self._write()

    def data_received(self, data: bytes) -> None:
        self._received += len(data)
        self._begin = self._begin or data[:40]
        wire = self.wire
        wire.receive(data, monotonic())
        if wire.failed is not None:
            got = printable(self._begin.splitlines()[0] if self._begin.strip() else self._begin, 40)
            text = wire.failed.text if wire.greeted else f"{wire.failed.text} (it sent {got!r})"
            self._break(f"not HTTP/2: {text}")
        elif self._received > LIMIT + self._limit:
            self._break(f"the answer is longer than {LIMIT + self._limit} bytes")
        elif wire.greeted and not self._asked:
            self._ask()
        self._write()

    def _ask(self) -> None:
        self._asked = True
        if self.wire.leaving:
            self._break("closed the connection before it was asked (GOAWAY)")
        elif self.wire.room <= 0:
            self._break("allows no streams (SETTINGS_MAX_CONCURRENT_STREAMS is 0)")
        else:
            end = not self._request_body
            self.wire.begin(self, self._block, self._request_body, end, self._head_only, monotonic())

    def eof_received(self) -> None:
        self._break("closed the connection without an answer" if not self.heads else "closed the connection")

    def connection_lost(self, error: Exception | None) -> None:
        if error is not None and not self._done.done():
            self._done.set_exception(error)
        self.eof_received()

    def pause_writing(self) -> None:
        """A question is a few hundred bytes."""

    def resume_writing(self) -> None:
        """See `pause_writing`."""

    def close(self) -> None:
        """Close the connection. The kernel discards all later bytes."""
        if self.transport is not None:
            self.transport.abort()

    def _write(self) -> None:
        out = self.wire.out
        if out and not self.transport.is_closing():
            self.transport.write(b"".join(out))
        out.clear()

    # --- of the connection ------------------------------------------------------------------------------------------

    def on_interim(self, stream: RequestStream, head: ResponseHead) -> None:
        self.heads.append(head)

    def on_answer(self, stream: RequestStream, head: ResponseHead, end: bool) -> None:
        self.heads.append(head)
        if end or stream.bodiless:
            self._end()

    def on_body(self, stream: Stream, piece: bytes, end: bool) -> None:
        self.body += piece[: self._limit - len(self.body)]
        if end or len(self.body) >= self._limit:
            self._end()

    def on_trailers(self, stream: Stream, lines: bytes) -> None:
        self.trailers = lines
        self._end()

    def on_reset(self, stream: Stream, reason: str) -> None:
        self._break(f"a malformed answer: {reason}")

    def on_given_up(self, stream: RequestStream, code: int) -> None:
        what = "refused the stream" if code == REFUSED_STREAM else f"reset the stream with error {code}"
        self._break(f"closed: the target {what}")

    def on_unprocessed(self, stream: RequestStream) -> None:
        code = self.wire.goaway_code
        self._break("closed the connection (GOAWAY)" if code == NO_ERROR else f"closed the connection: error {code}")

    def on_room(self, stream: Stream) -> None:
        """All of the question fits into the first window."""

    def on_refused(self, reason: str) -> None:
        """What counts is the verdict."""

    def on_idle(self) -> None:
        """The answer has ended it."""

    def _break(self, why: str) -> None:
        if not self._done.done():
            self.broken = why
            self._done.set_result(None)

    def _end(self) -> None:
        self.ended = True
        if not self._done.done():
            self._done.set_result(None)


class Http2Probe(HttpProbe):
    """`protocol: http` and `https` of a target that speaks HTTP/2."""

    _call: Http2Call | None = None

    @property
    def asked(self) -> str:
        lines = "\n".join(f"{name}: {value}" for name, value in self._fields)
        return f"HTTP/2 {'over TLS ' if self.tls else ''}to {self.where}\n{lines}"

    @property
    def _fields(self) -> list[tuple[str, str]]:
        """The fields of the same question over HTTP/1, as HTTP/2 has them."""
        line, *lines = self.question.decode("latin-1").rstrip("\r\n").split("\r\n")
        method, path, _ = line.split(" ")
        pairs = [line.partition(":") for line in lines]
        fields = [(name.lower(), value.strip()) for name, _, value in pairs]
        host = next((value for name, value in fields if name == "host"), "localhost")
        pseudo = [
            (":method", method),
            (":scheme", "https" if self.tls else "http"),
            (":authority", host),
            (":path", path),
        ]
        return pseudo + [(name, value) for name, value in fields if name not in ("host", "connection")]

    def begin(self, timeout: float, on_verdict: OnVerdict, at: str = "") -> PendingProbe | None:
        return None

    async def run(self, at: str = "") -> Verdict:
        began = monotonic()
        self._call = None
        context = await self.dialer.contexts.get(self.tls, HTTP2) if self.tls is not None else None
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        call = self._call = Http2Call(self._fields, b"", self.spec.method == "HEAD", self.spec.max_body, done)
        try:
            await self.dialer.open(lambda: call, self.host, self.port, context, self.tls, at)
            await done
            seconds = monotonic() - began
            answer = self._answer_of(call)
            return self.judge(answer, seconds) or await self.judge_aside(answer, seconds)
        finally:
            call.close()

    def timed_out(self, seconds: float) -> Verdict:
        call = self._call
        if call is None:
            return unprepared(self.where, self.spec.timeout, seconds)
        return self.too_late(self._answer_of(call), call.transport is not None, seconds)

    def _answer_of(self, call: Http2Call) -> Answer:
        """The answer, as one of HTTP/1 whose end is its connection's, unless it has a length."""
        answer = self.answer()
        for head in call.heads:
            answer.feed(head.line + head.fields.forwarded_lines + b"\r\n")
        if call.body and not answer.done:
            answer.feed(call.body)
        if call.ended:
            answer.end()
        elif call.broken:
            answer.broken = "closed" if call.broken.startswith("closed") and not call.heads else call.broken
            answer.done = True
        return answer
