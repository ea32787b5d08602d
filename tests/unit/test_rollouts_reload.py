"""Rollouts of a supervisor over reloads."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

from lb.core.desired import Desired, ServiceDesired, reconcile
from lb.core.renames import renames
from lb.core.rollout import Bake, Plan, begin, to_dict
from lb.supervisor.rollouts import Rollouts


async def test_a_pool_takes_the_name_of_one_that_is_gone_with_its_rollout() -> None:
    """Two reloads in a row: the first ends the rollout, and nobody has asked for it before the second one."""
    rollout, _ = begin(Plan("blue", "green", bake=Bake(time=60.0)))
    switched = ServiceDesired("green", "green", previous="blue", rollout=to_dict(rollout))
    told: list[str] = []
    desired = SimpleNamespace(current=Desired(1, {"app": switched}))
    events = SimpleNamespace(emit=lambda kind, text, where: told.append(f"{where}: {text}"))
    unused = cast("Any", None)
    rollouts = Rollouts(unused, cast("Any", desired), unused, unused, unused, cast("Any", events), unused, unused)
    await rollouts.recover()
    desired.current = reconcile(desired.current, {"app": "blue"}, {"app": frozenset({"blue"})}, {})
    assert desired.current.services["app"].rollout is None
    rollouts.rename(renames({"app": {"blue": ["a:1"]}}, {"app": {"green": ["a:1"]}}))
    assert told == ["app: it ended: the new configuration decides who gets the traffic"]
    desired.current = Desired(2, {"app": ServiceDesired("green", "green")})
    assert rollouts.view("app") is None
