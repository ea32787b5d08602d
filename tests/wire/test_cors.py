"""Cross-origin requests on the wire: Gateway API's cases, preflights, and targets that have rules of their own."""

from __future__ import annotations

import pytest

from lb.core.guards import Cors
from lb.core.targets import CORS, StepRule
from lb.http.cors import Policy
from tests.support.front import Front, answers, status_of

ORIGINS = ("https://www.foo.com", "https://*.bar.com", "http://localhost:3000", "https://*.x.org:8443")


def step(**rule: object) -> StepRule:
    return StepRule(CORS, cors=Cors(**{"origins": ORIGINS, **rule}))  # type: ignore[arg-type]


def ask(front: Front, origin: bytes = b"", method: bytes = b"GET", fields: bytes = b"") -> list[bytes]:
    line = b"Origin: " + origin + b"\r\n" if origin else b""
    raw = front.send(method + b" / HTTP/1.1\r\nHost: a\r\n" + line + fields + b"\r\n")
    assert status_of(raw) in (200, 204)
    return raw.partition(b"\r\n\r\n")[0].split(b"\r\n")


def of_cors(lines: list[bytes]) -> list[bytes]:
    return [line for line in lines if line.lower().startswith((b"access-control", b"vary"))]


@pytest.mark.parametrize(
    ("origin", "taken"),
    [
        (b"https://www.foo.com", True),
        (b"HTTPS://WWW.FOO.COM", True),
        (b"http://www.foo.com", False),
        (b"https://foo.com", False),
        (b"https://www.foo.com:443", False),
        (b"https://www.foo.com.evil.com", False),
        (b"https://www.bar.com", True),
        (b"https://x.www.bar.com", True),
        (b"https://bar.com", False),
        (b"https://foobar.com", False),
        (b"https://.bar.com", False),
        (b"http://www.bar.com", False),
        (b"https://www.bar.com:8443", False),
        (b"https://evil.com/.bar.com", False),
        (b"https://evil.com:1.bar.com", False),
        (b"https://u@evil.bar.com", False),
        (b"http://localhost:3000", True),
        (b"http://localhost", False),
        (b"https://a.x.org:8443", True),
        (b"https://a.x.org", False),
        (b"null", False),
        (b"*", False),
        (b"", False),
    ],
)
def test_which_origins(origin: bytes, taken: bool) -> None:
    assert Policy(ORIGINS).takes(origin) is taken
    assert Policy(("*",)).takes(b"null") is False
    assert Policy(("null",)).takes(b"null") is True


def test_answers_to_an_origin() -> None:
    with Front(steps=(step(expose=("X-A", "X-B")),)) as front:
        assert of_cors(ask(front, b"https://www.bar.com")) == [
            b"Access-Control-Allow-Origin: https://www.bar.com",
            b"Access-Control-Expose-Headers: X-A, X-B",
            b"Vary: Origin",
        ]
        assert of_cors(ask(front, b"https://evil.com")) == [b"Vary: Origin"]
        assert of_cors(ask(front)) == [b"Vary: Origin"]
        assert len(front.origin.requests) == 3
    with Front(steps=(step(credentials=True),)) as front:
        assert of_cors(ask(front, b"http://localhost:3000")) == [
            b"Access-Control-Allow-Origin: http://localhost:3000",
            b"Access-Control-Allow-Credentials: true",
            b"Vary: Origin",
        ]
    with Front(steps=(step(origins=("*",)),)) as front:
        assert of_cors(ask(front, b"https://any.org")) == [b"Access-Control-Allow-Origin: *"]


PREFLIGHT = b"Access-Control-Request-Method: PUT\r\nAccess-Control-Request-Headers: X-One, content-type\r\n"


def test_preflights() -> None:
    vary = b"Vary: Origin, Access-Control-Request-Method, Access-Control-Request-Headers"
    rule = step(methods=("PUT", "DELETE"), headers=("X-One", "Content-Type"), max_age=60)
    with Front(steps=(rule,)) as front:
        assert of_cors(ask(front, b"https://www.foo.com", b"OPTIONS", PREFLIGHT)) == [
            b"Access-Control-Allow-Origin: https://www.foo.com",
            b"Access-Control-Allow-Methods: PUT, DELETE",
            b"Access-Control-Allow-Headers: x-one, content-type",
            b"Access-Control-Max-Age: 60",
            vary,
        ]
        for origin, fields in (
            (b"https://evil.com", PREFLIGHT),
            (b"https://www.foo.com", PREFLIGHT.replace(b"PUT", b"PATCH")),
            (b"https://www.foo.com", PREFLIGHT.replace(b"X-One", b"X-Two")),
        ):
            assert of_cors(ask(front, origin, b"OPTIONS", fields)) == [vary]
        assert not front.origin.requests
        ask(front, b"https://www.foo.com", b"OPTIONS")  # no preflight
        ask(front, b"", b"OPTIONS", PREFLIGHT)
        assert len(front.origin.requests) == 2
        assert front.plane.stats.rejected == {}
    with Front(steps=(step(headers=("*",), credentials=True),)) as front:
        made = of_cors(ask(front, b"https://www.foo.com", b"OPTIONS", PREFLIGHT.replace(b"PUT", b"GET")))
        assert b"Access-Control-Allow-Headers: x-one, content-type" in made
        assert not [line for line in made if b"*" in line or b"Max-Age" in line]


def test_the_targets_own_fields_are_replaced() -> None:
    raw = (
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nAccess-Control-Allow-Origin: *\r\nVary: Cookie, origin\r\n"
        b"access-control-allow-credentials: true\r\nX-A: 1\r\n\r\nok"
    )
    with Front(steps=(step(),), script=answers(raw)) as front:
        lines = ask(front, b"https://www.foo.com")
        assert of_cors(lines) == [b"Vary: Cookie, origin", b"Access-Control-Allow-Origin: https://www.foo.com"]
        assert b"X-A: 1" in lines
        assert of_cors(ask(front, b"https://evil.com")) == [b"Vary: Cookie, origin"]
