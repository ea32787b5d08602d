"""Error pages: which file for which status, what a page and a problem document say, and faults of files."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from lb.config.check.error_pages import LARGEST
from lb.config.diff import diff
from lb.config.load import load, load_text
from lb.config.resolve import World, resolve
from lb.config.tls_files import load_world
from lb.config.yaml.problems import ConfigError
from lb.core.error_pages import ErrorPage, ErrorPages
from lb.core.step_files import step_digests
from lb.http.error_answers import HtmlPage, problem_document, takes_html
from lb.http.h1.replies import Reply
from lb.http.template import HOST, PATH, Values
from lb.supervisor.installation import digests_of_snapshot
from lb.supervisor.route_trial import Request, trial

SERVICES = "services: {s: {pools: {p: {targets: ['h:1']}}}}\n"


class Known(Values):
    def value(self, variable: int) -> bytes:
        return {HOST: b"a.example", PATH: b"/<script>alert('x')&\"\xff{host}"}.get(variable, b"")


def test_one_status_comes_before_its_class() -> None:
    pages = ErrorPages((ErrorPage(500, 599, "class"), ErrorPage(503, 503, "one")))
    assert [getattr(pages.find(status), "file", None) for status in (503, 504, 404)] == ["one", "class", None]


def test_values_of_a_page_are_escaped_and_expanded_once() -> None:
    page = HtmlPage("<style>b{c:d} {{host}} {nothing}</style>{status} {title}: {detail} at {path} of {host}")
    made = page.expand(Reply(503, "no_target", "a & b"), Known()).decode()
    assert made == (
        "<style>b{c:d} {a.example} {nothing}</style>503 Service Unavailable: a &amp; b at "
        "/&lt;script&gt;alert(&#39;x&#39;)&amp;&quot;\ufffd{host} of a.example"
    )


def test_a_problem_document() -> None:
    made = json.loads(problem_document(Reply(429, "rate_limited", 'too "many"'), b"id-1"))
    assert made == {
        "type": "about:blank",
        "title": "Too Many Requests",
        "status": 429,
        "detail": 'too "many"',
        "reason": "rate_limited",
        "request_id": "id-1",
    }


@pytest.mark.parametrize(
    ("accept", "html"),
    [
        (b"text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", True),
        (b"TEXT/HTML; charset=utf-8; q=0.5", True),
        (b"text/html;q=0.7, application/json;q=0.7", True),
        (b"application/json, text/html;q=0.9", False),
        (b"text/html;q=0", False),
        (b"text/htmlx", False),
        (b"*/*", False),
        (b"", False),
    ],
)
def test_who_asks_for_html(accept: bytes, html: bool) -> None:
    assert takes_html(accept) is html


@pytest.mark.timing
@pytest.mark.parametrize("accept", [b" " * 30000, b";" * 30000, b"a;" + b"q=9;" * 8000, b"a " * 15000])
def test_no_accept_is_slow_to_read(accept: bytes) -> None:
    began = time.process_time()
    takes_html(accept)
    assert time.process_time() - began < 0.2


def errors(path: Path) -> list[tuple[int, str]]:
    with pytest.raises(ConfigError) as raised:
        load(path)
    return [(each.line, each.message) for each in raised.value.problems]


def test_faults_of_pages_have_their_line(tmp_path: Path) -> None:
    (tmp_path / "large").write_bytes(b"x" * (LARGEST + 1))
    (tmp_path / "empty").write_bytes(b"\n")
    (tmp_path / "latin").write_bytes(b"\xe9")
    path = tmp_path / "backends.yaml"
    path.write_text(
        "services:\n"
        "  s:\n"
        "    pools: {p: {targets: ['h:1']}}\n"
        "    error_pages: {503: gone}\n"
        "error_pages:\n"
        "  404: large\n"
        "  5xx: empty\n"
        "routes:\n"
        "  - service: s\n"
        "    error_pages: {429: latin}\n"
    )
    assert errors(path) == [
        (4, f"the page cannot be read from {tmp_path}/gone: no such file or directory"),
        (6, f"{tmp_path}/large is larger than 256 KiB"),
        (7, f"{tmp_path}/empty is empty"),
        (10, f"{tmp_path}/latin is not UTF-8: byte 0 is 0xe9"),
    ]


def test_pages_are_bounded_together(tmp_path: Path) -> None:
    for number in range(40):
        (tmp_path / f"{number}.html").write_bytes(b"%d" % number + b"x" * (LARGEST - 2))
    path = tmp_path / "backends.yaml"
    path.write_text(SERVICES + "error_pages:\n" + "".join(f"  {400 + n}: {n}.html\n" for n in range(40)))
    assert errors(path) == [(35, "the error pages have more than 8 MiB together")]


@pytest.mark.parametrize("status", ["200", "50x", "6xx", "abc", "5000"])
def test_statuses_that_have_no_page(status: str) -> None:
    with pytest.raises(ConfigError, match="is no status of an error"):
        load_text(f"{SERVICES}error_pages: {{{status}: a.html}}\n")


def world(folder: Path, settings: str) -> World:
    path = folder / "backends.yaml"
    path.write_text(SERVICES + settings)
    return load_world(load(path))


def test_the_contents_are_part_of_the_world(tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    page.write_text("{status}")
    settings = "error_pages: {5xx: page.html}\nroutes: [{service: s, error_pages: {404: page.html}}]\n"
    before = world(tmp_path, settings)
    pages = before.snapshot.error_pages
    assert pages is not None
    assert pages == ErrorPages((ErrorPage(500, 599, str(page), pages.pages[0].digest),))
    assert before.files == {pages.pages[0].digest: b"{status}"}
    assert step_digests(before.snapshot) == digests_of_snapshot(before.snapshot) == {pages.pages[0].digest}
    assert diff(before, world(tmp_path, settings)).changes == ()
    page.write_text("{title}")
    assert [str(each) for each in diff(before, world(tmp_path, settings)).changes] == [
        f"~ {page}: renewed, for new requests"
    ]


def test_none_and_no_page_are_not_the_same() -> None:
    assert resolve(load_text(SERVICES), 0).snapshot.error_pages is None
    assert resolve(load_text(SERVICES + "error_pages: {}\n"), 0).snapshot.error_pages == ErrorPages()


def test_lb_route_test_shows_which_form_a_client_gets(tmp_path: Path) -> None:
    made = world(tmp_path, "error_pages: {}\nroutes: [{path: /a, service: s}]\n")
    told = trial(made, Request("GET", "/b", ("Host: h", "Accept: text/html")))
    assert (told.status, told.reason) == (404, "no_route")
    assert "Content-Type: text/html; charset=utf-8" in told.answer
    assert "application/problem+json" in trial(made, Request("GET", "/b", ("Host: h",))).answer
