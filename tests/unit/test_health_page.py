"""The tables on the health page are the ones in the code, which other tests hold against what the code does."""

from __future__ import annotations

import re
from pathlib import Path

from lb.core import lifecycle, liveness

PAGE = Path(__file__).parents[2] / "docs" / "health.md"


def rows(text: str) -> list[str]:
    return [line.strip() for line in text.splitlines() if re.fullmatch(r" *\w+ +\| .+? +\| \w+ *", line)]


def test_every_table_of_the_code_is_on_the_page_and_no_other():
    page = "\n".join(re.findall(r"```text\n(.*?)```", PAGE.read_text(), re.DOTALL))
    assert rows(page) == rows(lifecycle.__doc__ or "") + rows(liveness.__doc__ or "")
