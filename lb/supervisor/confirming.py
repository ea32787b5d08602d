"""Waiting until the workers serve by a change: what an order's answer stands for."""

from __future__ import annotations

from lb.control.operations import Refused
from lb.supervisor.workers import Unconfirmed, Workers

#: Seconds that workers have to confirm a change.
CONFIRM_WITHIN = 5.0


async def confirm(workers: Workers, version: int) -> None:
    """Returns when every worker serves by `version`. Raises `Refused`, which names the workers that do not."""
    try:
        await workers.confirm(version, CONFIRM_WITHIN)
    except Unconfirmed as error:
        reasons = [{"where": worker, "reason": reason} for worker, reason in error.workers]
        some = "a worker has" if len(reasons) == 1 else f"{len(reasons)} workers have"
        detail = f"the change is in force, but {some} not confirmed it within {CONFIRM_WITHIN:g} s"
        raise Refused(504, "Not confirmed", detail, reasons) from None
