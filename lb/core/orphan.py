"""How long a worker serves without a supervisor, and which messages it prints meanwhile.

Targets are not probed then, so the worker's verdicts grow old.
"""

from __future__ import annotations

from dataclasses import dataclass

#: Seconds between two messages.
SAY_EVERY = 60.0
#: Seconds beyond the bound that a worker waits for a supervisor that has come for it and still starts.
START_TIME = 60.0
#: Seconds at least between two looks: the rounding rest of a time is too short to move a clock.
PAUSE = 0.01


@dataclass(frozen=True, slots=True)
class Look:
    """The result of one look at the clock."""

    text: str  # to be said; empty: nothing
    ends: bool  # the worker is to drain and end
    again: float  # seconds until the next look


def look(since: float, last_message: float | None, bound: float, now: float, visited: bool) -> Look:
    """`since`: when the supervisor was lost; `said`: when that was said last; `bound`: seconds without a supervisor.

    `visited`: a supervisor that starts has asked for this worker's sockets, and has not yet taken it over.
    """
    gone = now - since
    remaining = bound - gone
    if remaining <= 0 and not (visited and gone < bound + START_TIME):
        return Look(
            f"the supervisor has been gone for {span(gone)} (worker_limits.orphan: {span(bound)}): this worker takes "
            "no further requests, and ends when those under way have. Start `lb run` again",
            ends=True,
            again=0.0,
        )
    text = ""
    if last_message is None or now - last_message >= SAY_EVERY:
        what = f"has been gone for {span(gone)}" if last_message is not None else "is gone"
        text = (
            f"the supervisor {what}: targets are not probed, the verdicts on them are {span(gone)} old. This worker "
            f"serves on, and ends in {span(max(0.0, remaining))}. Start `lb run` again: it takes this worker over"
        )
        last_message = now
    due = last_message + SAY_EVERY - now
    return Look(text, ends=False, again=max(PAUSE, min(due, remaining)) if remaining > 0 else 1.0)


def span(seconds: float) -> str:
    """A duration for people."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
