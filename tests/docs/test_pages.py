"""Every code block of the README, the tutorial and the guides is carried out, in order, as a reader would."""

import re
from pathlib import Path

import pytest

from tests.docs.blocks import REPO, Desk, blocks, dialogue, matches

PAGES = [REPO / "README.md", REPO / "docs" / "tutorial.md", *sorted((REPO / "docs" / "guides").glob("*.md"))]
EVERY_PAGE = [REPO / "README.md", REPO / "CHANGELOG.md", *sorted((REPO / "docs").rglob("*.md"))]
LINK = re.compile(r"(?<!`)!?\[[^\]\n]*\]\((?P<to>[^)\s]+)\)")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_reader_who_follows_the_page_gets_what_it_says(page: Path, tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    try:
        for block in blocks(page):
            desk.carry_out(block)
    finally:
        desk.close()


def anchors(page: Path) -> set[str]:
    """The names that headings get on the common Git hosts."""
    titles = re.findall(r"^#+ +(.+?)\s*$", re.sub(r"^```.*?^```", "", page.read_text(), flags=re.M | re.S), re.M)
    return {re.sub(r"[^\w\- ]", "", re.sub(r"`", "", title)).strip().lower().replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", EVERY_PAGE, ids=lambda page: str(page.relative_to(REPO)))
def test_links_lead_somewhere(page: Path) -> None:
    for match in LINK.finditer(page.read_text()):
        target, _, anchor = match["to"].partition("#")
        if "://" in target or target.startswith("mailto:"):
            continue
        file = (page.parent / target).resolve() if target else page
        assert file.exists(), f"{page.name} links to {match['to']}"
        if anchor and file.suffix == ".md":
            assert anchor in anchors(file), (
                f"{page.name} links to {match['to']}; {file.name} has {sorted(anchors(file))}"
            )


def test_the_architecture_page_names_what_exists() -> None:
    page = (REPO / "docs" / "architecture.md").read_text()
    for path in re.findall(r"`(lb/[\w/.]+?)/?`", page):
        assert (REPO / path).exists(), f"docs/architecture.md speaks of {path}"
    layers = re.findall(r"^(lb/\w+) ", page, re.M)
    packages = sorted(str(init.parent.relative_to(REPO)) for init in (REPO / "lb").glob("*/__init__.py"))
    assert sorted([*layers, "lb/demo"]) == packages


def test_a_console_block_is_a_dialogue() -> None:
    assert list(dialogue("$ a \\\n  b\nx\ny\n$ c\n")) == [("a \\\n  b", "x\ny"), ("c", "")]


def test_what_is_printed_is_held_against_the_page() -> None:
    assert matches("a … c", "a  b\nc")
    assert matches("", "\n")
    assert not matches("a … c", "a b")
    assert not matches("a", "a b")
    assert matches("since …", "since 3s, ok")
