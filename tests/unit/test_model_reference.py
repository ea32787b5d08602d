"""The model's reference: what its gates are held against."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.model.peers import Backend
from tests.model.reference import Knowledge, Request, Service, Target, may_see, served
from tests.model.steps_processes import has_turned

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


def test_what_a_target_asked_for_is_not_known_where_its_answers_were_not_counted() -> None:
    known = Knowledge(rise=1, fall=1)
    known.passed(1.0, 0.0, asks_drain=True)
    known.unseen()
    target = Target("a:1", known.share, known.ready, known.ever, out=bool(known.asks_drain), drained=known.asks_drain)
    assert may_see(Service({"blue": (target,)}, {"blue": 100}), PLAIN) == (frozenset({"a:1"}), False)


@pytest.mark.parametrize(
    ("ready", "words", "turned"),
    [
        ("pass", "", False),
        ("pass", "X-LB-State: drain\r\n", True),
        ("pass", "X-LB-Weight: 50%\r\n", True),
        ("fail", "", True),
    ],
)
def test_a_target_has_turned_if_its_next_answer_is_another_one(ready: str, words: str, turned: bool) -> None:
    known = Knowledge(rise=1, fall=1)
    known.passed(1.0, 1.0, asks_drain=False)
    backend = Backend("a", 1, lambda arrival: None)
    backend.up, backend.ready, backend.words = True, ready, words
    assert has_turned(backend, known) == turned
