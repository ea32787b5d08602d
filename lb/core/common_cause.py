"""Common causes: whether a failed probe has a cause other than its target. Pure; `now` is monotonic seconds.

A checker that is wrong about all targets does more harm than any single target. So before a failure counts, three other
causes are considered:

- `own_fault`: the cause is in lb or its machine. Our own event loop stood still while the probe waited (Envoy #28699),
  or our own machine had no descriptor or port left. Or every ready target of every pool fell silent within one round of
  probes.
- `shared`: most ready targets of one pool fell silent within one round of probes: the network to them, or something
  they all depend on.
- `overloaded`: the probe timed out while the target had much in flight and went on answering clients. It needs less
  traffic, not an ejection that hands its load to the next one.

Only silence is doubted. A target that refused, or answered that it is not ready, has given its own verdict. The same
verdict from many other targets does not make it untrue: the shared cause is reported, and the target leaves all the
same. The effect of a doubt is decided in `lifecycle`: it keeps the last verdict, for a bounded time (`Rules.patience`).

A canary is a known-good address that is probed beside the targets. Where one is configured, it settles the first
question: while it answers, silence elsewhere is not our fault; while it does not, it is.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import NamedTuple

from lb.core.lifecycle import SILENT, Verdict

#: Targets that must fail alike before a common cause is thought of: two of two is mere chance.
MINIMUM = 3
#: Share of a pool's ready targets that must fail alike.
MAJORITY = 0.5
#: Share of a probe's time limit that our own loop may stand still before the probe is not to be believed.
STALLED = 0.25
#: Requests in flight that are "much".
BUSY = 8
#: The common traits of all targets that do not answer.
SILENCE = "silence"


class Notice(NamedTuple):
    """Said once when a suspicion arises, and once when it ends."""

    scope: str  # "all", or service/pool
    cause: str  # own_fault | shared
    began: bool
    text: str


class Finding(NamedTuple):
    """The judgement of one verdict."""

    doubt: str = ""
    notices: tuple[Notice, ...] = ()


NOTHING = Finding()


class _Pool:
    """The ready targets of one pool, and which of them fail, by the signature that they fail with, since when."""

    __slots__ = ("failing", "ready", "signatures", "suspected")

    def __init__(self) -> None:
        self.ready: set[str] = set()
        self.signatures: dict[str, str] = {}  # target → its signature
        self.failing: dict[str, OrderedDict[str, float]] = {}  # signature → target → since, in that order
        self.suspected = ""  # the signature that most of them share

    def fails(self, target: str, now: float, signature: str) -> None:
        if self.signatures.get(target) != signature:
            self.recovers(target)
            self.signatures[target] = signature
            self.failing.setdefault(signature, OrderedDict())[target] = now

    def recovers(self, target: str) -> None:
        signature = self.signatures.pop(target, None)
        if signature is not None:
            alike = self.failing[signature]
            del alike[target]
            if not alike:
                del self.failing[signature]

    def count(self, signature: str) -> int:
        return len(self.failing.get(signature, ()))

    def common(self) -> str:
        """The signature that most failing targets show."""
        return max(self.failing, key=self.count, default="")

    def span(self, signature: str) -> tuple[float, float]:
        """When the first and the last of the targets that show `signature` began to."""
        alike = self.failing[signature]
        return alike[next(iter(alike))], alike[next(reversed(alike))]


class CommonCause:
    """Judges every readiness verdict. `window` is the longest round of probes: interval + timeout, seconds."""

    def __init__(self, window: float = 3.0) -> None:
        self.window = window
        self.canary: bool | None = None  # its last result; None: there is none
        self._pools: dict[str, _Pool] = {}
        self._ready = 0
        self._silent = 0
        self._everything = False  # all targets of all pools are suspected

    def set_ready(self, pool: str, target: str, ready: bool) -> tuple[Notice, ...]:
        """`target` is ready, or is not; only ready ones can be doubted."""
        group = self._pools.get(pool)
        if group is None:
            if not ready:
                return ()
            group = self._pools[pool] = _Pool()
        if ready == (target in group.ready):
            return ()
        if ready:
            group.ready.add(target)
            self._ready += 1
            return ()
        self._record(group, target, 0.0, "")
        group.ready.discard(target)
        self._ready -= 1
        notices = self._look(pool, group)
        if not group.ready:
            del self._pools[pool]
        return notices

    def judge(self, pool: str, target: str, verdict: Verdict, now: float) -> Finding:
        """Judge a verdict on a ready target. Verdicts on other targets are never doubted."""
        group = self._pools.get(pool)
        if group is None or target not in group.ready or verdict.ignored:
            return NOTHING
        if verdict.ok and not group.failing and not group.suspected and not self._everything:
            return NOTHING  # as nearly always
        self._record(group, target, now, "" if verdict.ok else _failure_signature(verdict))
        notices = self._look(pool, group)
        if verdict.ok or verdict.kind not in SILENT:
            return Finding("", notices)
        if verdict.kind == "local" or self._everything or self.canary is False:
            return Finding("own_fault", notices)
        return Finding("shared" if group.suspected == SILENCE else "", notices)

    def _record(self, group: _Pool, target: str, now: float, signature: str) -> None:
        self._silent -= group.count(SILENCE)
        if signature:
            group.fails(target, now, signature)
        else:
            group.recovers(target)
        self._silent += group.count(SILENCE)

    def _look(self, pool: str, group: _Pool) -> tuple[Notice, ...]:
        """Suspicions that arise or end with what was just heard."""
        if not group.failing and not group.suspected and not self._everything:
            return ()
        notices: list[Notice] = []
        everything = self._silent == self._ready >= MINIMUM and self.canary is not True and self._together()
        if everything != self._everything:
            self._everything = everything
            text = f"all {self._ready} ready targets of all pools fell silent together: the checker's own network?"
            notices.append(Notice("all", "own_fault", everything, text if everything else "some answer again"))
        suspected = ""
        signature = group.common()
        count = group.count(signature)
        if count >= MINIMUM and count > MAJORITY * len(group.ready):
            first, last = group.span(signature)
            suspected = signature if last - first <= self.window else ""
        if suspected != group.suspected:
            if group.suspected:
                notices.append(Notice(pool, "shared", False, "its targets do not fail alike any more"))
            if suspected:
                alike = "fell silent" if suspected == SILENCE else f"fail alike ({suspected})"
                text = f"{count} of {len(group.ready)} ready targets {alike} together: something they share?"
                notices.append(Notice(pool, "shared", True, text))
            group.suspected = suspected
        return tuple(notices)

    def _together(self) -> bool:
        """Whether all silent targets fell silent within one round of probes."""
        spans = [group.span(SILENCE) for group in self._pools.values() if group.count(SILENCE)]
        return max(last for _, last in spans) - min(first for first, _ in spans) <= self.window


def stalled(lost: float, timeout: float, verdict: Verdict) -> bool:
    """Whether a probe timed out because our own loop stood still for `lost` seconds of it."""
    return not verdict.ok and verdict.kind == "timeout" and lost >= STALLED * timeout


def overloaded(verdict: Verdict, in_flight: int, completed: int) -> bool:
    """Whether a probe timed out on a target that has much in flight, and `completed` requests while it waited."""
    return verdict.kind == "timeout" and in_flight >= BUSY and completed > 0


def _failure_signature(verdict: Verdict) -> str:
    """The properties that two failures must share to have a common cause."""
    if verdict.kind in SILENT:
        return SILENCE
    return verdict.text if verdict.kind == "status" else verdict.kind
