"""A release from its first step to its end: the share of the new pool, the watch, and the way back.

                 pass               pass                  time is over
    stepping ──────────▶ stepping ──────────▶ baking ──────────────────────▶ done
        │ worse than the old pool               │ worse, or burning its budget
        ▼                                       ▼
    rolled_back, or frozen (freeze_on_fail; or no target of the old pool is ready to go back to)

A step lasts `step_time` at least. Then both pools must have answered `min_requests` in it, and the new one must not
look worse than the old one over the same time. Else the step is held and the answer is NOT ENOUGH DATA, with the number
of requests still needed: silence is neither failure nor success. Being worse counts as soon as it is proven
(`core.analysis`), however early.

After the last step all traffic goes to the new pool. No pool remains for the new one to be compared with in the watch.
So the watch compares with the old pool's answers during the steps, or shortly before a switch at once. It also compares
with the error budget: burn rates over a short and a long window find trouble that begins late. The watch ends when its
time is over, with or without traffic.

`false_alarm` is the probability for a whole release: it is shared out over the steps, the tests and their windows.

`advance` is pure: the state and one sample of the totals in, the state and what to tell out. `now` is any clock that
does not jump. `to_dict` keeps what must survive a restart; measurements begin anew after one (`resume`).

Outside its scope: it applies nothing. `traffic` says what is to be desired, and `supervisor.rollouts` makes it so.
Compare Flagger, where a metric without values is a failed check, and Argo Rollouts, whose analysis may run before any
traffic does. Here nothing is measured before every worker has confirmed the step.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from math import ceil
from typing import Any, Literal, NamedTuple

import msgspec

from lb.core.analysis import TAIL, Finding, Tally, burning, errors, latency, latency_limit, more_errors, slower_tail
from lb.core.desired import LastRollout, ServiceDesired

#: Seconds that too few of the new pool's targets are ready before it counts: one may be restarted.
READY_GRACE = 5.0
#: Marks within a short window; every window begins at one.
MARKS = 5
#: Of a pool that has answered nothing.
NOTHING = Tally()

Phase = Literal["stepping", "baking", "frozen", "done", "rolled_back"]


def _check(fine: bool, text: str) -> None:
    if not fine:
        raise ValueError(text)


@dataclass(frozen=True, slots=True)
class Thresholds:
    """When the new pool is worse than the old one over the same time."""

    error_rate: float = 0.01  # its share of failed requests may be higher by this much
    latency: float = 1.5  # its p99 may be this many times the old one's
    ready: float = 1.0  # share of its targets that must stay ready (or as many as were at the beginning)
    min_requests: int = 100  # that each pool must have answered in a step
    false_alarm: float = 0.01  # how often a release as good as the old one may fail by chance

    def __post_init__(self) -> None:
        _check(0.0 <= self.error_rate <= 1.0, f"error_rate is a share, not {self.error_rate}")
        _check(self.latency >= 1.0, f"latency is a factor of 1 or more, not {self.latency}")
        _check(0.0 <= self.ready <= 1.0, f"ready is a share, not {self.ready}")
        _check(self.min_requests >= 1, f"min_requests is 1 or more, not {self.min_requests}")
        _check(0.0 < self.false_alarm < 1.0, f"false_alarm is a probability between 0 and 1, not {self.false_alarm}")


@dataclass(frozen=True, slots=True)
class Bake:
    """The watch after the last step; seconds, and shares of requests."""

    time: float = 60.0  # 0: no watch
    budget: float = 0.01  # share of failed requests that is acceptable
    short_window: float = 10.0
    long_window: float = 60.0
    burn: float = 5.0  # multiple of the budget that both windows must exceed

    def __post_init__(self) -> None:
        _check(self.time >= 0.0, f"the watch lasts 0 s or more, not {self.time}")
        _check(0.0 <= self.budget <= 1.0, f"budget is a share, not {self.budget}")
        _check(
            0.0 < self.short_window <= self.long_window,
            f"the short window, {self.short_window} s, must be above 0 and at most the long one, {self.long_window} s",
        )
        _check(self.burn >= 1.0, f"burn is a multiple of 1 or more, not {self.burn}")


@dataclass(frozen=True, slots=True)
class Plan:
    """An operator's order; it does not change."""

    old: str
    new: str
    steps: tuple[int, ...] = (100,)
    step_time: float = 60.0
    thresholds: Thresholds = field(default_factory=Thresholds)
    bake: Bake = field(default_factory=Bake)
    freeze_on_fail: bool = False
    after_restart: Literal["resume", "rollback"] = "resume"
    actor: str = ""  # the operator's name

    def __post_init__(self) -> None:
        _check(bool(self.old and self.new) and self.old != self.new, "a release goes from one pool to another one")
        grows = all(a < b for a, b in zip(self.steps, self.steps[1:], strict=False))
        _check(
            bool(self.steps) and grows and self.steps[0] >= 1 and self.steps[-1] == 100,
            f"steps are percentages that grow, the last one 100, such as 5,25,50,100; not {list(self.steps)}",
        )
        _check(self.step_time >= 0.0, f"step_time is 0 s or more, not {self.step_time}")


