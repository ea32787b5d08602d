"""Routes on the wire: conditions are asked of the request as it came, and ambiguous paths go to no target."""

from __future__ import annotations

import pytest

from lb.core.targets import EXACT, Match
from tests.support.front import Front, status_of


@pytest.mark.parametrize(
    ("line", "fields", "status"),
    [
        (b"GET /a/b", b"X-Beta: 1\r\n", 200),
        (b"GET /a/b?x=%31", b"x-BETA:1\r\n", 200),
        (b"GET /a/b", b"", 404),
        (b"GET /a/b", b"X-Beta: 2\r\n", 404),
        (b"POST /a/b", b"X-Beta: 1\r\nContent-Length: 0\r\n", 404),
        (b"GET /c", b"X-Beta: 1\r\n", 404),
        (b"GET /a/b%2Fc;d", b"X-Beta: 1\r\n", 200),
        (b"GET /a%2Fb", b"X-Beta: 1\r\n", 400),
        (b"GET /c/../a/b", b"X-Beta: 1\r\n", 400),
        (b"GET /a/../c", b"X-Beta: 1\r\n", 400),
        (b"GET /a/%zz", b"X-Beta: 1\r\n", 400),
        (b"GET http://h/a/b", b"X-Beta: 1\r\n", 200),
    ],
)
def test_conditions(line: bytes, fields: bytes, status: int) -> None:
    with Front(path="/a", match=Match(methods=("GET",), headers=(("x-beta", "1"),))) as front:
        raw = line + b" HTTP/1.1\r\nHost: h\r\n" + fields + b"Connection: close\r\n\r\n"
        assert status_of(front.send(raw)) == status
        assert [request.split(b" ")[1] for request in front.origin.requests] == (
            [line.split(b" ")[1].removeprefix(b"http://h")] if status == 200 else []
        )
        assert front.at_rest()


def test_an_exact_path() -> None:
    with Front(path="/a", kind=EXACT) as front:
        for path, status in ((b"/a", 200), (b"/a/", 404), (b"/a?b", 200)):
            assert status_of(front.send(b"GET " + path + b" HTTP/1.1\r\nHost: h\r\n\r\n")) == status
