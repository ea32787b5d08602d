"""Carries out the hooks of a release: the command first, then the webhook. The first failure ends the hook."""

from __future__ import annotations

from lb.config.model.checks import Hook
from lb.net.actions import Event, Outcome, call_webhook, run_program


async def run_hook(hook: Hook, event: Event) -> Outcome:
    """The outcome of both in one; of the failed one alone, where one failed. Raises nothing but `CancelledError`."""
    texts = []
    if hook.command:
        outcome = await run_program(tuple(hook.command), hook.timeout, event)
        if not outcome.ok:
            return outcome
        texts.append(outcome.text)
    if hook.webhook:
        outcome = await call_webhook(hook.webhook, hook.timeout, event)
        if not outcome.ok:
            return outcome
        texts.append(outcome.text)
    return Outcome(True, "; ".join(texts))
