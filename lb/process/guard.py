"""Guards what runs in the background: a loop that raises is started again, and no error of a callback is silent.

Each process, supervisor or worker, has one `Guard`. Failures are logged with their traceback, reported in a sentence
(which the supervisor makes an event) and counted for the metrics.
"""

from __future__ import annotations

import asyncio
import logging
import time
import traceback
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from lb.core.background import LOOPS, Repeats, next_wait

log = logging.getLogger("lb")

#: Characters of a callback, task or transport in a message.
LONGEST_PART = 160
#: The loop's details beside the message and the exception.
PARTS = ("handle", "task", "future", "protocol", "transport", "asyncgen")


class Guard:
    """Restarts loops, hears of exceptions, and counts both."""

    def __init__(
        self,
        report: Callable[[str], None],
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.restarts: Counter[str] = Counter()  # by label
        self.errors = 0  # in callbacks and tasks that no code awaits
        self._report = report  # gets a sentence for each failure
        self._sleep = sleep
        self._clock = clock
        self._repeats = Repeats()

    async def keep_running(self, label: str, body: Callable[[], Awaitable[None]]) -> None:
        """Run a loop until it ends by itself or is cancelled; one that raises is started again after a wait.

        `label` is one of `core.background.LOOPS`.
        """
        name, wait = LOOPS[label], 0.0
        while True:
            began = self._clock()
            try:
                await body()
            except Exception as error:
                wait = next_wait(wait, self._clock() - began)
                self.restarts[label] += 1
                log.exception("%s has failed and is started again in %g s", name, wait)
                self._tell(f"{name} has failed ({described(error)}) and is started again in {wait:g} s")
                await self._sleep(wait)
            else:
                return

    def on_error(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """An exception that nothing caught, for `loop.set_exception_handler`."""
        self.errors += 1
        error = context.get("exception")
        message = str(context.get("message") or "an error in the event loop")
        what = described(error) if error is not None else "no exception"
        due = self._repeats.due(f"{type(error).__name__} {_place(error) or message}", self._clock())
        if not due:
            return
        parts = [f"{part}: {repr(context[part])[:LONGEST_PART]}" for part in PARTS if context.get(part) is not None]
        times = f", {due} times since it was told last" if due > 1 else ""
        log.error("unhandled error: %s (%s)%s", message, "; ".join([what, *parts]), times, exc_info=error)
        self._tell(f"unhandled error: {message} ({what}){times}")

    def _tell(self, text: str) -> None:
        try:
            self._report(text)
        except Exception:  # what reports must not end what is guarded
            log.exception("not reported: %s", text)


def described(error: BaseException) -> str:
    """The last line of its traceback, and where it was raised."""
    last = traceback.format_exception_only(error)[-1].strip()
    place = _place(error)
    return f"{last}, at {place}" if place else last


def _place(error: BaseException | None) -> str:
    frames = traceback.extract_tb(error.__traceback__) if error is not None else []
    if not frames:
        return ""
    return f"{Path(frames[-1].filename).name}:{frames[-1].lineno} in {frames[-1].name}"
