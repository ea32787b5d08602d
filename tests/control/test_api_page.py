"""The page about the API in a real browser: what the description says can be read, found and tried."""

from __future__ import annotations

import json
import os
from pathlib import Path

from selenium.webdriver.common.keys import Keys

from lb.control.api.app import ENDPOINTS
from tests.control.conftest import TOKEN, Api
from tests.support.browser import Browser, browser, chromium  # noqa: F401 - fixtures
from tests.support.eventually import eventually

SHOTS = os.environ.get("LB_SCREENSHOTS", "")


def shoot(window: Browser, name: str) -> None:
    """Keep a picture where somebody wants to look at it."""
    if SHOTS:
        window.driver.save_screenshot(str(Path(SHOTS) / f"api-{name}.png"))


def visit(window: Browser, api: Api, operation: str = "") -> None:
    window.open(f"http://127.0.0.1:{api.port}/docs#{operation}")
    eventually(lambda: len(window.all("details.operation")) == len(ENDPOINTS), 20.0, "the description is shown")


def answer(window: Browser, operation: str) -> tuple[str, str]:
    """(status line, body) of the last try."""

    def arrived() -> tuple[str, str] | None:
        line = window.text(f"#{operation} .result > p")
        body = window.text(f"#{operation} .result > pre")
        return (line, body) if "ms" in line and body else None

    found = eventually(arrived, 20.0, f"{operation} is answered")
    assert found is not None
    return found


def press(window: Browser, css: str) -> None:
    window.one(css).send_keys(Keys.ENTER)


def test_every_operation_can_be_read_in_both_colours(browser: Browser, shared: Api) -> None:  # noqa: F811
    visit(browser, shared)
    for each in ENDPOINTS:
        browser.run("document.getElementById(arguments[0]).open = true", each.id)
    eventually(lambda: len(browser.all("form.try")) == len(ENDPOINTS))
    assert len(browser.all("ul.schema")) == sum(1 for each in ENDPOINTS if each.takes is not None)
    # A few are looked at closely: a form with everything, one with a body, nested types.
    few = ["listEvents", "switchService", "getTarget"]
    browser.run(
        "document.querySelectorAll('details.operation').forEach((each) => {"
        " if (!arguments[0].includes(each.id)) { each.open = false; each.children[1].remove(); } })",
        few,
    )
    for id in few:
        browser.run("document.querySelectorAll(`#${arguments[0]} details.type`).forEach((e) => { e.open = true; })", id)
    eventually(lambda: len(browser.all("#getTarget ul.schema")) > 5)
    assert browser.barriers() == []
    shoot(browser, "all")
    browser.dark(True)
    assert browser.barriers() == []
    browser.size(390, 800)
    assert browser.run("return document.documentElement.scrollWidth <= innerWidth"), "it fits a phone"
    shoot(browser, "phone")
    assert browser.faults() == []


def test_operations_are_found_and_tried_with_the_keyboard(browser: Browser, shared: Api) -> None:  # noqa: F811
    visit(browser, shared, "getTarget")
    assert browser.one("#getTarget form.try").is_displayed()
    assert browser.run("return document.activeElement.closest('details')?.id") == "getTarget"
    press(browser, "#getTarget form.try button[type=submit]")
    line, body = answer(browser, "getTarget")
    assert line.startswith("200 OK")
    assert json.loads(body)["id"] == shared.ids["blue"][0], "the example is one that runs"
    browser.one("#filter").send_keys("/drain/preview")
    eventually(lambda: browser.text("#found").startswith("1 of"))
    assert [each.get_attribute("id") for each in browser.all("details.operation") if each.is_displayed()] == [
        "previewDrain"
    ]
    press(browser, "#previewDrain > summary")
    press(browser, "#previewDrain form.try button[type=submit]")
    assert json.loads(answer(browser, "previewDrain")[1])["allowed"]
    shoot(browser, "tried")
    assert browser.faults() == []


def test_an_order_is_asked_about_before_it_is_sent(browser: Browser, shared: Api) -> None:  # noqa: F811
    before = shared.ask("GET", "/api/v1/status").json["revision"]
    visit(browser, shared, "weighTarget")
    press(browser, "#weighTarget form.try button[type=submit]")
    assert "This changes what runs" in browser.one("dialog h2").text
    assert f"PUT /api/v1/targets/{shared.ids['blue'][0].split('/')[0]}" in browser.one("dialog pre").text
    assert browser.barriers() == []
    shoot(browser, "asked")
    press(browser, "dialog button[value=no]")
    assert shared.ask("GET", "/api/v1/status").json["revision"] == before
    press(browser, "#weighTarget form.try button[type=submit]")
    press(browser, "dialog button[value=yes]")
    assert answer(browser, "weighTarget")[0].startswith("200")
    assert shared.ask("GET", "/api/v1/status").json["revision"] == before + 1
    assert shared.events("?kind=weight")[-1]["actor"] == "API page (127.0.0.1)"
    id = shared.ids["blue"][0]
    assert shared.ask("PUT", f"/api/v1/targets/{id}/weight", {"weight": 1}).status == 200


def test_a_stream_shows_what_happens_until_it_is_stopped(browser: Browser, shared: Api) -> None:  # noqa: F811
    visit(browser, shared, "listEvents")
    browser.run("document.querySelector('#listEvents-accept').value = 'text/event-stream'")
    browser.one("#listEvents-after").send_keys("0")
    press(browser, "#listEvents form.try button[type=submit]")
    eventually(lambda: "serves" in browser.text("#listEvents .result > pre"), 20.0, "the stream begins")
    press(browser, "#listEvents form.try button[type=button]")
    eventually(lambda: browser.one("#listEvents form.try button[type=submit]").is_enabled())
    assert browser.faults() == []


def test_a_refusal_is_shown_and_a_token_can_be_given(browser: Browser, guarded: Api) -> None:  # noqa: F811
    visit(browser, guarded, "listServices")
    press(browser, "#listServices form.try button[type=submit]")
    line, body = answer(browser, "listServices")
    assert line.startswith("401")
    assert json.loads(body)["type"] == "/problems/token-needed"
    press(browser, "#listServices .result > p button")
    browser.one("#token-dialog input").send_keys(TOKEN, Keys.ENTER)
    eventually(lambda: not browser.all("#token-dialog"))
    press(browser, "#listServices form.try button[type=submit]")
    eventually(lambda: browser.text("#listServices .result > p").startswith("200"))
    browser.run("sessionStorage.clear()")
