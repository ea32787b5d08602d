"""Why a target gets traffic or does not, in sentences: its state, the rule that counts, and the next condition.

Pure: everything it says comes from its arguments. The sentences are for people; each stands for itself, so that any
front end may show them as a list.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from lb.core.checks import CheckSpec
from lb.core.detection import detection
from lb.core.lifecycle import Health, Rules, Seen, in_rotation, ramp, shown, shown_since, times_ejected
from lb.core.liveness import Liveness, being_restarted


class Explained(NamedTuple):
    """The answer in one sentence, and the reasons. `predicate`: the sentence without the subject."""

    summary: str
    lines: list[str]
    predicate: str


def explain(
    name: str,
    health: Health,
    rules: Rules,
    spec: CheckSpec,
    now: float,
    *,
    seen: Sequence[Seen] = (),
    next_probe: float | None = None,
    trial: Health | None = None,
    life: Liveness | None = None,
    weight: float | None = None,
    idle: str = "",
    until: float = 0.0,
) -> Explained:
    """`seen`: its last probes, oldest first. `weight`: its effective weight in the rotation, None: not in it. `idle`:
    why it gets nothing although its health lets it, such as a weight of 0; empty: there is no such reason. `until`:
    when a target that the file no longer has is given up; 0: the file has it."""
    state = shown(health, now)
    spread = not in_rotation(health) and bool(weight)
    gets = "gets traffic" if (in_rotation(health) and not idle) or spread else "gets no traffic"
    predicate = f"{gets}: {state.replace('_', ' ')} for {span(now - shown_since(health, now))}"
    if in_rotation(health) and idle:
        predicate += f", but {idle}"
    lines = [
        *_panic(spread),
        *_replaced(until, now),
        *_last_probe(health, seen, now),
        *_admin(health),
        *_ejection(health, rules, now),
        *_probe_axis(health, rules, spec, now, next_probe),
        *_doubt(health, rules, now),
        *_weight(health, rules, now, weight),
        *_trial(trial),
        *_life(life, now),
        *_pace(spec),
    ]
    return Explained(f"{name} {predicate}", lines, predicate)


def span(seconds: float) -> str:
    """A duration for people: `0.4 s`, `12 s`, `3 min 5 s`, `2 h 10 min`, `3 d 4 h`."""
    if seconds < 9.95:
        return f"{max(0.0, seconds):.1f} s"
    whole = round(seconds)
    for size, unit, part, part_unit in ((86400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s")):
        if whole >= size:
            count, rest = divmod(whole, size)
            return f"{count} {unit} {rest // part} {part_unit}" if rest >= part else f"{count} {unit}"
    return f"{whole} s"


def runs(seen: Sequence[Seen]) -> list[tuple[int, Seen, Seen]]:
    """The probes folded into runs of the same result: (how many, the first, the last), oldest first."""
    folded: list[tuple[int, Seen, Seen]] = []
    for each in seen:
        if folded and _alike(folded[-1][2], each):
            count, first, _ = folded[-1]
            folded[-1] = (count + 1, first, each)
        else:
            folded.append((1, each, each))
    return folded


def _alike(one: Seen, other: Seen) -> bool:
    return (one.verdict.ok, one.verdict.ignored, one.verdict.text) == (
        other.verdict.ok,
        other.verdict.ignored,
        other.verdict.text,
    )


# --- one subject each ------------------------------------------------------------------------------------------------


def _panic(spread: bool) -> list[str]:
    if not spread:
        return []
    return ["Too few targets of its pool are ready, so all that were ready once get requests (`panic: spread`)."]


def _replaced(until: float, now: float) -> list[str]:
    if not until:
        return []
    return [
        "The file no longer has it: all targets of its pool were replaced, and it serves until a new one can, for "
        f"{span(until - now)} at most."
    ]


def _last_probe(health: Health, seen: Sequence[Seen], now: float) -> list[str]:
    if not seen:
        return [f"Probes: {health.text}."]
    last = seen[-1]
    verdict = last.verdict
    result = "ignored" if verdict.ignored else "passed" if verdict.ok else "failed"
    took = f"{verdict.seconds * 1000:.1f} ms"
    lines = [f"The last probe, {span(now - last.at)} ago, {result} after {took}: {verdict.text}."]
    count, first, _ = runs(seen)[-1]
    if count > 1:
        lines.append(f"The last {count} probes said the same, since {span(now - first.at)} ago.")
    return lines + _last_failure(seen, now)


def _last_failure(seen: Sequence[Seen], now: float) -> list[str]:
    """The newest failure, unless it was the last probe, and the text of its answer's body."""
    failed = next((each for each in reversed(seen) if not each.verdict.ok and not each.verdict.ignored), None)
    if failed is None:
        return []
    excerpt = " ".join(failed.verdict.excerpt.split())
    if failed is seen[-1]:
        return [f"The answer's body begins: {excerpt}"] if excerpt else []
    text = f"The last failure, {span(now - failed.at)} ago: {failed.verdict.text}."
    return [f"{text} The answer's body began: {excerpt}" if excerpt else text]


