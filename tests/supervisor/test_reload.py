"""A reload of a supervisor whose worker is not started: how often the file is resolved, and what it says it changes."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from lb.cli.plan import plan
from lb.config.load import load
from lb.config.model.config import Config
from lb.config.resolve import World, resolve
from lb.core.desired import Desired
from lb.core.lifecycle import Eject
from lb.supervisor.main import Supervisor
from lb.supervisor.reloads import CutsOff

OLD = """\
listeners: [127.0.0.1:0]
admin: {bind: 127.0.0.1:0}
state_dir: state
services:
  s:
    pools: {blue: [127.0.0.1:1, 127.0.0.1:2], green: [127.0.0.1:3]}
    active: blue
"""
NEW = OLD.replace(", 127.0.0.1:2]", ", {url: 127.0.0.1:4, weight: 2}]").replace("state_dir: state", "state_dir: other")
UNPROBED = OLD.replace("    active: blue\n", "    active: blue\n    readiness: {protocol: none}\n")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "lb.yaml"
    path.write_text(OLD)
    return path


@pytest.fixture
async def supervisor(file: Path) -> AsyncIterator[Supervisor]:
    """One that has its configuration, and has started neither its worker nor its admin port."""
    made = Supervisor(file, load(file), 1)
    made.store.directory.mkdir()
    await made.installation.begin()
    made.installation.snapshot()
    yield made
    made.rotations.close()
    made.workers.close_all()
    await made.monitor.close()
    made.desired.close()


def count_resolved(monkeypatch: pytest.MonkeyPatch) -> list[Config]:
    """The configurations that are resolved from now on, by whichever module."""
    resolved: list[Config] = []

    def counted(config: Config, version: int) -> World:
        resolved.append(config)
        return resolve(config, version)

    for module in [module for name, module in sys.modules.items() if name.startswith("lb.")]:
        if getattr(module, "resolve", None) is resolve:
            monkeypatch.setattr(module, "resolve", counted)
    return resolved


async def test_a_reload_resolves_the_file_once(
    supervisor: Supervisor, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file.write_text(NEW)
    resolved = count_resolved(monkeypatch)
    await supervisor.reloads.reload("test")
    assert len(resolved) == 1
    assert supervisor.state.file_world.config is resolved[0]


async def test_a_dry_run_resolves_the_text_once(supervisor: Supervisor, monkeypatch: pytest.MonkeyPatch) -> None:
    resolved = count_resolved(monkeypatch)
    await supervisor.operations.validate(NEW)
    assert len(resolved) == 1


async def test_plan_dry_run_and_reload_say_the_same(supervisor: Supervisor, file: Path) -> None:
    dry = (await supervisor.operations.validate(NEW)).plan
    assert dry is not None
    new = file.with_name("new.yaml")
    new.write_text(NEW)
    planned = await asyncio.to_thread(CliRunner().invoke, plan, [str(new), "--against", str(file)])
    file.write_text(NEW)
    done = (await supervisor.reloads.reload("test")).lines
    assert done == dry.lines() == planned.output.splitlines()[:-2]
    assert done[0].startswith("+ s/blue/127.0.0.1:4: ") and done[-1].startswith("! state_dir: ")


async def test_a_reload_is_refused_for_an_ejection_while_it_was_written(
    supervisor: Supervisor, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It takes a target away; the only other one is ejected while the disk takes its time (model, seed 80063)."""
    file.write_text(UNPROBED)
    await supervisor.reloads.reload("test")
    await supervisor.desired.own()
    save, writes = supervisor.store.save, []

    def eject(desired: Desired) -> None:
        save(desired)
        if not writes:
            loop.call_soon_threadsafe(supervisor.monitor.feed, "s/blue/127.0.0.1:2", Eject("5 in a row failed"))
        writes.append(desired)

    loop = asyncio.get_running_loop()
    monkeypatch.setattr(supervisor.store, "save", eject)
    file.write_text(UNPROBED.replace("127.0.0.1:1, ", ""))
    with pytest.raises(CutsOff, match="0 of 1 targets of blue are ready"):
        await supervisor.reloads.reload("test")
    assert "s/blue/127.0.0.1:1" in supervisor.state.targets
    assert writes[-1] == supervisor.desired.current
