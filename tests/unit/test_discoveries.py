"""What becomes of the answers of sources: when they are put in force, and what is said of them."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from lb.config.load import load_text
from lb.config.model.config import Config
from lb.config.model.discovery import Discover
from lb.config.resolve import World
from lb.config.tls_files import load_world
from lb.core.lifecycle import Health
from lb.core.membership import Answer, Found
from lb.discovery.source import NoAnswer, Tell
from lb.discovery.store import FoundStore
from lb.health.healths import Healths
from lb.process.guard import Guard
from lb.supervisor.discoveries import Discoveries
from tests.support.eventually_async import eventually
from tests.support.healths import READY

PLACE = ("web", "main")


class Scripted:
    """A source that says what a test says."""

    def __init__(self, settings: Discover) -> None:
        self.settings = settings
        self.tell: Tell | None = None
        self.ended = False

    async def ask(self) -> Answer:
        raise NoAnswer("it is watched")

    async def watch(self, tell: Tell) -> None:
        self.tell = tell
        try:
            await asyncio.Event().wait()
        finally:
            self.ended = True


def found(*numbers: int, **more: Any) -> Answer:
    return Answer(tuple(Found(f"10.0.0.{n}:80", f"http://10.0.0.{n}:80", **more) for n in numbers))


def config(file: str = "/a", pool: str = "main", more: str = "") -> Config:
    text = f"services: {{web: {{pools: {{{pool}: {{discover: {{file: {file}}}{more}}}}}}}}}"
    return load_text(text)


class Blockable:
    """The supervisor's state, which counts looks at whether changes are blocked."""

    def __init__(self, file_world: World) -> None:
        self.file_world = file_world
        self.looks = 0
        self._blocked_by = ""

    @property
    def blocked_by(self) -> str:
        self.looks += 1
        return self._blocked_by

    @blocked_by.setter
    def blocked_by(self, reason: str) -> None:
        self._blocked_by = reason


class Scene:
    """A supervisor's part for discovery, without the rest."""

    def __init__(self, folder: Path) -> None:
        self.healths = Healths()
        self.events: list[str] = []
        self.sources: list[Scripted] = []
        self.applied = 0
        self.state = Blockable(load_world(config()))
        self.discoveries = self.make(folder)
        self.task: asyncio.Task[None] | None = None

    def make(self, folder: Path) -> Discoveries:
        def source(settings: Discover) -> Scripted:
            self.sources.append(Scripted(settings))
            return self.sources[-1]

        events = SimpleNamespace(emit=lambda kind, text, place, **more: self.events.append(f"{kind} {place} {text}"))
        discoveries = Discoveries(
            cast("Any", self.state),
            self.healths,
            self.healths.not_ready,
            cast("Any", events),
            Guard(self.events.append),
            FoundStore(folder),
            self.apply,
            source,
        )
        discoveries.load()
        self.use(discoveries, self.state.file_world.config)
        return discoveries

    def use(self, discoveries: Discoveries, config: Config) -> None:
        if config is not self.state.file_world.config:
            self.state.file_world = load_world(config)
        self.world, in_force = discoveries.world(self.state.file_world)
        discoveries.configure(config, in_force)

    async def apply(self) -> None:
        self.applied += 1
        self.use(self.discoveries, self.state.file_world.config)

    async def begin(self, wait: bool = True) -> None:
        self.discoveries.begin(wait)
        self.task = asyncio.ensure_future(self.discoveries.run())
        await eventually(lambda: self.sources and self.sources[-1].tell)

    def say(self, what: Answer | NoAnswer) -> None:
        tell = self.sources[-1].tell
        assert tell is not None
        tell(what)

    def pass_checks(self, *numbers: int) -> None:
        self.healths.clear()
        for number in numbers:
            self.healths[f"web/main/10.0.0.{number}:80"] = READY

    def targets(self) -> list[int]:
        return sorted(int(target.host.split(".")[3]) for target in self.world.targets.values())


@pytest.fixture
async def scene(tmp_path: Path) -> Any:
    made = Scene(tmp_path)
    yield made
    made.discoveries.close()
    if made.task is not None:
        made.task.cancel()
        with suppress(asyncio.CancelledError):
            await made.task


