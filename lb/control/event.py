"""An event, as the timeline keeps it and the admin API says it. Every start has one, and needs no other model."""

from __future__ import annotations

from lb.control.view import View


class Event(View):
    """Something that happened."""

    id: int
    """Grows by one with each event."""
    at: float
    """Unix time."""
    kind: str
    """transition | liveness | address | discovery | switch | rollout | drain | weight | handover | reload | start |
    stop | upgrade | worker | state | certificate | note"""
    subject: str
    """The service, pool or target that the event is about; `lb` and `all` (all targets): about no single one."""
    text: str
    """An event, and why it happened."""
    actor: str = ""
    """The operator's name; empty: lb itself."""
    before: str = ""
    """The former value."""
    after: str = ""
    """The new value."""
    service: str = ""
    """The service that the event is about, or lies in; empty: about no single service."""
    pool: str = ""
    """The pool, if the event is about one or lies in one."""
    target: str = ""
    """The target's id, if the event is about one target."""
    cause: str = ""
    """The reason, for programs. A target's state: the kind of the probe's failure (`refused`, `timeout`, `status` …),
    `passed`, `ejected`, `readmitted`, `drain`, `emptied`, `undrain`, `drain_hint`, `overloaded`, `flapping`.
    A suspicion: `own_fault`, `shared`, `trial`. Liveness: `liveness_dead`, `liveness_alive`, `liveness_held`,
    `liveness_restart`, `liveness_restarted`. Empty: the kind says enough."""
    change_unsaid: bool = False
    """Whether `text` leaves out the change from `before` to `after`."""
