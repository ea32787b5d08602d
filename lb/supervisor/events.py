"""Emits events: each is an entry of the timeline and a line of the log."""

from __future__ import annotations

import logging
from pathlib import Path

from lb.control.events import NOWHERE, EventLog, place_of

logger = logging.getLogger("lb")


class Events:
    """The events of one supervisor. `log` is the timeline that the admin port shows."""

    def __init__(self) -> None:
        self.log = EventLog()

    def emit(
        self,
        kind: str,
        text: str,
        place: str = "",
        *,
        general: str = "lb",
        cause: str = "",
        actor: str = "",
        before: str = "",
        after: str = "",
        change_unsaid: bool = False,
    ) -> None:
        """Add an event, and log it. `place`: a service, a pool or a target by its id; empty: the event's subject is
        `general`, which is `lb` or `all`. The other arguments are fields of `lb.control.event.Event`."""
        subject = place or general
        self.log.add(
            kind,
            subject,
            text,
            actor=actor,
            before=before,
            after=after,
            place=place_of(place) if place else NOWHERE,
            cause=cause,
            change_unsaid=change_unsaid,
        )
        fields = {"kind": kind, "subject": subject, "text": text, "actor": actor, "before": before, "after": after}
        logger.info(
            "%s%s%s",
            f"{subject}: " if place or general != "lb" else "",
            text,
            f" (by {actor})" if actor else "",
            extra={"fields": {name: value for name, value in fields.items() if value}},
        )

    def open(self, directory: Path) -> None:
        """Write events to `directory` from now on: no other supervisor does any more. Earlier ones are added."""
        early = self.log.since()
        self.log = EventLog(directory)
        for event in early:
            self.log.repeat(event)
