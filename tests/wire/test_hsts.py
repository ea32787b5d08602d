"""Strict-Transport-Security: on all answers of a listener that has a policy, and on no other one's."""

from __future__ import annotations

import socket
import ssl

import pytest
import trustme

from lb.core.targets import HSTS, Answer, StepRule
from tests.support.front import Front, answers, read_answer, status_of, with_listener

POLICY = "max-age=31536000; includeSubDomains"
LINE = b"Strict-Transport-Security: max-age=31536000; includeSubDomains\r\n"
AUTHORITY = trustme.CA()


def front(hsts: str = POLICY, **service: object) -> Front:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    AUTHORITY.issue_cert("a.example").configure_cert(context)
    return Front(listener=with_listener(hsts=hsts), tls=context, **service)


def client(front: Front) -> ssl.SSLSocket:
    context = ssl.create_default_context()
    AUTHORITY.configure_trust(context)
    return context.wrap_socket(front.connect(), server_hostname="a.example")


def ask(sock: socket.socket, host: bytes = b"a.example", path: bytes = b"/") -> bytes:
    sock.sendall(b"GET " + path + b" HTTP/1.1\r\nHost: " + host + b"\r\n\r\n")
    return read_answer(sock)


def test_each_answer_carries_the_policy_once() -> None:
    with front() as one, client(one) as sock:
        for _ in range(3):
            assert ask(sock).count(LINE) == 1


def test_answers_of_lb_itself_carry_it() -> None:
    with front(path="/only") as one, client(one) as sock:
        answer = ask(sock)
        assert status_of(answer) == 404
        assert answer.count(LINE) == 1


@pytest.mark.parametrize("host", [b"192.0.2.1", b"192.0.2.1:443", b"[2001:db8::1]:443", b"1", b"0x7f.1"])
def test_an_address_has_no_policy(host: bytes) -> None:
    with front() as one, client(one) as sock:
        assert b"strict-transport" not in ask(sock, host).lower()
        assert ask(sock, b"a.example:443").count(LINE) == 1
        assert b"strict-transport" not in ask(sock, host).lower()


def test_a_policy_of_the_target_stays() -> None:
    own = b"strict-transport-security: max-age=1\r\n"
    with front() as one, client(one) as sock:
        one.with_script(answers(b"HTTP/1.1 200 OK\r\n" + own + b"Content-Length: 2\r\n\r\nhi"))
        answer = ask(sock)
        assert answer.lower().count(b"strict-transport-security") == 1
        assert own in answer


@pytest.mark.parametrize(
    "raw",
    [
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n",
        b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi",
        b"HTTP/1.1 200 OK\r\nDate: now\r\nX-Request-Id: mine\r\nContent-Length: 2\r\n\r\nhi",
        b"HTTP/1.1 204 No Content\r\n\r\n",
    ],
)
def test_the_framing_stays(raw: bytes) -> None:
    with front() as with_it, Front() as without:
        for one in (with_it, without):
            one.with_script(answers(raw))
        with client(with_it) as sock, without.connect() as plain:
            got, expected = ask(sock), ask(plain)
        body = expected.split(b"\r\n\r\n")[-1]
        assert got.count(LINE) == 1
        assert got.endswith(body)
        assert len(without_ids(got)) == len(without_ids(expected)) + len(LINE)


def without_ids(answer: bytes) -> bytes:
    """The answer without the lines that differ each time."""
    return b"\r\n".join(line for line in answer.split(b"\r\n") if not line.startswith((b"X-Request-Id", b"Date")))


def test_a_listener_without_a_policy_adds_none() -> None:
    with front(hsts="") as one, client(one) as sock:
        assert b"strict-transport" not in ask(sock).lower()


STEP = StepRule(HSTS, to="max-age=60")
OF_STEP = b"Strict-Transport-Security: max-age=60\r\n"


@pytest.mark.parametrize("answer", [None, Answer(200, "own")])
def test_a_routes_policy_goes_by_https_alone(answer: Answer | None) -> None:
    of_route = {"steps": (STEP,), "answer": answer}
    with front("", **of_route) as one, client(one) as sock:
        for _ in range(3):
            assert ask(sock).count(OF_STEP) == 1
        assert b"strict-transport" not in ask(sock, b"192.0.2.1").lower()
    for trusted in ((), ("127.0.0.1",)):
        with Front(trusted_proxies=trusted, **of_route) as one:
            assert b"strict-transport" not in one.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").lower()
            proxied = b"GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-Proto: https\r\n\r\n"
            assert (OF_STEP in one.send(proxied)) is bool(trusted)


def test_a_routes_policy_comes_before_the_listeners() -> None:
    with front(steps=(STEP,)) as one, client(one) as sock:
        answer = ask(sock)
        assert answer.count(OF_STEP) == 1
        assert answer.lower().count(b"strict-transport-security") == 1
        one.with_script(
            answers(b"HTTP/1.1 200 OK\r\nstrict-transport-security: max-age=1\r\nContent-Length: 0\r\n\r\n")
        )
        assert ask(sock).lower().count(b"strict-transport-security: max-age=1\r\n") == 1
