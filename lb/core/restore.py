"""Restoring: the part of a target's health that outlives a restart, and the conditions under which it holds. Pure.

A verdict holds if the same question would be asked of the same address. And it must be no older than the time in which
a dead target would have been detected. Every other target is probed before it gets requests.

An ejection says itself how long it is fresh: until its time is over, and then, where there are probes, until one has
passed. So it holds for as long, given the same question and address; a restart is no way around it. Three more values
are kept with it: the ejections in a row, a flapping target's penalty, and the times at which a dead one was restarted.
A bound on restarts must not begin anew with each lb. A target that damping holds out is held out on, whatever its
verdict.

A changed check that has passed nowhere yet stays on trial: the former check is kept, and decides after a restart as
before. Else the restart would turn a mistyped check, which the reload survived, into an outage.

A warm-up goes on where it was. The seconds it had come are kept, so that no clock can end it early.

Times on the disk are Unix seconds, times of a `Health` monotonic ones; `unix` and `now` are the same moment in both.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from hashlib import sha256

import msgspec
from msgspec.structs import replace

from lb.core.checks import CheckSpec
from lb.core.lifecycle import Health, Rules, in_rotation, initial
from lb.core.liveness import Liveness, restart_time

#: Seconds after its last verdict for which a former check is asked again: a machine may be away for a night.
LONGEST_TRIAL = 86400.0


class Kept(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """A target's state that outlives a restart of the supervisor."""

    target: str
    identity: str  # `checks.identity`: the same question, asked of the same address
    ready: bool
    ever_ready: bool
    checked: float  # Unix time of the last probe; 0: there is no verdict
    text: str
    ejected_until: float = 0.0  # Unix time; 0: it is not ejected
    ejected_at: float = 0.0  # Unix time
    ejected_for: str = ""
    ejections: int = 0  # times in a row, as of `returned_at`
    returned_at: float = 0.0  # Unix time; 0: it has not
    penalty: float = 0.0  # of damping, as of `penalty_at`
    penalty_at: float = 0.0  # Unix time
    held_until: float = 0.0  # Unix time
    address: str = ""  # that the verdict is on, where the target's host is a name
    life: str = ""  # identity of its liveness check
    tries: tuple[float, ...] = ()  # Unix times of the restarts within the last hour
    tries_in_a_row: int = 0  # restarts since it was last alive
    restart_until: float = 0.0  # Unix time at which a restart under way is given up; 0: none is under way
    weight: float = 1.0  # share of its weight that it asked for
    asks_drain: bool = False
    relief: float = 1.0  # share of its weight left to it while it is overloaded
    warmed: float | None = None  # seconds of its slow start that are over; None: it is not in one
    former: CheckSpec | None = None  # the check that the verdict is of, while `identity` names one on trial


def keep(target: str, identity: str, health: Health, decided: bool, now: float, unix: float) -> Kept | None:
    """The part of it to keep; None: nothing. `decided`: its verdict is an answer to the question `identity`."""
    unprobed = health.probe == "ready" and health.checked is None
    decided = decided and health.checked is not None and health.probe != "starting"
    held = health.held_until > now
    if not (decided or unprobed or held or health.ejections):
        return None

    def at(moment: float) -> float:
        return moment - now + unix if moment else 0.0

    warms = in_rotation(health) and now < health.warm_at
    kept = Kept(
        target=target,
        identity=identity,
        ready=health.probe == "ready",
        ever_ready=health.ever_ready,
        checked=at(health.checked or 0.0) if decided else 0.0,
        text=health.text,
        penalty=health.penalty,
        penalty_at=at(health.penalty_at),
        held_until=at(health.held_until),
        weight=health.weight,
        asks_drain=health.asks_drain,
        relief=health.relief,
        warmed=max(0.0, now - health.rotation_since) if warms else None,
    )
    if not health.ejections:
        return kept
    return replace(
        kept,
        ejected_until=at(health.ejected_until),
        ejected_at=at(health.ejected_at),
        ejected_for=health.ejected_for,
        ejections=health.ejections,
        returned_at=at(health.returned_at),
    )


def stands(health: Health, now: float) -> bool:
    """Whether the result of `keep` stays the same as time passes: nothing in it is counted up to now."""
    return now >= health.held_until and now >= health.warm_at


def with_former(kept: Kept, former: CheckSpec) -> Kept:
    """`kept`, whose verdict is the former check's, as the one of `identity` is on trial.

    Values of header fields may be secrets, so the state directory gets a digest of each.
    """
    sealed = tuple((name, _digest(name, value)) for name, value in former.headers)
    return replace(kept, former=dataclasses.replace(former, headers=sealed))


