"""A target's life: its health by probes, ejections and operators. Pure; `now` is seconds of one monotonic clock.

Three small machines, not one chain, because none may overwrite what another knows: undraining a target that failed
meanwhile must find it unready. HAProxy (operational and administrative state) and Envoy (two health flags) keep axes
for the same reason.

probe axis, moved by verdicts alone (`test_lifecycle.py` checks this table against `step`):

    state     | event                        | becomes
    ----------|------------------------------|---------
    starting  | pass                         | ready
    starting  | fail within grace            | starting
    starting  | fail, fewer than fall        | starting
    starting  | fail, fall in a row          | unready
    ready     | pass                         | ready
    ready     | fail, fewer than fall        | ready
    ready     | fail, fall in a row          | unready
    unready   | pass, never ready before     | ready
    unready   | pass, fewer than rise        | unready
    unready   | pass, rise in a row          | ready
    unready   | pass, rise in a row, held    | unready
    unready   | fail                         | unready

ejection axis, moved by `Eject` and by passed probes (without probes: by time alone):

    in        | eject                        | ejected
    ejected   | eject                        | ejected
    ejected   | pass before its time is over | ejected
    ejected   | pass after its time is over  | in

admin axis, moved by operators:

    normal    | drain                        | draining
    draining  | emptied                      | drained
    draining  | undrain                      | normal
    drained   | undrain                      | normal

The first entry needs one pass whatever `rise` says (Envoy does so), because a target that has never served a request
has no bad record. A failure resets the passes and a pass the failures: in a row means in a row. The public name of all
this is `shown()`.

Outside its scope: which targets are ejected (`outlier`), and how much traffic a target gets (`rotation`). Nor does it
decide when a failure is the checker's own fault (`common_cause`): the verdict comes with its `doubt` already attached.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, NamedTuple

import msgspec
from msgspec.structs import replace

from lb.core.checks import CheckSpec

Probe = Literal["starting", "ready", "unready"]
Admin = Literal["normal", "draining", "drained"]
State = Literal["starting", "ready", "slow_start", "unready", "ejected", "draining", "drained"]

#: Every public name, in the order of `shown()`'s precedence.
STATES: tuple[State, ...] = ("drained", "draining", "ejected", "starting", "unready", "slow_start", "ready")


# --- what a probe found ----------------------------------------------------------------------------------------------


class Verdict(NamedTuple):
    """One probe's result. `text` is a sentence for people; `kind` tells the reasons apart for programs."""

    ok: bool
    seconds: float
    text: str
    kind: str = ""  # "passed" or one of `FAILURES`
    weight_hint: float | None = None  # share of its weight that the target asks for; None: it said nothing
    drain_hint: bool = False  # the target asks for no new requests
    ignored: bool = False  # neither pass nor failure (ignore_1xx, our own stall): changes nothing
    got: str = ""  # the answer, for `lb probe`: its first lines, or a command's output
    excerpt: str = ""  # of a failure: how the answer's body begins, printable. Never on the disk, and no header in it


class Seen(NamedTuple):
    """One probe of the past."""

    at: float  # monotonic seconds, its start
    verdict: Verdict
    doubt: str = ""  # why a failure was not counted, or might not have been


#: Kinds of failure in which the target, or its machine, answered: the cause cannot be elsewhere.
ANSWERED = frozenset({"refused", "reset", "status", "header", "body", "garbage", "tls", "grpc", "exit"})
#: Kinds in which nothing was heard: the target, the network between, or we ourselves.
SILENT = frozenset({"timeout", "unreachable", "dns", "local"})
FAILURES = ANSWERED | SILENT
#: Causes of what a step says, besides a kind of failure.
CAUSES = frozenset(
    {"passed", "flapping", "overloaded", "ejected", "readmitted", "drain", "emptied", "undrain", "drain_hint"}
)


# --- rules -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class SlowStart:
    """The ramp of a target that enters rotation (Envoy's formula; with aggression 1 it is a line)."""

    window: float = 0.0  # seconds; 0: full weight at once
    aggression: float = 1.0  # above 1 it grows fast at first, below 1 slowly
    floor: float = 0.1  # share of the weight that it begins with, at least


@dataclass(frozen=True, slots=True)
class Damping:
    """Holds down a target that keeps falling: each fall adds 1 to a penalty that halves every `half_life` seconds.

    From `flaps` on, it must pass for `hold` seconds before it returns, doubling with each further fall. Off by default:
    rise and fall damp already, and a target that passes but is held back surprises the operator after a repair.
    """

    flaps: int = 0  # 0: off
    half_life: float = 60.0
    hold: float = 10.0
    max_hold: float = 300.0


