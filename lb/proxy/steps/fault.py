"""Delays or answers a share of a route's requests on purpose, for drills, until a time that the file says.

Log and metrics mark each request that it meets, so nobody takes a drill for a failure.
"""

from __future__ import annotations

from asyncio import TimerHandle
from typing import TYPE_CHECKING, Final

from lb.core.targets import Fault
from lb.http.h1.replies import Reply
from lb.proxy.context import Context
from lb.proxy.hold import Hold
from lb.proxy.services import Step

if TYPE_CHECKING:
    from lb.proxy.exchange import Exchange

#: Requests of a step that wait at one time in a worker; further ones are not delayed.
MOST: Final = 1000
#: Seconds beyond its delay after which a request is answered all the same.
SLACK: Final = 10.0


class FaultStep(Step):
    """With a delay and a status, the answer comes after the delay."""

    __slots__ = ("_context", "_counts", "_reply", "_rule", "_text", "waiting")

    def __init__(self, rule: Fault, route: str, context: Context) -> None:
        self._rule = rule
        self._context = context
        self._counts = context.stats.step_counts(route, "fault")
        self._reply = Reply(rule.abort, "fault", "a fault on purpose, for a drill") if rule.abort else None
        self._text = f"fault: delayed by {rule.delay:g} s on purpose"
        self.waiting = 0  # requests that are delayed now

    def name(self) -> str:
        return "fault"

    def before(self, exchange: Exchange) -> Reply | None:
        rule, context = self._rule, self._context
        if exchange.started + context.wall_offset >= rule.until or context.rng.random() >= rule.share:
            return None
        if not rule.delay or self.waiting >= MOST:
            return self._reply
        self._counts.count("delayed")
        exchange.remark(self._text)
        return exchange.hold(Delay(self, exchange, rule.delay, self._reply), rule.delay + SLACK)


class Delay(Hold):
    """One request that waits."""

    __slots__ = ("_exchange", "_fault", "_reply", "_seconds", "_timer", "_waits")

    def __init__(self, fault: FaultStep, exchange: Exchange, seconds: float, reply: Reply | None) -> None:
        super().__init__(reply or Reply(503, "fault", "a fault on purpose, for a drill"))
        self._fault = fault
        self._exchange = exchange
        self._seconds = seconds
        self._reply = reply
        self._timer: TimerHandle | None = None
        self._waits = False

    def begin(self) -> None:
        self._waits = True
        self._fault.waiting += 1
        self._timer = self._exchange.context.loop.call_later(self._seconds, self.over)

    def over(self) -> None:
        """The delay is over."""
        if self._waits:
            self._end()
            self._exchange.go_on(self, self._reply)

    def cancel(self) -> None:
        if self._waits:
            self._end()

    def _end(self) -> None:
        self._waits = False
        self._fault.waiting -= 1
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()
