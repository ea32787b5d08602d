"""Rollouts of a supervisor over reloads."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

from lb.core.desired import Desired, ServiceDesired, reconcile
from lb.core.renames import renames
from lb.core.rollout import Bake, Plan, begin, to_dict
from lb.supervisor.rollouts import Rollouts


def test_a_pool_takes_the_name_of_one_that_is_gone_with_its_rollout() -> None:
    """Two reloads in a row: the first ends the rollout, and nobody has asked for it before the second one."""
    rollout, _ = begin(Plan("blue", "green", bake=Bake(time=60.0)))
    switched = ServiceDesired("green", "green", previous="blue", rollout=to_dict(rollout))
    told: list[str] = []
    supervisor = SimpleNamespace(
        desired=Desired(1, {"app": switched}),
        events=SimpleNamespace(emit=lambda kind, text, where: told.append(f"{where}: {text}")),
    )
    rollouts = Rollouts(cast("Any", supervisor))
    rollouts.recover()
    supervisor.desired = reconcile(supervisor.desired, {"app": "blue"}, {"app": frozenset({"blue"})}, {})
    assert supervisor.desired.services["app"].rollout is None
    rollouts.rename(renames({"app": {"blue": ["a:1"]}}, {"app": {"green": ["a:1"]}}))
    assert told == ["app: it ended: the new configuration decides who gets the traffic"]
    supervisor.desired = replace(supervisor.desired, services={"app": ServiceDesired("green", "green")})
    assert rollouts.view("app") is None
