"""Steps of a route on the wire: what the target gets, what the client gets, and what the log says of it."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from lb.core.targets import (
    COOKIE_DOMAIN,
    COOKIE_PATH,
    LOCATION,
    REPLACE_PATH,
    REPLACE_PREFIX,
    REQUEST_HEADERS,
    RESPONSE_HEADERS,
    REWRITE,
    REWRITE_HOST,
    SECURITY_HEADERS,
    STRIP_PREFIX,
    AccessLog,
    Answer,
    Maintenance,
    Redirect,
    StepRule,
)
from tests.support.front import Front, Origin, answers, read_request, status_of, with_listener
from tests.support.h2_client import Client

STRIP = StepRule(STRIP_PREFIX, "/v1", "/")
HEADERS = StepRule(
    REQUEST_HEADERS,
    replaced=(("X-Client", "{client_ip} {path}?{query} {{x}}"), ("X-Static", "s")),
    added=(("X-Add", "{scheme}://{host}"),),
    removed=("X-Gone",),
)


def ask(front: Front, line: bytes = b"GET /v1/x?q=1", fields: bytes = b"", body: bytes = b"") -> bytes:
    head = line + b" HTTP/1.1\r\nHost: A.example:81\r\n" + fields
    return front.send(head + (b"Content-Length: %d\r\n" % len(body) if body else b"") + b"\r\n" + body)


def lines_of(message: bytes) -> list[bytes]:
    return message.partition(b"\r\n\r\n")[0].split(b"\r\n")


@pytest.mark.parametrize(
    ("steps", "path", "sent"),
    [
        ((STRIP,), b"/v1/x?q=1", b"/x?q=1"),
        ((STRIP,), b"/v1", b"/"),
        ((STRIP,), b"/other", b"/other"),
        ((StepRule(REPLACE_PREFIX, "/v1", "/api"),), b"/v1/a%2Fb?x", b"/api/a%2Fb?x"),
        ((StepRule(REPLACE_PATH, to="/one"),), b"/v1/x?q=1", b"/one?q=1"),
        ((STRIP, StepRule(REPLACE_PREFIX, "/x", "/y")), b"/v1/x/z", b"/y/z"),
    ],
)
def test_the_target_gets_another_path(steps: tuple[StepRule, ...], path: bytes, sent: bytes) -> None:
    with Front(steps=steps) as front:
        assert status_of(ask(front, b"GET " + path)) == 200
        assert front.origin.requests[0].split(b" ")[1] == sent
        assert front.at_rest()


@pytest.mark.parametrize("path", [b"/v1//evil/x", b"/v1/../x", b"/v1/%2e%2e/x"])
def test_a_changed_path_that_means_something_else_is_refused(path: bytes) -> None:
    with Front(steps=(STRIP,)) as front:
        assert status_of(ask(front, b"GET " + path)) == 400
        assert not front.origin.requests


@pytest.mark.parametrize(
    ("path", "sent", "status"),
    [
        (b"/users/7/x?q={1}", b"/u/7/x?q={1}", 200),
        (b"/users/7%2F?", b"/u/7%2F?", 200),
        (b"/users", b"/users", 200),
        (b"/users//x", b"", 400),
        (b"/users/..%2fx/y", b"", 400),
    ],
)
def test_a_path_is_rewritten(path: bytes, sent: bytes, status: int) -> None:
    to = "/u/{1}" if status == 200 else "/{1}"
    with Front(steps=(StepRule(REWRITE, "/users/(.*)", to),)) as front:
        assert status_of(ask(front, b"GET " + path)) == status
        assert [request.split(b" ")[1] for request in front.origin.requests] == [sent] * (status == 200)


def test_the_target_gets_other_fields() -> None:
    with Front(steps=(STRIP, HEADERS)) as front:
        fields = b"x_client: forged\r\nX-Gone: 1\r\nX-Gone: 2\r\nX-Add: 0\r\nX-Kept: {host}\r\n"
        for _ in range(2):
            assert status_of(ask(front, b"POST /v1/x?q=1", fields, b"body")) == 200
        for request in front.origin.requests:
            lines = lines_of(request)
            assert [line for line in lines if line.lower().startswith((b"x-client", b"x_client"))] == [
                b"X-Client: 127.0.0.1 /v1/x?q=1 {x}"
            ]
            assert b"X-Static: s" in lines
            assert [line for line in lines if line.startswith(b"X-Add")] == [b"X-Add: http://a.example", b"X-Add: 0"]
            assert b"X-Kept: {host}" in lines
            assert not any(line.startswith(b"X-Gone") for line in lines)
            assert b"Host: A.example:81" in lines
            assert b"X-Forwarded-For: 127.0.0.1" in lines
            assert request.endswith(b"\r\n\r\nbody")


def test_static_changes_do_not_leak_from_one_client_to_another() -> None:
    static = StepRule(REQUEST_HEADERS, replaced=(("X-Static", "s"),), removed=("X-Gone",))
    with Front(steps=(static,)) as front:
        for number in (b"1", b"2", b"1"):
            ask(front, fields=b"X-Gone: y\r\nX-Mine: " + number + b"\r\n")
        mine = [line for request in front.origin.requests for line in lines_of(request) if line.startswith(b"X-Mine")]
        assert mine == [b"X-Mine: 1", b"X-Mine: 2", b"X-Mine: 1"]
        assert b"".join(front.origin.requests).count(b"X-Static: s\r\n") == 3


def test_a_connection_ends_or_stays_as_its_client_says() -> None:
    with Front(steps=(HEADERS,)) as front:
        for line, end, kept in (
            (b"GET / HTTP/1.1", b"Connection: close\r\n", False),
            (b"GET / HTTP/1.0", b"Connection: keep-alive\r\n", True),
        ):
            with front.connect() as sock:
                sock.settimeout(0.5)
                sock.sendall(line + b"\r\nHost: a\r\n" + end + b"\r\n")
                assert end.strip() in sock.recv(65536)
                if kept:
                    sock.sendall(line + b"\r\nHost: a\r\n\r\n")
                    assert b" 200 " in sock.recv(65536)
                assert sock.recv(65536) == b""


def test_another_host_comes_before_the_services() -> None:
    with Front(steps=(StepRule(REWRITE_HOST, to="inner.example"),), host_header="service.example") as front:
        ask(front)
        lines = lines_of(front.origin.requests[0])
        assert b"Host: inner.example" in lines
        assert b"X-Forwarded-Host: A.example:81" in lines


@pytest.mark.parametrize(
    "raw",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nServer: x\r\nX-A: 0\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nserver: x\r\n\r\n2\r\nok\r\n0\r\n\r\n",
    ],
)
def test_the_client_gets_other_fields(raw: bytes) -> None:
    step = StepRule(RESPONSE_HEADERS, replaced=(("X-A", "1"),), added=(("X-B", "{request_id}"),), removed=("Server",))
    with Front(steps=(step,)) as front:
        front.with_script(answers(raw))
        for _ in range(2):
            answer = ask(front)
            lines = lines_of(answer)
            assert b"X-A: 1" in lines
            assert b"X-A: 0" not in lines
            assert any(line.startswith(b"X-B: ") for line in lines)
            assert not any(line.lower().startswith(b"server") for line in lines)
            assert answer.endswith((b"\r\n\r\nok", b"2\r\nok\r\n0\r\n\r\n"))


def test_security_headers_are_added_where_the_target_has_none() -> None:
    fields = (("X-Content-Type-Options", "nosniff"), ("X-Frame-Options", "DENY"))
    raw = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nx-frame-options: SAMEORIGIN\r\n\r\nok"
    with Front(steps=(StepRule(SECURITY_HEADERS, added=fields),)) as front:
        front.with_script(answers(raw))
        for _ in range(2):
            lines = lines_of(ask(front))
            assert [line for line in lines if line.lower().startswith(b"x-frame")] == [b"x-frame-options: SAMEORIGIN"]
            assert b"X-Content-Type-Options: nosniff" in lines


def test_the_way_back_of_a_stripped_prefix() -> None:
    raw = (
        b"HTTP/1.1 302 Found\r\nLocation: /login\r\nSet-Cookie: a=1; Path=/; Domain=in.org\r\n"
        b"Set-Cookie: b=2\r\nContent-Length: 0\r\n\r\n"
    )
    back = (
        StepRule(LOCATION, "/", "/v1/"),
        StepRule(COOKIE_PATH, "/", "/v1/"),
        StepRule(COOKIE_DOMAIN, "in.org", "a.org"),
    )
    with Front(steps=(STRIP, *back)) as front:
        front.with_script(answers(raw))
        lines = lines_of(ask(front))
        assert b"Location: /v1/login" in lines
        assert b"Set-Cookie: a=1; Path=/v1/; Domain=a.org" in lines
        assert b"Set-Cookie: b=2" in lines


def test_lbs_own_answers_are_changed_too() -> None:
    step = StepRule(RESPONSE_HEADERS, replaced=(("X-Frame-Options", "DENY"),))
    with Front(steps=(step,), ports=(1,)) as front:
        answer = ask(front)
        assert status_of(answer) in (502, 503)
        assert b"X-Frame-Options: DENY" in lines_of(answer)


@pytest.mark.parametrize(
    ("redirect", "line", "status", "location"),
    [
        # httproute-redirect-host-and-status, -scheme, -port, -path, re-told; the client's URL is http://A.example:81
        (Redirect(host="example.org"), b"GET /a?b", 302, b"http://example.org:81/a?b"),
        (Redirect(host="example.org", status=301), b"GET /", 301, b"http://example.org:81/"),
        (Redirect(scheme="https"), b"GET /a", 302, b"https://A.example/a"),
        (Redirect(scheme="https", port=8443), b"GET /a", 302, b"https://A.example:8443/a"),
        (Redirect(scheme="https", port=443), b"GET /a", 302, b"https://A.example/a"),
        (Redirect(port=80), b"GET /a", 302, b"http://A.example/a"),
        (Redirect(port=8083), b"GET /a", 302, b"http://A.example:8083/a"),
        (Redirect(prefix="/v1", to="/v2"), b"GET /v1/x?y", 302, b"http://A.example:81/v2/x?y"),
        (Redirect(prefix="/v1", to="/"), b"GET /v1", 302, b"http://A.example:81/"),
        (Redirect(path="/full", status=308), b"POST /v1/x?y", 308, b"http://A.example:81/full?y"),
        (Redirect(path="/p", query=""), b"GET /v1/x?y", 302, b"http://A.example:81/p"),
        (Redirect(path="/p", query="from={path}"), b"GET /v1/x?y", 302, b"http://A.example:81/p?from=/v1/x"),
        (Redirect(scheme="https", status=307), b"GET //evil.example/x", 307, b"https://A.example//evil.example/x"),
    ],
)
def test_redirects(redirect: Redirect, line: bytes, status: int, location: bytes) -> None:
    with Front(redirect=redirect) as front:
        answer = ask(front, line)
        assert status_of(answer) == status
        assert b"Location: " + location in lines_of(answer)
        assert not front.origin.requests
        assert front.plane.stats.rejected == {}
        assert front.at_rest()


@pytest.mark.parametrize(
    ("answer", "ending"),
    [
        (Answer(410, "gone for good"), b"Content-Length: 13"),
        (Answer(204), b""),
        (Answer(418, "{}", "application/json"), b"Content-Type: application/json"),
    ],
)
def test_fixed_answers(answer: Answer, ending: bytes) -> None:
    with Front(answer=answer, steps=(StepRule(RESPONSE_HEADERS, added=(("X-A", "1"),)),)) as front:
        got = ask(front)
        assert status_of(got) == answer.status
        assert got.endswith(answer.body.encode())
        assert ending in got
        assert (b"Content-Length" in got) is (answer.status != 204)
        assert b"X-A: 1" in lines_of(got)
        assert front.plane.stats.rejected == {}


def logged(front: Front, path: Path) -> dict[str, Any]:
    log = front.plane.log
    assert log is not None
    front.call(log.flush)
    front.call(log.close)
    return dict(json.loads(path.read_text().splitlines()[0]))


def test_the_log_names_the_route_and_the_steps(tmp_path: Path) -> None:
    file = tmp_path / "log"
    with Front(steps=(STRIP, HEADERS), max_body=5, access_log=AccessLog("json", str(file))) as front:
        ask(front)
        line = logged(front, file)
    assert (line["path"], line["sent"], line["host"]) == ("/v1/x?q=1", "/x?q=1", "A.example:81")
    assert (line["route"], line["steps"]) == ("/", ["body_limit", "strip_prefix", "request_headers"])


def test_the_log_ends_with_the_step_that_answered(tmp_path: Path) -> None:
    file = tmp_path / "log"
    with Front(steps=(STRIP,), max_body=2, access_log=AccessLog("json", str(file))) as front:
        assert status_of(ask(front, b"POST /v1", body=b"long")) == 413
        line = logged(front, file)
        record = front.plane.stats.records[0]
    assert line["steps"] == ["body_limit"] == record.steps
    assert line["route"] == record.route == "/"


def test_a_bare_route_is_not_in_the_log(tmp_path: Path) -> None:
    file = tmp_path / "log"
    with Front(access_log=AccessLog("json", str(file))) as front:
        ask(front)
        assert "route" not in logged(front, file)


PATH = [(":method", "GET"), (":scheme", "http"), (":path", "/v1/x"), (":authority", "a.example")]


def test_the_same_over_http2() -> None:
    step = StepRule(RESPONSE_HEADERS, replaced=(("X-A", "1"),), removed=("Server",))
    with Front(listener=with_listener(http2=True), steps=(STRIP, HEADERS, step)) as front, Client(front) as client:
        front.with_script(
            answers(b"HTTP/1.1 200 OK\r\nServer: x\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n")
        )
        for stream in (1, 3):
            client.ask(stream, PATH)
            status, fields, body = client.answer(stream)
            assert (status, fields["x-a"], body) == (200, "1", b"ok")
            assert "server" not in fields
        assert front.origin.requests[0].startswith(b"GET /x HTTP/1.1\r\n")
        front.call(lambda: front.apply(redirect=Redirect(scheme="https"), steps=()))
        client.ask(5, PATH)
        status, fields, _ = client.answer(5)
        assert (status, fields["location"]) == (302, "https://a.example/v1/x")
        front.call(lambda: front.apply(answer=Answer(204), redirect=None, steps=()))
        client.ask(7, PATH)
        assert client.answer(7)[0] == 204


def test_a_retry_gets_the_changed_request() -> None:
    async def fails(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, origin: Origin) -> None:
        origin.requests.append(await read_request(reader))

    with Front(origins=2, steps=(STRIP, StepRule(REWRITE_HOST, to="inner.example"))) as front:
        front.origins[0].script = fails
        for _ in range(4):
            assert status_of(ask(front)) == 200
        for origin in front.origins:
            assert {request.split(b"\r\n")[0] for request in origin.requests} == {b"GET /x?q=1 HTTP/1.1"}
            assert all(b"\r\nHost: inner.example\r\n" in request for request in origin.requests)


def test_a_route_in_maintenance() -> None:
    rules = Maintenance(120, ("192.0.2.0/24",), "<p>ü</p>")
    with Front(maintenance=rules, client_certificate=True, trusted_proxies=("127.0.0.1",)) as front:
        answer = ask(front, fields=b"Accept: Text/HTML\r\n")
        assert status_of(answer) == 503
        assert answer.endswith("\r\n\r\n<p>ü</p>".encode())
        lines = lines_of(answer)
        assert lines.count(b"Retry-After: 120") == sum(line.startswith(b"Retry-After") for line in lines) == 1
        assert b"Content-Type: text/html; charset=utf-8" in lines
        assert status_of(ask(front, b"HEAD /", b"Accept: text/html\r\n")) == 503
        assert b"the service is in maintenance\n" in ask(front, b"POST /", body=b"x")
        assert not front.origin.requests
        assert status_of(ask(front, fields=b"X-Forwarded-For: 192.0.2.9\r\n")) == 403, "the next step decides"
        assert front.plane.stats.rejected == {"maintenance": 3, "client_certificate_required": 1}
        front.call(lambda: front.apply(maintenance=None, client_certificate=False))
        assert status_of(ask(front)) == 200
        assert front.at_rest()
