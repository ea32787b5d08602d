"""The proxy's own answers: short plain text with the request id, complete with head and framing."""

from __future__ import annotations

REASONS: dict[int, bytes] = {
    200: b"OK",
    400: b"Bad Request",
    403: b"Forbidden",
    404: b"Not Found",
    405: b"Method Not Allowed",
    408: b"Request Timeout",
    413: b"Content Too Large",
    414: b"URI Too Long",
    417: b"Expectation Failed",
    429: b"Too Many Requests",
    431: b"Request Header Fields Too Large",
    500: b"Internal Server Error",
    501: b"Not Implemented",
    502: b"Bad Gateway",
    503: b"Service Unavailable",
    504: b"Gateway Timeout",
    505: b"HTTP Version Not Supported",
}


def reply(
    status: int,
    text: str,
    *,
    request_id: bytes = b"",
    close: bool = False,
    keep_alive_10: bool = False,
    head_only: bool = False,
    retry_after: int = 0,
    date: bytes = b"",
    extra: bytes = b"",
) -> bytes:
    """One complete answer. `head_only` for HEAD (same length, no body); `retry_after` in seconds, 0 leaves it out."""
    body = f"{status} {REASONS[status].decode()}: {text}\n"
    if request_id:
        body += f"request id: {request_id.decode('latin-1')}\n"
    payload = body.encode("latin-1", "replace")
    lines = [
        b"HTTP/1.1 %d %b\r\nServer: lb\r\nContent-Type: text/plain; charset=iso-8859-1\r\nContent-Length: %d\r\n"
        % (status, REASONS[status], len(payload))
    ]
    if date:
        lines.append(b"Date: " + date + b"\r\n")
    if request_id:
        lines.append(b"X-Request-Id: " + request_id + b"\r\n")
    if retry_after:
        lines.append(b"Retry-After: %d\r\n" % retry_after)
    if extra:
        lines.append(extra)
    if close:
        lines.append(b"Connection: close\r\n")
    elif keep_alive_10:
        lines.append(b"Connection: keep-alive\r\n")
    lines.append(b"\r\n")
    if not head_only:
        lines.append(payload)
    return b"".join(lines)