async def test_a_burst_of_answers_is_put_in_force_once(scene: Scene) -> None:
    await scene.begin()
    for last in range(1, 20):
        scene.say(found(*range(1, last + 1)))
    await eventually(lambda: scene.targets() == list(range(1, 20)))
    assert scene.applied == 1


async def test_targets_that_are_found_again_are_not_made_again(scene: Scene) -> None:
    """Of thousands one changes."""
    await scene.begin()
    scene.say(found(1, 2))
    await eventually(lambda: scene.targets() == [1, 2])
    before = scene.world.targets["web/main/10.0.0.1:80"]
    scene.say(found(1, 2, 3))
    await eventually(lambda: scene.targets() == [1, 2, 3])
    assert scene.world.targets["web/main/10.0.0.1:80"] is before
    checks = {id(each.readiness) for each in scene.world.checks.values()}
    assert len(checks) <= 2


async def test_an_answer_that_says_the_same_changes_nothing(scene: Scene) -> None:
    await scene.begin()
    scene.say(found(1, 2))
    await eventually(lambda: scene.targets() == [1, 2])
    scene.say(found(2, 1))
    await asyncio.sleep(0.3)
    assert scene.applied == 1


async def test_a_failure_is_said_once_and_takes_nothing_away(scene: Scene) -> None:
    await scene.begin()
    scene.say(found(1, 2))
    await eventually(lambda: scene.targets() == [1, 2])
    for _ in range(3):
        scene.say(NoAnswer("no route"))
    assert [line for line in scene.events if "does not answer" in line] == [
        "discovery web/main file /a does not answer: no route; its 2 targets stay, probed as ever"
    ]
    watched = scene.discoveries.of(PLACE)
    assert watched is not None and not watched.up and watched.error == "no route"
    scene.say(found(1, 2))
    assert "answers again" in scene.events[-1]
    assert scene.targets() == [1, 2] and watched.up


async def test_held_targets_go_when_probes_say_so(scene: Scene) -> None:
    await scene.begin()
    scene.say(found(1, 2, 3))
    await eventually(lambda: scene.targets() == [1, 2, 3])
    scene.pass_checks(1, 2, 3)
    scene.say(found())
    await eventually(lambda: scene.applied == 2)
    assert scene.targets() == [1, 2, 3]
    assert "kept while they pass their checks" in scene.events[-1]
    scene.healths["web/main/10.0.0.2:80"] = Health(probe="unready", checked=1.0)
    await eventually(lambda: scene.targets() == [1, 3])
    assert scene.discoveries.confirm_removals(PLACE, "ops") == 2
    await eventually(lambda: scene.targets() == [])
    assert scene.discoveries.confirm_removals(PLACE, "ops") == 0


async def test_targets_of_a_higher_priority_number_stand_by(scene: Scene) -> None:
    await scene.begin()
    first, second = found(1), found(2, priority=7)
    scene.pass_checks(1, 2)
    scene.say(Answer((*first.found, *second.found)))
    await eventually(lambda: scene.targets() == [1, 2])

    def weights() -> list[int]:
        return [scene.world.targets[f"web/main/10.0.0.{number}:80"].weight for number in (1, 2)]

    assert weights() == [1, 0]
    scene.healths["web/main/10.0.0.1:80"] = Health(probe="unready", checked=1.0)
    await eventually(lambda: weights() == [0, 1])
    scene.pass_checks(1, 2)
    await eventually(lambda: weights() == [1, 0])
    assert [line for line in scene.events if "priority" in line][-1].endswith("they get the requests")


async def test_readiness_waits_for_a_first_answer_of_a_source_that_nothing_is_known_of(scene: Scene) -> None:
    await scene.begin()
    assert scene.discoveries.waits_for() == "file /a (web/main)"
    scene.say(NoAnswer("not yet"))
    assert scene.discoveries.waits_for()
    scene.say(found(1))
    assert not scene.discoveries.waits_for()


