"""Every code block is carried out, in order, as a reader would; every link, command and name leads somewhere."""

import ast
import re
import shlex
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import click
import pytest

from lb.cli.main import group
from tests.docs.blocks import REPO, Desk, dialogue, matches

#: Pages whose blocks are carried out; and all pages.
CARRIED_OUT = [REPO / "README.md", *sorted((REPO / "docs").rglob("*.md")), REPO / "contrib" / "grafana" / "README.md"]
PAGES = [*CARRIED_OUT, REPO / "CHANGELOG.md", REPO / "benchmarks" / "README.md"]
#: These wait most, so they begin first.
LONGEST = ("docs/guides/health-checks.md", "docs/tutorial.md", "docs/guides/blue-green.md")
#: Readers at a time: what they do is mostly waiting.
READERS = 2
#: Words for which readers have another one, to which they are used.
UNCLEAR = {"wish": "order, desired state", "ledger": "history"}
LINK = re.compile(r"(?<!`)!?\[[^\]]*\]\((?P<to>[^)\s]+)\)")
INLINE = re.compile(r"`(?P<text>(?:lb|make) [^`\n]+)`")


def name_of(page: Path) -> str:
    return str(page.relative_to(REPO))


def read(page: Path, directory: Path) -> None:
    desk = Desk(directory)
    try:
        desk.read(page)
    finally:
        desk.close()


@pytest.fixture(scope="module")
def readers(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, Future[None]]]:
    """Every page that is asked for, in the hands of a reader."""
    nodes = [item.nodeid for item in request.session.items]
    wanted = [
        name_of(page) for page in CARRIED_OUT if any(f"gets_what_it_says[{name_of(page)}]" in node for node in nodes)
    ]
    wanted.sort(key=lambda name: name not in LONGEST)
    with ThreadPoolExecutor(READERS) as pool:
        yield {name: pool.submit(read, REPO / name, tmp_path_factory.mktemp("reader")) for name in wanted}


@pytest.mark.parametrize("page", [name_of(page) for page in CARRIED_OUT])
def test_a_reader_who_follows_the_page_gets_what_it_says(page: str, readers: dict[str, Future[None]]) -> None:
    readers[page].result(timeout=300)


# --- that nothing escapes --------------------------------------------------------------------------------------------


def a_page(directory: Path, text: str) -> Path:
    page = directory / "page.md"
    page.write_text(text)
    return page


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("```\nlb status\n```\n", "nobody checks blocks of the language ''"),
        ("```bash\ntrue\n```\n", "nobody checks blocks of the language 'bash'"),
        ("```console\nlb status\n```\n", "does not begin with a command"),
        ("```text\n  $ lb status\n```\n", "a command in a drawing"),
        ("```yaml\nbackends: [h:1]\n```\n", "neither a named file nor a manifest"),
        ("```yaml\n# values.yaml\na: 1\n```\n", "nobody checks a file called values.yaml"),
        ("```yaml\n# backends.yaml\nbakends: [h:1]\n```\n", "Did you mean backends"),
        ("```yaml\napiVersion: v1\nkind: Service\nmetadata: {name: a}\nspec: {selecter: {}}\n```\n", "selecter"),
        ("```yaml\napiVersion: v1\nkind: Secret\nmetadata: {name: a}\n```\n", "nobody checks manifests of the kind"),
        ("```sh\nfalse\n```\n", "exit 1"),
        ("```sh\nmake nothing\n```\n", "make nothing"),
        ("```console\n$ echo a\nb\n```\n", "expected:\nb"),
        ("<!-- test: skip -->\n```sh\nfalse\n```\n", "'skip' is none of"),
        ("<!-- test: docker -->\n```sh\ndocker compose -f none.yaml up\n```\n", "none.yaml"),
        ("~~~sh\nfalse\n~~~\n", "2 fences, but 0 blocks"),
        ("Type this:\n\n    lb status\n", "a block without a fence"),
        ("```sh\ntrue\n", "1 fences, but 0 blocks"),
        ("```nginx\nupstrem a {}\n```\n", "unknown directive"),
        ("```haproxy\nbackend a\n    balanze x\n```\n", "unknown keyword"),
        ("```promql\nrate(x[5m]\n```\n", "parse"),
        ("```json\n{\n```\n", "Expecting property name"),
        ("```python\nassert False\n```\n", "AssertionError"),
        ("```traefik\nhttp: {routers: {a: {service: b}}, services: {c: {loadBalancer: {}}}}\n```\n", "named are"),
    ],
)
def test_a_block_that_is_wrong_or_that_nobody_runs_is_found(text: str, said: str, tmp_path: Path) -> None:
    page = a_page(tmp_path, text)
    desk = Desk(tmp_path / "desk", page.parent)
    try:
        with pytest.raises((AssertionError, ValueError, OSError), match=re.escape(said)):
            desk.read(page)
    finally:
        desk.close()


