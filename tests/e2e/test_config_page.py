"""The configuration page in a real browser, against a running lb."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from selenium.webdriver.common.keys import Keys

from tests.support.browser import Browser, browser, chromium  # noqa: F401 - fixtures
from tests.support.eventually import eventually
from tests.support.stage import Backend, Lb, Stage, ask

FILE = """\
# The shop's front door.
listeners: [127.0.0.1:0]
admin: {{bind: 127.0.0.1:0}}
state_dir: ./state
services:
  greeting:
    pools:
      blue: {{targets: [{0}, {1}]}}   # both in one rack
      green:
        targets:
          - {2}
    active: blue
    readiness:
      path: /health/readiness
      interval: 500ms     # the database has room for this
      timeout: 500ms
      rise: 1
"""


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with Stage(tmp_path_factory.mktemp("config")) as made:
        yield made


@pytest.fixture(scope="module")
def backends(stage: Stage) -> list[Backend]:
    return stage.pool("blue", 2) + stage.pool("green", 1)


@pytest.fixture(scope="module")
def server(stage: Stage, backends: list[Backend]) -> Lb:
    return stage.start(stage.file(FILE.format(*(each.url for each in backends))), 1)


class Page:
    """What a person does with it."""

    def __init__(self, window: Browser, server: Lb, stage: Stage, name: str) -> None:
        self.window = window
        self.server = server
        self.file = stage.folder / "lb.yaml"
        self.name = name
        self.admin = server.admin
        self.before = self.file.read_text()
        window.open(f"{server.admin}/config")
        eventually(lambda: "what runs" in self.verdict, 20, "the page is loaded")

    @property
    def verdict(self) -> str:
        return self.window.text("#verdict")

    @property
    def text(self) -> str:
        return str(self.window.run("return document.querySelector('#yaml').value"))

    def settled(self, words: str) -> None:
        """Wait until the text has been looked at, and found so."""
        eventually(lambda: words in self.verdict, 15, words)

    def put_caret(self, before: str) -> None:
        script = """const area = document.querySelector('#yaml'); area.focus();
        const at = area.value.indexOf(arguments[0]); area.setSelectionRange(at, at);"""
        self.window.run(script, before)

    def type(self, before: str, keys: str) -> None:
        """Type in the text in front of some words."""
        self.put_caret(before)
        self.window.one("#yaml").send_keys(keys)

    def field(self, section: str, label: str) -> Any:
        """A field of the forms by its section and its label."""
        script = """const [name, label] = arguments;
        const part = [...document.querySelectorAll('details.section')].find(
            (each) => each.querySelector('h4').textContent === name);
        part.open = true;
        const found = [...part.querySelectorAll('label')].find((each) => each.firstChild.data === label);
        return document.getElementById(found.htmlFor);"""
        return self.window.run(script, section, label)

    def fill(self, section: str, label: str, value: str) -> None:
        field = self.field(section, label)
        self.window.run("arguments[0].scrollIntoView({block: 'center'})", field)
        field.send_keys(Keys.CONTROL, "a")
        field.send_keys(value)

    def apply(self) -> None:
        self.window.one("#apply:not(:disabled)").click()
        self.window.one("dialog[open] button[type=submit]").click()

    def keep(self) -> None:
        """A picture, where somebody wants to look at it."""
        if folder := os.environ.get("LB_SCREENSHOTS"):
            self.window.driver.save_screenshot(str(Path(folder) / f"config-{self.name}.png"))

    def check(self, barriers: bool = True) -> None:
        """Nothing in the console, and no barriers."""
        self.keep()
        if barriers:
            assert self.window.barriers() == []
        assert self.window.faults() == []


@pytest.fixture
def page(browser: Browser, server: Lb, stage: Stage, request: pytest.FixtureRequest) -> Iterator[Page]:  # noqa: F811
    shown = Page(browser, server, stage, request.node.name.removeprefix("test_"))
    yield shown
    if shown.file.read_text() != shown.before:
        shown.file.write_text(shown.before)
        assert ask(f"{server.admin}/api/v1/reload", "POST").status == 200


def test_an_error_is_marked_in_its_line_while_one_types(page: Page) -> None:
    page.type("interval: 500ms", "x")
    page.settled("✕ 1 error")
    window = page.window
    line = page.text[: page.text.index("xinterval")].count("\n") + 1
    [mark] = window.all(".mark.error")
    assert f"calc({line - 1} * var(--row))" in str(mark.get_attribute("style"))
    assert window.text("#at-caret").startswith("unknown key 'xinterval'")
    assert "interval" in window.text("#at-caret").removeprefix("unknown key 'xinterval'")
    assert window.one("#yaml").get_attribute("aria-invalid") == "true"
    assert not window.one("#apply").is_enabled()
    page.check()
    # The list leads to the line, and back to a valid text.
    page.put_caret("# The shop")
    window.one(".problems button").click()
    assert window.run(
        "const a = document.querySelector('#yaml'); return a.value.slice(a.selectionStart, a.selectionEnd)"
    ) == ("xinterval")
    window.one("#yaml").send_keys("interval")
    page.settled("✓ what runs")
    assert window.all(".mark.error") == []


def test_what_is_not_yaml_leaves_the_forms_as_they_were(page: Page) -> None:
    page.type("active: blue", "{")
    page.settled("✕ 1 error")
    assert "could be read" in page.window.one(".message.warn").text
    page.window.one("#yaml").send_keys(Keys.CONTROL, "z")
    page.settled("✓ what runs")
    page.window.one("#yaml").send_keys(Keys.CONTROL, "y")
    page.settled("✕ 1 error")
    page.check()


def test_a_form_changes_its_line_and_the_detection_time(page: Page) -> None:
    window = page.window
    assert window.text(".figures-box .worst") == "2 s"
    page.fill("Readiness", "Interval", "3s")
    eventually(lambda: window.text(".figures-box .worst") == "9.5 s", 15, "the detection time")
    assert "      interval: 3s     # the database has room for this\n" in page.text
    assert page.text == page.before.replace("interval: 500ms", "interval: 3s")
    assert "running now: 2 s" in window.text(".figures-box")
    assert "services.greeting.readiness.interval" in window.text("#plan")
    assert "interval: 3s" in window.text(".diff .add")
    assert "interval: 500ms" in window.text(".diff .gone")
    page.fill("Readiness", "Fall", "nine")
    page.settled("✕ 1 error")
    assert page.field("Readiness", "Fall").get_attribute("aria-invalid") == "true"
    page.check(barriers=False)
    page.fill("Readiness", "Fall", "1")
    eventually(lambda: window.text(".figures-box .worst") == "3.5 s", 15, "the detection time")
    for _ in range(2):
        window.one("#undo:not(:disabled)").click()
    eventually(lambda: page.field("Readiness", "Fall").get_attribute("value") == "", 15, "undone")


def test_applying_drains_what_is_gone(page: Page, backends: list[Backend]) -> None:
    window = page.window
    window.one("button[aria-label='Remove target 2 of blue']").click()
    page.settled("✓ valid")
    assert f"{backends[1].address} drains" in window.text("#plan")
    assert "# both in one rack" in page.text
    window.one("#apply:not(:disabled)").click()
    dialog = window.one("dialog[open]")
    assert "drains" in dialog.text
    page.check()
    window.one("dialog[open] button[type=submit]").click()
    eventually(lambda: "what runs" in page.verdict, 15, "applied")
    assert page.file.read_text() == page.text
    assert json.loads(ask(f"{page.admin}/api/v1/config").body)["text"] == page.text
    targets = [each["id"] for s in page.server.status()["services"] for p in s["pools"] for each in p["targets"]]
    assert f"greeting/blue/{backends[1].address}" not in targets
    assert f"greeting/blue/{backends[0].address}" in targets
    assert window.faults() == []


def test_a_refusal_is_shown(page: Page) -> None:
    window = page.window
    page.type("services:", "access_log: {path: ./other.log}\n")
    page.settled("✓ valid")
    page.apply()
    refused = window.one("dialog[open] .message.bad")
    assert "Token needed for commands" in refused.text
    assert page.file.read_text() == page.before
    page.keep()
    window.one("dialog[open] .end button[type=button]").click()


def test_somebody_elses_change_is_merged(page: Page) -> None:
    window = page.window
    page.fill("Readiness", "Fall", "5")
    page.settled("✓ valid")
    theirs = page.before.replace("rise: 1", "rise: 2").replace("# The shop's", "# Our shop's")
    page.file.write_text(theirs)
    assert ask(f"{page.admin}/api/v1/reload", "POST").status == 200
    page.apply()
    note = window.one("#overtaken")
    eventually(lambda: not window.all("dialog[open]"), 15, "the dialog is closed")
    assert "Somebody else has changed the configuration" in note.text
    page.keep()
    assert window.barriers() == []
    window.one("#overtaken .primary").click()
    eventually(lambda: "rise: 2" in page.text, 15, "merged")
    assert page.text == theirs + "      fall: 5\n"
    page.settled("✓ valid, 2 changes")
    page.apply()
    eventually(lambda: page.file.read_text() == theirs + "      fall: 5\n", 15, "applied")


def test_a_file_that_somebody_edited_is_replaced_only_when_told(page: Page) -> None:
    window = page.window
    page.fill("Readiness", "Fall", "4")
    page.settled("✓ valid")
    theirs = page.before + "# by hand\n"
    page.file.write_text(theirs)
    window.one("#yaml").send_keys(Keys.CONTROL, "s")
    window.one("dialog[open] button[type=submit]").click()
    eventually(lambda: "Replace the file" in window.text("dialog[open] h2"), 15, "the second question")
    page.keep()
    assert page.file.read_text() == theirs
    window.one("dialog[open] button.danger").click()
    eventually(lambda: page.file.read_text() == page.before + "      fall: 4\n", 15, "replaced")
    assert page.file.with_name("lb.yaml~").read_text() == theirs


@pytest.mark.parametrize("dark", [False, True])
def test_on_a_phone(page: Page, dark: bool) -> None:
    window = page.window
    window.size(420, 900)
    window.dark(dark)
    page.name = f"phone-{'dark' if dark else 'light'}"
    width = window.run("return [document.documentElement.scrollWidth, window.innerWidth]")
    assert width[0] <= width[1]
    assert not window.all("#yaml")[0].is_displayed()
    page.check(barriers=dark)
    window.one(".views [data-view=text]").click()
    page.type("interval: 500ms", "x")
    page.settled("✕ 1 error")
    page.name += "-text"
    page.check(barriers=not dark)
