"""Probes folded into runs: "passed ×120 within 4 min, 1.2–3.4 ms", then "refused ×3". Pure; times are Unix seconds.

A run is a stretch of probes of one check that found the same. Folded like this a day of probes is a handful of lines,
and nothing that matters is lost. A run keeps when something changed, the results before and after, and how often each
was seen.

How many runs a check may end is bounded, whatever its target does: a few in a row, then one in half a minute. A target
that changes faster is shown as a mixed run, with the numbers of passed and failed probes. (The transitions that
followed are told one by one as events all the same.)
"""

from __future__ import annotations

from typing import Literal

import msgspec

from lb.core.explain import span
from lb.core.lifecycle import Verdict

Result = Literal["passed", "failed", "ignored", "mixed"]

#: Runs that one check may end in a row…
BURST = 10
#: …and the seconds after which it may end one more.
EVERY = 30.0


class Run(msgspec.Struct, omit_defaults=True):
    """Probes in a row that found the same."""

    target: str
    check: str  # readiness | liveness
    kind: str  # "passed", "ignored", "mixed", or the kind of failure (`lifecycle.FAILURES`)
    text: str  # the text of the last of them
    first: float  # when the first of them began
    last: float  # …and the last
    low: float  # seconds that the fastest took…
    high: float  # …and the slowest
    passed: int = 0
    failed: int = 0
    ignored: int = 0
    doubt: str = ""  # why the failures were not counted
    was: str = ""  # no probes: the target had this id until now, and former runs are its own

    @property
    def count(self) -> int:
        return self.passed + self.failed + self.ignored

    @property
    def result(self) -> Result:
        """Their common fields."""
        match self.kind:
            case "passed" | "ignored" | "mixed":
                return self.kind
        return "failed"


class _Open:
    """The run that a check is in, and how many more it may end."""

    __slots__ = ("as_of", "room", "run", "signature")

    def __init__(self, run: Run, signature: tuple[str, ...]) -> None:
        self.run = run
        self.signature = signature
        self.room = float(BURST)
        self.as_of = run.first

    def may_end(self, at: float) -> bool:
        self.room = min(BURST, self.room + max(0.0, at - self.as_of) / EVERY)
        self.as_of = at  # the clock may have been set back
        return self.room >= 1


class RunFolder:
    """Folds probes into runs. A probe may end a run."""

    def __init__(self) -> None:
        self._open: dict[tuple[str, str], _Open] = {}

    def saw(self, target: str, check: str, at: float, verdict: Verdict, doubt: str = "") -> Run | None:
        """A probe that began at `at`. Returns the run that it ended."""
        kind = "ignored" if verdict.ignored else "passed" if verdict.ok else verdict.kind or "failed"
        # Other texts than that of a status may hold anything, such as a number that grows with each probe.
        signature = (kind, doubt, verdict.text if kind == "status" else "")
        open_run = self._open.get((target, check))
        if open_run is None:
            self._open[target, check] = _Open(_begun(target, check, at, kind, verdict, doubt), signature)
            return None
        run = open_run.run
        mixed = run.kind == "mixed"
        if (mixed or signature != open_run.signature) and open_run.may_end(at):
            open_run.room -= 1
            open_run.run, open_run.signature = _begun(target, check, at, kind, verdict, doubt), signature
            return run
        if signature != open_run.signature and not mixed:
            run.kind, run.doubt = "mixed", ""
        _add(run, at, verdict)
        return None

    def open(self) -> list[Run]:
        """The runs that go on."""
        return [open_run.run for open_run in self._open.values()]

    def open_of(self, target: str) -> list[Run]:
        """The runs of one target."""
        return [self._open[key].run for key in ((target, "readiness"), (target, "liveness")) if key in self._open]

    def end(self, target: str) -> list[Run]:
        """The target is gone: its runs have ended."""
        return [self._open.pop(key).run for key in ((target, "readiness"), (target, "liveness")) if key in self._open]


def _begun(target: str, check: str, at: float, kind: str, verdict: Verdict, doubt: str) -> Run:
    run = Run(target, check, kind, verdict.text, at, at, verdict.seconds, verdict.seconds, doubt=doubt)
    _add(run, at, verdict)
    return run


def _add(run: Run, at: float, verdict: Verdict) -> None:
    run.last = max(run.last, at)
    run.text = verdict.text
    if verdict.seconds < run.low:
        run.low = verdict.seconds
    elif verdict.seconds > run.high:
        run.high = verdict.seconds
    if verdict.ignored:
        run.ignored += 1
    elif verdict.ok:
        run.passed += 1
    else:
        run.failed += 1


def sentence(run: Run) -> str:
    """A run for people: `passed ×120 within 4 min, 1.2–3.4 ms: HTTP 200`."""
    if run.kind == "mixed":
        counts = ((run.passed, "passed"), (run.failed, "failed"), (run.ignored, "ignored"))
        what = f"{run.count} probes in turn, {', '.join(f'{many} {how}' for many, how in counts if many)}"
    else:
        name = run.kind if run.result != "failed" or run.kind == "failed" else f"failed ({run.kind})"
        what = name if run.count == 1 else f"{name} ×{run.count}"
    within = f" within {span(run.last - run.first)}" if run.count > 1 else ""
    low, high = f"{run.low * 1000:.1f}", f"{run.high * 1000:.1f}"
    took = f"{low} ms" if low == high else f"{low}–{high} ms"
    doubt = f", not counted ({run.doubt})" if run.doubt else ""
    check = "liveness " if run.check == "liveness" else ""
    return f"{check}{what}{within}, {took}{doubt}: {run.text}"
