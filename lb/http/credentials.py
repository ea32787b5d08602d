"""What a request shows of who sends it: the parts of `Authorization` (RFC 9110 section 11.6.2)."""

from __future__ import annotations

import base64
import binascii

from lb.http.message import RequestFields


class Several(Exception):  # noqa: N818 - it says what is wrong
    """The request has the field more than once: lb and the target could go by different ones."""


def only_value(fields: RequestFields, name: bytes) -> bytes:
    """The one value of a field (lower case); b"": there is none. Raises `Several`."""
    found = list(fields.values(name))
    if len(found) > 1:
        raise Several
    return found[0] if found else b""


def read_basic(value: bytes) -> tuple[bytes, bytes] | None:
    """(user, password) of the scheme Basic (RFC 7617); None: it is something else."""
    scheme, _, rest = value.partition(b" ")
    if scheme.lower() != b"basic":
        return None
    try:
        user, colon, password = base64.b64decode(rest.strip(), validate=True).partition(b":")
    except (binascii.Error, ValueError):
        return None
    return (user, password) if colon and b"\0" not in password else None


def read_bearer(value: bytes) -> bytes:
    """The token of the scheme Bearer (RFC 6750); b"": it is something else."""
    scheme, _, rest = value.partition(b" ")
    return rest.strip() if scheme.lower() == b"bearer" else b""


def quoted(text: bytes) -> bytes:
    """A text as a quoted string."""
    return b'"' + text.replace(b"\\", b"\\\\").replace(b'"', b'\\"') + b'"'
