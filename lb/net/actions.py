"""The operator's action at a moment: a command, a webhook, or both, each with a timeout.

A release's hooks and the restart of a target that is not alive run through here. A command succeeds with exit status 0,
a webhook with a status of 200 to 299. Redirects are not followed: a POST would become a GET.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import NamedTuple
from urllib.parse import urlsplit

from lb import USER_AGENT
from lb.net.command import Output, run_command

#: The details of the moment, by name: the environment of a command, and the JSON of a webhook.
Event = Mapping[str, str | int | bool]


class Outcome(NamedTuple):
    """Whether one command or webhook succeeded, and the sentence that says how."""

    ok: bool
    text: str


async def run_program(command: tuple[str, ...], timeout: float, event: Event) -> Outcome:
    """Run a command, and kill it after `timeout` seconds. Raises nothing but `CancelledError`."""
    output = Output()
    name = command[0]
    try:
        async with asyncio.timeout(timeout):
            status = await run_command(command, environment_of(event), output)
    except TimeoutError:
        return Outcome(False, f"{name} was still running after {timeout:g} s and was killed")
    except (OSError, RuntimeError) as error:
        return Outcome(False, str(error))
    ended = f"exit status {status}" if status >= 0 else f"ended by signal {-status}"
    last = output.last_line()
    return Outcome(status == 0, f"{name}: {ended}{f', {last}' if last else ''}")


async def call_webhook(url: str, timeout: float, event: Event) -> Outcome:
    """POST the event as JSON, for `timeout` seconds at most. Raises nothing but `CancelledError`."""
    import aiohttp  # slow to import, and most configurations have no webhook

    where = without_secrets(url)
    try:
        async with (
            aiohttp.ClientSession(
                timeout=aiohttp.ClientTimeout(total=timeout), headers={"User-Agent": USER_AGENT}
            ) as session,
            session.post(url, json=dict(event), allow_redirects=False) as answer,
        ):
            return Outcome(200 <= answer.status < 300, f"{where}: HTTP {answer.status}")
    except TimeoutError:
        return Outcome(False, f"{where} did not answer within {timeout:g} s")
    except aiohttp.InvalidURL:
        return Outcome(False, f"{where}: this is no URL")
    except (aiohttp.ClientError, OSError, ValueError) as error:
        return Outcome(False, f"{where}: {error or type(error).__name__}")


def without_secrets(url: str) -> str:
    """A webhook's URL as it may be shown: its path and query are often the secret itself (Slack, Teams)."""
    parts = urlsplit(url)
    more = "/…" if parts.path.strip("/") or parts.query else parts.path
    return f"{parts.scheme}://{parts.hostname}{f':{parts.port}' if parts.port else ''}{more}"


def environment_of(event: Event) -> dict[str, str]:
    """The variables of a command: `LB_` and the name in capitals. Booleans are spelled as in JSON."""
    return {
        f"LB_{name.upper()}": str(value).lower() if isinstance(value, bool) else str(value)
        for name, value in event.items()
    }
