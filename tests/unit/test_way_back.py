"""The way back: URLs and cookies of answers as clients know them."""

from __future__ import annotations

import pytest

from lb.http.way_back import with_cookies, with_location


@pytest.mark.parametrize(
    ("line", "prefix", "to", "made"),
    [
        (b"Location: /login?a=/x", b"/", b"/v1/", b"Location: /v1/login?a=/x"),
        (b"location:http://app/x", b"http://app/", b"/v1/", b"location: /v1/x"),
        (b"Content-Location: /x", b"/", b"/v1/", b"Content-Location: /v1/x"),
        (b"Location: https://other/x", b"/", b"/v1/", b"Location: https://other/x"),
        (b"Location: http://app.evil/", b"http://app/", b"/v1/", b"Location: http://app.evil/"),
        (b"Location: //evil", b"/", b"/v1/", b"Location: /v1//evil"),
        (b"X-Location: /x", b"/", b"/v1/", b"X-Location: /x"),
    ],
)
def test_locations(line: bytes, prefix: bytes, to: bytes, made: bytes) -> None:
    assert with_location(b"A: /\r\n" + line + b"\r\n", prefix, to) == b"A: /\r\n" + made + b"\r\n"


@pytest.mark.parametrize(
    ("line", "attribute", "was", "to", "made"),
    [
        (b"Set-Cookie: a=b; Path=/", b"path", b"/", b"/v1/", b"Set-Cookie: a=b; Path=/v1/"),
        (b"set-cookie: a=; path = /x ;Secure", b"path", b"/", b"/v1/", b"set-cookie: a=; path = /v1/x;Secure"),
        (b"Set-Cookie: Path=/; HttpOnly", b"path", b"/", b"/v1/", b"Set-Cookie: Path=/; HttpOnly"),
        (b"Set-Cookie: a=b; Path=/y", b"path", b"/x", b"/v1", b"Set-Cookie: a=b; Path=/y"),
        (b"Set-Cookie: a=b; Domain=.App", b"domain", b"app", b"a.org", b"Set-Cookie: a=b; Domain=a.org"),
        (b"Set-Cookie: a=b; Domain=myapp", b"domain", b"app", b"a.org", b"Set-Cookie: a=b; Domain=myapp"),
        (b"Set-Cookie: a=b; Domain=app; Path=/", b"path", b"/", b"/1/", b"Set-Cookie: a=b; Domain=app; Path=/1/"),
        (b"X: a; Path=/", b"path", b"/", b"/v1/", b"X: a; Path=/"),
    ],
)
def test_cookies(line: bytes, attribute: bytes, was: bytes, to: bytes, made: bytes) -> None:
    assert with_cookies(line + b"\r\n", attribute, was, to) == made + b"\r\n"
