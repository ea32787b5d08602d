"""A headless Chromium for the tests of the pages: one for all tests of a file, asked in conditions with a deadline."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from axe_core_python.selenium import Axe  # type: ignore[import-untyped]
from selenium import webdriver
from selenium.common.exceptions import WebDriverException
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement

from tests.support.eventually import eventually

_FLAGS = ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--disable-extensions")


class Browser:
    """One window."""

    def __init__(self, driver: webdriver.Chrome) -> None:
        self.driver = driver

    def open(self, url: str) -> None:
        """Another page. What the log says of the one before is forgotten."""
        self.driver.get("about:blank")
        self.driver.get_log("browser")  # type: ignore[no-untyped-call]
        self.driver.get(url)

    def size(self, width: int, height: int) -> None:
        self.driver.set_window_size(width, height)

    def dark(self, dark: bool) -> None:
        """Which colours the user prefers."""
        value = "dark" if dark else "light"
        features = {"features": [{"name": "prefers-color-scheme", "value": value}]}
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", features)

    def all(self, css: str) -> list[WebElement]:
        return self.driver.find_elements(By.CSS_SELECTOR, css)

    def one(self, css: str, within: float = 15.0) -> WebElement:
        """The first element that is shown."""

        def look() -> WebElement | None:
            try:
                return next((each for each in self.all(css) if each.is_displayed()), None)
            except WebDriverException:
                return None  # the page was just changing

        found = eventually(look, within, css)
        assert found is not None
        return found

    def text(self, css: str) -> str:
        """What is written in the first one, shown or not."""
        return str(self.run("return document.querySelector(arguments[0])?.textContent ?? ''", css))

    def run(self, script: str, *arguments: Any) -> Any:
        return self.driver.execute_script(script, *arguments)

    def wait_for(self, script: str, *arguments: Any) -> Any:
        """What the script hands to `done(value)`, at any time."""
        script = f"const done = arguments[arguments.length - 1]; {script}"
        return self.driver.execute_async_script(script, *arguments)  # type: ignore[no-untyped-call]

    def faults(self) -> list[str]:
        """What the console has complained of."""
        entries: list[dict[str, str]] = self.driver.get_log("browser")  # type: ignore[no-untyped-call]
        return [entry["message"] for entry in entries if entry["level"] in ("SEVERE", "WARNING")]

    def barriers(self) -> list[str]:
        """What axe finds in the way of people with disabilities."""
        if not self.run("return 'axe' in window"):
            self.run(Axe().axe_script)
        only = "axe.run({ resultTypes: ['violations'] })"  # what passes is long, and of no interest
        found = self.wait_for(f"{only}.then((results) => done(results.violations))")
        return [f"{each['id']}: {node['html'][:200]}" for each in found for node in each["nodes"]]


def start_chromium(any_certificate: bool = False) -> Iterator[webdriver.Chrome]:
    """`any_certificate`: it takes certificates of authorities that it does not trust."""
    options = webdriver.ChromeOptions()
    options.binary_location = "/usr/bin/chromium"
    for flag in _FLAGS:
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    options.accept_insecure_certs = any_certificate
    driver = webdriver.Chrome(service=Service("/usr/bin/chromedriver"), options=options)
    driver.set_script_timeout(30)
    try:
        yield driver
    finally:
        driver.quit()


@pytest.fixture(scope="module")
def chromium() -> Iterator[webdriver.Chrome]:
    yield from start_chromium()


@pytest.fixture
def browser(chromium: webdriver.Chrome) -> Browser:
    """A window of usual size, in light colours."""
    window = Browser(chromium)
    window.size(1440, 1000)
    window.dark(False)
    return window
