"""The maps of tests/scenarios name tests that exist, down to a table's row, and lines of docs/ that are there."""

from __future__ import annotations

import ast
import re
from functools import lru_cache
from pathlib import Path

import pytest

from tests.unit import h2_cases
from tests.wire import h2spec_table, request_table, response_table

ROOT = Path(__file__).parent.parent.parent
MAPS = sorted((ROOT / "tests/scenarios").glob("*.md"))
ROWS = {
    "tests/unit/test_h2_rules.py": {case[0] for case in (*h2_cases.FRAMING, *h2_cases.MESSAGES, *h2_cases.COMPRESSED)},
    "tests/wire/test_h2spec.py": {*h2spec_table.TABLE, *h2spec_table.AFTER},
    "tests/wire/test_requests.py": {row.name for row in request_table.TABLE},
    "tests/wire/test_responses.py": {row.name for row in response_table.TABLE},
}


@lru_cache
def names(path: Path) -> set[str]:
    """The tests of a file: `test_a`, `TestB::test_c`."""
    found = set()
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.ClassDef):
            found |= {f"{node.name}::{inner.name}" for inner in node.body if hasattr(inner, "name")}
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            found.add(node.name)
    return found


def wrong(named: str) -> str:
    """What is wrong with `tests/…::test…[row]` or `docs/page.md: words`; "" if nothing is."""
    if named.startswith("docs/"):
        page, _, words = named.partition(": ")
        path = ROOT / page
        if not path.is_file():
            return f"{page} does not exist"
        return (
            "" if not words or re.search(rf"\| {re.escape(words)}\b", path.read_text()) else f"{page} has no {words!r}"
        )
    file, _, test = named.partition("::")
    path = ROOT / file
    if not path.is_file():
        return f"{file} does not exist"
    function, bracket, row = test.partition("[")
    if function not in names(path):
        return f"{file} has no {function}"
    if bracket and file in ROWS and row.removesuffix("]").replace("\\\\", "\\") not in ROWS[file]:
        return f"{file} has no row {row.removesuffix(']')!r}"
    return ""


def test_there_are_maps() -> None:
    assert MAPS


@pytest.mark.parametrize("path", MAPS, ids=[path.name for path in MAPS])
def test_every_line_names_a_test_or_a_reason(path: Path) -> None:
    problems = []
    lines = path.read_text().splitlines()
    for number, (line, following) in enumerate(zip(lines, [*lines[1:], ""], strict=True), 1):
        if not line.startswith("| ") or "| ---" in (line[:5], following[:5]):
            continue
        found = re.findall(r"`((?:tests|docs)/[^`]+)`", line)
        if not found:
            problems.append(f"{path.name}:{number}: no test and no line of docs/")
        problems += [f"{path.name}:{number}: {text}" for text in map(wrong, found) if text]
    assert not problems, "\n".join(problems)
