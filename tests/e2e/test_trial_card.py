"""The dashboard's box that tries a route, in a real browser: what it shows is what `lb route test` prints."""

from __future__ import annotations

from pathlib import Path

import pytest

from lb.cli.route import told
from lb.cli.terminal import Ink
from lb.config.load import load
from lb.config.tls_files import load_world
from lb.supervisor.route_trial import Request, trial
from tests.support.browser import Browser, browser, chromium  # noqa: F401 - fixtures
from tests.support.eventually import eventually
from tests.support.stage import Lb, Stage

SOON = 20.0
RESULT = "return document.querySelector('.trial [role=status]').innerText"
FILE = """\
listeners: [127.0.0.1:0]
admin: {{bind: 127.0.0.1:0{admin}}}
state_dir: ./state
access_log: off
services:
  web: {{pools: {{blue: ['{target}']}}}}
  api: {{pools: {{main: ['{target}']}}}}
routes:
  - {{path: /, service: web}}
  - {{name: beta, match: {{path: /api, cookies: {{beta: "1"}}}}, service: api, steps: [{{strip_prefix: /api}}]}}
  - {{path: /office, service: web, steps: [{{allow: [10.0.0.0/8]}}, {{host: office}}]}}
"""


def start(stage: Stage, admin: str = "") -> tuple[Lb, Path]:
    path = stage.file(FILE.format(target=stage.backend().address, admin=admin))
    return stage.start(path), path


def fill(window: Browser, url: str, headers: str = "", client: str = "127.0.0.1") -> None:
    """Fill the form in, and press the button."""
    for name, value in (("url", url), ("headers", headers), ("client", client)):
        field = window.one(f"#trial-{name}")
        field.clear()
        field.send_keys(value)
    window.one(".trial button[type=submit]").click()


def shown(window: Browser, text: str) -> str:
    """The result, once it has this text."""

    def look() -> str:
        said = str(window.run(RESULT))
        return said if text in said else ""

    return eventually(look, SOON, f"the result says {text}")


def test_it_shows_what_lb_route_test_prints(browser: Browser, stage: Stage) -> None:  # noqa: F811
    lb, path = start(stage)
    browser.open(f"{lb.admin}/")
    browser.one(".trial summary").click()
    fill(browser, "https://h/api/x?y=1", "Cookie: beta=1\nX-A: b")
    said = shown(browser, "beta (routes[1])")
    fields = ("Cookie: beta=1", "X-A: b")
    printed = told(trial(load_world(load(path)), Request("GET", "https://h/api/x?y=1", fields)), Ink(False))
    sent = printed[printed.index("sent") + 1 : printed.index("")]
    missing = [line for line in sent if line.strip() not in said]
    assert not missing
    for word in ("strip_prefix", "api, pool main", "/office (routes[2])", "path /api/x is not below /office"):
        assert any(word in line for line in printed)
        assert word in said
    assert "GET /x?y=1 HTTP/1.1" in said
    assert browser.barriers() == []
    browser.dark(True)
    assert browser.barriers() == []
    fill(browser, "http://h/office")
    assert "403 client_address, by lb itself" in shown(browser, "403")
    assert "(host)" in browser.run(RESULT), "steps that the request does not meet are in brackets"
    fill(browser, "http://h/x", "nonsense")
    shown(browser, "Refused: Invalid request")
    browser.size(390, 844)
    assert browser.barriers() == []
    assert browser.run("return document.documentElement.scrollWidth <= window.innerWidth")
    assert [fault for fault in browser.faults() if "status of 422" not in fault] == []


@pytest.mark.parametrize(("roles", "text"), [("read", "Role needed"), ("[read, configure]", "routes[0]")])
def test_a_token_needs_the_role(browser: Browser, stage: Stage, roles: str, text: str) -> None:  # noqa: F811
    token = "a-token-of-an-operator"
    (stage.folder / "t").write_text(token)
    (stage.folder / "t").chmod(0o600)
    lb, _ = start(stage, f", tokens: [{{name: op, roles: {roles}, token_file: t}}]")
    browser.open(f"{lb.admin}/docs")  # any page of the port
    browser.run("sessionStorage.setItem('lb-token', arguments[0])", token)
    browser.driver.get(f"{lb.admin}/")
    browser.one(".trial summary").click()
    fill(browser, "http://h/")
    shown(browser, text)
