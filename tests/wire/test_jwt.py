"""Tokens on the wire: who may pass, what the target learns, and that nothing outlives its end or its keys."""

from __future__ import annotations

import time
from typing import Any

import pytest

from lb.core.guards import Jwt
from lb.core.targets import JWT, StepRule
from tests.support.front import Front, status_of, with_listener
from tests.support.guards import ask
from tests.support.h2_client import GET, Client
from tests.support.tokens import ALL, EC, ED, RSA, claims, jwk, jwks, token

FILES = (("j1", ALL),)


def step(digest: str = "j1", **rule: Any) -> StepRule:
    made = {"issuers": ("https://id.example",), "audiences": ("shop",), "claims": (("X-User", "sub"),), **rule}
    return StepRule(JWT, file="https://id.example/jwks", digest=digest, jwt=Jwt(**made))


def bearer(text: str) -> bytes:
    return b"Authorization: Bearer " + text.encode() + b"\r\n"


def test_a_token_lets_in_and_the_target_learns_its_claims() -> None:
    with Front(steps=(step(),), files=FILES) as front:
        for key in (RSA, EC, ED):
            text = token(key)
            for _ in range(2):
                assert ask(front, bearer(text) + b"x_user: root\r\nX-User: root\r\nX.User: root\r\n") == 200
            request = front.origin.requests[-1]
            assert b"\r\nX-User: anna\r\n" in request
            assert b"root" not in request
            assert request.count(b"\r\nAuthorization: Bearer " + text.encode() + b"\r\n") == 1
        other = token(RSA, claims(sub=None))
        assert ask(front, bearer(other) + b"X-User: root\r\n") == 200
        assert b"X-User" not in front.origin.requests[-1]
        assert front.at_rest()


@pytest.mark.parametrize(
    "fields",
    [
        b"",
        b"Authorization: Bearer\r\n",
        b"Authorization: Bearer a.b.c\r\n",
        bearer(token(RSA, claims(exp=time.time() - 61))),
        bearer(token(RSA, claims(nbf=time.time() + 86400))),
        bearer(token(RSA, claims(aud="other"))),
        bearer(token(RSA, claims(iss="https://evil.example"))),
        bearer(token(RSA, claims(exp=None))),
        bearer(token(RSA, alg="none")),
        bearer(token(RSA, claims(sub="a\r\nX-Admin: 1"))),
        bearer(token(RSA, b'{"sub": "a", "sub": "b"}')),
        b"Authorization: Basic " + token(RSA).encode() + b"\r\n",
        b"X-Token: " + token(RSA).encode() + b"\r\n",
        b"Cookie: token=" + token(RSA).encode() + b"\r\n",
        b"Authorization: Bearer " + token(RSA).encode() + b", x\r\n",
    ],
)
def test_no_other_way_in(fields: bytes) -> None:
    with Front(steps=(step(),), files=FILES) as front:
        answer = front.send(b"GET /admin HTTP/1.1\r\nHost: a\r\n" + fields + b"\r\n")
        assert status_of(answer) == 401
        assert b"\r\nWWW-Authenticate: Bearer" in answer
        assert not front.origin.requests


def test_two_tokens_are_ambiguous() -> None:
    with Front(steps=(step(),), files=FILES) as front:
        assert ask(front, bearer(token(RSA)) + bearer(token(EC))) == 400


def test_a_token_is_kept_until_it_ends_and_no_longer() -> None:
    with Front(steps=(step(leeway=0.0),), files=FILES) as front, front.connect() as sock:
        text = token(RSA, claims(exp=time.time() + 1.2))
        request = b"GET / HTTP/1.1\r\nHost: a\r\n" + bearer(text) + b"\r\n"
        statuses = []
        until = time.monotonic() + 5
        while time.monotonic() < until and 401 not in statuses:
            sock.sendall(request)
            statuses.append(status_of(sock.recv(10000)))
            time.sleep(0.1)
        assert statuses[:5] == [200] * 5
        assert statuses[-1] == 401


def test_renewed_keys_count_at_once() -> None:
    with Front(steps=(step(),), files=FILES) as front, front.connect() as sock:
        request = b"GET / HTTP/1.1\r\nHost: a\r\n" + bearer(token(RSA)) + b"\r\n"
        sock.sendall(request)
        assert status_of(sock.recv(10000)) == 200
        front.call(lambda: front.apply(steps=(step("j2"),), files=(("j2", jwks(jwk(EC))),)))
        sock.sendall(request)
        assert status_of(sock.recv(10000)) == 401
        assert ask(front, bearer(token(EC))) == 200


def test_an_unknown_key_is_reported_once() -> None:
    with Front(steps=(step(),), files=FILES) as front:
        for _ in range(3):
            assert ask(front, bearer(token(RSA, kid="new"))) == 401
        assert front.call(lambda: front.plane.report().asked_keys) == ["https://id.example/jwks"]
        assert front.call(lambda: front.plane.report().asked_keys) == []


def test_without_keys_nobody_comes_in() -> None:
    for digest, files in (("", ()), ("j1", (("j1", b"{}"),))):
        with Front(steps=(step(digest),), files=files) as front:
            assert ask(front, bearer(token(RSA))) == 503
            assert ask(front) == 401
            assert not front.origin.requests


def test_another_field_and_a_token_that_stays_here() -> None:
    with Front(steps=(step(header="X-Token", remove_token=True),), files=FILES) as front:
        text = token(RSA).encode()
        assert ask(front, b"x-token: " + text + b"\r\nX_Token: other\r\n") == 200
        assert b"oken" not in front.origin.requests[0]


def test_over_http2() -> None:
    with Front(steps=(step(),), files=FILES, listener=with_listener(http2=True)) as front, Client(front) as client:
        client.ask(1, [*GET, ("authorization", f"Bearer {token(RSA)}"), ("x_user", "root")])
        assert client.answer(1)[0] == 200
        assert b"\r\nX-User: anna\r\n" in front.origin.requests[0]
        assert b"root" not in front.origin.requests[0]
        client.ask(3, [*GET, ("authorization", f"Bearer {token(RSA, alg='none')}")])
        assert client.answer(3)[0] == 401