@dataclass(frozen=True, slots=True)
class Sample:
    """The totals of both pools and their readiness at one moment."""

    new: Tally
    old: Tally
    new_ready: int
    new_total: int
    old_ready: int
    old_total: int
    applied: bool = True  # every worker serves by the rollout's present share


class Mark(NamedTuple):
    """Both pools' totals at a time: where a window begins."""

    at: float
    new: Tally
    old: Tally


@dataclass(frozen=True, slots=True)
class Measure:
    """The measurements of the present step; lost in a restart, by design."""

    begin: Mark  # when every worker had confirmed the step
    marks: tuple[Mark, ...]  # the newest ones, as far as the long window reaches
    marked: int = 1  # marks made so far
    unready_since: float | None = None


@dataclass(frozen=True, slots=True)
class Rollout:
    """The state of a release."""

    plan: Plan
    phase: Phase
    step: int = 0  # index in `plan.steps`
    baseline: Tally = NOTHING  # the old pool's answers before it lost its traffic
    ready_floor: float = 1.0  # share of the new pool that was ready at the beginning
    failed: bool = False  # the analysis found it bad
    announced: bool = False  # when it is over: the pool that lost its traffic was seen drained, and that was told
    reason: str = ""  # why it was frozen or rolled back, or how it ended
    measure: Measure | None = None
    outlook: str = ""  # the present result of the analysis
    needed: int = 0  # requests still needed before it can say more
    held: bool = False  # the step's time is over and it waits for data

    def __post_init__(self) -> None:
        steps = len(self.plan.steps)
        _check(0 <= self.step < steps, f"there is no step {self.step} among {steps}")
        full = self.step == steps - 1
        _check(full or self.phase not in ("baking", "done"), f"{self.phase} before the last step")
        _check(not (full and self.phase == "stepping"), "the last step is the full switch: baking or done")

    @property
    def share(self) -> int:
        """Parts of 100 that the new pool has."""
        return 0 if self.phase == "rolled_back" else self.plan.steps[self.step]

    @property
    def under_way(self) -> bool:
        """Whether it goes on by itself."""
        return self.phase in ("stepping", "baking")


class Effect(NamedTuple):
    """Something to tell: step | hold | bake | done | freeze | rollback | resume."""

    kind: str
    text: str


Next = tuple[Rollout, tuple[Effect, ...]]


# --- going on by itself ----------------------------------------------------------------------------------------------


def begin(plan: Plan, ready: float = 1.0, before: Tally = NOTHING) -> Next:
    """The first step. `ready` is the share of the new pool's targets that are ready (a forced switch begins with few);
    `before` is what the old pool did of late, which a switch at once is compared with."""
    return _enter(plan, 0, NOTHING if len(plan.steps) > 1 else before, ready)


