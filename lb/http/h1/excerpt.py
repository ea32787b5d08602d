"""The readable parts of a refused request, for the access log and for `lb explain`.

Nothing is decided here. `parse` has refused the bytes, so each value may be missing or malformed. Values are bounded,
and hold printable bytes alone.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

from lb.http.h1.parse import TOKEN

#: Bytes of each value that are kept.
METHOD_LIMIT: Final = 32
TARGET_LIMIT: Final = 1024
FIELD_LIMIT: Final = 256
#: Bytes of the head that are looked at.
_LOOKED_AT: Final = 65536

_METHOD: Final = re.compile(TOKEN + rb"{1,%d}(?= )" % METHOD_LIMIT)
_TARGET: Final = re.compile(rb" ([\x21-\x7e\x80-\xff]{1,%d})" % TARGET_LIMIT)
_VERSION: Final = re.compile(rb"(?m)\A[^\r\n]* (HTTP/[0-9]\.[0-9])\r?$")
_HOST: Final = re.compile(rb"(?im)^host[ \t]*:[ \t]*([\x21-\x7e\x80-\xff]{1,%d})" % FIELD_LIMIT)
_USER_AGENT: Final = re.compile(rb"(?im)^user-agent:[ \t]*([\x20-\x7e\x80-\xff]{1,%d})" % FIELD_LIMIT)


class Excerpt(NamedTuple):
    """Each value as sent, cut at its bound. b"" when it could not be read."""

    method: bytes = b""
    target: bytes = b""
    protocol: bytes = b""
    host: bytes = b""
    user_agent: bytes = b""


def excerpt(data: bytes) -> Excerpt:
    """Read the parts of a head. `data` may be no HTTP at all, unfinished, or hold more than one request."""
    end = data.find(b"\r\n\r\n")
    head = data[: min(end if end >= 0 else len(data), _LOOKED_AT)].lstrip(b"\r\n")
    method = _METHOD.match(head)
    if method is None:
        return Excerpt()
    target = _TARGET.match(head, method.end())
    matches = [pattern.search(head) for pattern in (_VERSION, _HOST, _USER_AGENT)]
    version, host, user_agent = [match[1] if match is not None else b"" for match in matches]
    return Excerpt(method[0], target[1] if target is not None else b"", version, host, user_agent)
