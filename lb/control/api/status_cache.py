"""The status as many dashboards ask for it: made once, sent to all clients that accept one that is a second old.

A client says so as HTTP has it, with `Cache-Control: max-age=N` in its request (RFC 9111, 5.2.1.1). Every other client,
such as `lb status` and a dashboard after an order of its own, gets one that was made for it. Requests that come while
one is being made wait for it. When something has happened since, a client that would take an older one gets a new one
too. Dashboards hear of it at once and come for it together.

Outside its scope: it asks no worker by itself, so that a status without readers costs nothing.
"""

from __future__ import annotations

import asyncio
import re
from time import monotonic

from aiohttp import web

from lb.control.api.http import OPERATIONS, Body

#: Seconds that a status counts as new although something has happened since: bounds what a storm of events costs.
STORM = 0.3
_MAX_AGE = re.compile(r"(?:^|[ ,])max-age=([0-9]{1,6})(?:$|[ ,])")


class StatusCache:
    """The newest status that was made."""

    def __init__(self) -> None:
        self._body = Body(b"")
        self._made = float("-inf")  # when its making began
        self._newest = 0  # the last event before that
        self._making = asyncio.Lock()

    async def status(self, request: web.Request) -> Body:
        """A status that is as new as the request wants it."""
        match = _MAX_AGE.search(request.headers.get("Cache-Control", ""))
        now = monotonic()
        oldest = now - int(match[1]) if match else now
        operations = request.app[OPERATIONS]
        async with self._making:
            newest, began = operations.events.newest, monotonic()
            if self._made < oldest or (newest != self._newest and self._made < now - STORM):
                view = await operations.status()
                self._body = Body(view.model_dump_json(by_alias=True).encode())
                self._made, self._newest = began, newest
            return self._body


STATUS_CACHE: web.AppKey[StatusCache] = web.AppKey("status_cache", StatusCache)
