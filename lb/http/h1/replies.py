"""Answers that lb gives itself: short plain text with the request id, complete with head and framing."""

from __future__ import annotations

from typing import Final, NamedTuple

from lb.http.message import LENGTH, NONE, ResponseFields, ResponseHead

REASONS: Final[dict[int, bytes]] = {
    200: b"OK",
    201: b"Created",
    202: b"Accepted",
    204: b"No Content",
    301: b"Moved Permanently",
    302: b"Found",
    303: b"See Other",
    304: b"Not Modified",
    307: b"Temporary Redirect",
    308: b"Permanent Redirect",
    400: b"Bad Request",
    403: b"Forbidden",
    401: b"Unauthorized",
    404: b"Not Found",
    405: b"Method Not Allowed",
    408: b"Request Timeout",
    409: b"Conflict",
    410: b"Gone",
    413: b"Content Too Large",
    414: b"URI Too Long",
    417: b"Expectation Failed",
    421: b"Misdirected Request",
    429: b"Too Many Requests",
    431: b"Request Header Fields Too Large",
    500: b"Internal Server Error",
    501: b"Not Implemented",
    502: b"Bad Gateway",
    503: b"Service Unavailable",
    504: b"Gateway Timeout",
    505: b"HTTP Version Not Supported",
}


#: Statuses whose answers have no body, and no length either (RFC 9110 section 8.6).
BODYLESS: Final = frozenset((204, 304))


def reply(status: int, text: str, *, request_id: bytes = b"", retry_after: int = 0, date: bytes = b"") -> bytes:
    """One complete answer, after which the connection is closed. `retry_after` is in seconds, 0 omits it."""
    payload = _payload(status, text, request_id)
    lines = _lines(len(payload), date, request_id, retry_after, b"")
    return b"".join((b"HTTP/1.1 %d %b\r\n" % (status, REASONS[status]), *lines, b"Connection: close\r\n\r\n", payload))


class Reply(NamedTuple):
    """An answer that lb gives itself, as a value.

    `reason` is the label of `lb_rejected_total`. `extra` are whole lines of the head. `last` ends the connection.
    `payload` is sent as it is, instead of a text for people. With a status below 400 the request was not refused.
    """

    status: int
    reason: str
    text: str
    extra: bytes = b""
    last: bool = False
    payload: bytes = b""
    content_type: bytes = b""  # of the payload; b"": plain text
    done: bool = False  # the request got what its route says: an empty payload is meant, and nothing was refused
    retry_after: int = 0  # seconds; 0: a 503 has the service's


def response_of(
    reply: Reply, *, request_id: bytes, head_only: bool, retry_after: int, date: bytes
) -> tuple[ResponseHead, bytes]:
    """Head and payload of a reply. `head_only` is for HEAD: same length, no body. `retry_after` is in seconds, 0 omits
    it."""
    payload = reply.payload if reply.payload or reply.done else _payload(reply.status, reply.text, request_id)
    fields = ResponseFields()
    fields.length = len(payload)
    fields.has_date = fields.has_request_id = True
    lines = _lines(len(payload), date, request_id, retry_after, reply.extra, reply.content_type)
    if reply.status in BODYLESS:
        fields.length, lines[0], head_only = -1, b"Server: lb\r\n", True
    fields.forwarded_lines = b"".join(lines)
    line = b"HTTP/1.1 %d %b\r\n" % (reply.status, REASONS.get(reply.status, b""))
    framing = NONE if head_only else LENGTH
    return ResponseHead(reply.status, 1, line, framing, fields), b"" if head_only else payload


def _payload(status: int, text: str, request_id: bytes) -> bytes:
    reason = REASONS.get(status, b"").decode()
    body = f"{status} {reason}: {text}\n" if reason else f"{status}: {text}\n"
    if request_id:
        body += f"request id: {request_id.decode('latin-1')}\n"
    return body.encode("latin-1", "replace")


def _lines(
    length: int, date: bytes, request_id: bytes, retry_after: int, extra: bytes, content_type: bytes = b""
) -> list[bytes]:
    kind = content_type or b"text/plain; charset=iso-8859-1"
    lines = [b"Server: lb\r\nContent-Type: %b\r\nContent-Length: %d\r\n" % (kind, length)]
    if date:
        lines.append(b"Date: " + date + b"\r\n")
    if request_id:
        lines.append(b"X-Request-Id: " + request_id + b"\r\n")
    if retry_after:
        lines.append(b"Retry-After: %d\r\n" % retry_after)
    if extra:
        lines.append(extra)
    return lines
