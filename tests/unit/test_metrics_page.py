"""docs/metrics.md is what the code says."""

from __future__ import annotations

from lb.control.reference import PAGE, page


def test_the_page_is_current() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), "run `make docs`"
