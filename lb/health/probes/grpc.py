"""gRPC probes: call `grpc.health.v1.Health/Check` and expect SERVING.

One call needs little of gRPC: an HTTP/2 connection, one request of a few bytes, and the `grpc-status` after the answer.
The sans-I/O library `h2` does the framing, so that a probe needs no second event loop and no thread. `h2` is an
optional extra, imported when the first gRPC check is built.
"""

from __future__ import annotations

import asyncio
import struct
from time import monotonic
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import unquote

from lb import USER_AGENT
from lb.core.checks import CheckSpec
from lb.core.lifecycle import Verdict
from lb.core.printable import printable
from lb.core.targets import Target
from lb.health.probes.dial import Dialer, place_of, spell, unprepared
from lb.health.probes.inline import OnVerdict, PendingProbe

if TYPE_CHECKING:
    from h2.connection import H2Connection

PATH = "/grpc.health.v1.Health/Check"
#: `HealthCheckResponse.ServingStatus`.
SERVING_STATUS = {0: "UNKNOWN", 1: "SERVING", 2: "NOT_SERVING", 3: "SERVICE_UNKNOWN"}
CODES = (
    "OK", "CANCELLED", "UNKNOWN", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "NOT_FOUND", "ALREADY_EXISTS",
    "PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION", "ABORTED", "OUT_OF_RANGE", "UNIMPLEMENTED",
    "INTERNAL", "UNAVAILABLE", "DATA_LOSS", "UNAUTHENTICATED",
)  # fmt: skip
#: Bytes that a target may send in answer to one probe, framing included.
LIMIT = 65536


class GrpcProbe:
    """`protocol: grpc`, over TLS when the check or the target has TLS settings."""

    def __init__(self, target: Target, spec: CheckSpec, dialer: Dialer) -> None:
        self._spec = spec
        self._dialer = dialer
        self._host, self._port = place_of(target, spec)
        self._tls = spec.tls or target.tls
        self._call: _Call | None = None
        self.where = spell(self._host, self._port)

    @property
    def asked(self) -> str:
        over = "TLS to " if self._tls else ""
        return f"{over}{self.where}\n{PATH[1:]} service={self._spec.grpc_service or '(the server)'}"

    @property
    def expected(self) -> str:
        return f"SERVING within {self._spec.timeout:g} s"

    def begin(self, timeout: float, on_verdict: OnVerdict, at: str = "") -> PendingProbe | None:
        return None

    async def run(self, at: str = "") -> Verdict:
        began = monotonic()
        self._call = None
        connection = _connection()
        context = await self._dialer.contexts.get(self._tls, ("h2",)) if self._tls is not None else None
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        authority = "localhost" if self._host.startswith("unix:") else self.where
        headers = [
            (":method", "POST"),
            (":scheme", "https" if self._tls else "http"),
            (":path", PATH),
            (":authority", authority),
            ("te", "trailers"),
            ("content-type", "application/grpc"),
            ("grpc-timeout", f"{max(1, int(self._spec.timeout * 1000))}m"),
            ("user-agent", USER_AGENT),
            *((name.lower(), value) for name, value in self._spec.headers),
        ]
        call = self._call = _Call(connection, headers, question(self._spec.grpc_service), done)
        try:
            await self._dialer.open(lambda: call, self._host, self._port, context, self._tls, at)
            await done
            return call.verdict(monotonic() - began)
        finally:
            call.close()

    def timed_out(self, seconds: float) -> Verdict:
        if self._call is None:
            return unprepared(self.where, self._spec.timeout, seconds)
        text = "connected, but no answer" if self._call.transport is not None else "no connection"
        return Verdict(False, seconds, f"{text} within {self._spec.timeout:g} s", "timeout")


