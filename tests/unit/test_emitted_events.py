"""Emitted events: the parts of a place go with it, whatever the names of services are."""

from __future__ import annotations

import pytest

from lb.supervisor.events import Events


@pytest.mark.parametrize(
    ("place", "general", "subject", "parts"),
    [
        ("app/blue/10.0.0.1:80", "lb", "app/blue/10.0.0.1:80", ("app", "blue", "app/blue/10.0.0.1:80")),
        ("app/blue", "lb", "app/blue", ("app", "blue", "")),
        ("lb", "lb", "lb", ("lb", "", "")),  # a service that is called so
        ("all", "lb", "all", ("all", "", "")),
        ("", "lb", "lb", ("", "", "")),
        ("", "all", "all", ("", "", "")),
    ],
)
def test_an_event_has_its_place_in_parts(place: str, general: str, subject: str, parts: tuple[str, ...]) -> None:
    events = Events()
    events.emit("note", "x", place, general=general, cause="trial")
    [event] = events.log.since()
    assert (event.subject, event.service, event.pool, event.target) == (subject, *parts)
    assert event.cause == "trial"
