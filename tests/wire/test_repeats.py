"""What clients and targets repeat is worked out once; what they change in between must not be overlooked."""

from __future__ import annotations

import json
from pathlib import Path

from lb.core.targets import AccessLog
from lb.proxy.access_log import Log
from tests.support.eventually import eventually
from tests.support.front import Front, read_answer

HEADS = [
    (b"GET /1 HTTP/1.1\r\nHost: a\r\nUser-Agent: one\r\n\r\n", "a", "HTTP/1.1", "one"),
    (b"GET /2 HTTP/1.1\r\nHost: a\r\nUser-Agent: one\r\nCookie: x=1\r\n\r\n", "a", "HTTP/1.1", "one"),
    (b"GET /3 HTTP/1.1\r\nHost: b\r\nUser-Agent: one\r\n\r\n", "b", "HTTP/1.1", "one"),
    (b"GET http://b/4 HTTP/1.1\r\nHost: b\r\nUser-Agent: one\r\nX: y\r\n\r\n", "b", "HTTP/1.1", "one"),
    (b"GET /5 HTTP/1.0\r\nHost: b\r\nConnection: keep-alive\r\nUser-Agent: one\r\n\r\n", "b", "HTTP/1.0", "one"),
    (b"GET /6 HTTP/1.1\r\nHost: b\r\nUser-Agent: two\r\n\r\n", "b", "HTTP/1.1", "two"),
    (b"GET http://B/7 HTTP/1.1\r\nHost: b\r\nUser-Agent: two\r\n\r\n", "B", "HTTP/1.1", "two"),
    (b"GET /8 HTTP/1.1\r\nhost: b:80\r\nUser-Agent:  two \r\n\r\n", "b:80", "HTTP/1.1", "two"),
    (b"GET /9 HTTP/1.1\r\nHost: b\r\n\r\n", "b", "HTTP/1.1", ""),
]


def test_one_connection_with_other_heads_each_time(tmp_path: Path) -> None:
    """Host, protocol and user agent of each request are its own: in the log, and in what the target gets."""
    path = tmp_path / "access.log"
    with Front() as front:

        def log() -> None:
            front.plane.log = Log(
                AccessLog("json", str(path)), front.plane.context.wall_offset, front.plane.stats.crash_counters
            )

        front.call(log)
        with front.connect() as sock:
            for head, *_ in HEADS:
                sock.sendall(head)
                assert read_answer(sock).startswith(b"HTTP/1.1 200")
        front.call(lambda: front.plane.log.flush())  # type: ignore[union-attr]
        eventually(lambda: path.exists() and path.read_text().count("\n") == len(HEADS))
        said = [json.loads(line) for line in path.read_text().splitlines()]
        assert [(each["host"], each["protocol"], each["user_agent"]) for each in said] == [head[1:] for head in HEADS]
        for request, (_, host, protocol, agent) in zip(front.origin.requests, HEADS, strict=True):
            sent = host.encode()
            assert b"\r\nHost: " + sent + b"\r\n" in request
            assert b"X-Forwarded-Host: " + sent.lower() + b"\r\n" in request.replace(b"Host: B", b"Host: b")
            assert b"Via: " + protocol[5:].encode() + b" lb\r\n" in request
            assert (b"User-Agent:" in request) == bool(agent)
            assert request.count(b"X-Forwarded-For: 127.0.0.1\r\n") == 1


def test_a_field_that_comes_and_goes() -> None:
    """A header block that differs in one field alone is read anew, with all that follows from it."""
    plain = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
    with_te = b"GET / HTTP/1.1\r\nHost: a\r\nTE: trailers\r\n\r\n"
    with_own = b"GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 1.2.3.4\r\n\r\n"
    with Front() as front, front.connect() as sock:
        for head in (plain, with_te, plain, with_own, plain):
            sock.sendall(head)
            assert read_answer(sock).startswith(b"HTTP/1.1 200")
        assert [b"TE: trailers" in request for request in front.origin.requests] == [False, True, False, False, False]
        assert not any(b"1.2.3.4" in request for request in front.origin.requests)
