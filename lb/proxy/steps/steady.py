"""Steps whose work is done once for a head that a connection repeats.

Clients repeat their requests: a poller asks for one path, a browser for the same page again. lb has the same
`RequestHead` then, and so these steps come to the same result. A head that is not repeated pays for one object more.
"""

from __future__ import annotations

import time
from math import inf
from typing import TYPE_CHECKING

from lb.http.message import RequestHead
from lb.proxy.services import Step

if TYPE_CHECKING:
    from lb.http.h1.replies import Reply
    from lb.proxy.exchange import Exchange


class Passed:
    """What a run of steps has made of a head that all of them let pass."""

    __slots__ = ("by", "head", "omits_trailers", "until")

    def __init__(self, by: SteadySteps, head: RequestHead, omits_trailers: bool, until: float) -> None:
        self.by = by
        self.head = head
        self.omits_trailers = omits_trailers
        self.until = until  # Unix time


class SteadySteps(Step):
    """A run of steady steps. Heads remember that they have passed it; a refused one is looked at each time."""

    __slots__ = ("_decider", "_steps")

    def __init__(self, steps: tuple[Step, ...]) -> None:
        self._steps = steps
        self._decider: Step = self

    def decider(self) -> Step:
        return self._decider

    def before(self, exchange: Exchange) -> Reply | None:
        head = exchange.head
        passed = head.passed
        if isinstance(passed, Passed) and passed.by is self and (passed.until == inf or time.time() < passed.until):
            exchange.head = passed.head
            if passed.omits_trailers:
                exchange.omits_trailers = True
            return None
        until = inf
        for step in self._steps:
            reply = step.before(exchange)
            if reply is not None:
                self._decider = step
                return reply
            until = min(until, step.passes_until(exchange))
        made = exchange.head
        if made is head:  # a further run remembers by an object of its own
            made = exchange.head = RequestHead(head.method, head.target, head.path, head.minor, head.host, head.fields)
        head.passed = Passed(self, made, exchange.omits_trailers, until)
        return None


def joined(steps: tuple[Step, ...]) -> tuple[Step, ...]:
    """The steps with one step for each run of steady ones."""
    made: list[Step] = []
    run: list[Step] = []
    for step in steps:
        if step.steady():
            run.append(step)
            continue
        if run:
            made.append(SteadySteps(tuple(run)))
            run = []
        made.append(step)
    if run:
        made.append(SteadySteps(tuple(run)))
    return tuple(made)
