"""Who may not ask is refused at every address: another name, another site's page, a missing or wrong token."""

from __future__ import annotations

import json

import pytest

from lb.control.api.app import ENDPOINTS
from lb.control.api.endpoint import Endpoint
from lb.control.api.guard import is_ours
from lb.supervisor.admin_port import name_in
from tests.control.conftest import TOKEN, Api

#: What answers without a token: it holds nothing secret.
WITHOUT_TOKEN = {"/livez", "/readyz", "/openapi.json", "/problems/{kind}"}

FOREIGN_PAGES = {
    "another site": {"Origin": "http://evil.example"},
    "another port": {"Origin": "http://127.0.0.1:1"},
    "a sandboxed frame": {"Origin": "null"},
    "a file": {"Origin": "file://"},
    "an extension": {"Origin": "chrome-extension://abcdef"},
    "two origins": {"Origin": "http://127.0.0.1, http://evil.example"},
    "an image or a form": {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"},
    "a page on another port": {"Sec-Fetch-Site": "same-site", "Sec-Fetch-Mode": "cors"},
    "a frame": {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "iframe"},
}
WRONG_TOKENS = {
    "none": {},
    "another": {"Authorization": "Bearer wrong"},
    "its beginning": {"Authorization": f"Bearer {TOKEN[:-1]}"},
    "more than it": {"Authorization": f"Bearer {TOKEN}x"},
    "empty": {"Authorization": "Bearer "},
    "another scheme": {"Authorization": f"Basic {TOKEN}"},
    "no scheme": {"Authorization": TOKEN},
    "not ASCII": {"Authorization": "Bearer \xff\xfe"},
}
BODIES = {"SwitchRequest": {"to": "green"}, "WeightRequest": {"weight": 7}, "MaintenanceRequest": {"on": False}}


def path_of(endpoint: Endpoint, api: Api) -> str:
    target = api.ids["blue"][0]
    return endpoint.path.format(name="greeting", pool="blue", id=target, subject=target, kind="not-ready", route="/")


def body_of(endpoint: Endpoint) -> object:
    return BODIES.get(endpoint.takes.__name__, {"text": "x"}) if endpoint.takes is not None else None


def kind(body: bytes) -> str:
    return str(json.loads(body)["type"]).removeprefix("/problems/")


@pytest.fixture
def unchanged(guarded: Api):
    """What was refused has done nothing."""
    before = guarded.ask("GET", "/api/v1/status").json["revision"]
    events = guarded.events()
    yield
    assert guarded.ask("GET", "/api/v1/status").json["revision"] == before
    assert [event for event in guarded.events() if event["actor"] and event not in events] == []


@pytest.mark.usefixtures("unchanged")
@pytest.mark.parametrize("endpoint", ENDPOINTS, ids=lambda endpoint: endpoint.id)
def test_strangers_are_refused(endpoint: Endpoint, guarded: Api) -> None:
    path, body = path_of(endpoint, guarded), body_of(endpoint)
    for name, headers in FOREIGN_PAGES.items():
        answer = guarded.ask(endpoint.method, path, body, headers)
        assert (answer.status, kind(answer.body)[:7]) == (403, "foreign"), name
    for host in ("evil.example", f"evil.example:{guarded.port}", "localhost.evil.example", "127.0.0.1.evil.example"):
        answer = guarded.ask(endpoint.method, path, body, {"Host": host})
        assert (answer.status, kind(answer.body)) == (421, "misdirected-request"), host
    if endpoint.path in WITHOUT_TOKEN:
        assert endpoint.open
        assert guarded.ask(endpoint.method, path, body, token="").status == 200
        return
    for name, headers in WRONG_TOKENS.items():
        answer = guarded.ask(endpoint.method, path, body, headers, token="")
        assert (answer.status, kind(answer.body)) == (401, "token-needed"), name
        assert answer.headers["WWW-Authenticate"].startswith("Bearer")


def test_the_port_s_own_pages_and_the_user_are_let_in(guarded: Api) -> None:
    for host in ("127.0.0.1", "localhost", "lb.example", "LB.example.", "[::1]"):
        named = f"{host}:{guarded.port}"
        headers = {"Host": named, "Origin": f"http://{named}", "Sec-Fetch-Site": "same-origin"}
        assert guarded.ask("GET", "/api/v1/status", headers=headers).status == 200, host
    assert guarded.ask("GET", "/api/v1/status", headers={"Sec-Fetch-Site": "none"}).status == 200


def test_another_site_may_link_to_the_pages_and_no_more(guarded: Api) -> None:
    link = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}
    assert guarded.ask("GET", "/", headers=link, token="").status == 200
    assert guarded.ask("GET", "/api/v1/status", headers=link).status == 403
    assert guarded.ask("POST", "/", headers=link).status == 403
    assert guarded.ask("GET", "/", headers={**link, "Sec-Fetch-Dest": "iframe"}, token="").status == 403


