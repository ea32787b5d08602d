"""Background loops of the supervisor: one that raises is logged, reported and started again, with a growing wait."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

log = logging.getLogger("lb")

#: Seconds before a loop that has failed is started again; the wait doubles up to the second number.
FIRST_WAIT, LONGEST_WAIT = 1.0, 60.0


async def keep_running(
    name: str,
    loop: Callable[[], Awaitable[None]],
    report: Callable[[str], None],
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> None:
    """Run `loop` until it ends by itself or is cancelled. `report` gets a sentence for each failure."""
    wait = FIRST_WAIT
    while True:
        try:
            await loop()
        except Exception as error:
            log.exception("%s has failed and is started again in %g s", name, wait)
            report(f"{name} has failed ({type(error).__name__}: {error}) and is started again in {wait:g} s")
            await sleep(wait)
            wait = min(2 * wait, LONGEST_WAIT)
        else:
            return
