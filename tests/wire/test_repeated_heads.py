"""Heads that a connection repeats: steps work once for them, and nothing outlives its configuration or its request."""

from __future__ import annotations

from lb.core.targets import ALLOW, REQUEST_HEADERS, STRIP_PREFIX, Match, StepRule
from lb.http.h1.replies import Reply
from lb.proxy.exchange import Exchange
from lb.proxy.services import Step
from lb.proxy.steps.steady import SteadySteps, joined
from tests.support.front import Front, status_of

STRIP = StepRule(STRIP_PREFIX, "/v1", "/")
REQUEST = b"GET /v1/x HTTP/1.1\r\nHost: a\r\nX-Kind: one\r\n\r\n"


class Counting(Step):
    """Lets requests pass, or refuses them."""

    def __init__(self, steady: bool, refuses: bool = False) -> None:
        self.asked = 0
        self._steady, self._refuses = steady, refuses

    def steady(self) -> bool:
        return self._steady

    def before(self, exchange: Exchange) -> Reply | None:
        self.asked += 1
        return Reply(403, "no", "no") if self._refuses else None


def ask(front: Front, *requests: bytes) -> list[int]:
    """The statuses of requests on one connection."""
    statuses = []
    with front.connect() as sock:
        for request in requests:
            sock.sendall(request)
            statuses.append(status_of(sock.recv(10000)))
    return statuses


def use(front: Front, *steps: Step) -> None:
    """Have the route meet these steps before its own."""

    def put() -> None:
        (route,) = front.plane.live.routes
        route.way = joined((*steps, *route.steps))

    front.call(put)


def test_steady_steps_are_asked_once_for_a_head_that_is_repeated() -> None:
    with Front(steps=(STRIP,)) as front:
        steady, other = Counting(steady=True), Counting(steady=False)
        use(front, steady, other)
        changed = REQUEST.replace(b"/x", b"/y")
        assert ask(front, REQUEST, REQUEST, REQUEST, changed, REQUEST) == [200] * 5
        assert (steady.asked, other.asked) == (3, 5)
        lines = [request.partition(b" HTTP")[0] for request in front.origin.requests]
        assert lines == [b"GET /x", b"GET /x", b"GET /x", b"GET /y", b"GET /x"]
        assert ask(front, REQUEST) == [200]
        assert steady.asked == 4, "another connection may be another client's"


def test_a_refused_head_is_looked_at_each_time() -> None:
    with Front() as front:
        first, second = Counting(steady=True), Counting(steady=True, refuses=True)
        use(front, first, second)
        assert ask(front, REQUEST, REQUEST) == [403, 403]
        assert second.asked == 2
        assert not front.origin.requests


def test_runs_of_steady_steps_stand_between_the_other_ones() -> None:
    steady, other = Counting(steady=True), Counting(steady=False)
    assert [type(step) for step in joined((steady, steady, other, steady))] == [SteadySteps, Counting, SteadySteps]
    assert joined((other,)) == (other,)
    assert joined(()) == ()


def test_variables_of_one_request_are_of_that_request() -> None:
    told = StepRule(REQUEST_HEADERS, replaced=(("X-Path", "{method} {path} {client_ip}"), ("X-Id", "{request_id}")))
    with Front(steps=(told,)) as front:
        assert ask(front, REQUEST, REQUEST) == [200, 200]
        ids = [request.partition(b"X-Id: ")[2].partition(b"\r\n")[0] for request in front.origin.requests]
        assert len(set(ids)) == 2
        for id, request in zip(ids, front.origin.requests, strict=True):
            assert b"\r\nX-Request-Id: " + id + b"\r\n" in request
            assert b"\r\nX-Path: GET /v1/x 127.0.0.1\r\n" in request


def test_a_step_that_refuses_is_counted_by_its_own_name() -> None:
    networks = StepRule(ALLOW, networks=("192.0.2.0/24",))
    with Front(steps=(STRIP, networks)) as front:
        assert ask(front, REQUEST, REQUEST) == [403, 403]
        assert front.call(lambda: front.plane.stats.step_results(full=True)) == {"/": {"allow": {"client_address": 2}}}


def test_a_new_configuration_counts_for_a_head_that_is_repeated() -> None:
    with Front(steps=(STRIP,)) as front, front.connect() as sock:

        def one() -> tuple[int, bytes]:
            front.origin.requests.clear()
            sock.sendall(REQUEST)
            status = status_of(sock.recv(10000))
            return status, b"".join(front.origin.requests).partition(b" HTTP")[0]

        assert one() == (200, b"GET /x")
        front.call(lambda: front.apply(steps=(StepRule(STRIP_PREFIX, "/v1", "/api"),)))
        assert one() == (200, b"GET /api/x")
        front.call(lambda: front.apply(steps=(), match=Match(headers=(("x-kind", "two"),))))
        assert one() == (404, b"")
        front.call(lambda: front.apply(steps=(), match=Match(headers=(("x-kind", "one"),))))
        assert one() == (200, b"GET /v1/x")
