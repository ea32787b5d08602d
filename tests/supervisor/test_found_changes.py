"""A change of a source's answer is put in force by what differs, and leaves what the whole would have left."""

from __future__ import annotations

import asyncio
import functools
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from lb.config.load import load_text
from lb.config.model.discovery import Discover
from lb.core.desired import Desired, TargetDesired
from lb.core.lifecycle import Drain
from lb.core.membership import Answer, Found
from lb.core.target_changes import with_targets
from lb.core.targets import Rotation, Snapshot, Targets
from lb.discovery.source import Tell
from lb.supervisor.drains import with_target
from lb.supervisor.main import Supervisor

FILE = """
admin: {{bind: 127.0.0.1:0}}
state_dir: {folder}
services:
  web:
    pools:
      blue: {{discover: {{file: /blue}}, removal_guard: {guard}}}
      green: {{discover: {{file: /green}}, targets: [10.0.0.1:80]}}
    active: blue
    readiness: {readiness}
routes: [{{path: /, service: web}}]
"""


class Scripted:
    """A source that says what a test says."""

    def __init__(self) -> None:
        self.tell: Tell | None = None

    async def ask(self) -> Answer:
        return Answer(())

    async def watch(self, tell: Tell) -> None:
        self.tell = tell
        await asyncio.Event().wait()


class One:
    """A supervisor without workers; `told` is what a worker would have by its messages."""

    def __init__(self, folder: str, guard: str, readiness: str, whole: bool) -> None:
        text = FILE.format(folder=folder, guard=guard, readiness=readiness)
        self.supervisor = Supervisor(Path(folder) / "lb.yaml", load_text(text), 0)
        self.sources: dict[str, Scripted] = {}
        self.supervisor.discoveries.make = self.make
        self.small = 0
        if whole:
            self.supervisor.discoveries.change = lambda *worlds: None  # type: ignore[method-assign]
        self.told = Snapshot(0)
        workers = self.supervisor.workers
        for name in ("apply", "change", "rotate"):
            setattr(workers, name, functools.partial(self.tell_worker, getattr(workers, name)))

    def make(self, settings: Discover) -> Scripted:
        assert settings.file is not None
        return self.sources.setdefault(str(settings.file), Scripted())

    def tell_worker(self, tell: Callable[..., None], message: Snapshot | Targets | Rotation, *more: Any) -> None:
        if isinstance(message, Snapshot):
            self.told = message
        elif isinstance(message, Targets):
            self.small += bool(more)
            self.told = with_targets(self.told, message)
        else:
            rotations = {each.service: each for each in (*self.told.rotations, message)}
            self.told = replace(self.told, rotations=tuple(rotations.values()))
        assert message.version > self.told.version or isinstance(message, Snapshot)
        self.told = replace(self.told, version=message.version)
        tell(message, *more)

    async def begin(self) -> None:
        await self.supervisor.installation.begin()
        self.supervisor.installation.watch_targets()
        self.supervisor.workers.apply(self.supervisor.installation.snapshot())
        self.supervisor.discoveries.begin(wait=False)
        while len(self.sources) < 2 or not all(each.tell for each in self.sources.values()):  # noqa: ASYNC110
            await asyncio.sleep(0)

    async def take(self, answers: dict[str, Answer]) -> None:
        for name, answer in answers.items():
            tell = self.sources[name].tell
            assert tell is not None
            tell(answer)
        await self.supervisor.installation.take_found()

    def facts(self) -> dict[str, Any]:
        """All that a change may touch."""
        one = self.supervisor
        return {
            "world": replace(one.state.world, config=None),  # type: ignore[arg-type]
            "targets": dict(one.state.targets),
            "layout": one.desired.current.layout,
            "wishes": one.desired.current.targets,
            "healths": sorted(one.monitor.healths),
            "probed": sorted(id for id in one.monitor.healths if one.monitor.next_probe(id) is not None),
            "rotations": {name: unversioned(each) for name, each in one.rotations.current.items()},
            "found": {id: one.discoveries.naming(each) is not None for id, each in one.state.targets.items()},
            "told targets": {t.id: t for s in self.told.services for pool in s.pools for t in pool.targets},
            "told rotations": {each.service: unversioned(each) for each in self.told.rotations},
            "new worker": unversioned_snapshot(one.installation.snapshot()),
        }

    async def end(self) -> None:
        self.supervisor.discoveries.close()
        self.supervisor.rotations.close()
        self.supervisor.installation.close()
        await self.supervisor.monitor.close()
        self.supervisor.desired.close()


def unversioned(rotation: Rotation) -> Rotation:
    return replace(rotation, version=0, draining=tuple(sorted(rotation.draining)))


def unversioned_snapshot(snapshot: Snapshot) -> Snapshot:
    return replace(snapshot, version=0, rotations=tuple(map(unversioned, snapshot.rotations)))


def found(number: int, weight: int, priority: int, settings: str) -> Found:
    address = f"10.0.0.{number}:80"
    return Found(address, f"http://{address}", weight, priority, settings=settings)


answers = st.lists(
    st.builds(
        found,
        st.integers(1, 9),
        st.sampled_from((1, 1, 1, 2)),
        st.sampled_from((0, 0, 0, 0, 0, 1)),
        st.sampled_from(("", "", "", "", '{"readiness": {"path": "/other"}}')),
    ),
    max_size=7,
).map(lambda each: Answer(tuple(each)))
steps = st.lists(
    st.tuples(st.sampled_from(("/blue", "/blue", "/green")), answers, st.sampled_from((0, 0, 0, 1, 2))),
    min_size=1,
    max_size=8,
)


@given(steps, st.sampled_from(("50%", "100%")), st.sampled_from(("/ready", "{protocol: none}")))
@settings(max_examples=40, deadline=None)
def test_what_differs_leaves_what_the_whole_leaves(
    steps: list[tuple[str, Answer, int]], guard: str, readiness: str
) -> None:
    async def both() -> None:
        with tempfile.TemporaryDirectory() as one, tempfile.TemporaryDirectory() as other:
            pair = One(one, guard, readiness, whole=False), One(other, guard, readiness, whole=True)
            try:
                for each in pair:
                    await each.begin()
                for name, answer, drained in steps:
                    for each in pair:
                        if drained:
                            await drain(each.supervisor, drained)
                        await each.take({name: answer})
                    small, whole = (each.facts() for each in pair)
                    for fact in small:
                        assert small[fact] == whole[fact], fact
            finally:
                for each in pair:
                    await each.end()

    asyncio.run(both())


async def drain(supervisor: Supervisor, number: int) -> None:
    """Wish for the drain of a target, as far as there is one."""
    ids = sorted(supervisor.state.targets)
    id = ids[number % len(ids)]

    def change(desired: Desired) -> tuple[Desired, None]:
        return with_target(desired, id, TargetDesired(draining=True)), None

    await supervisor.desired.commit(change)
    supervisor.monitor.feed(id, Drain())


async def test_one_changed_target_is_told_alone(tmp_path: Path) -> None:
    one = One(str(tmp_path), "50%", "/ready", whole=False)
    try:
        await one.begin()
        await one.take({"/blue": Answer(tuple(found(number, 1, 0, "") for number in range(2, 9)))})
        before = one.small
        await one.take({"/blue": Answer(tuple(found(number, 1, 0, "") for number in range(3, 10)))})
        assert one.small == before + 1
        assert "web/blue/10.0.0.9:80" in one.supervisor.state.targets
        assert "web/blue/10.0.0.2:80" not in one.supervisor.state.targets
    finally:
        await one.end()
