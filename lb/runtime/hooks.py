"""Carries out the hooks of a release: a command, a webhook, or both, each with a timeout.

A hook fails when its command ends with another status than 0, its webhook answers anything but 2xx, or its time is
over. What happened is in the command's environment (`LB_EVENT`, `LB_SERVICE`, …) and in the webhook's JSON.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import aiohttp

from lb.config.checking import Hook
from lb.health.probes.command import Output, run_command
from lb.health.probes.http import AGENT
from lb.health.restart import environment_of, without_secrets


class HookFailed(Exception):  # noqa: N818 - it says what happened
    """The hook did not do what it was asked to; the text says how."""


async def carry_out(hook: Hook, said: Mapping[str, str | int | bool]) -> str:
    """Run the command, then call the webhook; what came of it, in words. Raises `HookFailed`."""
    done = []
    if hook.command:
        done.append(await _command(hook, said))
    if hook.webhook:
        done.append(await _webhook(hook, said))
    return "; ".join(done)


async def _command(hook: Hook, said: Mapping[str, str | int | bool]) -> str:
    output = Output()
    name = hook.command[0]
    variables = environment_of(said)
    try:
        async with asyncio.timeout(hook.timeout):
            code = await run_command(tuple(hook.command), variables, output)
    except TimeoutError:
        raise HookFailed(f"{name} was still running after {hook.timeout:g} s and was killed") from None
    except (OSError, RuntimeError) as error:
        raise HookFailed(str(error)) from None
    last = output.text().rpartition("\n")[2][:200]
    told = (
        f"{name}: "
        + (f"exit status {code}" if code >= 0 else f"ended by signal {-code}")
        + (f", {last}" if last else "")
    )
    if code:
        raise HookFailed(told)
    return told


async def _webhook(hook: Hook, said: Mapping[str, str | int | bool]) -> str:
    where = without_secrets(hook.webhook)
    try:
        async with (
            aiohttp.ClientSession(
                timeout=aiohttp.ClientTimeout(total=hook.timeout), headers={"User-Agent": AGENT}
            ) as session,
            session.post(hook.webhook, json=dict(said), allow_redirects=False) as answer,
        ):
            status = answer.status
    except TimeoutError:
        raise HookFailed(f"{where} did not answer within {hook.timeout:g} s") from None
    except aiohttp.InvalidURL:
        raise HookFailed(f"{where}: this is no URL") from None
    except (aiohttp.ClientError, OSError, ValueError) as error:
        raise HookFailed(f"{where}: {error or type(error).__name__}") from None
    if not 200 <= status < 300:
        raise HookFailed(f"{where}: HTTP {status}")
    return f"{where}: HTTP {status}"