def advance(rollout: Rollout, sample: Sample, now: float) -> Next:
    """The state after one more sample; about one a second."""
    if not rollout.under_way or not sample.applied:
        return rollout, ()
    mark = Mark(now, sample.new, sample.old)
    if rollout.measure is None:
        return replace(rollout, measure=Measure(mark, (mark,))), ()
    measure = _measured(rollout, rollout.measure, sample, mark)
    findings = list(_findings(rollout, measure, sample, mark))
    worse = next((finding for finding in findings if finding.outcome == "worse"), None)
    if worse is not None:
        return fail(rollout, worse.text, can_go_back=sample.old_ready > 0)
    weakest = max(findings, key=lambda finding: finding.needed)
    outlook = _needed_text(weakest) if weakest.needed else "; ".join(finding.text for finding in findings)
    rollout = replace(rollout, measure=measure, outlook=outlook, needed=weakest.needed)
    lasted = now - measure.begin.at
    if rollout.phase == "baking":
        return _finish(rollout) if lasted >= rollout.plan.bake.time else (rollout, ())
    if lasted < rollout.plan.step_time:
        return rollout, ()
    if not sample.new_ready or measure.unready_since is not None:  # a step passes the gate that a switch has to pass
        outlook = f"{sample.new_ready} of {sample.new_total} targets of {rollout.plan.new} can serve"
        text = f"{rollout.plan.new} stays at {rollout.share} %. {outlook}"
        return replace(rollout, held=True, outlook=outlook), () if rollout.held else (Effect("hold", text),)
    if rollout.needed:
        text = f"{rollout.plan.new} stays at {rollout.share} %. {rollout.outlook}"
        return replace(rollout, held=True), () if rollout.held else (Effect("hold", text),)
    seen = sample.old.since(measure.begin.old)
    return _enter(rollout.plan, rollout.step + 1, rollout.baseline.plus(seen), rollout.ready_floor)


def same_share(first: Next | None, again: Next | None) -> bool:
    """Whether a decision that was made twice gives the new pool the same share; None: there is nothing to decide."""
    if first is None or again is None:
        return first is again
    return first[0].share == again[0].share and first[0].phase == again[0].phase


def _enter(plan: Plan, step: int, baseline: Tally, ready_floor: float) -> Next:
    """Begin a step: its share, nothing measured yet."""
    if step < len(plan.steps) - 1:
        text = f"{plan.new} gets {plan.steps[step]} % of the traffic, {plan.old} keeps {100 - plan.steps[step]} %"
        return Rollout(plan, "stepping", step, baseline, ready_floor), (Effect("step", text),)
    text = f"{plan.new} has all the traffic"
    if not plan.bake.time:
        return Rollout(plan, "done", step, baseline, ready_floor, reason=text), (Effect("done", text),)
    text += f" and is watched for {_time(plan.bake.time)}"
    return Rollout(plan, "baking", step, baseline, ready_floor), (Effect("bake", text),)


def _finish(rollout: Rollout) -> Next:
    plan = rollout.plan
    text = f"{plan.new} has all the traffic; the watch of {_time(plan.bake.time)} found nothing against it"
    if rollout.needed:
        text += f" ({rollout.outlook})"
    return replace(rollout, phase="done", measure=None, reason=text, outlook="", needed=0), (Effect("done", text),)


def _needed_text(finding: Finding) -> str:
    what = "request" if finding.needed == 1 else "requests"
    return f"NOT ENOUGH DATA, about {finding.needed} more {what} needed: {finding.text}"


def _measured(rollout: Rollout, measure: Measure, sample: Sample, mark: Mark) -> Measure:
    """With a new mark when it is time for one, without marks that no window reaches, and with the readiness noted."""
    bake = rollout.plan.bake
    marks, marked = measure.marks, measure.marked
    if mark.at - marks[-1].at >= bake.short_window / MARKS:
        start = mark.at - bake.long_window
        first = max((i for i, old in enumerate(marks) if old.at <= start), default=0)
        marks, marked = (*marks[first:], mark), marked + 1
    since = measure.unready_since
    since = (mark.at if since is None else since) if _too_few_ready(rollout, sample) else None
    return replace(measure, marks=marks, marked=marked, unready_since=since)


def _findings(rollout: Rollout, measure: Measure, sample: Sample, mark: Mark) -> Iterator[Finding]:
    """Everything that is looked at, the clearest reasons first."""
    plan, limits = rollout.plan, rollout.plan.thresholds
    names = (plan.new, plan.old)
    # Each of the four tests has a quarter of the step's error probability; a test on windows shares it out over them.
    alpha = limits.false_alarm / len(plan.steps) / 4
    length = plan.bake.time if rollout.phase == "baking" else plan.step_time
    windows = max(measure.marked, ceil(length / (plan.bake.short_window / MARKS)) + 1)
    yield _readiness(plan, sample, mark.at, measure)
    new = mark.new.since(measure.begin.new)
    short, long = _window(measure, mark, plan.bake.short_window), _window(measure, mark, plan.bake.long_window)
    if rollout.phase == "stepping":
        old = mark.old.since(measure.begin.old)
        yield _enough(new, old, limits.min_requests, names)
        yield errors(new, old, limits.error_rate, alpha, names)
        yield latency(new, old, limits.latency, alpha, names)
        # Trouble that begins late in a long step; an unclear window holds nothing up.
        if more_errors(*long, limits.error_rate, alpha / windows):
            yield errors(*long, limits.error_rate, alpha / windows, names)
        bound = latency_limit(long[1], limits.latency) if long[1].requests else None
        if bound is not None and slower_tail(*long, bound, alpha / windows):
            yield latency(*long, limits.latency, alpha / windows, names)
        return
    old = rollout.baseline
    yield _enough(new, new, limits.min_requests, names)
    # The old pool gets no further requests: an unclear result stays unclear, and holds nothing up.
    if old.requests:
        for finding in (
            errors(new, old, limits.error_rate, alpha, names),
            latency(new, old, limits.latency, alpha, names),
        ):
            yield replace(finding, needed=0)
    yield from _burn_rates(plan, old, short[0], long[0], alpha / windows)


