"""Content codings (RFC 9110 section 8.4): which one a client takes, which answers may have one, and their heads.

An answer that has a coding is another representation: its entity tag is weak then, as the bytes differ from the ones
that the target has tagged, and Vary says what it depends on. Fields about the target's bytes go.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from lb.http.message import LENGTH, NONE, UNTIL_CLOSE, RequestFields, ResponseFields, ResponseHead

_QUALITY: Final = re.compile(rb"[ \t]*q=(0(?:\.[0-9]{0,3})?|1(?:\.0{0,3})?)[ \t]*", re.IGNORECASE)
#: Fields that are about the bytes that the target has sent.
_OF_BYTES: Final = frozenset(
    b"accept-ranges content-digest content-length content-md5 digest repr-digest want-digest".split()
)
#: Answers to these have whole representations; others are parts, have no body, or are about the connection.
_STATUSES: Final = frozenset((200, 201, 202, 203))
_NEVER: Final = (b"text/event-stream", b"application/grpc")


def chosen(accept: Sequence[bytes], offered: Sequence[bytes]) -> bytes:
    """The coding for a client that accepts these, b"" for none: the one with the highest weight, of equals the first
    one that is offered."""
    weights: dict[bytes, float] = {}
    for item in b",".join(accept).split(b","):
        name, _, parameter = item.partition(b";")
        weight = 1.0
        if parameter:
            match = _QUALITY.fullmatch(parameter)
            weight = float(match[1]) if match is not None else 0.0
        if name.strip():
            weights[name.strip().lower()] = weight
    any_other = weights.get(b"*", 0.0)
    best, found = 0.0, b""
    for coding in offered:
        weight = weights.get(coding, weights.get(b"x-gzip", any_other) if coding == b"gzip" else any_other)
        if weight > best:
            best, found = weight, coding
    return found if best >= weights.get(b"identity", 0.0) else b""


class Types:
    """Media types, with `text/*` for all of one kind."""

    __slots__ = ("_kinds", "_types")

    def __init__(self, types: Sequence[str]) -> None:
        lower = [each.lower().encode() for each in types]
        self._types = frozenset([each for each in lower if not each.endswith(b"/*")])
        self._kinds = frozenset([each[:-2] for each in lower if each.endswith(b"/*")])

    def have(self, value: bytes) -> bool:
        """Whether the value of Content-Type is one of them."""
        name = value.partition(b";")[0].strip(b" \t").lower()
        if name.startswith(_NEVER):
            return False
        return name in self._types or name.partition(b"/")[0] in self._kinds


def may_be_coded(response: ResponseHead, types: Types, minimum: int) -> bool:
    """Whether an answer may have a coding, for clients that take one."""
    fields = response.fields
    status = response.status
    if status not in _STATUSES and (status < 400 or status == 416):
        return False
    if 0 <= fields.length < minimum or fields.upgrade:
        return False
    is_listed = False
    for line in fields.forwarded_lines.split(b"\r\n"):
        name, _, value = line.partition(b":")
        name = name.lower()
        if name in (b"content-encoding", b"content-range"):
            return False
        if name == b"content-type":
            is_listed = types.have(value)
            if not is_listed:
                return False
        elif name == b"cache-control" and b"no-transform" in value.lower():
            return False
    return is_listed


def with_vary(response: ResponseHead) -> ResponseHead:
    """The same head, which says that the answer depends on Accept-Encoding."""
    lines = response.fields.forwarded_lines
    return response if _varies(lines) else response.with_lines(lines + b"Vary: Accept-Encoding\r\n")


def _varies(lines: bytes) -> bool:
    for line in lines.split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name.lower() == b"vary":
            for item in value.split(b","):
                if item.strip().lower() in (b"*", b"accept-encoding"):
                    return True
    return False


def coded_head(response: ResponseHead, coding: bytes, length: int, head_only: bool) -> ResponseHead:
    """The head of an answer with a coding. `length` -1: it is not known yet."""
    former = response.fields
    kept: list[bytes] = []
    for line in former.forwarded_lines.split(b"\r\n"):
        if not line:
            continue
        name, _, value = line.partition(b":")
        lower = name.lower()
        if lower in _OF_BYTES:
            continue
        if lower == b"etag" and not value.lstrip().startswith(b"W/"):
            line = name + b": W/" + value.strip()
        kept.append(line + b"\r\n")
    if not _varies(former.forwarded_lines):
        kept.append(b"Vary: Accept-Encoding\r\n")
    kept.append(b"Content-Encoding: " + coding + b"\r\n")
    if length >= 0:
        kept.append(b"Content-Length: %d\r\n" % length)
    fields = ResponseFields()
    fields.length, fields.close, fields.keep_alive_timeout = length, former.close, former.keep_alive_timeout
    fields.authenticates_connection = former.authenticates_connection
    fields.has_date, fields.has_request_id = former.has_date, former.has_request_id
    fields.forwarded_lines = b"".join(kept)
    framing = NONE if head_only else LENGTH if length >= 0 else UNTIL_CLOSE
    return ResponseHead(response.status, response.minor, response.line, framing, fields)


def weakened(response: ResponseHead) -> ResponseHead:
    """A 304 about an answer with a coding: its entity tag is the weak one that the client holds."""
    lines = response.fields.forwarded_lines
    made = b"".join(
        [
            (line[:5] + b" W/" + line[5:].strip() if line[:5].lower() == b"etag:" and b"W/" not in line else line)
            + b"\r\n"
            for line in lines.split(b"\r\n")
            if line
        ]
    )
    return with_vary(response if made == lines else response.with_lines(made))


def with_strong_tags(fields: RequestFields) -> RequestFields:
    """The fields for the target, in which If-None-Match has the strong form of each weak tag, too: the target has
    tagged its own bytes, and may compare texts."""
    value = b", ".join(list(fields.values(b"if-none-match")))
    if b"W/" not in value:
        return fields
    gone = [line for line in fields.forwarded_lines if line[:14].lower() == b"if-none-match:"]
    more = [tag[2:] for tag in re.findall(rb'W/"[^"]*"', value)]
    return fields.with_changes([b"If-None-Match: " + b", ".join([value, *more]) + b"\r\n"], gone)