async def test_readiness_waits_no_longer_than_its_bound(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    await scene.begin()
    clock = time.monotonic() + 15.1
    monkeypatch.setattr("lb.supervisor.discoveries.time.monotonic", lambda: clock)
    assert not scene.discoveries.waits_for()


async def test_the_members_are_known_again_after_a_restart(scene: Scene, tmp_path: Path) -> None:
    await scene.begin()
    scene.say(found(1, 2, weight=4))
    await eventually(lambda: (tmp_path / "discovery.json").exists() and scene.targets() == [1, 2])
    again = Scene(tmp_path)
    assert again.targets() == [1, 2]
    again.discoveries.begin(wait=True)
    assert not again.discoveries.waits_for()
    again.discoveries.close()


async def test_a_pool_with_another_name_is_soon_on_the_disk(
    tmp_path: Path, scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A restart finds its members."""
    monkeypatch.setattr("lb.supervisor.discoveries.REVIEW_EVERY", 60.0)
    await scene.begin()
    scene.say(found(1, 2))
    await eventually(lambda: scene.applied and '"main"' in (tmp_path / "discovery.json").read_text())
    await asyncio.sleep(0.1)  # it waits for the next change
    scene.use(scene.discoveries, config(pool="other"))
    assert scene.targets() == [1, 2]
    await eventually(lambda: '"other"' in (tmp_path / "discovery.json").read_text())


async def test_nothing_is_put_in_force_while_changes_are_blocked(scene: Scene) -> None:
    await scene.begin()
    scene.state.blocked_by = "an upgrade"
    scene.say(found(1))
    before = scene.state.looks
    await asyncio.sleep(0.4)
    assert scene.applied == 0
    assert scene.state.looks - before < 12  # it does not look all the time whether it may
    scene.state.blocked_by = ""
    await eventually(lambda: scene.targets() == [1])


async def test_another_source_of_a_pool_keeps_the_targets_until_it_answers(scene: Scene) -> None:
    await scene.begin()
    scene.say(found(1, 2))
    await eventually(lambda: scene.targets() == [1, 2])
    scene.use(scene.discoveries, config("/b"))
    assert scene.targets() == [1, 2]
    await eventually(lambda: len(scene.sources) == 2 and scene.sources[1].tell and scene.sources[0].ended)
    scene.pass_checks(1, 2)
    scene.say(found(1, 2, 3))
    await eventually(lambda: scene.targets() == [1, 2, 3])


async def test_a_renamed_pool_keeps_its_source(scene: Scene) -> None:
    await scene.begin()
    scene.say(found(1, 2))
    await eventually(lambda: scene.targets() == [1, 2])
    scene.use(scene.discoveries, config(pool="blue"))
    assert scene.targets() == [1, 2]
    assert len(scene.sources) == 1 and scene.discoveries.of(PLACE) is None


async def test_a_pool_that_finds_no_targets_any_more_ends_its_source(scene: Scene) -> None:
    await scene.begin()
    scene.use(scene.discoveries, load_text("services: {web: {pools: {main: ['10.0.0.1:80']}}}"))
    await eventually(lambda: scene.sources[0].ended)


async def test_the_source_of_a_target_is_known(scene: Scene) -> None:
    await scene.begin()
    fixed = config(more=", targets: ['10.0.0.1:80']")
    scene.use(scene.discoveries, fixed)
    scene.say(found(1, 2))
    await eventually(lambda: scene.targets() == [1, 2])
    targets = scene.world.targets
    assert scene.discoveries.naming(targets["web/main/10.0.0.1:80"]) is None
    naming = scene.discoveries.naming(targets["web/main/10.0.0.2:80"])
    assert naming is not None and naming[0].title == "file /a" and naming[1] is None


async def test_a_renamed_pool_keeps_its_targets_when_it_gets_a_fixed_one(scene: Scene) -> None:
    await scene.begin()
    scene.say(found(1, 2))
    await eventually(lambda: scene.targets() == [1, 2])
    scene.use(scene.discoveries, config(pool="blue", more=", targets: ['10.0.0.9:80']"))
    assert scene.targets() == [1, 2, 9]
    assert len(scene.sources) == 1


async def test_a_pool_that_gets_a_source_again_begins_without_targets(scene: Scene, tmp_path: Path) -> None:
    await scene.begin()
    scene.say(found(1, 2))
    await eventually(lambda: scene.targets() == [1, 2])
    await eventually((tmp_path / "discovery.json").exists)
    again = scene.make(tmp_path)
    again.load()
    scene.use(again, load_text("services: {web: {pools: {main: ['10.0.0.1:80']}}}"))
    scene.use(again, config())
    watched = again.of(PLACE)
    assert watched is not None and not watched.members.all
