"""Carries out `on_failure` for a target that is no longer alive.

`core.liveness` decides when, and the monitor how many at one time.
"""

from __future__ import annotations

from typing import Any

from lb.core.checks import OnFailure
from lb.core.targets import Target
from lb.net.actions import Event, call_webhook, run_program


async def restart(rules: OnFailure, target: Target, failure: Event) -> str:
    """Run the command and call the webhook. Returns both results as text, failures first and marked.

    Raises nothing but `CancelledError`.
    """
    outcomes = []
    if rules.command:
        outcomes.append(await run_program(rules.command, rules.timeout, _variables(target, failure)))
    if rules.webhook:
        outcomes.append(await call_webhook(rules.webhook, rules.timeout, _body(target, failure)))
    outcomes.sort(key=lambda outcome: outcome.ok)
    return "; ".join(outcome.text if outcome.ok else f"failed: {outcome.text}" for outcome in outcomes)


def _variables(target: Target, failure: Event) -> Event:
    return {
        "target": target.id,
        "target_host": target.host,
        "target_port": target.port,
        "service": target.service,
        "pool": target.pool,
        **failure,
    }


def _body(target: Target, failure: Event) -> dict[str, Any]:
    return {
        "event": "liveness_failed",
        "target": target.id,
        "service": target.service,
        "pool": target.pool,
        "host": target.host,
        "port": target.port,
        **failure,
    }