@dataclass(frozen=True, slots=True)
class Ejection:
    """How long an ejected target stays out: `base` × times in a row, at most `longest` (Envoy's defaults)."""

    base: float = 30.0
    longest: float = 300.0
    connect_base: float = 2.0  # the base when it only could not be connected to: the next probe goes that very way
    calm: float = 10.0  # each such span without an ejection takes one off the times in a row (Envoy: one sweep)


@dataclass(frozen=True, slots=True)
class Rules:
    """The settings of `step`, for one target."""

    probed: bool = True  # False (`protocol: none`): taken as ready, never probed
    rise: int = 2
    fall: int = 3  # 0: failed probes never take it out
    grace: float = 30.0
    slow_start: SlowStart = SlowStart()
    damping: Damping = Damping()
    ejection: Ejection = Ejection()
    patience: float = 15.0  # seconds that failures in doubt may go uncounted at one stretch


# --- what is known ---------------------------------------------------------------------------------------------------


class Health(msgspec.Struct, frozen=True, gc=False):
    """The health of one target, as the supervisor sees it. Times are of the caller's monotonic clock, seconds.

    Each probe makes a new one: a struct's `replace` costs a tenth of a dataclass's.
    """

    probe: Probe = "starting"
    streak: int = 0  # +n: passes in a row, -n: counted failures in a row
    ever_ready: bool = False
    started: float = 0.0  # known since; grace begins here
    probe_since: float = 0.0
    checked: float | None = None  # time of the last verdict
    text: str = "not probed yet"  # the last verdict's text
    weight: float = 1.0  # share of its weight that the target asked for
    asks_drain: bool = False
    relief: float = 1.0  # share of its weight left to it while it is overloaded
    doubt: str = ""  # why the last failure was not counted: own_fault | shared | overloaded | trial
    doubt_since: float = 0.0
    penalty: float = 0.0  # of damping, as of `penalty_at`
    penalty_at: float = 0.0
    held_until: float = 0.0

    ejected_until: float = 0.0  # 0: not ejected
    ejected_at: float = 0.0
    ejections: int = 0  # times in a row, as of `returned_at`
    ejected_for: str = ""
    returned_at: float = 0.0

    admin: Admin = "normal"
    admin_since: float = 0.0

    rotation_since: float = 0.0  # when it last entered or left rotation
    warm_at: float = 0.0  # end of its slow start


class Probed(NamedTuple):
    """A readiness probe ended. A failure with a `doubt` is not counted while patience lasts."""

    verdict: Verdict
    doubt: str = ""


class Eject(NamedTuple):
    """The outlier rules want it out. `quick`: for `Ejection.connect_base`, not `Ejection.base`."""

    reason: str
    quick: bool = False


class Readmit(NamedTuple):
    """An operator, or a changed configuration, ends its ejection early."""

    reason: str = "by hand"


class Drain(NamedTuple):
    """No new requests."""


class Undrain(NamedTuple):
    """New requests again, if the other axes allow."""


class Emptied(NamedTuple):
    """The last request of a draining target has ended."""


class Tick(NamedTuple):
    """Time has passed: states that end by time alone may end."""


Event = Probed | Eject | Readmit | Drain | Undrain | Emptied | Tick


class Effect(NamedTuple):
    """The effects of a step; the caller carries them out."""

    kind: Literal["enter", "leave", "reweigh", "probe", "say"]
    text: str = ""
    at: float = 0.0  # "probe": when the next probe is wanted
    cause: str = ""  # "say": one of `CAUSES`, or the kind of the verdict that failed; for programs


# --- steps -----------------------------------------------------------------------------------------------------------


def initial(now: float, rules: Rules) -> Health:
    """The health of a target that has not been probed yet."""
    if rules.probed:
        return Health(started=now, probe_since=now, rotation_since=now)
    return Health(
        probe="ready",
        ever_ready=True,
        started=now,
        probe_since=now,
        rotation_since=now,
        warm_at=now + rules.slow_start.window,
        text="taken as ready: not probed",
    )


