"""The model's reference: what its gates are held against."""

from __future__ import annotations

from dataclasses import replace

from tests.model.reference import Request, Service, Target, may_see, served

PLAIN = Request()
DOWN = Target("a:1", ready=False, ever=True)


def test_whom_only_panic_sends_requests_to_is_not_served() -> None:
    spread = Service({"blue": (DOWN, replace(DOWN, address="b:1"))}, {"blue": 100}, panic="spread")
    assert may_see(spread, PLAIN) == (frozenset({"a:1", "b:1"}), True)
    assert served(spread, PLAIN) == (False, False)


def test_one_that_can_serve_is_enough_for_sure_or_perhaps() -> None:
    ready, unknown = Target("b:1", ready=True, ever=True), Target("b:1", ready=None, ever=None)
    for other, expected in ((ready, (True, True)), (unknown, (False, True))):
        for panic in ("fail", "spread"):
            service = Service({"blue": (DOWN, other)}, {"blue": 100}, panic=panic)
            assert served(service, PLAIN) == expected


def test_the_fallback_serves_while_the_pool_offers_nobody() -> None:
    ready = Target("b:1", ready=True, ever=True)
    service = Service({"blue": (DOWN,), "spare": (ready,)}, {"blue": 100}, fallback="spare", panic="fallback")
    assert served(service, PLAIN) == (True, True)
    assert served(replace(service, threshold=0.6, pools={"blue": (DOWN, ready), "spare": ()}), PLAIN) == (False, False)
