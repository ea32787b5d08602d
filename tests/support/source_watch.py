"""What a source of targets tells while it is watched."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import TypeVar

from lb.core.membership import Answer
from lb.discovery.source import NoAnswer, Source


class Watching:
    """What a source has told, and how often it was something else."""

    def __init__(self) -> None:
        self.told: list[Answer | NoAnswer] = []

    def hear(self, what: Answer | NoAnswer) -> None:
        if not self.told or self.told[-1] is not what:
            self.told.append(what)

    @property
    def last(self) -> Answer | NoAnswer | None:
        return self.told[-1] if self.told else None


W = TypeVar("W", bound=Watching)


@asynccontextmanager
async def watched(source: Source, watching: W) -> AsyncIterator[W]:
    """Watch a source for the time of a block."""
    task = asyncio.ensure_future(source.watch(watching.hear))
    try:
        yield watching
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