def step(health: Health, event: Event, now: float, rules: Rules) -> tuple[Health, tuple[Effect, ...]]:
    """The health after `event`, and its effects."""
    effects: list[Effect] = []
    match event:
        case Probed(verdict, doubt):
            after = _probe_axis(health, verdict, doubt, now, rules, effects)
            after = _ejection_after_probe(after, verdict, now, effects)
        case Eject(reason, quick):
            after = _ejected(health, reason, quick, now, rules, effects)
        case Readmit(reason):
            after = _readmitted(health, now, reason, effects) if health.ejected_until else health
        case Tick():
            over = health.ejected_until and now >= health.ejected_until and not rules.probed
            after = _readmitted(health, now, "its time is over", effects) if over else health
        case Drain():
            after = health
            if health.admin == "normal":
                after = replace(health, admin="draining", admin_since=now)
                effects.append(Effect("say", "draining: takes no new requests", cause="drain"))
        case Emptied():
            after = health
            if health.admin == "draining":
                after = replace(health, admin="drained", admin_since=now)
                effects.append(Effect("say", "drained: its last request has ended", cause="emptied"))
        case Undrain():
            after = health
            if health.admin != "normal":
                after = replace(health, admin="normal", admin_since=now)
                effects.append(Effect("say", f"undrained: its probes say {health.probe}", cause="undrain"))
    was, is_ = in_rotation(health), in_rotation(after)
    if is_ and not was:
        after = replace(after, rotation_since=now, warm_at=now + rules.slow_start.window)
        effects.append(Effect("enter", after.text))
    elif was and not is_:
        after = replace(after, rotation_since=now)
        effects.append(Effect("leave", after.text))
    elif after.weight != health.weight or after.relief != health.relief:  # out of rotation too: panic may use it
        effects.append(Effect("reweigh", f"weight at {after.weight * after.relief:.0%}"))
    return after, tuple(effects)


def under_rules(health: Health, now: float, rules: Rules) -> Health:
    """`health` after its rules have changed: states under way go on by the new ones.

    A warm-up ends when the new window says; a finished one is not begun again. No ejection and no hold lasts longer
    than the new rules allow from now on, and without damping nothing is held.
    """
    damping = rules.damping
    longest_hold = now + damping.max_hold if damping.flaps else 0.0
    warm_at = health.rotation_since + rules.slow_start.window if health.warm_at > now else health.warm_at
    return replace(
        health,
        warm_at=warm_at,
        ejected_until=min(health.ejected_until, now + rules.ejection.longest),
        held_until=min(health.held_until, longest_hold),
    )


def _probe_axis(
    health: Health, verdict: Verdict, doubt: str, now: float, rules: Rules, effects: list[Effect]
) -> Health:
    if verdict.ignored:
        return replace(health, checked=now, text=verdict.text)
    if verdict.ok:
        return _passed(health, verdict, now, rules, effects)
    if doubt == "own_fault" and health.probe != "ready":
        return replace(health, checked=now, text=verdict.text)  # nothing was learnt
    if doubt and health.probe == "ready":  # a doubt keeps a verdict; it never gives one
        since = health.doubt_since if health.doubt else now
        if now - since < rules.patience:
            if doubt == "overloaded" and health.doubt != doubt:  # a cause that many targets share is said once for all
                text = f"overloaded: {verdict.text}, but it goes on answering clients"
                effects.append(Effect("say", text, cause="overloaded"))
            relief = max(0.1, health.relief / 2) if doubt == "overloaded" else health.relief
            return replace(health, checked=now, text=verdict.text, doubt=doubt, doubt_since=since, relief=relief)
        # Patience is over: the doubt is kept on record, so that it does not begin anew, and the failure counts.
        health = replace(health, doubt=doubt, doubt_since=since)
    elif health.doubt:
        health = replace(health, doubt="")
    return _failed(health, verdict, now, rules, effects)


def _passed(health: Health, verdict: Verdict, now: float, rules: Rules, effects: list[Effect]) -> Health:
    streak = health.streak + 1 if health.streak > 0 else 1
    probe: Probe = health.probe
    since, ever = health.probe_since, health.ever_ready
    if probe != "ready":
        needed = rules.rise if ever else 1
        if streak >= needed and now >= health.held_until:
            probe, since, ever = "ready", now, True
            text = f"ready: {streak} of {needed} probes passed in a row; {verdict.text}"
            effects.append(Effect("say", text, cause="passed"))
    hint = 1.0 if verdict.weight_hint is None else verdict.weight_hint
    if verdict.drain_hint != health.asks_drain:
        text = "asks to be drained" if verdict.drain_hint else "no longer asks to be drained"
        effects.append(Effect("say", text, cause="drain_hint"))
    return replace(
        health,
        probe=probe,
        streak=streak,
        ever_ready=ever,
        probe_since=since,
        checked=now,
        text=verdict.text,
        weight=hint,
        asks_drain=verdict.drain_hint,
        relief=min(1.0, health.relief * 2),
        doubt="",
    )


