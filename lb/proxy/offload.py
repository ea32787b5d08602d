"""Offload: work that would hold the loop for milliseconds, in a few threads; the result comes back to the loop."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Final

from lb.net.threads import threads

if TYPE_CHECKING:
    import asyncio

#: Pieces of work at once.
THREADS: Final = 2


class Offload:
    """The threads of one worker. They start with the first piece of work."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._threads: ThreadPoolExecutor | None = None
        self.done = 0  # pieces so far

    def run(self, work: Callable[[], bytes], then: Callable[[bytes | None], None]) -> None:
        """Call `then` on the loop with the result; None: the work has failed."""
        if self._threads is None:
            self._threads = threads(THREADS, "offload")

        def hand_over(future: Future[bytes]) -> None:
            if future.cancelled() or self._loop.is_closed():
                return
            result = None if future.exception() is not None else future.result()
            try:
                self._loop.call_soon_threadsafe(self._over, then, result)
            except RuntimeError:  # the loop was closed meanwhile
                return

        self._threads.submit(work).add_done_callback(hand_over)

    def _over(self, then: Callable[[bytes | None], None], result: bytes | None) -> None:
        self.done += 1
        then(result)

    def close(self) -> None:
        """Begin no more."""
        if self._threads is not None:
            self._threads.shutdown(wait=False, cancel_futures=True)
