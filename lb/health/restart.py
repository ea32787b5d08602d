"""Carries out `on_failure`: a command, a webhook, or both, for a target that is no longer alive.

What it does not do: decide when (`core.liveness`) or how many at one time (the monitor).
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from lb.core.checks import OnFailure
from lb.core.targets import Target
from lb.health.probes.command import Output, run_command
from lb.health.probes.http import AGENT


async def act(rules: OnFailure, target: Target, said: Mapping[str, Any]) -> str:
    """Do it; returns what came of it. Raises nothing but `CancelledError`; a failure begins with "failed:"."""
    done = []
    if rules.command:
        done.append(await _command(rules, target, said))
    if rules.webhook:
        done.append(await _webhook(rules, target, said))
    return "; ".join(sorted(done, key=lambda text: not text.startswith("failed")))


def body(target: Target, said: Mapping[str, Any]) -> dict[str, Any]:
    """The webhook's JSON."""
    return {
        "event": "liveness_failed",
        "target": target.id,
        "service": target.service,
        "pool": target.pool,
        "host": target.host,
        "port": target.port,
        **said,
    }


def without_secrets(url: str) -> str:
    """A webhook's address as it may be told: its path and query are often the secret itself (Slack, Teams)."""
    parts = urlsplit(url)
    more = "/…" if parts.path.strip("/") or parts.query else parts.path
    return f"{parts.scheme}://{parts.hostname}{f':{parts.port}' if parts.port else ''}{more}"


def environment_of(said: Mapping[str, Any]) -> dict[str, str]:
    """What a command finds in its environment: `LB_` and the name in capitals; truth is spelled as in JSON."""
    return {
        f"LB_{name.upper()}": str(value).lower() if isinstance(value, bool) else str(value)
        for name, value in said.items()
    }


async def _command(rules: OnFailure, target: Target, said: Mapping[str, Any]) -> str:
    output = Output()
    variables = {
        "LB_TARGET": target.id,
        "LB_TARGET_HOST": target.host,
        "LB_TARGET_PORT": str(target.port),
        "LB_SERVICE": target.service,
        "LB_POOL": target.pool,
        **environment_of(said),
    }
    try:
        async with asyncio.timeout(rules.timeout):
            code = await run_command(rules.command, variables, output)
    except TimeoutError:
        return f"failed: {rules.command[0]} was still running after {rules.timeout:g} s and was killed"
    except (OSError, RuntimeError) as error:
        return f"failed: {error}"
    last = output.text().rpartition("\n")[2][:200]
    how = f"exit status {code}" if code >= 0 else f"ended by signal {-code}"
    return f"{'failed: ' if code else ''}{rules.command[0]}: {how}{f', {last}' if last else ''}"


async def _webhook(rules: OnFailure, target: Target, said: Mapping[str, Any]) -> str:
    import aiohttp  # dear to import, and needed on bad days only

    where = without_secrets(rules.webhook)
    try:
        timeout = aiohttp.ClientTimeout(total=rules.timeout)
        async with (
            aiohttp.ClientSession(timeout=timeout, headers={"User-Agent": AGENT}) as session,
            session.post(rules.webhook, json=body(target, said), allow_redirects=False) as answer,
        ):
            text = f"{where}: HTTP {answer.status}"
            return text if answer.status < 300 else f"failed: {text}"
    except TimeoutError:
        return f"failed: {where} did not answer within {rules.timeout:g} s"
    except aiohttp.InvalidURL:
        return f"failed: {where}: this is no URL"
    except (aiohttp.ClientError, OSError, ValueError) as error:
        return f"failed: {where}: {error or type(error).__name__}"
