"""gRPC probes: call `grpc.health.v1.Health/Check` and expect SERVING.

One call needs little of gRPC: an HTTP/2 connection, one request of a few bytes, and the `grpc-status` after the answer.
The two messages have one field each, and are written and read by hand.
"""

from __future__ import annotations

import asyncio
import struct
from time import monotonic
from urllib.parse import unquote

from lb import USER_AGENT
from lb.core.checks import CheckSpec
from lb.core.lifecycle import Verdict
from lb.core.printable import printable
from lb.core.targets import Target
from lb.health.probes.dial import Dialer, place_of, spell, unprepared
from lb.health.probes.http2 import Http2Call
from lb.health.probes.inline import OnVerdict, PendingProbe
from lb.net.tls.contexts import HTTP2

PATH = "/grpc.health.v1.Health/Check"
#: `HealthCheckResponse.ServingStatus`.
SERVING_STATUS = {0: "UNKNOWN", 1: "SERVING", 2: "NOT_SERVING", 3: "SERVICE_UNKNOWN"}
CODES = (
    "OK", "CANCELLED", "UNKNOWN", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "NOT_FOUND", "ALREADY_EXISTS",
    "PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION", "ABORTED", "OUT_OF_RANGE", "UNIMPLEMENTED",
    "INTERNAL", "UNAVAILABLE", "DATA_LOSS", "UNAUTHENTICATED",
)  # fmt: skip
#: Bytes of an answer's message that are read. A health check has two.
LIMIT = 1024


class GrpcProbe:
    """`protocol: grpc`, over TLS when the check or the target has TLS settings."""

    def __init__(self, target: Target, spec: CheckSpec, dialer: Dialer) -> None:
        self._spec = spec
        self._dialer = dialer
        self._host, self._port = place_of(target, spec)
        self._tls = spec.tls or target.tls
        self._call: Http2Call | None = None
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
        context = await self._dialer.contexts.get(self._tls, HTTP2) if self._tls is not None else None
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        authority = "localhost" if self._host.startswith("unix:") else self.where
        fields = [
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
        call = self._call = Http2Call(fields, question(self._spec.grpc_service), False, LIMIT, done)
        try:
            await self._dialer.open(lambda: call, self._host, self._port, context, self._tls, at)
            await done
            return _verdict(call, monotonic() - began)
        finally:
            call.close()

    def timed_out(self, seconds: float) -> Verdict:
        if self._call is None:
            return unprepared(self.where, self._spec.timeout, seconds)
        text = "connected, but no answer" if self._call.transport is not None else "no connection"
        return Verdict(False, seconds, f"{text} within {self._spec.timeout:g} s", "timeout")


def _verdict(call: Http2Call, seconds: float) -> Verdict:
    """The verdict on a call that is over."""
    if call.broken:
        kind = "reset" if call.broken.startswith("closed") else "garbage"
        return Verdict(False, seconds, call.broken, kind)
    head = call.heads[-1]
    fields = {":status": str(head.status), **_fields(head.fields.forwarded_lines), **_fields(call.trailers)}
    got = "\n".join(f"{name}: {value}" for name, value in fields.items())
    if head.status != 200:
        return Verdict(False, seconds, f"HTTP {head.status} instead of gRPC", "grpc", got=got)
    code = fields.get("grpc-status", "")
    if code != "0":
        name = CODES[int(code)] if code.isdigit() and int(code) < len(CODES) else f"status {code or 'missing'}"
        message = printable(unquote(fields.get("grpc-message", "")).encode())
        return Verdict(False, seconds, f"gRPC {name}{f': {message}' if message else ''}", "grpc", got=got)
    status = serving_status(call.body)
    if status is None:
        return Verdict(False, seconds, "not a HealthCheckResponse", "garbage", got=got)
    word = SERVING_STATUS.get(status, f"status {status}")
    return Verdict(status == 1, seconds, word, "passed" if status == 1 else "grpc", got=f"{got}\n{word}")


def _fields(lines: bytes) -> dict[str, str]:
    """Whole lines of HTTP/1 as fields."""
    pairs = [line.partition(":") for line in lines.decode("latin-1").split("\r\n") if line]
    return {name.lower(): value.strip() for name, _, value in pairs}


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
