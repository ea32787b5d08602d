"""`eventually` for tests that await: the event loop runs on meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from tests.support.eventually import LONG_ENOUGH, T, Wait


async def eventually(condition: Callable[[], T], within: float = LONG_ENOUGH, what: str = "") -> T:
    """The first true value of `condition()`; raises AssertionError after `within` seconds, with what was seen last."""
    wait = Wait(condition, within, what)
    while True:
        if (value := wait.look()) is not None:
            return value
        await asyncio.sleep(0.005)
