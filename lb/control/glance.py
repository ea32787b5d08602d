"""The status as many dashboards ask for it: made once, sent to all who are content with one that is a second old.

A client says so as HTTP has it, with `Cache-Control: max-age=N` in its request (RFC 9111, 5.2.1.1). Everybody else,
such as `lb status` and a dashboard after an order of its own, gets one that was made for them. Those who come while
one is being made wait for it.

What it does not do: it asks nobody by itself, so that a status nobody looks at costs nothing.
"""

from __future__ import annotations

import asyncio
import re
from time import monotonic

from aiohttp import web

from lb.control.answers import OPERATIONS, Body

_MAX_AGE = re.compile(r"(?:^|[ ,])max-age=([0-9]{1,6})(?:$|[ ,])")


class Glance:
    """The newest status that was made."""

    def __init__(self) -> None:
        self._body = Body(b"")
        self._made = float("-inf")  # when its making began
        self._making = asyncio.Lock()

    async def status(self, request: web.Request) -> Body:
        """One that is as new as the request wants it."""
        match = _MAX_AGE.search(request.headers.get("Cache-Control", ""))
        oldest = monotonic() - int(match[1]) if match else monotonic()
        async with self._making:
            if self._made < oldest:
                began = monotonic()
                view = await request.app[OPERATIONS].status()
                self._body, self._made = Body(view.model_dump_json(by_alias=True).encode()), began
            return self._body


GLANCE: web.AppKey[Glance] = web.AppKey("glance", Glance)
