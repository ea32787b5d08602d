"""How long a target keeps an idle connection, learnt from its answers and from its closes.

The 502 that users of every peer report most is a request written to a pooled connection that the target was just
closing. Node closes after 5 s, many proxies keep for 60. There are two sources: the `Keep-Alive: timeout=N` field of an
answer, and the age of idle connections when they were closed. The shortest of the last minute or two counts, because a
target that restarts closes young connections, and that must be forgotten again.

A target that is killed closes everything at one moment, whatever its age, and then refuses connections. That is no
habit: it teaches nothing, and a request that breaks off then may have been worked on.
"""

from __future__ import annotations

from math import inf
from typing import Final

#: Seconds that one window of observations lasts; this one and the one before it count.
WINDOW: Final = 60.0
#: A connection is retired at this share of the target's limit.
MARGIN: Final = 0.8
#: A request that must not be sent twice rides only on a connection younger than this share of the target's limit.
SAFE: Final = 0.5
#: Seconds that any target is trusted to keep an idle connection until it shows otherwise. The shortest default of a
#: server in use is gunicorn's, two seconds.
TRUST: Final = 1.0
#: Seconds by which two machines' (or two processes') view of one connection's age may differ.
SLACK: Final = 0.01
#: A connection that broke off later than this (seconds) after a request was written did not break off by coincidence.
#: Ten turns of a busy event loop; a target that takes longer to close may as well have begun to work.
COINCIDENCE: Final = 0.1
#: The same where the target ended the connection in order after it had taken the request's bytes. The kernel resets
#: one that is closed with bytes unread, so that the target's process had them. One turn of its loop, in which its idle
#: timer fired as well, is all that it may have had them for.
TAKEN: Final = 0.01
#: Seconds within which the connections of a target that ends are seen to close.
TOGETHER: Final = 0.01
#: Seconds before a refused connection in which a close was the target's death.
BEFORE_REFUSAL: Final = 2.0


class IdleLimit:
    """The idle limit of one target, as far as it is known."""

    __slots__ = (
        "_before",
        "_believed",
        "_believed_at",
        "_broke_off",
        "_ended",
        "_kept",
        "_last",
        "_longest",
        "_now",
        "_refused",
        "_rotated",
        "_since",
        "hint",
        "retire_after",
        "safe_for",
        "survived",
    )

    def __init__(self, configured: float, now: float) -> None:
        self.hint = inf  # Keep-Alive: timeout=N
        self._now = inf  # shortest age at close seen in this window
        self._before = inf
        self._longest = 0.0  # longest age at close seen since the last but one window
        self._rotated = now
        self.retire_after = configured or inf  # seconds: an idle connection of this age is closed
        self.safe_for = TRUST  # seconds: an idle connection up to this age may carry a request that is not idempotent
        self._last = (-inf, 0.0)  # when the last connection was closed, and its age
        self._since = -inf  # when the first of the connections that were closed together was
        self._kept = (inf, 0.0, 0.0)  # the habit before that
        self._believed = (inf, 0.0, 0.0)  # the habit of a moment ago: it counts when the target turns out to be dead
        self._believed_at = -inf
        self._refused = -inf  # when it last refused a connection
        self._ended = -inf  # when the target was last seen to close all at once
        self._broke_off = -inf  # when a request that it had begun to work on last broke off
        self.survived = 0.0  # longest age at which an idle connection was seen to be open still

    @property
    def learnt(self) -> float:
        """The target's limit in seconds as far as it is known; 0: nothing learnt."""
        limit = min(self.hint, self._now, self._before)
        return 0.0 if limit == inf else limit

    def heard(self, seconds: float, configured: float) -> None:
        """An answer carried `Keep-Alive: timeout=seconds`."""
        if seconds != self.hint:
            self.hint = seconds
            self._derive(configured)

    def closed(self, age: float, now: float, configured: float, *, last: bool = False) -> None:
        """The target closed a connection that had been idle for `age` seconds; `last`: it keeps no other open."""
        self.rotate(now, configured)
        if now - self._believed_at > BEFORE_REFUSAL:
            self._believed_at, self._believed = now, (self._now, self._longest, self.survived)
        if self.ends(age, now, last):
            self._now, self._longest, self.survived = self._kept
            self._derive(configured)
            return
        self._longest = max(self._longest, age)
        self.survived = min(self.survived, age)
        if age < self._now:
            self._now = age
            self._derive(configured)

    def refused(self, now: float, configured: float) -> None:
        """The target refused a connection: connections that it closed a moment ago were closed because it died."""
        if now - self._believed_at <= BEFORE_REFUSAL:
            self._now, self._longest, self.survived = self._believed
            self._derive(configured)
        self._refused = now

    def broke_off(self, now: float) -> None:
        """A request broke off that had been under way for longer than a coincidence, or was being answered.

        No habit closes such a connection. A target that restarts within milliseconds does, and it refuses none.
        """
        self._broke_off = now

    def survives(self, age: float) -> None:
        """A connection was found open after `age` idle seconds: while no close is known, half of that is safe."""
        if age > self.survived:
            self.survived = age
            if self.learnt == 0.0:
                self.safe_for = max(TRUST, age * SAFE)

    def ends(self, age: float, now: float, last: bool) -> bool:
        """A connection broke off, `age` seconds after its last use. Whether the target ends: another one of another age
        broke off at the same moment, and none is left."""
        before, other = self._last
        self._last = now, age
        if now - before > TOGETHER or now - self._since > TOGETHER:
            self._since = now
            self._kept = self._now, self._longest, self.survived
        if last and now - before <= TOGETHER and abs(age - other) > SLACK:
            self._ended = now
        return now - self._ended <= TOGETHER

    def explains(self, idle: float, elapsed: float, at: float, *, alive: bool = False) -> bool:
        """Whether a connection that broke off under a request was most likely just being closed for idleness.

        It had been idle for `idle` seconds when the request was written, and broke off `elapsed` seconds later, at the
        moment `at`. The target must be known to close connections of that age, and the two events must have met.
        `alive`: it has accepted a connection since, so that several closes at one moment were chance, and not its end.
        A request that was under way at that moment and broke off, too, says that it was the end all the same.
        """
        if abs(at - self._broke_off) <= COINCIDENCE:
            return False
        if at <= self._refused <= at + BEFORE_REFUSAL or (abs(at - self._ended) <= TOGETHER and not alive):
            return False
        shortest = min(self._now, self._before)
        if shortest == inf or elapsed > COINCIDENCE:
            return False
        return idle + elapsed + SLACK >= shortest * SAFE and idle <= self._longest / SAFE

    def rotate(self, now: float, configured: float) -> None:
        """Forget what is older than two windows; called now and then."""
        if now - self._rotated >= WINDOW:
            self._before, self._now = self._now, inf
            if self._before == inf:
                self._longest = 0.0
            self._rotated = now
            self._derive(configured)

    def _derive(self, configured: float) -> None:
        limit = min(self.hint, self._now, self._before)
        self.retire_after = min(configured or inf, limit * MARGIN)
        self.safe_for = limit * SAFE if limit != inf else max(TRUST, self.survived * SAFE)