def _burn_rates(plan: Plan, old: Tally, short: Tally, long: Tally, alpha: float) -> Iterator[Finding]:
    bake, limits = plan.bake, plan.thresholds
    comparable = old.requests >= limits.min_requests
    accepted = old.errors / old.requests + limits.error_rate if comparable else 0.0
    if burning((short.errors, short.requests), (long.errors, long.requests), bake.budget, bake.burn, alpha, accepted):
        yield Finding(
            "worse",
            f"{plan.new} fails {short.errors} of {short.requests} requests within {_time(bake.short_window)} and "
            f"{long.errors} of {long.requests} within {_time(bake.long_window)}: more than {bake.burn:g} times its "
            f"budget of {bake.budget * 100:.3g} %",
        )
    bound = latency_limit(old, limits.latency) if comparable else None
    if bound is None:
        return
    slow, slow_long = short.slower(bound), long.slower(bound)
    accepted = old.slower(bound) / old.requests + TAIL
    if burning((slow, short.requests), (slow_long, long.requests), TAIL, bake.burn, alpha, accepted):
        yield Finding(
            "worse",
            f"{plan.new} is slow: {slow} of {short.requests} requests within {_time(bake.short_window)} and "
            f"{slow_long} of {long.requests} within {_time(bake.long_window)} took over {limits.latency:g} times "
            f"{plan.old}'s p99",
        )


def _window(measure: Measure, mark: Mark, seconds: float) -> tuple[Tally, Tally]:
    """Both pools' answers in about the last `seconds`; less at the beginning of a step."""
    starts = [start for start in measure.marks if start.at <= mark.at - seconds]
    start = starts[-1] if starts else measure.begin
    return mark.new.since(start.new), mark.old.since(start.old)


def _enough(new: Tally, old: Tally, wanted: int, names: tuple[str, str]) -> Finding:
    for tally, name in ((new, names[0]), (old, names[1])):
        missing = wanted - tally.requests
        if missing > 0:
            return Finding("unclear", f"{name} has answered {tally.requests} of {wanted} requests", missing)
    return Finding("fine", f"{names[0]} has answered {new.requests} requests")


# --- readiness -------------------------------------------------------------------------------------------------------


def _too_few_ready(rollout: Rollout, sample: Sample) -> bool:
    """Fewer than wanted, and fewer than of the old pool: trouble of both speaks against neither."""
    new = _ready(sample.new_ready, sample.new_total)
    floor = min(rollout.plan.thresholds.ready, rollout.ready_floor)
    return new < floor and new < _ready(sample.old_ready, sample.old_total)


def _readiness(plan: Plan, sample: Sample, now: float, measure: Measure) -> Finding:
    text = f"{sample.new_ready} of {sample.new_total} targets of {plan.new} are ready"
    since = measure.unready_since
    if since is not None and (not sample.new_ready or now - since >= READY_GRACE):
        return Finding("worse", f"only {text}, {sample.old_ready} of {sample.old_total} of {plan.old}")
    return Finding("fine", text)


def _ready(ready: int, total: int) -> float:
    return ready / total if total else 0.0


# --- what ends it, from within or by an operator ---------------------------------------------------------------------


def fail(rollout: Rollout, reason: str, *, can_go_back: bool) -> Next:
    """The release is bad: back to the old pool, or stop where it is."""
    plan = rollout.plan
    rollout = replace(rollout, failed=True)
    if plan.freeze_on_fail:
        return _freeze(rollout, f"frozen at {rollout.share} %: {reason}")
    if not can_go_back:
        return _freeze(
            rollout, f"frozen at {rollout.share} %, as {plan.old} has no ready target to go back to: {reason}"
        )
    return roll_back(rollout, reason)


