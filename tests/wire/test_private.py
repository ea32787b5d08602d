"""A target that authenticates connections (NTLM, Negotiate): one client's login never serves another client."""

from __future__ import annotations

import asyncio

import pytest

from lb.core.targets import Retries
from tests.support.eventually import eventually
from tests.support.front import Front, Origin, read_answer, read_request, status_of


def field(head: bytes, name: bytes) -> bytes:
    return next((line[len(name) + 2 :] for line in head.split(b"\r\n") if line.lower().startswith(name + b":")), b"")


async def authenticates(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, origin: Origin) -> None:
    """As IIS: a login takes three requests on one connection, and then each request on it is that user's."""
    asked, user = False, b""
    while True:
        request = await read_request(reader)
        origin.requests.append(request)
        scheme, _, token = field(request, b"authorization").partition(b" ")
        challenge = b""
        if token == b"one":
            asked, challenge = True, b" two"
        elif token.startswith(b"three-") and asked:
            user = token[6:]
        if user:
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(user) + user)
        else:
            offer = b"WWW-Authenticate: " + (scheme or b"NTLM") + challenge
            writer.write(b"HTTP/1.1 401 Unauthorized\r\n" + offer + b"\r\nContent-Length: 0\r\n\r\n")


def request(login: bytes = b"", method: bytes = b"GET") -> bytes:
    body = b"Content-Length: 2\r\n\r\nhi" if method == b"POST" else b"\r\n"
    return method + b" / HTTP/1.1\r\nHost: a\r\n" + (b"Authorization: " + login + b"\r\n" if login else b"") + body


@pytest.mark.parametrize("scheme", [b"NTLM", b"Negotiate", b"ntlm"])
def test_a_login_is_one_clients(scheme: bytes) -> None:
    with Front(origins=2, retries=Retries(attempts=0)) as front:
        front.with_script(authenticates)
        clients = [front.connect() for _ in range(4)]
        for step in (b"", b" one", b" three-"):
            for number, client in enumerate(clients):
                user = b"%d" % number if step == b" three-" else b""
                client.sendall(request(scheme + step + user if step else b""))
            for client in clients:
                answer = read_answer(client)
                assert status_of(answer) == (200 if step == b" three-" else 401), answer
        for method in (b"GET", b"POST"):
            for number, client in enumerate(clients):
                client.sendall(request(method=method))
                assert read_answer(client).endswith(b"\r\n\r\n%d" % number)
            for _ in range(6):
                assert status_of(front.send(request(method=method))) == 401, "a stranger rode a login"
        for client in clients:
            client.close()
        eventually(lambda: front.call(lambda: sum(map(open_private, front.plane.lanes.values()))) == 0, 5.0)
        for _ in range(6):
            assert status_of(front.send(request())) == 401
        assert front.at_rest()


def open_private(lane: object) -> int:
    return sum(bool(upstream.private) for upstream in lane.connections)  # type: ignore[attr-defined]


def test_a_worker_that_stops_leaves_no_login_open() -> None:
    with Front() as front:
        front.with_script(authenticates)
        with front.connect() as client:
            client.sendall(request(b"NTLM one"))
            assert status_of(read_answer(client)) == 401
            assert front.call(lambda: sum(map(open_private, front.plane.lanes.values()))) == 1
            front.call(lambda: front.plane.drain(5.0))
            eventually(lambda: front.call(lambda: sum(map(open_private, front.plane.lanes.values()))) == 0, 5.0)