def test_no_answer_allows_another_origin_frames_or_guessing(guarded: Api) -> None:
    for path in ("/api/v1/status", "/nothing", "/", "/openapi.json", "/livez"):
        headers = guarded.ask("GET", path).headers
        assert not [name for name in headers if name.lower().startswith("access-control-")]
        assert "frame-ancestors 'none'" in headers["Content-Security-Policy"], path
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Cross-Origin-Resource-Policy"] == "same-origin"
        assert headers["Server"] == "lb"
    assert guarded.ask("OPTIONS", "/api/v1/status", headers={"Origin": "http://evil.example"}).status == 403


@pytest.mark.usefixtures("unchanged")
def test_a_browser_that_says_nothing_of_the_page_drains_nothing(guarded: Api) -> None:
    """An image's address is enough for a GET; browsers of before 2023 do not say whose image it is."""
    path = f"/api/v1/prestop?target={guarded.ids['blue'][0]}&wait=0"
    answer = guarded.ask("GET", path, headers={"User-Agent": "Mozilla/5.0 (X11; Linux)"})
    assert (answer.status, kind(answer.body)) == (403, "foreign-page")


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (b"GET /api/v1/status HTTP/1.1\r\n", 400),
        (b"GET /livez HTTP/1.1\r\n", 400),
        (b"GET /api/v1/status HTTP/1.0\r\n", 400),
        (b"GET /livez HTTP/1.0\r\n", 200),
        (b"GET /readyz HTTP/1.0\r\n", 200),
        (b"GET /livez HTTP/1.1\r\nHost: 127.0.0.1\r\nHost: 127.0.0.1\r\n", 400),
        (b"GET /livez HTTP/1.1\r\nHost: 127.0.0.1\r\nHost: evil.example\r\n", 400),
        (b"GET /livez HTTP/1.1\r\nHost:\r\n", 421),
        (b"GET http://evil.example/livez HTTP/1.1\r\nHost: 127.0.0.1\r\n", 421),
        (b"GET http://127.0.0.1/livez HTTP/1.1\r\nHost: 127.0.0.1\r\n", 200),
    ],
)
def test_hosts_that_are_missing_double_or_elsewhere(guarded: Api, head: bytes, status: int) -> None:
    answer = guarded.raw(head + b"Connection: close\r\n\r\n")
    assert int(answer[9:12]) == status, answer


@pytest.mark.parametrize(
    ("host", "ours"),
    [
        ("127.0.0.1", True),
        ("127.0.0.1:9900", True),
        ("10.1.2.3:80", True),
        ("[::1]:9900", True),
        ("[::1]", True),
        ("localhost", True),
        ("LOCALHOST.:1", True),
        ("named", True),
        ("named:99", True),
        ("::1", False),
        ("[127.0.0.1]", False),
        ("localhost:", False),
        ("localhost:x", False),
        ("localhost:80:80", False),
        ("named.evil", False),
        ("127.1", False),
        ("2130706433", False),
        ("0x7f000001", False),
        ("", False),
        ("user@127.0.0.1", False),
        ("127.0.0.1/x", False),
        ("localhost,evil", False),
    ],
)
def test_names_that_are_ours(host: str, ours: bool) -> None:
    assert is_ours(host, {"localhost", "named"}) is ours


@pytest.mark.parametrize(
    ("bind", "name"),
    [
        ("127.0.0.1:9900", "127.0.0.1"),
        ("lb.example:9900", "lb.example"),
        ("[::1]:9900", "::1"),
        ("unix:/run/lb.sock", "localhost"),
    ],
)
def test_the_name_in_bind_is_ours(bind: str, name: str) -> None:
    assert name_in(bind) == name
