"""What a gRPC status says of the target that answered with it.

gRPC answers every call with 200. Its own status, in the trailers, tells whether the call has failed, and whose fault
that was. Health, canary analysis and retries take the failures of a server as they take a 5xx.
"""

from __future__ import annotations

from typing import Final

#: Names by number (gRPC's statuscodes.md).
NAMES: Final = (
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
)
#: The statuses that are a failure of the server, and the statuses of HTTP that they count as. UNKNOWN is what an
#: exception in a handler comes to. RESOURCE_EXHAUSTED is none: a quota of one client would eject a target for all.
FAILURES: Final[dict[int, int]] = {
    2: 500,  # UNKNOWN
    4: 504,  # DEADLINE_EXCEEDED
    13: 500,  # INTERNAL
    14: 503,  # UNAVAILABLE
    15: 500,  # DATA_LOSS
}


def counts_as(status: int) -> int:
    """The status of HTTP that a gRPC status counts as: 200 unless it is a failure of the server."""
    return FAILURES.get(status, 200)


def described(status: int) -> str:
    """The status as logs name it."""
    return f"grpc-status {status} ({NAMES[status]})"