def unsealed(former: CheckSpec, spec: CheckSpec) -> CheckSpec | None:
    """A kept former check that can be asked: each field's value is that of `spec`, the present check.

    None: one of them is another now, so the former value is unknown.
    """
    values = {(name, _digest(name, value)): value for name, value in spec.headers}
    if not all(header in values for header in former.headers):
        return None
    return dataclasses.replace(former, headers=tuple((header[0], values[header]) for header in former.headers))


def _digest(name: str, value: str) -> str:
    return sha256(f"{name}\0{value}".encode()).hexdigest()


def on_trial(kept: Kept, unix: float) -> bool:
    """Whether the former check goes on to decide."""
    return kept.former is not None and 0 <= unix - kept.checked <= LONGEST_TRIAL


def verdict(kept: Kept, spec: CheckSpec, rules: Rules, now: float, unix: float) -> Health | None:
    """The health that its verdict makes; None: it is not fresh."""
    age = unix - kept.checked
    if not 0 <= age <= spec.interval * max(spec.fall, 1) + spec.timeout:
        return None
    health = replace(
        initial(now, rules),
        probe="ready" if kept.ready else "unready",
        streak=1 if kept.ready else -1,
        ever_ready=kept.ever_ready,
        checked=now - age,
        text=f"{kept.text} (before the restart)",
        weight=kept.weight,
        asks_drain=kept.asks_drain,
        relief=kept.relief,
    )
    return held(kept, warmth(kept, health, rules, now), rules, now, unix)


def warmth(kept: Kept, health: Health, rules: Rules, now: float) -> Health:
    """`health` of a target that is ready, as far into its slow start as it was: the time between does not count."""
    if kept.warmed is None:
        return replace(health, rotation_since=now, warm_at=0.0)
    since = now - kept.warmed
    return replace(health, rotation_since=since, warm_at=since + rules.slow_start.window)


def under_name(alike: Sequence[Kept], target: str, moved: bool) -> Kept:
    """The kept part of `target`, which had another name: the same question was asked of its address.

    Of several the one that found it ill is believed, then the newest. Unless it was `moved`, it is another place of
    that address, and verdicts from the first one's traffic are not its own.
    """
    best = min(alike, key=lambda kept: (kept.checked == 0.0, kept.ready, -kept.checked, kept.target))
    if moved:
        return replace(best, target=target)
    return replace(
        best,
        target=target,
        ejected_until=0.0,
        ejected_at=0.0,
        ejected_for="",
        ejections=0,
        returned_at=0.0,
        life="",
        tries=(),
        relief=1.0,
    )


def held(kept: Kept, health: Health, rules: Rules, now: float, unix: float) -> Health:
    """`health` with the penalty that is kept of it; held never for longer than allowed, should the clock have been
    set."""
    remaining = kept.held_until - unix
    return replace(
        health,
        penalty=kept.penalty,
        penalty_at=now - max(0.0, unix - kept.penalty_at),
        held_until=now + min(remaining, rules.damping.max_hold) if remaining > 0 and rules.damping.flaps else 0.0,
    )


def with_life(kept: Kept, identity: str, life: Liveness, now: float, unix: float) -> Kept:
    """`kept` with the restarts of its target."""
    tries = tuple(moment - now + unix for moment in life.tries)
    until = life.waits_for - now + unix if life.waits_for is not None else 0.0
    return replace(kept, life=identity, tries=tries, tries_in_a_row=life.in_a_row, restart_until=until)


def restarts(kept: Kept, life: Liveness, spec: CheckSpec, now: float, unix: float) -> Liveness:
    """`life` with the restarts that are kept of it; a clock that was set back makes them recent, not to come. A restart
    that is under way still counts against `at_once`, for no longer than one that begins now would."""
    tries = tuple(now - max(0.0, unix - moment) for moment in kept.tries)
    remaining = min(kept.restart_until - unix, restart_time(spec))
    return dataclasses.replace(
        life, tries=tries, in_a_row=kept.tries_in_a_row, waits_for=now + remaining if remaining > 0 else None
    )


def ejected(kept: Kept, health: Health, rules: Rules, now: float, unix: float) -> Health:
    """`health` with the ejection that is kept of it; never for longer than allowed, should the clock have been set."""
    remaining = min(kept.ejected_until - unix, rules.ejection.longest)
    over = remaining <= 0 and not rules.probed  # then time alone ends it
    still_out = bool(kept.ejected_until) and not over
    return replace(
        health,
        ejected_until=now + remaining if still_out else 0.0,
        ejected_at=now - max(0.0, unix - kept.ejected_at),
        ejected_for=kept.ejected_for,
        ejections=kept.ejections,
        returned_at=0.0 if still_out else now - max(0.0, unix - (kept.returned_at or kept.ejected_until)),
    )
