"""Forward auth on the wire: the question, what its answer lets pass, and that nothing else does."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from lb.core.guards import ForwardAuth
from lb.core.targets import FORWARD_AUTH, AccessLog, StepRule
from tests.support.eventually import eventually
from tests.support.front import Front, Origin, answers, status_of, with_listener
from tests.support.guards import FILES, KEY, KEYS, LOGIN, ask, credentials, keys
from tests.support.h2_client import GET, Client


def asks(**rule: Any) -> StepRule:
    made = ForwardAuth(**{"service": "auth", "target": "/verify?x=1", "copied": ("Remote-User", "X-Groups"), **rule})
    return StepRule(FORWARD_AUTH, forward_auth=made)


YES = b"HTTP/1.1 200 OK\r\nRemote-User: anna\r\nX-Groups: a\r\nX-Groups: b\r\nX-Other: o\r\nContent-Length: 2\r\n\r\nok"
NO = b"HTTP/1.1 %s\r\nContent-Length: 2\r\n\r\nno"


class Guarded(Front):
    """The first origin is guarded, the second one is asked."""

    def __init__(self, raw: bytes = YES, step: StepRule | None = None, **options: Any) -> None:
        super().__init__(2, **{"steps": (step or asks(),), "asks": True, **options})
        self.auth.script = answers(raw)

    @property
    def auth(self) -> Origin:
        return self.origins[1]

    def rests(self) -> bool:
        def look() -> bool:
            lanes, services = self.plane.lanes.values(), self.plane.services.values()
            quiet = not any(lane.in_flight or lane.active for lane in lanes)
            return quiet and not any(service.in_flight for service in services) and not self.plane.live.copies

        return bool(self.call(look))


def test_the_question_and_what_the_target_gets() -> None:
    with Guarded() as front:
        fields = (
            b"Remote_User: root\r\nremote.user: root\r\nX-Groups: root\r\nX-Forwarded-Uri: /x\r\n"
            b"X_Forwarded_Method: GET\r\nX-Forwarded-Method: GET\r\nX-HTTP-Method-Override: GET\r\nCookie: a=b\r\n"
            b"If-None-Match: *\r\nRange: bytes=0-1\r\n"
        )
        for _ in range(2):
            answer = front.send(
                b"POST /admin/a%2Fb?q=1 HTTP/1.1\r\nHost: a.example\r\nContent-Length: 4\r\nContent-Type: text/x\r\n"
                + fields
                + b"\r\nbody"
            )
            assert status_of(answer) == 200
        question, request = front.auth.requests[0], front.origin.requests[0]
        lines = question.split(b"\r\n")
        assert lines[:2] == [b"GET /verify?x=1 HTTP/1.1", b"Host: 127.0.0.1:%d" % front.auth.port]
        assert b"X-Forwarded-Method: POST" in lines
        assert b"X-Forwarded-Uri: /admin/a%2Fb?q=1" in lines
        assert b"X-Forwarded-Host: a.example" in lines
        assert b"X-Forwarded-For: 127.0.0.1" in lines
        assert b"X-Forwarded-Proto: http" in lines
        assert b"Cookie: a=b" in lines
        lower = question.lower()
        assert lower.count(b"forwarded-method") == lower.count(b"forwarded-uri") == 1
        for word in (b"root", b"content-", b"if-none-match", b"range", b"body", b"x_forwarded"):
            assert word not in lower, word
        assert request.endswith(b"\r\n\r\nbody")
        assert request.lower().count(b"remote") == 1
        assert b"\r\nRemote-User: anna\r\n" in request
        assert b"\r\nX-Groups: a\r\nX-Groups: b\r\n" in request
        assert b"root" not in request
        assert b"X-Other" not in request
        assert front.auth.connections == 1
        assert front.rests()


def test_an_answer_without_the_fields_removes_the_clients() -> None:
    with Guarded(b"HTTP/1.1 204 No Content\r\n\r\n") as front:
        assert ask(front, b"Remote-User: root\r\nx_groups: root\r\n") == 200
        assert b"root" not in front.origin.requests[0]


@pytest.mark.parametrize("status", [b"401 Unauthorized", b"403 Forbidden", b"302 Found", b"307 Temporary Redirect"])
def test_a_refusal_goes_to_the_client_as_it_is(status: bytes) -> None:
    raw = (
        b"HTTP/1.1 "
        + status
        + b"\r\nWWW-Authenticate: Basic realm=x\r\nWWW-Authenticate: Bearer\r\nLocation: /login?a\r\n"
        b"Set-Cookie: a=1\r\nSet-Cookie: b=2\r\nContent-Type: text/html\r\nTransfer-Encoding: chunked\r\n\r\n"
        b"3\r\n<p>\r\n0\r\n\r\n"
    )
    with Guarded(raw) as front:
        answer = front.send(b"POST /admin HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbody")
        assert answer.startswith(b"HTTP/1.1 " + status)
        for line in (b"Basic realm=x", b"Bearer", b"/login?a", b"a=1", b"b=2", b"text/html"):
            assert answer.count(b": " + line + b"\r\n") == 1, line
        assert answer.endswith(b"\r\n\r\n<p>")
        assert not front.origin.requests
        assert front.plane.stats.rejected == {"forward_auth": 1}
        assert front.rests()


@pytest.mark.parametrize(
    "raw",
    [
        NO % b"400 Bad Request",
        NO % b"404 Not Found",
        NO % b"431 Request Header Fields Too Large",
        NO % b"500 Internal Server Error",
        NO % b"503 Service Unavailable",
        b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 70000\r\n\r\n" + b"x" * 70000,
        b"garbage\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
    ],
)
def test_nothing_passes_that_nobody_has_let_pass(raw: bytes) -> None:
    with Guarded(raw) as front:
        assert ask(front) == 503
        assert not front.origin.requests
        assert front.rests()


def test_a_cut_answer_and_no_answer_let_nothing_pass() -> None:
    with Guarded() as front:
        front.auth.script = answers(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhe", close=True)
        assert ask(front) == 503

        async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, origin: Origin) -> None:
            await reader.read()

        front.auth.script = silent
        front.call(lambda: front.apply(steps=(asks(timeout=0.3),)))
        answer = front.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        assert status_of(answer) == 503
        front.loop.call_soon_threadsafe(front.auth.refuse)
        front.call(lambda: [lane.close_idle() for lane in front.plane.lanes.values()])
        assert ask(front) == 503
        front.call(lambda: front.apply(steps=(asks(service="gone"),)))
        assert ask(front) == 503
        assert not front.origin.requests
        assert front.rests()
        assert front.plane.stats.rejected["auth_timeout"] == 1


def test_a_client_that_goes_ends_the_question() -> None:
    with Guarded() as front:

        async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, origin: Origin) -> None:
            await reader.read()

        front.auth.script = silent
        with front.connect() as sock:
            sock.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            eventually(lambda: front.auth.connections)
        eventually(front.rests)
        assert not front.origin.requests


def test_a_websocket_is_asked_about_too() -> None:
    upgrade = b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
    with Guarded(NO % b"403 Forbidden") as front:
        assert ask(front, upgrade) == 403
        assert not front.origin.requests
        assert b"pgrade" not in front.auth.requests[0]
        assert b"ebsocket" not in front.auth.requests[0].lower()
    with Guarded() as front:
        assert ask(front, upgrade) == 200
        assert b"Upgrade: websocket\r\n" in front.origin.requests[0]


def test_an_upload_waits_for_the_verdict() -> None:
    with Guarded() as front:
        body = b"x" * 300_000
        assert status_of(front.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 300000\r\n\r\n" + body)) == 200
        assert front.origin.requests[0].endswith(b"\r\n\r\n" + body)
        assert b"x" not in front.auth.requests[0].partition(b"\r\n\r\n")[2]


def test_questions_over_http2_and_the_log_has_one_line(tmp_path: Path) -> None:
    log = tmp_path / "log"
    listener = with_listener(http2=True)
    with (
        Guarded(listener=listener, access_log=AccessLog("json", str(log))) as front,
        Client(front) as client,
    ):
        client.ask(1, [*GET, ("remote-user", "root"), ("x-forwarded-uri", "/")])
        assert client.answer(1)[0] == 200
        assert b"\r\nRemote-User: anna\r\n" in front.origin.requests[0]
        assert front.auth.requests[0].startswith(b"GET /verify?x=1 HTTP/1.1\r\n")
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert [(line["service"], line["steps"]) for line in lines] == [("s", ["forward_auth"])]


def test_two_guards_one_after_the_other() -> None:
    with Guarded(steps=(LOGIN, asks(), keys(name_header="X-Client")), files=(*FILES, *KEYS)) as front:
        assert ask(front) == 401
        assert not front.auth.requests
        assert ask(front, credentials()) == 401
        assert len(front.auth.requests) == 1
        assert b"\r\nRemote-User" not in front.auth.requests[0]
        assert ask(front, credentials() + b"X-Api-Key: " + KEY + b"\r\n") == 200
        assert b"\r\nX-Client: shop\r\n" in front.origin.requests[0]
        assert front.rests()