def roll_back(rollout: Rollout, reason: str) -> Next:
    """All traffic to the old pool."""
    if rollout.phase == "rolled_back":
        return rollout, ()
    text = f"all traffic is back on {rollout.plan.old}: {reason}"
    back = replace(rollout, phase="rolled_back", reason=reason, measure=None, outlook="", needed=0, held=False)
    return back, (Effect("rollback", text),)


def promote(rollout: Rollout) -> Next:
    """An operator sends everything to the new pool now: from a step, or out of a freeze."""
    if rollout.phase not in ("stepping", "frozen"):
        return rollout, ()
    return _enter(rollout.plan, len(rollout.plan.steps) - 1, rollout.baseline, rollout.ready_floor)


def resume(rollout: Rollout, *, can_go_back: bool = True) -> Next:
    """After a restart: go on with the step that it was in, or go back, as the plan says."""
    if not rollout.under_way:
        return rollout, ()
    if rollout.plan.after_restart == "rollback":
        return fail(rollout, "lb was restarted while the rollout was under way", can_go_back=can_go_back)
    text = f"{rollout.plan.new} stays at {rollout.share} % after a restart of lb; the step is measured anew"
    return replace(rollout, measure=None, outlook="", needed=0, held=False), (Effect("resume", text),)


def renamed(rollout: Rollout, old: str, new: str) -> Rollout:
    """Pool `old` has another name now; its measurements begin anew."""
    plan = rollout.plan
    plan = replace(plan, old=new if plan.old == old else plan.old, new=new if plan.new == old else plan.new)
    return replace(rollout, plan=plan, measure=None, outlook="", needed=0, held=False)


def retired(rollout: Rollout) -> str:
    """The pool that has lost its traffic when the rollout is over."""
    return rollout.plan.new if rollout.phase == "rolled_back" else rollout.plan.old


def announced(rollout: Rollout) -> Rollout:
    """That pool is drained, and all events are emitted."""
    return replace(rollout, announced=True)


def _freeze(rollout: Rollout, text: str) -> Next:
    frozen = replace(rollout, phase="frozen", reason=text, measure=None, outlook="", needed=0, held=False)
    return frozen, (Effect("freeze", text),)


# --- desired and kept state ------------------------------------------------------------------------------------------


def traffic(rollout: Rollout, before: ServiceDesired, at: float) -> ServiceDesired:
    """The service's desired state with this rollout; `at` is Unix time, noted when the active pool changes, and when
    the rollout ends.

    `previous` is where `lb rollback` leads: never forward to a release that was found bad.
    """
    plan = rollout.plan
    active = plan.new if rollout.share == 100 else plan.old
    previous = plan.old if rollout.share == 100 else plan.new if before.active == plan.new else before.previous
    if rollout.failed and previous == plan.new:
        previous = ""
    shares = ((plan.old, 100 - rollout.share), (plan.new, rollout.share)) if 0 < rollout.share < 100 else ()
    kept, last = to_dict(rollout), before.last
    if rollout.phase in ("done", "rolled_back") and kept != before.rollout:
        last = LastRollout(plan.old, plan.new, rollout.phase, rollout.reason, at)
    return replace(
        before,
        active=active,
        previous=previous,
        shares=shares,
        since=before.since if active == before.active else at,
        rollout=kept,
        last=last,
    )


def to_dict(rollout: Rollout) -> dict[str, object]:
    """Plain values for the state file: everything but measurements."""
    kept: dict[str, object] = msgspec.to_builtins(
        {
            "plan": rollout.plan,
            "phase": rollout.phase,
            "step": rollout.step,
            "baseline": rollout.baseline,
            "ready_floor": rollout.ready_floor,
            "failed": rollout.failed,
            "announced": rollout.announced,
            "reason": rollout.reason,
        }
    )
    return kept


def from_dict(kept: Mapping[str, Any]) -> Rollout:
    """The values that `to_dict` made; ValueError if it is anything else."""
    try:
        return msgspec.convert(dict(kept), Rollout)
    except msgspec.ValidationError as error:
        raise ValueError(f"this is not the state of a rollout: {error}") from error


def _time(seconds: float) -> str:
    for unit, length in (("h", 3600), ("m", 60)):
        if seconds >= length and seconds % length == 0:
            return f"{seconds / length:g}{unit}"
    return f"{seconds:g}s"
