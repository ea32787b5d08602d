"""Background loops: their names, their waits after a failure, and the bound for messages about one error.

`process.guard` runs the loops. The names are labels of a metric, so that they are all written down here.
"""

from __future__ import annotations

#: Label → the loop's name for people. Loops of workers come last.
LOOPS = {
    "announcements": "the announcement that a pool is drained",
    "certificates": "the watch on certificates' files",
    "discoveries": "the loop that puts found targets in force",
    "discovery": "the watch on a source of targets",
    "drains": "the loop of drains",
    "handovers": "the loop of handovers",
    "rates": "the sampling of rates",
    "issuing": "the loop that has new certificates served",
    "keys": "the loop that fetches keys for tokens",
    "orders": "the loop that orders certificates",
    "reaper": "the reaper of ended child processes",
    "rollouts": "the loop of rollouts",
    "sweep": "the sweep for failing targets",
    "verdicts": "the writing of verdicts",
    "watch": "the watch on the configuration file",
    "watchdog": "the signs of life for systemd",
    "workers": "the look at the workers",
    "worker_drain": "a worker's drain",
    "worker_listeners": "a worker's loop that opens and closes listeners",
    "worker_orphan": "a worker's bound for the time without a supervisor",
    "worker_reports": "the loop of a worker's reports",
}

#: Seconds before a loop that has failed is started again; the wait doubles with each failure, up to the second number.
FIRST_WAIT, LONGEST_WAIT = 1.0, 60.0
#: Seconds after which a loop counts as running well: from then on each such span halves the wait.
STEADY_AFTER = 60.0

#: Seconds between two messages on errors of one place.
TELL_EVERY = 60.0
#: Places whose messages are counted at a time.
PLACES = 64


def next_wait(before: float, ran: float) -> float:
    """Seconds to wait after a failure. `before`: the last wait, 0 for none; `ran`: seconds since it."""
    if not before:
        return FIRST_WAIT
    if ran < STEADY_AFTER:
        return min(2.0 * before, LONGEST_WAIT)
    return max(FIRST_WAIT, before / (1 << min(int(ran / STEADY_AFTER), 10)))


class Repeats:
    """Bounds the messages about errors: one a minute for each place in the code, which says how many it stands for."""

    def __init__(self) -> None:
        self._places: dict[str, tuple[float, int]] = {}  # place → when it was told last, errors since then

    def due(self, place: str, now: float) -> int:
        """Count an error. The number of errors that a message has to speak for now; 0: no message is due."""
        last_told, since = self._places.pop(place, (-TELL_EVERY, 0))
        since += 1
        due = now - last_told >= TELL_EVERY
        self._places[place] = (now, 0) if due else (last_told, since)
        while len(self._places) > PLACES:
            del self._places[next(iter(self._places))]
        return since if due else 0
