"""gRPC on the wire: content types, deadlines, statuses. Sources: gRPC's PROTOCOL-HTTP2, http-grpc-status-mapping."""

from __future__ import annotations

import re
from typing import Final

INTERNAL: Final = 13
UNAVAILABLE: Final = 14
UNKNOWN: Final = 2
CANCELLED: Final = 1
DEADLINE_EXCEEDED: Final = 4

#: The reason of lb's own answer when a client's deadline has passed.
DEADLINE: Final = "grpc_deadline"

#: Statuses for an answer that would have, or has, one of HTTP and none of gRPC.
_STATUSES: Final[dict[int, int]] = {
    400: INTERNAL,
    401: 16,  # UNAUTHENTICATED
    403: 7,  # PERMISSION_DENIED
    404: 12,  # UNIMPLEMENTED
    408: CANCELLED,
    413: 8,  # RESOURCE_EXHAUSTED
    429: UNAVAILABLE,
    431: INTERNAL,
    499: CANCELLED,
    501: 12,
    502: UNAVAILABLE,
    503: UNAVAILABLE,
    504: UNAVAILABLE,
}
_TIMEOUT: Final = re.compile(rb"([0-9]{1,8})([HMSmun])")
_UNITS: Final[dict[bytes, float]] = {b"H": 3600.0, b"M": 60.0, b"S": 1.0, b"m": 1e-3, b"u": 1e-6, b"n": 1e-9}
_STATUS: Final = re.compile(rb"(?i)(?:\A|\n)grpc-status:[ \t]*+([^\r\n]*+)")
_NUMBERS: Final[dict[bytes, int]] = {b"%d" % status: status for status in range(17)}
_PUSHBACK: Final = re.compile(rb"(?i)(?:\A|\n)grpc-retry-pushback-ms:[ \t]*+([^\r\n]*+)")


def is_grpc(content_type: bytes) -> bool:
    """Whether a request is one of gRPC: `application/grpc`, alone or with a format or parameters behind it."""
    if content_type[:16].lower() != b"application/grpc":
        return False
    return content_type[16:17] in (b"", b"+", b";", b" ")


def read_timeout(value: bytes) -> float:
    """The seconds of a `grpc-timeout`; -1.0: it is none. (`m` is milliseconds, and `M` is minutes.)"""
    match = _TIMEOUT.fullmatch(value)
    return int(match[1]) * _UNITS[match[2]] if match else -1.0


def write_timeout(seconds: float) -> bytes:
    """A `grpc-timeout` of no more than that."""
    if seconds < 10.0:
        return b"%du" % int(seconds * 1e6)
    if seconds < 1e4:
        return b"%dm" % int(seconds * 1e3)
    return b"%dS" % min(int(seconds), 99_999_999)


def read_status(lines: bytes) -> int:
    """The `grpc-status` among field lines; -1: there is none. A number that gRPC does not have is UNKNOWN."""
    match = _STATUS.search(lines)
    return -1 if match is None else _NUMBERS.get(match[1].rstrip(), UNKNOWN)


def forbids_retry(lines: bytes) -> bool:
    """Whether a target wants no other try at once (gRFC A6): it names a wait, or a negative one, which means never."""
    match = _PUSHBACK.search(lines)
    return match is not None and match[1].strip() != b"0"


def status_of(status: int, reason: str = "") -> int:
    """The status of gRPC for an answer with this one of HTTP, and for this reason of lb's."""
    return DEADLINE_EXCEEDED if reason == DEADLINE else _STATUSES.get(status, UNKNOWN)