def inline_commands() -> Iterator[tuple[str, str]]:
    for page in PAGES:
        outside = re.sub(r"^( *)```.*?^\1```", "", page.read_text(), flags=re.M | re.S)
        for match in INLINE.finditer(outside):
            yield name_of(page), match["text"]


def test_commands_that_stand_in_a_sentence_exist_with_their_options() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (REPO / "Makefile").read_text(), re.M))
    seen = 0
    for page, text in inline_commands():
        words = shlex.split(re.split(r" (?:\||&&|>|…)|…", text)[0].replace("\\|", "|"))
        told = f"{page} speaks of `{text}`"
        seen += 1
        if words[0] == "make":
            assert words[1] in targets, told
            continue
        command: click.Command = group
        rest = words[1:]
        while rest:
            word = rest.pop(0)
            option = word.partition("=")[0]
            if word.startswith("-"):
                known = {name for parameter in command.params for name in parameter.opts} | {"--help", "-h"}
                assert option in known, f"{told}, but {command.name} has {', '.join(sorted(known))}"
                flag = next((p for p in command.params if option in p.opts), None)
                if flag is not None and not getattr(flag, "is_flag", False) and "=" not in word and rest:
                    rest.pop(0)
            elif isinstance(command, click.Group) and not word.isupper():
                found = command.get_command(click.Context(command), word)
                assert found is not None, f"{told}: there is no {word}"
                command = found
    assert seen > 50


def test_from_the_readme_every_page_is_reached() -> None:
    """A newcomer begins at the README and follows links."""
    reached, waiting = set(), [REPO / "README.md"]
    while waiting:
        page = waiting.pop()
        if page in reached or page.suffix != ".md":
            continue
        reached.add(page)
        for match in LINK.finditer(page.read_text()):
            target = match["to"].partition("#")[0]
            if target and "://" not in target:
                waiting.append((page.parent / target).resolve())
    assert {name_of(page) for page in PAGES} - {name_of(page) for page in reached} == set()


def test_pictures_say_in_words_what_they_show() -> None:
    for page in PAGES:
        for text, to in re.findall(r"!\[([^\]]*)\]\(([^)\s]+)\)", page.read_text()):
            assert len(text) > 20, f"{name_of(page)}: {to} says only {text!r} to who cannot see it"
            assert (page.parent / to).stat().st_size < 1 << 20, f"{to} is a large picture"


# --- links and names -------------------------------------------------------------------------------------------------


def anchors(page: Path) -> set[str]:
    """The names that headings get on the common Git hosts."""
    titles = re.findall(r"^#+ +(.+?)\s*$", re.sub(r"^```.*?^```", "", page.read_text(), flags=re.M | re.S), re.M)
    return {re.sub(r"[^\w\- ]", "", re.sub(r"`", "", title)).strip().lower().replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(REPO)))
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


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_a_thing_is_called_by_the_word_that_readers_know(page: Path) -> None:
    for word, known in UNCLEAR.items():
        assert not re.search(rf"\b{word}(?:e?s)?\b", page.read_text(), re.I), f"{word}: {known}"


def test_the_architecture_page_names_what_exists() -> None:
    page = (REPO / "docs" / "architecture.md").read_text()
    for path in re.findall(r"`(lb/[\w/.]+?)/?`", page):
        assert (REPO / path).exists(), f"docs/architecture.md speaks of {path}"
    layers = re.findall(r"^(lb/\w+) ", page, re.M)
    packages = sorted(str(init.parent.relative_to(REPO)) for init in (REPO / "lb").glob("*/__init__.py"))
    assert sorted([*layers, "lb/demo"]) == packages


def test_the_look_ups_of_the_architecture_page_lead_to_functions() -> None:
    page = (REPO / "docs" / "architecture.md").read_text()
    section = page.partition("## Where is ...?\n")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| where (.+?) \| (.+) \|$", section, re.M)
    assert len(rows) >= 7
    for question, reading in rows:
        file, names = "", 0
        for path, name in re.findall(r"`(lb/[\w/]+\.py)`|`([\w.]+)\(\)`", reading):
            file = path or file
            if name:
                names += 1
                assert name in functions(REPO / file), f"{question}: {file} has no {name}()"
        assert names, f"{question}: no function is named"


def functions(path: Path) -> set[str]:
    """The functions of a module, and its classes' methods as `Class.method`."""
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
    body = ast.parse(path.read_text()).body
    methods = {
        f"{one.name}.{m.name}"
        for one in body
        if isinstance(one, ast.ClassDef)
        for m in one.body
        if isinstance(m, kinds)
    }
    return {one.name for one in body if isinstance(one, kinds)} | methods


def test_a_console_block_is_a_dialogue() -> None:
    assert list(dialogue("$ a \\\n  b\nx\ny\n$ c\n")) == [("a \\\n  b", "x\ny"), ("c", "")]


def test_what_is_printed_is_held_against_the_page() -> None:
    assert matches("a … c", "a  b\nc")
    assert matches("", "\n")
    assert not matches("a … c", "a b")
    assert not matches("a", "a b")
    assert matches("since …", "since 3s, ok")
