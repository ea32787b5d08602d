"""Events as a list, or as a stream (server-sent events) that a client can take up where it was cut.

A stream begins with what the client has missed. A note says which events are lost, with the id of the last one that is
missing. That happens when the ring has gone on, and when the numbers began anew because the state was lost. A comment
every few seconds shows that the connection lives. A client that does not read is let go, and comes again.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Iterable
from dataclasses import dataclass

from aiohttp import web

from lb.control.api import problems
from lb.control.api.http import may_go_on
from lb.control.api.problems import Rejected
from lb.control.event import Event
from lb.control.events import EventLog

#: Seconds between two signs of life.
HEARTBEAT = 15.0
#: Seconds between two looks at whether the client is still there.
LOOK_EVERY = 1.0
#: Seconds that a write may wait for a client that does not read.
PATIENCE = 10.0
#: Streams at a time.
MOST = 100
#: Milliseconds after which a browser comes again.
RETRY = 2000

OPEN: web.AppKey[set[object]] = web.AppKey("streams", set)


@dataclass(frozen=True, slots=True)
class Choice:
    """Which events a client wants."""

    since: float | None = None  # Unix time
    after: int | None = None  # id
    limit: int | None = None
    kinds: frozenset[str] = frozenset()
    subject: str = ""

    def of(self, events: Iterable[Event]) -> list[Event]:
        """The wanted events of `events`."""
        found = [event for event in events if self.wants(event)]
        return found[-self.limit :] if self.limit is not None else found

    def wants(self, event: Event) -> bool:
        """Whether its kind and its subject are asked for."""
        if self.kinds and event.kind not in self.kinds:
            return False
        return not self.subject or event.subject == self.subject or event.subject.startswith(f"{self.subject}/")


def known(log: EventLog, choice: Choice) -> list[Event]:
    """The past events, oldest first."""
    return choice.of(log.since(choice.since or 0.0, choice.after or 0))


async def stream(request: web.Request, log: EventLog, choice: Choice) -> web.StreamResponse:
    """The events that the client has missed, then new ones, for as long as it listens."""
    streams = request.app[OPEN]
    if len(streams) >= MOST:
        raise Rejected(problems.TOO_MANY_STREAMS, f"{MOST} event streams are open")
    response = web.StreamResponse(
        headers={"Content-Type": "text/event-stream", "Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    )
    me = object()
    streams.add(me)
    try:
        with log.listen() as queue, contextlib.suppress(ConnectionError, TimeoutError):
            await response.prepare(request)
            if request.method == "HEAD":
                return response
            await _send(response, f"retry: {RETRY}\n\n".encode())
            missed, past = _past(log, choice)
            if missed is not None:
                await _send(response, _frame(missed))
            for event in past:
                await _send(response, _frame(event))
            told = past[-1].id if past else 0
            await _follow(request, response, queue, choice, told)
    finally:
        streams.discard(me)
    return response


async def _follow(
    request: web.Request, response: web.StreamResponse, queue: asyncio.Queue[Event | None], choice: Choice, told: int
) -> None:
    silent = 0.0
    while request.transport is not None and may_go_on(request):  # else the client has gone, or its token has
        wait = min(LOOK_EVERY, HEARTBEAT)
        try:
            async with asyncio.timeout(wait):
                event = await queue.get()
        except TimeoutError:
            silent += wait
            if silent >= HEARTBEAT:
                silent = 0.0
                await _send(response, b": still here\n\n")
            continue
        if event is None:
            return  # it read too slowly; it will come again with Last-Event-ID
        if event.id > told and choice.wants(event):
            silent = 0.0
            await _send(response, _frame(event))


def _past(log: EventLog, choice: Choice) -> tuple[Event | None, list[Event]]:
    """A note about what is missing, if anything is, and what the client is told first."""
    after = choice.after
    if after is None:
        since = time.time() if choice.since is None and choice.limit is None else choice.since or 0.0
        return None, choice.of(log.since(since))
    if after > log.newest:
        text = f"the events are counted anew: the last one was number {log.newest}, not {after}"
        return _note(0, text), choice.of(log.since(choice.since or 0.0))
    if after < log.oldest - 1:
        text = f"the events from {after + 1} to {log.oldest - 1} are not known any more"
        return _note(log.oldest - 1, text), choice.of(log.since(choice.since or 0.0))
    return None, choice.of(log.since(choice.since or 0.0, after))


def _note(id: int, text: str) -> Event:
    return Event(id=id, at=time.time(), kind="note", subject="lb", text=text)


def _frame(event: Event) -> bytes:
    return f"id: {event.id}\ndata: {event.model_dump_json(by_alias=True)}\n\n".encode()


async def _send(response: web.StreamResponse, data: bytes) -> None:
    async with asyncio.timeout(PATIENCE):
        await response.write(data)
