"""Files for discovery: how they are read, and when a change of theirs counts."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lb.config.found import FoundFile, read_found, with_found
from lb.config.load import load_text
from lb.config.tls_files import load_world
from lb.config.yaml.problems import ConfigError
from lb.core.membership import Answer, Found
from lb.discovery.file import FileSource
from lb.discovery.source import NoAnswer
from lb.discovery.store import FoundStore
from tests.support.eventually_async import eventually
from tests.support.source_watch import Watching, watched

ONE = "- http://10.0.0.1:80\n"
TWO = "- http://10.0.0.1:80\n- {url: 10.0.0.2:80, weight: 3, readiness: {path: /health, interval: 1s}}\n"
#: Lines of such files; not all of them are right.
LINES = [
    "- http://10.0.0.1:80",
    "- http://10.0.0.1",
    "- 10.0.0.1:80",
    "- http://10.0.0.2:81",
    "- https://10.0.0.3",
    "- h2c://10.0.0.4:80",
    "- web.internal:8080",
    "- 12:30",
    "- null",
    "- ---",
    "- {url: 10.0.0.5:80}",
    "- http://10.0.0.6:x",
    "---",
]


def urls(answer: Answer) -> list[str]:
    return [each.url for each in answer.found]


def write(path: Path, text: str) -> None:
    new = path.with_name(f".{path.name}.new")
    new.write_text(text)
    new.replace(path)


# --- what is in a file -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        TWO,
        f"targets:\n{TWO}",
        '["http://10.0.0.1:80", {"url": "http://10.0.0.2:80", "weight": 3}]',
        "x-a: 1\n" + f"targets:\n{TWO}",
    ],
)
def test_a_file_holds_what_targets_of_a_pool_holds(tmp_path: Path, text: str) -> None:
    path = tmp_path / "found.yaml"
    path.write_text(text)
    found = read_found(path)
    assert [(each.address, each.url, each.weight) for each in found] == [
        ("10.0.0.1:80", "http://10.0.0.1:80", 1),
        ("10.0.0.2:80", "http://10.0.0.2:80", 3),
    ]


def test_a_list_without_targets_is_an_answer_and_an_empty_file_is_none(tmp_path: Path) -> None:
    path = tmp_path / "found.yaml"
    path.write_text("[]")
    assert read_found(path) == ()
    path.write_text("\n")
    with pytest.raises(ConfigError, match="may be half written"):
        read_found(path)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("- {url: 10.0.0.1:80, wieght: 3}", "found.yaml:1:22: unknown key 'wieght'"),
        ("targets: 5", "has no list of targets"),
        ("targets: []\nfoo: 1", "unknown key 'foo'"),
        ("- http://10.0.0.1:80\n- [", "a value is missing here"),
        ("- {url: 10.0.0.1:80, readiness: {protocol: command, command: [rm]}}", "a found target may not set command"),
        (
            "- {url: 10.0.0.1:80, liveness: {path: /l, on_failure: {command: [rm]}}}",
            "a found target may not set on_failure",
        ),
        ("- {url: 10.0.0.1:80, tls: {verify: false}}", "is spoken to without TLS"),
    ],
)
def test_what_is_wrong_with_a_file_is_said_with_its_line(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "found.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError) as error:
        read_found(path)
    assert said in str(error.value).replace("\n  ", " ")


def test_settings_of_a_found_target_are_in_force(tmp_path: Path) -> None:
    path = tmp_path / "found.yaml"
    path.write_text(TWO)
    text = "services: {web: {pools: {main: {targets: ['10.0.0.1:80'], discover: {file: x}}}}}"
    world = load_world(load_text(text))
    world = with_found(world, ("web", "main"), [(each, each.weight) for each in read_found(path)])
    assert sorted(world.targets) == ["web/main/10.0.0.1:80", "web/main/10.0.0.2:80"]
    assert world.targets["web/main/10.0.0.2:80"].weight == 3
    assert world.checks["web/main/10.0.0.2:80"].readiness.path == "/health"
    assert world.checks["web/main/10.0.0.1:80"].readiness.protocol == "tcp"


def test_found_targets_with_tls_have_the_same_settings_as_targets_of_the_file() -> None:
    pool = "main: {{targets: ['https://10.0.0.1:443']{}}}"
    fixed = load_world(load_text(f"services: {{web: {{pools: {{{pool.format('')}}}}}}}"))
    text = f"services: {{web: {{pools: {{{pool.format(', discover: {file: x}')}}}}}}}"
    found = Found("10.0.0.2:443", "https://10.0.0.2:443")
    world = with_found(load_world(load_text(text)), ("web", "main"), [(found, 1)])
    assert world.targets["web/main/10.0.0.2:443"].tls == fixed.targets["web/main/10.0.0.1:443"].tls
    assert world.files == fixed.files


# --- when it counts --------------------------------------------------------------------------------------------------


class Told(Watching):
    """As the tests ask about it."""

    def says(self) -> list[str] | str:
        last = self.last
        return urls(last) if isinstance(last, Answer) else str(last or "nothing")


async def test_each_way_of_replacing_a_file_is_seen(tmp_path: Path) -> None:
    path = tmp_path / "found.yaml"
    path.write_text(ONE)
    async with watched(FileSource(path, every=0.02), Told()) as watching:
        await eventually(lambda: watching.says() == ["http://10.0.0.1:80"])
        write(path, "- http://10.0.0.3:80\n")  # by a rename
        await eventually(lambda: watching.says() == ["http://10.0.0.3:80"])
        path.write_text("- http://10.0.0.4:80\n")  # in place
        await eventually(lambda: watching.says() == ["http://10.0.0.4:80"])
        path.unlink()
        await eventually(lambda: "there is no such file" in watching.says())
        path.write_text("- http://10.0.0.5:80\n")
        await eventually(lambda: watching.says() == ["http://10.0.0.5:80"])


async def test_a_symbolic_link_that_is_turned_elsewhere_is_seen(tmp_path: Path) -> None:
    """As Kubernetes does it with a ConfigMap."""
    for name, text in (("v1", ONE), ("v2", "- http://10.0.0.9:80\n")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "found.yaml").write_text(text)
    (tmp_path / "..data").symlink_to("v1")
    path = tmp_path / "found.yaml"
    path.symlink_to("..data/found.yaml")
    async with watched(FileSource(path, every=0.02), Told()) as watching:
        await eventually(lambda: watching.says() == ["http://10.0.0.1:80"])
        (tmp_path / "..new").symlink_to("v2")
        (tmp_path / "..new").replace(tmp_path / "..data")
        await eventually(lambda: watching.says() == ["http://10.0.0.9:80"])


async def test_a_half_written_file_is_no_answer(tmp_path: Path) -> None:
    path = tmp_path / "found.yaml"
    path.write_text(ONE)
    async with watched(FileSource(path, every=0.02), Told()) as watching:
        await eventually(lambda: watching.says() == ["http://10.0.0.1:80"])
        with path.open("w") as stream:
            stream.write('["http://10.0.0.2:80", ')
            stream.flush()
            await eventually(lambda: isinstance(watching.told[-1], NoAnswer))
            stream.write('"http://10.0.0.3:80"]')
        await eventually(lambda: watching.says() == ["http://10.0.0.2:80", "http://10.0.0.3:80"])


async def test_a_file_that_is_only_touched_is_read_and_says_the_same(tmp_path: Path) -> None:
    path = tmp_path / "found.yaml"
    path.write_text(ONE)
    async with watched(FileSource(path, every=0.02), Told()) as watching:
        await eventually(lambda: len(watching.told) == 1)
        os.utime(path, (1, 1))
        await eventually(lambda: len(watching.told) == 2)
        assert watching.told[0] == watching.told[1]


# --- directories -----------------------------------------------------------------------------------------------------


async def test_one_bad_file_of_a_directory_is_named_and_the_rest_counts(tmp_path: Path) -> None:
    write(tmp_path / "a.yaml", ONE)
    write(tmp_path / "b.json", '["http://10.0.0.2:80"]')
    for name in (".a.yaml.swp", "a.yaml~", "#a.yaml#", ".hidden.yaml", "notes.txt"):
        (tmp_path / name).write_text("{{{")
    source = FileSource(tmp_path)
    answer = await source.ask()
    assert urls(answer) == ["http://10.0.0.1:80", "http://10.0.0.2:80"]
    write(tmp_path / "b.json", '["http://10.0.0.2:80"')
    (tmp_path / "c.yaml").symlink_to("nowhere")
    answer = await source.ask()
    assert urls(answer) == ["http://10.0.0.1:80"]
    assert answer.unanswered == {"b.json", "c.yaml"}
    assert len(answer.problems) == 2 and "b.json" in answer.problems[0]


async def test_a_directory_that_is_gone_is_no_answer(tmp_path: Path) -> None:
    with pytest.raises(NoAnswer, match="there is no such file"):
        await FileSource(tmp_path / "gone").ask()


async def test_an_empty_directory_names_nothing(tmp_path: Path) -> None:
    assert urls(await FileSource(tmp_path).ask()) == []


# --- the state directory ---------------------------------------------------------------------------------------------


def test_members_outlive_a_restart_and_a_damaged_file_is_nothing(tmp_path: Path) -> None:
    store = FoundStore(tmp_path)
    assert store.read() == {}
    found = (Found("10.0.0.1:80", "http://10.0.0.1:80", 3, priority=1, part="A", name="x", settings="{}"),)
    assert store.write({("web", "main"): found})
    assert store.read() == {("web", "main"): found}
    (tmp_path / "discovery.json").write_text("[{")
    assert store.read() == {}
    assert not FoundStore(tmp_path / "gone").write({})


# --- long lists ------------------------------------------------------------------------------------------------------


@given(st.lists(st.lists(st.sampled_from(LINES), max_size=6), min_size=1, max_size=6))
def test_new_lines_of_a_list_mean_what_the_whole_says(versions: list[list[str]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path, again = Path(folder, "found.yaml"), FoundFile()
        for lines in versions:
            path.write_text("".join(f"{line}\n" for line in lines))
            assert outcome(again, path) == outcome(read_found, path)


def outcome(read: Callable[[Path, str], tuple[Found, ...]], path: Path) -> tuple[Found, ...] | str:
    """What a file names, or its errors."""
    try:
        return read(path, "a")
    except ConfigError as error:
        return str(error)


def test_an_address_that_stays_is_not_parsed_again(tmp_path: Path) -> None:
    path, again = tmp_path / "found.yaml", FoundFile()
    path.write_text("- http://10.0.0.1:80\n- http://10.0.0.2:80\n")
    [first, _] = again(path, "")
    path.write_text("- http://10.0.0.3:80\n- http://10.0.0.1:80\n")
    assert again(path, "")[1] is first
