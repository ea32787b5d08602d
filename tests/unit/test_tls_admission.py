"""Handshakes in turn: a turn's time, the bound, and the deadlines, with a loop and a clock of the test's."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, cast

import pytest

from lb.net.tls.admission import FAREWELL_TIME, HANDSHAKE_TIME, SHUTDOWN_TIME, TURN, Admission


class Loop:
    """Turns and timers by hand."""

    def __init__(self) -> None:
        self.now = 100.0
        self.soon: list[Callable[[], None]] = []
        self.later: list[tuple[float, Callable[[], None]]] = []
        self.errors: list[dict[str, Any]] = []

    def call_soon(self, call: Callable[[], None]) -> None:
        self.soon.append(call)

    def call_later(self, delay: float, call: Callable[[], None]) -> None:
        self.later.append((self.now + delay, call))

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        self.errors.append(context)

    def turn(self) -> None:
        soon, self.soon = self.soon, []
        for call in soon:
            call()

    def wait(self, seconds: float) -> None:
        until = self.now + seconds
        while self.later and min(at for at, _ in self.later) <= until:
            at, call = min(self.later, key=lambda each: each[0])
            self.later.remove((at, call))
            self.now = at
            call()
        self.now = until


class Newcomer:
    """A connection whose steps take some time."""

    def __init__(self, loop: Loop, cost: float = 0.0004, fails: bool = False) -> None:
        self._loop = loop
        self._cost = cost
        self._fails = fails
        self.queued = False
        self.steps = 0
        self.end = ""

    def advance(self) -> None:
        self.queued = False
        self.steps += 1
        self._loop.now += self._cost
        if self._fails:
            raise RuntimeError("a fault")

    def give_up(self, reason: str) -> None:
        self.end = reason

    def abort(self) -> None:
        self.end = "aborted"


def made(limit: int = 10) -> tuple[Loop, Admission]:
    loop = Loop()
    return loop, Admission(cast("asyncio.AbstractEventLoop", loop), limit, clock=lambda: loop.now)


def arrive(admission: Admission, newcomer: Newcomer) -> None:
    if admission.step(newcomer):
        newcomer.advance()
    else:
        newcomer.queued = True


def test_a_turn_has_its_time_and_the_rest_comes_in_order() -> None:
    loop, admission = made(100)
    storm = [Newcomer(loop) for _ in range(30)]
    for newcomer in storm:
        assert admission.admit(newcomer)
        arrive(admission, newcomer)
    turns = 0
    while any(newcomer.queued for newcomer in storm):
        done = [newcomer.steps for newcomer in storm]
        assert done == sorted(done, reverse=True), "first come, first served"
        began = loop.now
        loop.turn()
        assert loop.now - began <= TURN + 0.0004
        turns += 1
    assert turns >= 8
    assert [newcomer.steps for newcomer in storm] == [1] * 30
    loop.turn()
    loop.turn()
    assert not loop.soon, "an idle worker has no turns"


def test_one_that_comes_later_does_not_overtake() -> None:
    loop, admission = made(100)
    first = [Newcomer(loop, 0.002) for _ in range(3)]
    for newcomer in first:
        arrive(admission, newcomer)
    loop.turn()
    late = Newcomer(loop)
    arrive(admission, late)
    assert late.queued
    assert [newcomer.steps for newcomer in first] == [1, 1, 0]


def test_the_oldest_that_waits_for_its_client_gives_way() -> None:
    loop, admission = made(3)
    ours, silent, other = (Newcomer(loop) for _ in range(3))
    ours.queued = True
    for newcomer in (ours, silent, other):
        assert admission.admit(newcomer)
    silent_gone = silent.give_up
    silent.give_up = lambda reason: (silent_gone(reason), admission.leave(silent))[0]  # type: ignore[method-assign]
    assert admission.admit(Newcomer(loop))
    assert (ours.end, silent.end, other.end) == ("", "overload", "")
    assert len(admission) == 3


def test_when_all_wait_for_the_worker_the_newcomer_is_refused() -> None:
    loop, admission = made(2)
    for _ in range(2):
        newcomer = Newcomer(loop)
        newcomer.queued = True
        assert admission.admit(newcomer)
    assert not admission.admit(Newcomer(loop))
    assert len(admission) == 2


def test_each_wait_has_its_end() -> None:
    loop, admission = made()
    shaking, leaving, shutting, done = (Newcomer(loop) for _ in range(4))
    for newcomer in (shaking, leaving, shutting, done):
        admission.admit(newcomer)
    admission.take_leave(leaving)
    admission.leave(shutting)
    admission.shut_down(shutting)
    admission.leave(done)
    loop.wait(FAREWELL_TIME + 0.5)
    assert (shaking.end, leaving.end) == ("", "aborted")
    loop.wait(HANDSHAKE_TIME)
    assert shaking.end == "timeout"
    admission.forget(shaking)
    loop.wait(SHUTDOWN_TIME)
    assert (shutting.end, done.end) == ("aborted", "")
    loop.wait(1.0)
    assert not loop.later, "nothing is looked at when nothing waits"


def test_an_error_of_one_keeps_no_other_one_waiting() -> None:
    loop, admission = made(100)
    bad, good = Newcomer(loop, 0.0, fails=True), Newcomer(loop)
    arrive(admission, Newcomer(loop, 0.002))
    for newcomer in (bad, good):
        arrive(admission, newcomer)
    loop.turn()
    assert (bad.end, good.steps, len(loop.errors)) == ("aborted", 1, 1)


@pytest.mark.parametrize("under_way", [0, 2])
def test_a_worker_that_ends_ends_all_of_them(under_way: int) -> None:
    loop, admission = made()
    newcomers = [Newcomer(loop) for _ in range(under_way)]
    for newcomer in newcomers:
        admission.admit(newcomer)
    ending = Newcomer(loop)
    admission.take_leave(ending)
    admission.close()
    assert [newcomer.end for newcomer in newcomers] == ["stopped"] * under_way
    assert ending.end == "aborted"
