"""lb's own answers to gRPC: a status that its clients understand, in trailers alone.

Sources: gRPC's PROTOCOL-HTTP2 ("Trailers-Only") and its table of statuses for HTTP ones (http-grpc-status-mapping).
"""

from __future__ import annotations

from typing import Final

from lb.http.h2.hpack import encode_field, encode_status

INTERNAL: Final = 13
UNAVAILABLE: Final = 14

_STATUSES: Final[dict[int, int]] = {
    400: INTERNAL,
    401: 16,  # UNAUTHENTICATED
    403: 7,  # PERMISSION_DENIED
    404: 12,  # UNIMPLEMENTED
    413: 8,  # RESOURCE_EXHAUSTED
    429: UNAVAILABLE,
    431: INTERNAL,
    501: 12,
    502: UNAVAILABLE,
    503: UNAVAILABLE,
    504: UNAVAILABLE,
}
_UNKNOWN: Final = 2
_CANCELLED: Final = 1


def is_grpc(content_type: bytes) -> bool:
    """Whether a request is one of gRPC: `application/grpc`, alone or with a format or parameters behind it."""
    if content_type[:16].lower() != b"application/grpc":
        return False
    return content_type[16:17] in (b"", b"+", b";", b" ")


def status_block(status: int, reason: str) -> bytes:
    """The header block, which is the whole answer, for an answer that would have this HTTP status."""
    code = _CANCELLED if status == 408 else _STATUSES.get(status, _UNKNOWN)
    return b"".join(
        (
            encode_status(200),
            encode_field(b"content-type", b"application/grpc"),
            encode_field(b"grpc-status", b"%d" % code),
            encode_field(b"grpc-message", b"lb: %d %b" % (status, reason.encode())),
        )
    )