def _failed(health: Health, verdict: Verdict, now: float, rules: Rules, effects: list[Effect]) -> Health:
    if not health.ever_ready and health.probe == "starting" and now < health.started + rules.grace:
        return replace(health, streak=0, checked=now, text=verdict.text)
    streak = health.streak - 1 if health.streak < 0 else -1
    if health.probe == "unready" or rules.fall <= 0 or -streak < rules.fall:
        return replace(health, streak=streak, checked=now, text=verdict.text)
    text = f"unready: {-streak} of {rules.fall} probes failed in a row; {verdict.text}"
    effects.append(Effect("say", text, cause=verdict.kind))
    penalty, held = health.penalty, health.held_until
    damping = rules.damping
    if damping.flaps and health.probe == "ready":
        penalty = 1 + health.penalty * 0.5 ** ((now - health.penalty_at) / damping.half_life)
        if penalty >= damping.flaps:
            hold = min(damping.max_hold, damping.hold * 2.0 ** min(64, math.floor(penalty) - damping.flaps))
            held = now + hold
            effects.append(Effect("say", f"flapping: held out for {hold:.0f} s at least", cause="flapping"))
    return replace(
        health,
        probe="unready",
        streak=streak,
        probe_since=now,
        checked=now,
        text=verdict.text,
        relief=1.0,
        penalty=penalty,
        penalty_at=now,
        held_until=held,
    )


def _ejected(health: Health, reason: str, quick: bool, now: float, rules: Rules, effects: list[Effect]) -> Health:
    times = times_ejected(health, now, rules) + 1
    base = rules.ejection.connect_base if quick else rules.ejection.base
    until = max(health.ejected_until, now + min(rules.ejection.longest, base * times))
    effects.append(Effect("say", f"ejected for {until - now:.0f} s: {reason}", cause="ejected"))
    effects.append(Effect("probe", at=until))
    began = health.ejected_at if health.ejected_until else now
    return replace(health, ejected_until=until, ejected_at=began, ejections=times, ejected_for=reason, returned_at=0.0)


def times_ejected(health: Health, now: float, rules: Rules) -> int:
    """Ejections in a row that still count: each calm span since the return takes one off."""
    if health.ejected_until or not health.ejections:
        return health.ejections
    return max(0, health.ejections - int((now - health.returned_at) / rules.ejection.calm))


def _ejection_after_probe(health: Health, verdict: Verdict, now: float, effects: list[Effect]) -> Health:
    if not health.ejected_until or verdict.ignored or not verdict.ok or now < health.ejected_until:
        return health
    return _readmitted(health, now, "its time is over and it passed a probe", effects)


def _readmitted(health: Health, now: float, reason: str, effects: list[Effect]) -> Health:
    effects.append(Effect("say", f"ejection ended: {reason}", cause="readmitted"))
    return replace(health, ejected_until=0.0, returned_at=now)


# --- reading it ------------------------------------------------------------------------------------------------------


def in_rotation(health: Health) -> bool:
    """Whether its health lets it get new requests; `rotation.can_serve` also looks at weights."""
    return health.probe == "ready" and not health.ejected_until and health.admin == "normal" and not health.asks_drain


def shown(health: Health, now: float) -> State:
    """The single public name. An operator's order comes first, then an ejection, then the verdict of probes."""
    if health.admin != "normal":
        return health.admin
    if health.asks_drain and health.probe == "ready":
        return "draining"
    if health.ejected_until:
        return "ejected"
    if health.probe != "ready":
        return health.probe
    return "slow_start" if now < health.warm_at else "ready"


def shown_since(health: Health, now: float) -> float:
    """When the public name came about."""
    match shown(health, now):
        case "draining" | "drained":
            return health.admin_since if health.admin != "normal" else health.rotation_since
        case "ejected":
            return health.ejected_at
        case "starting" | "unready":
            return max(health.probe_since, health.admin_since, health.returned_at)
        case "slow_start":
            return health.rotation_since
        case _:
            return max(health.rotation_since, health.warm_at)


def ramp(health: Health, now: float, slow_start: SlowStart) -> float:
    """The share of its weight that slow start gives a target in rotation.

    Envoy's formula: max(floor, (elapsed / window) ^ (1 / aggression)). It applies to every entry, the first one after
    start as well, which HAProxy leaves out. Where all targets are new they all ramp alike, and shares stay even.
    """
    if slow_start.window <= 0 or now >= health.warm_at:
        return 1.0
    elapsed = now - health.rotation_since
    share: float = (max(elapsed, 0.0) / slow_start.window) ** (1 / slow_start.aggression)
    return min(1.0, max(slow_start.floor, share))


def pause(health: Health, spec: CheckSpec) -> float:
    """Seconds from one probe's start to the next one's: shorter in doubt, by choice another one while out."""
    contrary = health.streak < 0 if health.probe == "ready" else health.streak > 0
    if contrary or health.probe == "starting" or health.doubt:
        return spec.fast_interval or spec.interval
    if health.probe == "unready":
        return spec.down_interval or spec.interval
    return spec.interval
