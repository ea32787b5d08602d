"""A background loop that fails is reported and started again."""

from __future__ import annotations

import asyncio

import pytest

from lb.runtime.guard import LONGEST_WAIT, keep_running


async def test_a_loop_that_fails_is_reported_and_started_again() -> None:
    runs = 0
    waits: list[float] = []
    reports: list[str] = []

    async def loop() -> None:
        nonlocal runs
        runs += 1
        if runs < 10:
            raise KeyError("gone")

    async def sleep(seconds: float) -> None:
        waits.append(seconds)

    await keep_running("the loop", loop, reports.append, sleep)
    assert runs == 10
    assert waits[:3] == [1.0, 2.0, 4.0]
    assert max(waits) == LONGEST_WAIT
    assert reports[0] == "the loop has failed (KeyError: 'gone') and is started again in 1 s"


async def test_a_cancelled_loop_ends() -> None:
    task = asyncio.ensure_future(keep_running("the loop", asyncio.Event().wait, print))  # type: ignore[arg-type]
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
