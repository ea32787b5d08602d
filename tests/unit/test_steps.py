"""Steps of a route: a new one plugs in without a change to the exchange."""

from __future__ import annotations

from lb.core.targets import Breaker
from lb.http.h1.replies import Reply
from lb.proxy.exchange import Exchange
from lb.proxy.services import LiveRoute, Step
from tests.support.data_plane import GET, OK, Stage


class TwoAtMost(Step):
    """Ten lines: a client address gets two requests."""

    def __init__(self) -> None:
        self.seen: dict[bytes, int] = {}

    def before(self, exchange: Exchange) -> Reply | None:
        peer = exchange.client.peer
        self.seen[peer] = self.seen.get(peer, 0) + 1
        return Reply(429, "rate_limit", "two are enough", b"Retry-After: 60\r\n") if self.seen[peer] > 2 else None


def test_a_new_step_refuses_in_lbs_own_name() -> None:
    stage = Stage(targets=1)
    live = stage.plane.live
    live.only_route = LiveRoute(stage.plane.services["s"], 0, 0.0, (TwoAtMost(),))
    statuses = []
    for head in (GET, GET, GET, GET + b"Expect: 100-continue\r\n"):
        client, exchange = stage.ask(head)
        if exchange.upstream is None and stage.connector.opening:
            upstream, _ = stage.accept()
        if not client.got:
            upstream.data_received(OK)
        statuses.append(client.status)
    assert statuses == [200, 200, 429, 429]
    assert b"Retry-After: 60\r\n" in client.got
    assert client.kept is True
    assert stage.plane.stats.rejected == {"rate_limit": 2}
    assert stage.at_rest()


def test_a_route_has_the_steps_that_its_settings_ask_for() -> None:
    plain, bounded, limited = Stage(), Stage(breaker=Breaker(requests=5)), Stage(max_body=9)
    names = [[type(step).__name__ for step in stage.plane.live.routes[0].steps] for stage in (plain, bounded, limited)]
    assert names == [[], ["Overload"], ["BodyLimit"]]
    rare = [type(step).__name__ for step in limited.plane.live.routes[0].rare_way]
    assert rare == ["BodyLimit", "GrpcDeadline", "MaxForwards", "WebSocketHandshake"]


def test_what_steps_answer_is_counted_until_their_route_is_gone() -> None:
    stage = Stage(max_body=3)
    stats = stage.plane.stats
    for _ in range(2):
        stage.ask(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n")
    assert stats.step_results(full=False) == {"/": {"body_limit": {"body_too_large": 2}}}
    assert stats.step_results(full=False) == {}, "nothing new"
    assert stats.step_results(full=True) == {"/": {"body_limit": {"body_too_large": 2}}}
    stats.forget_routes({"/"})
    assert stats.step_results(full=True)
    stats.forget_routes({"/other"})
    assert not stats.step_results(full=True)
