"""Whether a target should be restarted, and when it may be. Pure; `now` is monotonic seconds.

Readiness and liveness are separate questions. A target that is not ready gets no traffic, and is not restarted. A
target that is not alive is restarted, whatever its readiness. A liveness check never moves traffic.

    unknown | pass                         | alive
    unknown | fail within grace            | unknown
    unknown | fail, fewer than fall        | unknown
    unknown | fail, fall in a row          | dead
    alive   | pass                         | alive
    alive   | fail, fewer than fall        | alive
    alive   | fail, fall in a row          | dead
    dead    | pass, fewer than rise        | dead
    dead    | pass, rise in a row          | alive
    dead    | fail                         | dead
    dead    | restarted                    | unknown

`fall: 0` never calls a target dead (Marathon's maxConsecutiveFailures 0). Restarts are held back, because a checker
that restarts whatever it cannot see healthy turns one broken dependency into an outage. There are three bounds: a wait
that doubles with each try, tries within an hour, and targets of one pool at one time.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from lb.core.checks import CheckSpec, OnFailure
from lb.core.lifecycle import Verdict

HOUR = 3600.0


@dataclass(frozen=True, slots=True)
class Liveness:
    """The liveness of one target. Times are monotonic seconds."""

    state: Literal["unknown", "alive", "dead"] = "unknown"
    streak: int = 0  # +n: passes in a row, -n: counted failures in a row
    started: float = 0.0  # grace begins here: when it became known, or was last restarted
    since: float = 0.0
    text: str = "not probed yet"
    tries: tuple[float, ...] = ()  # moments of the restarts within the last hour
    in_a_row: int = 0  # restarts since it was last alive
    waits_for: float | None = None  # a restart is under way: given up at that moment


def step_liveness(life: Liveness, verdict: Verdict, now: float, spec: CheckSpec) -> Liveness:
    """The liveness after a probe."""
    if verdict.ignored:
        return replace(life, text=verdict.text)
    if verdict.ok:
        streak = life.streak + 1 if life.streak > 0 else 1
        if life.state == "alive":
            return replace(life, streak=streak, text=verdict.text, in_a_row=0 if streak > 1 else life.in_a_row)
        if life.state == "dead" and streak < spec.rise:
            return replace(life, streak=streak, text=verdict.text)
        return replace(life, state="alive", streak=streak, since=now, text=verdict.text, waits_for=None)
    if life.state == "unknown" and now < life.started + spec.grace:
        return replace(life, streak=0, text=verdict.text)
    streak = life.streak - 1 if life.streak < 0 else -1
    if life.state == "dead" or spec.fall <= 0 or -streak < spec.fall:
        return replace(life, streak=streak, text=verdict.text)
    return replace(life, state="dead", streak=streak, since=now, text=verdict.text, waits_for=None)


def restart_at(life: Liveness, rules: OnFailure, now: float) -> float:
    """The earliest moment for the next restart of a dead target: back-off and the hourly number, whichever is later."""
    if not life.tries:
        return now
    wait = min(rules.max_backoff, rules.backoff * 2.0 ** min(life.in_a_row - 1, 32)) if life.in_a_row else 0.0
    earliest = life.tries[-1] + wait
    recent = [moment for moment in life.tries if moment > now - HOUR]
    if len(recent) >= rules.per_hour:
        earliest = max(earliest, recent[-rules.per_hour] + HOUR)
    return max(now, earliest)


def restarted(life: Liveness, now: float, spec: CheckSpec) -> Liveness:
    """A restart begins: its grace begins anew, and until it passes again it counts as being restarted."""
    recent = tuple(moment for moment in life.tries if moment > now - HOUR)
    return replace(
        life,
        state="unknown",
        streak=0,
        started=now,
        since=now,
        tries=(*recent, now),
        in_a_row=life.in_a_row + 1,
        waits_for=now + restart_time(spec),
    )


def restart_time(spec: CheckSpec) -> float:
    """Seconds that a restart may take before it is given up."""
    return spec.grace + max(spec.fall, 1) * spec.interval + spec.timeout


def being_restarted(life: Liveness, now: float) -> bool:
    """Whether a restart of it is still under way."""
    return life.waits_for is not None and now < life.waits_for