class _Call(asyncio.Protocol):
    """One unary call on a new connection."""

    def __init__(
        self,
        connection: H2Connection,
        headers: list[tuple[str, str]],
        message: bytes,
        done: asyncio.Future[None],
    ) -> None:
        self._h2 = connection
        self._headers = headers
        self._message = message
        self._done = done
        self._received = 0
        self._fields: dict[str, str] = {}
        self._body = b""
        self._broken = ""
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self._h2.initiate_connection()
        self._h2.send_headers(1, self._headers)
        self._h2.send_data(1, self._message, end_stream=True)
        self.transport.write(self._h2.data_to_send())

    def data_received(self, data: bytes) -> None:
        from h2 import events
        from h2.exceptions import ProtocolError

        if not self._received and data.startswith(b"HTTP/1"):
            self._break(f"not HTTP/2: {printable(data.splitlines()[0], 40)}")
            return
        self._received += len(data)
        try:
            happened = self._h2.receive_data(data)
        except (ProtocolError, ValueError) as error:
            beginning = printable(data, 40)
            self._break(
                f"not HTTP/2: {error or type(error).__name__}" if self._fields else f"not HTTP/2: {beginning!r}"
            )
            return
        for event in happened:
            match event:
                case events.ResponseReceived() | events.TrailersReceived():
                    for name, value in event.headers or ():
                        self._fields[_text(name)] = _text(value)
                case events.DataReceived():
                    self._body += event.data or b""
                    self._h2.acknowledge_received_data(event.flow_controlled_length or 0, 1)
                case events.StreamEnded():
                    self._end()
                case events.StreamReset():
                    self._break(f"the call was reset with {event.error_code!r}")
                case events.ConnectionTerminated():
                    self._break(f"the connection was ended with {event.error_code!r}")
        if self._received > LIMIT:
            self._break(f"the answer is longer than {LIMIT} bytes")
        elif self.transport is not None and not self.transport.is_closing():
            self.transport.write(self._h2.data_to_send())

    def eof_received(self) -> None:
        self._break("closed the connection without an answer")

    def connection_lost(self, error: Exception | None) -> None:
        if error is not None and not self._done.done():
            self._done.set_exception(error)
        self._break("closed the connection without an answer")

    def close(self) -> None:
        if self.transport is not None:
            self.transport.abort()

    def verdict(self, seconds: float) -> Verdict:
        if self._broken:
            kind = "reset" if self._broken.startswith("closed") else "garbage"
            return Verdict(False, seconds, self._broken, kind)
        fields = self._fields
        got = "\n".join(f"{name}: {value}" for name, value in fields.items())
        if fields.get(":status") != "200":
            return Verdict(False, seconds, f"HTTP {fields.get(':status')} instead of gRPC", "grpc", got=got)
        code = fields.get("grpc-status", "")
        if code != "0":
            name = CODES[int(code)] if code.isdigit() and int(code) < len(CODES) else f"status {code or 'missing'}"
            message = printable(unquote(fields.get("grpc-message", "")).encode())
            return Verdict(False, seconds, f"gRPC {name}{f': {message}' if message else ''}", "grpc", got=got)
        status = serving_status(self._body)
        if status is None:
            return Verdict(False, seconds, "not a HealthCheckResponse", "garbage", got=got)
        word = SERVING_STATUS.get(status, f"status {status}")
        return Verdict(status == 1, seconds, word, "passed" if status == 1 else "grpc", got=f"{got}\n{word}")

    def _break(self, why: str) -> None:
        if not self._done.done():
            self._broken = why
            self._end()

    def _end(self) -> None:
        if not self._done.done():
            self._done.set_result(None)


def question(service: str) -> bytes:
    """A `HealthCheckRequest` as a gRPC message: field 1 is the service's name."""
    name = service.encode()
    body = b"\x0a" + _varint(len(name)) + name if name else b""
    return struct.pack(">BI", 0, len(body)) + body


def serving_status(data: bytes) -> int | None:
    """The status in a `HealthCheckResponse` (field 1, a varint, 0 when omitted). None for any other message."""
    if len(data) < 5 or data[0] != 0 or len(data) != 5 + int.from_bytes(data[1:5], "big"):
        return None
    body = data[5:]
    if not body:
        return 0
    return body[1] if len(body) == 2 and body[0] == 0x08 and body[1] < 0x80 else None


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def _text(value: Any) -> str:
    return value.decode("latin-1") if isinstance(value, bytes) else str(value)


def _connection() -> H2Connection:
    try:
        from h2.config import H2Configuration
        from h2.connection import H2Connection
    except ImportError:
        raise RuntimeError("gRPC checks need the package h2: pip install 'lb[grpc]'") from None
    return H2Connection(H2Configuration(client_side=True, header_encoding="utf-8"))
