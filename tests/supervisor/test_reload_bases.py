"""Reloads one after the other: each is compared with what the one before it has left."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from lb.config.load import load
from lb.config.tls_files import load_world
from lb.control.models import ConfigOrder
from lb.core.digest import digest
from lb.supervisor.admin_port import AdminPort
from lb.supervisor.reloads import OtherText, Reloaded, Reloads
from lb.supervisor.state import State

TEXT = "backends: [http://127.0.0.1:5001]\n"


class Installation:
    """Puts in force what it is given. Names take as long to look up as the test wants."""

    def __init__(self, state: State) -> None:
        self.state = state
        self.go = asyncio.Event()

    async def resolve_unprobed(self, world: object) -> None:
        await self.go.wait()

    async def install(self, candidate: Any, *_: Callable[..., object], new_version: bool) -> None:
        self.state.text = candidate.text

    async def confirm(self) -> None:
        pass


@pytest.fixture
def parts(tmp_path: Path) -> tuple[Reloads, Installation]:
    path = tmp_path / "lb.yaml"
    path.write_text(TEXT)
    config = load(path)
    world = load_world(config)
    state = State(path=path, text=TEXT, config=config, file_world=world, world=world, tls_paths=[])
    installation = Installation(state)
    nothing = SimpleNamespace(emit=lambda *_, **__: None, tell=lambda: None, seen=lambda: None)
    others = [cast("Any", nothing)] * 3
    reloads = Reloads(
        state,
        *others,
        cast("Any", nothing),
        cast("Any", nothing),
        cast("Any", installation),
        cast("Any", nothing),
        load,
        AdminPort(),
    )
    return reloads, installation


@pytest.mark.parametrize("second", ["replace", "reload"])
async def test_the_second_of_two_orders_on_one_text_is_refused(
    parts: tuple[Reloads, Installation], second: str
) -> None:
    """Both were based on the text that ran when they were sent."""
    reloads, installation = parts
    seen = {digest(TEXT.encode())}
    first = asyncio.ensure_future(reloads.replace(ConfigOrder(text=f"{TEXT}# one\n"), "alice", seen))
    if second == "replace":
        later = asyncio.ensure_future(reloads.replace(ConfigOrder(text=f"{TEXT}# two\n"), "bob", seen))
    else:
        later = asyncio.ensure_future(reloads.reload("bob", marks=seen))
    await asyncio.sleep(0.01)
    installation.go.set()
    assert isinstance(await first, Reloaded)
    with pytest.raises(OtherText):
        await later
    assert installation.state.text == f"{TEXT}# one\n"


async def test_an_order_on_no_text_is_carried_out_after_another(parts: tuple[Reloads, Installation]) -> None:
    reloads, installation = parts
    installation.go.set()
    for number in range(2):
        order = ConfigOrder(text=f"{TEXT}# {number}\n", force=True)
        assert isinstance(await reloads.replace(order, "alice"), Reloaded)
    assert installation.state.text == f"{TEXT}# 1\n"