def _admin(health: Health) -> list[str]:
    if health.admin == "drained":
        return ["An operator drained it, and its last request has ended; `lb undrain` takes that back."]
    if health.admin == "draining":
        return ["An operator is draining it: it takes no new requests; `lb undrain` takes that back."]
    if health.asks_drain:
        return ["It asks for no new requests itself (its check answers `drain`), until it answers otherwise."]
    return []


def _ejection(health: Health, rules: Rules, now: float) -> list[str]:
    if not health.ejected_until:
        times = times_ejected(health, now, rules)
        return [f"It was ejected {times} times of late: {health.ejected_for}."] if times else []
    lines = [f"Ejected {span(now - health.ejected_at)} ago for its own traffic: {health.ejected_for}."]
    remaining = health.ejected_until - now
    if remaining > 0:
        then = "a passed probe brings it back" if rules.probed else "it returns"
        lines.append(f"It stays out for {span(remaining)} more; then {then}.")
    else:
        lines.append("Its time is over: the next passed probe brings it back.")
    return lines


def _probe_axis(health: Health, rules: Rules, spec: CheckSpec, now: float, next_probe: float | None) -> list[str]:
    if not rules.probed:
        return ["It is not probed (`protocol: none`) and taken as ready."]
    due = "the next probe is under way" if next_probe is None or next_probe <= now else (
        f"the next probe is due in {span(next_probe - now)}"
    )  # fmt: skip
    if health.probe == "ready":
        failed = max(0, -health.streak)
        if rules.fall <= 0:
            return [f"Failed probes never take it out (`fall: 0`); {due}."]
        if not failed:
            return [f"{health.streak} probes passed in a row; {rules.fall} failures in a row take it out; {due}."]
        return [f"{failed} of {rules.fall} failures in a row; {rules.fall - failed} more take it out; {due}."]
    needed = rules.rise if health.ever_ready else 1
    passed = max(0, health.streak)
    more = max(1, needed - passed)
    fast = spec.fast_interval or spec.interval
    earliest = max(0.0, (next_probe or now) - now) + (more - 1) * fast
    earliest = max(earliest, health.held_until - now)
    lines = []
    if health.probe == "starting":
        lines.append("It has not passed a check yet, and nothing is sent to it before it has.")
        remaining = health.started + rules.grace - now
        if remaining > 0:
            lines.append(f"Its failures do not count for {span(remaining)} more (`grace`).")
    if health.held_until > now:
        lines.append(f"It has been flapping and is held out for {span(health.held_until - now)} more (`damping`).")
    first = "" if health.ever_ready else ", enough for a first entry"
    soonest = f"{more} more bring it in, in {span(earliest)} at the earliest"
    lines.append(f"{passed} of {needed} passes in a row{first}; {soonest}; {due}.")
    return lines


def _doubt(health: Health, rules: Rules, now: float) -> list[str]:
    if not health.doubt or health.probe != "ready":
        return []
    why = {
        "own_fault": "the checker itself seems to be at fault",
        "shared": "most of its pool fell silent together",
        "overloaded": "it is busy and still answers clients",
    }.get(health.doubt, health.doubt)
    remaining = health.doubt_since + rules.patience - now
    until = f"for {span(remaining)} more" if remaining > 0 else "any more: they count now"
    return [f"Its failed probes are not counted {until}, because {why}."]


def _weight(health: Health, rules: Rules, now: float, weight: float | None) -> list[str]:
    if not in_rotation(health):
        return []
    lines = []
    if now < health.warm_at:
        share = ramp(health, now, rules.slow_start)
        lines.append(f"Slow start: it gets {share:.0%} of its weight, all of it in {span(health.warm_at - now)}.")
    if health.weight < 1:
        lines.append(f"It asked for {health.weight:.0%} of its weight itself.")
    if health.relief < 1:
        lines.append(f"It is relieved to {health.relief:.0%} of its weight while it is overloaded.")
    if weight is not None:
        lines.append(f"Its weight in the rotation is {weight:g}.")
    return lines


def trial_text(trial: Health) -> str:
    """The text on a target on which a changed check has not passed yet."""
    failed = max(0, -trial.streak)
    excerpt = f"failed {failed} times in a row: {trial.text}" if failed else trial.text
    return f"its check was changed; the new one has not passed here yet ({excerpt}), so the former one still decides"


def _trial(trial: Health | None) -> list[str]:
    if trial is None:
        return []
    text = trial_text(trial)
    return [f"{text[0].upper()}{text[1:]}."]


def _life(life: Liveness | None, now: float) -> list[str]:
    if life is None:
        return []
    lines = [f"Liveness: {life.state} for {span(now - life.since)}; {life.text}."]
    if being_restarted(life, now):
        lines.append(f"It is being restarted (try {life.in_a_row}).")
    elif life.tries:
        lines.append(f"It was restarted {span(now - life.tries[-1])} ago; {len(life.tries)} times within the hour.")
    return lines


def _pace(spec: CheckSpec) -> list[str]:
    times = detection(spec)
    if times is None:
        return []
    return [
        f"It is probed every {spec.interval:g} s with {spec.timeout:g} s to answer: a failure takes it out after "
        f"{span(times.expected)} as a rule and {span(times.worst)} at worst."
    ]
