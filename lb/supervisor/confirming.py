"""Waiting until the workers serve by a change: the meaning of an order's answer."""

from __future__ import annotations

from lb.core.refusals import Obstacle, Refusal, Refused
from lb.supervisor.workers import Unconfirmed, Workers

#: Seconds that workers have to confirm a change.
CONFIRM_WITHIN = 5.0


async def confirm(workers: Workers, version: int) -> None:
    """Returns when every worker serves by `version`. Raises `Refused`, which names the workers that do not."""
    try:
        await workers.confirm(version, CONFIRM_WITHIN)
    except Unconfirmed as error:
        obstacles = [Obstacle(reason, where=worker) for worker, reason in error.workers]
        some = "a worker has" if len(obstacles) == 1 else f"{len(obstacles)} workers have"
        detail = f"the change is in force, but {some} not confirmed it within {CONFIRM_WITHIN:g} s"
        raise Refused(Refusal.NOT_CONFIRMED, detail, obstacles) from None
