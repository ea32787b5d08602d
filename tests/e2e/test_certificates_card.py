"""The dashboard's card of certificates, in a real browser."""

from __future__ import annotations

from tests.support.browser import Browser, browser, chromium  # noqa: F401 - fixtures
from tests.support.certificates import DAY, Authority
from tests.support.eventually import eventually
from tests.support.stage import Stage

AUTHORITY = Authority()
CARD = "return document.querySelector('.certificates')?.innerText ?? ''"


def test_the_card_shows_each_name_its_end_and_its_fault(browser: Browser, stage: Stage) -> None:  # noqa: F811
    folder = stage.folder / "certs"
    for name, ends in (("late.test", 90 * DAY), ("soon.test", 3 * DAY)):
        AUTHORITY.issue(name, ends=ends).write(folder, name)
    backend = stage.backend()
    lb = stage.start(
        stage.file(
            "listeners: [{bind: '127.0.0.1:0', tls: {certificates: [{directory: certs}]}}]\n"
            f"admin: {{bind: 127.0.0.1:0}}\nstate_dir: ./state\naccess_log: off\nbackends: ['{backend.address}']\n"
        )
    )
    browser.open(f"{lb.admin}/")
    eventually(lambda: "2 names, 1 of them end soon" in browser.run(CARD), 20.0)
    text = browser.run(CARD)
    assert text.index("soon.test") < text.index("late.test"), "the first end first"
    (folder / "late.test.key").write_text("broken")
    assert lb.cli("reload").returncode == 1
    eventually(lambda: "not taken" in browser.run(CARD), 20.0)
    warnings = "return document.querySelector('.warnings').innerText"
    eventually(lambda: "Certificates could not be taken" in browser.run(warnings), 20.0)
    assert "certificates could not be taken" in lb.cli("status").stdout
    assert browser.barriers() == [] and browser.faults() == []
