"""lb's own answers to gRPC: a status that its clients understand, in trailers alone ("Trailers-Only")."""

from __future__ import annotations

from lb.http.grpc import status_of
from lb.http.h2.hpack import encode_field, encode_status


def status_block(status: int, reason: str) -> bytes:
    """The header block, which is the whole answer, for an answer that would have this HTTP status."""
    return b"".join(
        (
            encode_status(200),
            encode_field(b"content-type", b"application/grpc"),
            encode_field(b"grpc-status", b"%d" % status_of(status, reason)),
            encode_field(b"grpc-message", b"lb: %d %b" % (status, reason.encode())),
        )
    )
