"""What is refused of a target's HTTP/2 answer, and the head that the rest of lb gets of one that is not.

RFC 9113 section 8 is judged here. Then the head is written as one of HTTP/1 and read by `http.h1.parse`, as any other.
So a client never gets an answer that lb would have refused from a target that speaks HTTP/1.
"""

from __future__ import annotations

from http import HTTPStatus
from typing import Final

from lb.http.h1 import parse
from lb.http.h1.parse import BadResponse, read_response_fields
from lb.http.h2.fields import FIELD_VALUE, Fields, Malformed, check_name
from lb.http.message import ResponseHead

#: HTTP/2 has no reason phrases (section 8.3.2); clients of HTTP/1 get the usual ones.
_LINES: Final[dict[int, bytes]] = {
    int(status): b"HTTP/1.1 %d %b" % (int(status), status.phrase.encode()) for status in HTTPStatus
}


def switched(head: ResponseHead, accept: bytes) -> ResponseHead:
    """The 101 of HTTP/1.1 that a target's answer to an extended CONNECT stands for (RFC 8441 section 5.1). `accept` is
    the value of Sec-WebSocket-Accept."""
    lines = [
        line + b"\r\n"
        for line in head.fields.forwarded_lines.split(b"\r\n")
        if line and not line.lower().startswith((b"content-length:", b"sec-websocket-accept:"))
    ]
    lines += [b"Upgrade: websocket\r\n", b"Connection: Upgrade\r\n", b"Sec-WebSocket-Accept: ", accept, b"\r\n"]
    line = _LINES[101]
    return parse.read_response(line + b"\r\n", len(line), read_response_fields(b"".join(lines)), b"GET")


def read_answer(fields: Fields, head_only: bool) -> ResponseHead:
    """The head of an answer; `head_only`: to HEAD. Raises `BadResponse`.

    An answer without Content-Length gets the framing `CHUNKED`: that is what a client of HTTP/1.1 is sent.
    """
    status_text = b""
    lines: list[bytes] = []
    has_length = False
    for name, value in fields:
        if name[:1] == b":":
            if name != b":status" or status_text or lines:
                raise BadResponse("a pseudo-header field that is unknown, or comes twice, or too late")  # section 8.3
            status_text = value
            continue
        try:
            check_name(name)
        except Malformed as error:
            raise BadResponse(str(error)) from None
        if not FIELD_VALUE.fullmatch(value):
            raise BadResponse("a field value with a control character, or white space at an end")
        if name == b"content-length":
            has_length = True
        lines.append(name + b": " + value + b"\r\n")
    if len(status_text) != 3 or not status_text.isdigit() or status_text < b"100":
        raise BadResponse(":status is missing, or no status")  # section 8.3.2
    status = int(status_text)
    if status == 101:
        raise BadResponse("status 101, which HTTP/2 does not have")  # section 8.6
    parsed = read_response_fields(b"".join(lines))
    if not has_length and status >= 200 and status not in (204, 304) and not head_only:
        parsed.chunked = True
    line = _LINES.get(status) or b"HTTP/1.1 %d " % status
    return parse.read_response(line + b"\r\n", len(line), parsed, b"HEAD" if head_only else b"GET")
