"""Error pages on the wire: who gets HTML, who gets a problem document, and what stays as it is."""

from __future__ import annotations

import json
from typing import Any

import pytest

from lb.core.error_pages import ErrorPage, ErrorPages
from lb.core.targets import ALLOW, Answer, Maintenance, StepRule
from tests.support.front import Front, answers, status_of, with_listener
from tests.support.h2_client import Client
from tests.support.h2_peer import GET

SORRY = b"<h1>Sorry</h1> {detail} at {path}, {request_id}"
ONE = ErrorPages((ErrorPage(403, 403, "sorry.html", "d1"),))
NONE = ErrorPages()
#: Nobody may come.
CLOSED = (StepRule(ALLOW, networks=("192.0.2.0/24",)),)
HTML = b"Accept: text/html,*/*;q=0.8\r\n"
FILES = (("d1", SORRY), ("d2", b"of the service"), ("d3", b"of the file"))


def ask(front: Front, fields: bytes = b"", line: bytes = b"GET /v1/<x>") -> bytes:
    return front.send(line + b" HTTP/1.1\r\nHost: a.example\r\n" + fields + b"\r\n")


def parts(answer: bytes) -> tuple[dict[bytes, bytes], bytes]:
    head, _, body = answer.partition(b"\r\n\r\n")
    lines = (line.partition(b": ") for line in head.split(b"\r\n")[1:])
    return {name.lower(): value for name, _, value in lines}, body


def front(**options: Any) -> Front:
    return Front(**{"steps": CLOSED, "files": FILES, "route_pages": ONE, **options})


def test_a_browser_gets_the_page() -> None:
    with front() as one:
        fields, body = parts(ask(one, HTML))
        assert fields[b"content-type"] == b"text/html; charset=utf-8"
        assert fields[b"vary"] == b"Accept"
        assert fields[b"server"] == b"lb"
        id = fields[b"x-request-id"]
        assert body == b"<h1>Sorry</h1> clients of this address are not served here at /v1/&lt;x&gt;, " + id
        assert one.call(lambda: dict(one.plane.stats.rejected)) == {"client_address": 1}


def test_a_program_gets_a_problem_document() -> None:
    with front() as one:
        for accept in (b"", b"Accept: */*\r\n", b"Accept: application/json\r\n"):
            fields, body = parts(ask(one, accept))
            assert fields[b"content-type"] == b"application/problem+json"
            made = json.loads(body)
            assert (made["status"], made["reason"]) == (403, "client_address")
            assert made["request_id"] == fields[b"x-request-id"].decode()


def test_head_has_the_head_of_get() -> None:
    with front() as one:
        answer = ask(one, HTML, b"HEAD /v1/<x>")
        fields, body = parts(answer)
        assert status_of(answer) == 403
        assert body == b""
        assert int(fields[b"content-length"]) == len(parts(ask(one, HTML))[1])


@pytest.mark.parametrize(
    ("route", "service", "file", "body"),
    [
        (ONE, ErrorPages((ErrorPage(403, 403, "", "d2"),)), ErrorPages((ErrorPage(400, 499, "", "d3"),)), b"Sorry"),
        (NONE, ErrorPages((ErrorPage(400, 499, "", "d2"),)), ErrorPages((ErrorPage(403, 403, "", "d3"),)), b"service"),
        (None, None, ErrorPages((ErrorPage(400, 499, "", "d3"),)), b"of the file"),
        (None, None, NONE, b"<h1>403 Forbidden</h1>"),
    ],
)
def test_the_nearest_page_counts(
    route: ErrorPages | None, service: ErrorPages | None, file: ErrorPages | None, body: bytes
) -> None:
    with front(route_pages=route, error_pages=service, file_pages=file) as one:
        assert body in ask(one, HTML)


def test_without_any_setting_answers_are_plain_text() -> None:
    with front(route_pages=None) as one:
        fields, body = parts(ask(one, HTML))
        assert fields[b"content-type"].startswith(b"text/plain")
        assert body.startswith(b"403 Forbidden: clients of this address")
        assert b"vary" not in fields


def test_a_request_without_a_route_gets_the_files_page() -> None:
    with front(route_pages=None, file_pages=ErrorPages((ErrorPage(404, 404, "", "d3"),)), path="/v2") as one:
        answer = ask(one, HTML)
        assert status_of(answer) == 404
        assert parts(answer)[1] == b"of the file"
        assert json.loads(parts(ask(one))[1])["reason"] == "no_route"


def test_answers_of_targets_and_fixed_answers_stay() -> None:
    pages = ErrorPages((ErrorPage(500, 599, "", "d1"),))
    raw = b"HTTP/1.1 503 No\r\nContent-Length: 4\r\n\r\nmine"
    with front(steps=(), route_pages=pages, script=answers(raw)) as one:
        assert parts(ask(one, HTML))[1] == b"mine"
    with front(steps=(), route_pages=pages, answer=Answer(503, "fixed", "text/plain")) as one:
        assert parts(ask(one, HTML))[1] == b"fixed"


def test_a_target_that_is_gone() -> None:
    pages = ErrorPages((ErrorPage(500, 599, "", "d1"),))
    with front(steps=(), route_pages=pages, origins=0, ports=(1,)) as one:
        answer = ask(one, HTML)
        assert status_of(answer) in (502, 503)
        assert b"<h1>Sorry</h1> the target could not be reached" in answer


def test_maintenance_has_the_page_too() -> None:
    pages = ErrorPages((ErrorPage(503, 503, "", "d3"),))
    with front(steps=(), route_pages=pages, maintenance=Maintenance(120)) as one:
        fields, body = parts(ask(one, HTML))
        assert (fields[b"retry-after"], body) == (b"120", b"of the file")
        assert json.loads(parts(ask(one))[1])["reason"] == "maintenance"
    with front(steps=(), route_pages=pages, maintenance=Maintenance(120, page="<p>own</p>")) as one:
        assert parts(ask(one, HTML))[1] == b"<p>own</p>"


def test_http2() -> None:
    with front(listener=with_listener(http2=True)) as one, Client(one) as client:
        client.ask(1, [*GET, ("accept", "text/html")])
        status, fields, body = client.answer(1)
        assert (status, fields["content-type"]) == (403, "text/html; charset=utf-8")
        assert body.startswith(b"<h1>Sorry</h1>")


def test_a_call_of_grpc_is_answered_by_its_status() -> None:
    call = [("content-type", "application/grpc"), ("te", "trailers"), ("accept", "text/html")]
    with front(listener=with_listener(http2=True)) as one, Client(one) as client:
        client.ask(1, [(":method", "POST"), *GET[1:], *call])
        status, fields, body = client.answer(1)
        assert (status, fields["grpc-status"], body) == (200, "7", b"")
        assert "vary" not in fields
