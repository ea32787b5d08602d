"""One status for many dashboards: made once, but never older than asked for, and never blind to what has happened."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest
from aiohttp import web
from aiohttp.test_utils import make_mocked_request

from lb.control.api import status_cache
from lb.control.api.http import OPERATIONS
from lb.control.api.status_cache import StatusCache
from lb.control.events import EventLog
from lb.control.models import ReloadResult


class Counting:
    """Operations whose status says how often it was made, and takes a while."""

    def __init__(self) -> None:
        self.events = EventLog()
        self.made = 0

    async def status(self) -> ReloadResult:
        self.made += 1
        await asyncio.sleep(0.01)
        return ReloadResult(changed=True, lines=[str(self.made)])


class Dashboards:
    """Those who ask."""

    def __init__(self) -> None:
        self.operations = Counting()
        self.cache = StatusCache()
        self.app = web.Application()
        self.app[OPERATIONS] = cast("Any", self.operations)

    async def ask(self, patience: str = "") -> str:
        request = make_mocked_request(
            "GET", "/api/v1/status", headers={"Cache-Control": patience} if patience else {}, app=self.app
        )
        body = await self.cache.status(request)
        return body.data.decode()


@pytest.fixture
def dashboards() -> Dashboards:
    return Dashboards()


async def test_those_who_come_together_share_one(dashboards: Dashboards) -> None:
    answers = await asyncio.gather(*(dashboards.ask("max-age=1") for _ in range(5)))
    assert dashboards.operations.made == 1
    assert len(set(answers)) == 1
    assert await dashboards.ask("no-transform, max-age=60") == answers[0]


async def test_who_says_nothing_gets_one_of_their_own(dashboards: Dashboards) -> None:
    first = await dashboards.ask("max-age=60")
    assert await dashboards.ask() != first
    assert await dashboards.ask("no-cache") != first
    assert await dashboards.ask("max-age=0") != first
    assert dashboards.operations.made == 4


async def test_what_has_happened_since_is_in_it(dashboards: Dashboards, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(status_cache, "STORM", 0.0)
    first = await dashboards.ask("max-age=60")
    dashboards.operations.events.add("transition", "greeting/blue/a:1", "ready → unready")
    second, third = await asyncio.gather(dashboards.ask("max-age=60"), dashboards.ask("max-age=60"))
    assert second == third != first
    assert dashboards.operations.made == 2


async def test_a_storm_of_events_does_not_make_it_again_and_again(
    dashboards: Dashboards, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(status_cache, "STORM", 60.0)
    for number in range(20):
        dashboards.operations.events.add("transition", f"greeting/blue/a:{number}", "ready → unready")
        await dashboards.ask("max-age=60")
    assert dashboards.operations.made == 1
