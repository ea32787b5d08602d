"""A server of a test's own in a thread of its own, which may be stopped and started again."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from typing import Any, Self

from aiohttp import web


class ThreadedServer:
    """Serves from `with` to its end, but for the time between `stop` and `start`."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._runner: web.AppRunner | None = None
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)
        self._loop.close()

    def start(self) -> None:
        self._call(self._start())

    def stop(self) -> None:
        """Its connections break off, and nothing listens at its address."""
        self._call(self._stop())

    def _call(self, work: Coroutine[Any, Any, None]) -> None:
        """Have the server's loop do it."""
        asyncio.run_coroutine_threadsafe(work, self._loop).result(10)

    async def _start(self) -> None:
        raise NotImplementedError

    async def _stop(self) -> None:
        raise NotImplementedError
