"""Guards of a route on the wire: who may pass, and every way around them that is known from other proxies."""

from __future__ import annotations

import pytest

from lb.core.targets import ALLOW, DENY, Answer, StepRule
from tests.support.front import Front, status_of, with_listener
from tests.support.h2_client import GET, Client

OFFICE = StepRule(ALLOW, networks=("10.0.0.0/8", "2001:db8::/32"))
NO_GUESTS = StepRule(DENY, networks=("10.9.0.0/16",))


def ask(front: Front, fields: bytes = b"", line: bytes = b"GET /admin") -> int:
    return status_of(front.send(line + b" HTTP/1.1\r\nHost: a.example\r\n" + fields + b"\r\n"))


@pytest.mark.parametrize(
    ("trusted", "fields", "status"),
    [
        ((), b"", 403),
        # Nobody but a trusted proxy tells the client's address.
        ((), b"X-Forwarded-For: 10.0.0.1\r\n", 403),
        ((), b"Forwarded: for=10.0.0.1\r\nX-Real-IP: 10.0.0.1\r\nX_Forwarded_For: 10.0.0.1\r\n", 403),
        (("127.0.0.1",), b"X-Forwarded-For: 10.0.0.1\r\n", 200),
        (("127.0.0.1",), b'Forwarded: for="[2001:db8::7]:80"\r\n', 200),
        (("127.0.0.1",), b"X-Forwarded-For: 192.0.2.1\r\n", 403),
        (("127.0.0.1",), b"X-Forwarded-For: 10.9.0.1\r\n", 403),
        # What a client has written before its proxy's entry does not count, nor does what is no address.
        (("127.0.0.1",), b"X-Forwarded-For: 10.0.0.1, 192.0.2.1\r\n", 403),
        (("127.0.0.1",), b"X-Forwarded-For: 10.0.0.1\r\nX-Forwarded-For: 192.0.2.1\r\n", 403),
        (("127.0.0.1",), b"Forwarded: for=10.0.0.1\r\nX-Forwarded-For: 192.0.2.1\r\n", 403),
        (("127.0.0.1",), b"X-Forwarded-For: 10.0.0.1, office\r\n", 403),
        (("127.0.0.1",), b"Connection: X-Forwarded-For\r\nX-Forwarded-For: 192.0.2.1\r\n", 403),
        (("127.0.0.1",), b"", 403),
    ],
)
def test_client_networks(trusted: tuple[str, ...], fields: bytes, status: int) -> None:
    with Front(steps=(NO_GUESTS, OFFICE), trusted_proxies=trusted) as front:
        assert ask(front, fields) == status
        assert len(front.origin.requests) == (status == 200)
        assert front.at_rest()


def test_clients_of_a_unix_socket(tmp_path: object) -> None:
    with Front(steps=(StepRule(ALLOW, networks=("unix",)),), unix=f"{tmp_path}/lb.sock") as front:
        assert ask(front) == 200
    with Front(steps=(StepRule(DENY, networks=("unix",)),), unix=f"{tmp_path}/other.sock") as front:
        assert ask(front) == 403


@pytest.mark.parametrize(
    "fields",
    [
        b"X-HTTP-Method-Override: GET\r\n",
        b"X-Original-URL: /\r\nX-Rewrite-URL: /\r\n",
        b"Upgrade: h2c\r\n",
        b"Expect: x\r\n",
    ],
)
@pytest.mark.parametrize(
    "line", [b"GET /admin", b"HEAD /admin", b"OPTIONS *", b"PURGE /admin", b"GET http://b.example/"]
)
def test_no_spelling_gets_around_a_guard(fields: bytes, line: bytes) -> None:
    with Front(steps=(OFFICE,)) as front:
        assert ask(front, fields, line) in (403, 400, 417)
        assert not front.origin.requests


def test_a_guard_comes_before_an_answer() -> None:
    with Front(steps=(OFFICE,), answer=Answer(200, "secret")) as front:
        answer = front.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        assert status_of(answer) == 403
        assert b"secret" not in answer


def test_over_http2() -> None:
    with Front(steps=(OFFICE,), listener=with_listener(http2=True)) as front, Client(front) as client:
        client.ask(1, [*GET, ("x-forwarded-for", "10.0.0.1")])
        assert client.answer(1)[0] == 403
        assert not front.origin.requests
