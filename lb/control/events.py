"""The timeline: what happened, to what, and why. Kept in memory, on disk, and sent to all listeners.

It is bounded everywhere: a ring in memory, two files of limited size on disk, a queue per listener. A disk that takes
no more costs lines of the file, never anything else; the file survives restarts, and a torn last line is skipped.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from lb.control.event import Event
from lb.control.jsonl import JsonLines

#: Events kept in memory.
RING = 5000
#: Events that may wait for a slow listener; more, and it is let go.
LISTENER_LIMIT = 1000

#: Subjects that are no service, no pool and no target.
GENERAL = frozenset({"lb", "all"})


class Place(NamedTuple):
    """The subject of an event."""

    service: str = ""
    pool: str = ""
    target: str = ""  # the whole id


NOWHERE = Place()


def place_of(id: str) -> Place:
    """The parts of `service`, `service/pool` or `service/pool/address`; no name has a slash in it."""
    service, _, rest = id.partition("/")
    pool, _, address = rest.partition("/")
    return Place(service, pool, id if address else "")


class EventLog:
    """All events of this lb."""

    def __init__(self, directory: Path | None = None) -> None:
        self._file = JsonLines(directory / "events.jsonl") if directory is not None else None
        self._ring: deque[Event] = deque(maxlen=RING)
        self._listeners: set[asyncio.Queue[Event | None]] = set()
        self._next = 1
        self._load()

    @property
    def trouble(self) -> str:
        """Why events cannot be written; empty: they are."""
        return self._file.trouble if self._file is not None else ""

    def add(
        self,
        kind: str,
        subject: str,
        text: str,
        *,
        actor: str = "",
        before: str = "",
        after: str = "",
        place: Place = NOWHERE,
        cause: str = "",
        change_unsaid: bool = False,
    ) -> Event:
        """Something happened. `place`: the parts of `subject`, where that is a service, a pool or a target."""
        return self._append(
            Event(
                id=self._next,
                at=time.time(),
                kind=kind,
                subject=subject,
                text=text,
                actor=actor,
                before=before,
                after=after,
                cause=cause,
                change_unsaid=change_unsaid,
                **place._asdict(),
            )
        )

    def repeat(self, event: Event) -> Event:
        """Add an event of another log, under the next number."""
        return self._append(event.model_copy(update={"id": self._next}))

    def _append(self, event: Event) -> Event:
        self._next += 1
        self._ring.append(event)
        self._write(event)
        for queue in list(self._listeners):
            try:
                queue.put_nowait(event)
            except asyncio.QueueFull:
                self._listeners.discard(queue)
                with suppress(asyncio.QueueEmpty):
                    queue.get_nowait()
                queue.put_nowait(None)
        return event

    @property
    def newest(self) -> int:
        """The id of the last event; 0: there was none."""
        return self._next - 1

    @property
    def oldest(self) -> int:
        """The id of the oldest event that is still known; the next one's when there is none."""
        return self._ring[0].id if self._ring else self._next

    def since(self, at: float = 0.0, after: int = 0) -> list[Event]:
        """Events not older than `at` (Unix time) with an id above `after`, oldest first."""
        return [event for event in self._ring if event.at >= at and event.id > after]

    @contextmanager
    def listen(self) -> Iterator[asyncio.Queue[Event | None]]:
        """A queue of what happens from now on; None in it means that the listener was too slow."""
        queue: asyncio.Queue[Event | None] = asyncio.Queue(LISTENER_LIMIT)
        self._listeners.add(queue)
        try:
            yield queue
        finally:
            self._listeners.discard(queue)

    def _load(self) -> None:
        if self._file is None:
            return
        for line in self._file.lines():
            with suppress(ValueError):
                self._ring.append(_placed(Event.model_validate_json(line)))
        if self._ring:
            self._next = max(event.id for event in self._ring) + 1

    def _write(self, event: Event) -> None:
        if self._file is not None:
            self._file.append(event.model_dump_json(exclude_defaults=True).encode() + b"\n")


def _placed(event: Event) -> Event:
    """An event as a present lb writes it: earlier ones did not write its place."""
    if event.service or event.subject in GENERAL:
        return event
    return event.model_copy(update=place_of(event.subject)._asdict())
