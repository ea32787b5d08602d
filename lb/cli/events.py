"""`lb events`: the timeline of state changes, switches, reloads and ejections."""

from __future__ import annotations

import json
import re
import time
from typing import Any

import click

from lb.cli.client import Client, Failure, Json, admin_options, json_option
from lb.cli.terminal import Ink, colours

#: What an event's kind looks like.
KINDS = {"switch": "blue", "rollout": "blue", "drain": "blue", "weight": "blue", "reload": "yellow", "worker": "yellow"}
UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def duration(value: str) -> float:
    """Seconds of a text such as 90s, 15m, 1h, 2d."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)", value)
    if not found:
        raise click.BadParameter(f"{value!r} is no duration; write it like 90s, 15m, 1h or 2d")
    return float(found[1]) * UNITS[found[2]]


@click.command(
    epilog="""\b
Examples:
  lb events --since 1h
  lb events --follow
  lb events --follow --json | jq -r 'select(.kind == "switch") | .text'"""
)
@click.option("--follow", "-f", is_flag=True, help="Go on with what happens from now on.")
@click.option("--since", type=duration, metavar="DURATION", help="Not older than this, such as 1h. Default: 1d.")
@admin_options
@json_option
def events(client: Client, follow: bool, since: float | None, as_json: bool) -> None:
    """What happened: state changes, switches, reloads."""
    # With --follow alone: the last hour first, so that one sees where things stand.
    oldest = time.time() - (since if since is not None else 3600.0 if follow else 86400.0)
    ink = Ink(colours())
    last = 0
    for event in listed(client.get(f"/api/v1/events?since={oldest:.3f}")):
        if event["at"] >= oldest:
            click.echo(line_of(event, ink, as_json))
            last = max(last, event["id"])
    if follow:
        following(client, last, ink, as_json)


def listed(answer: Any) -> list[Json]:
    found: list[Json] = answer["events"] if isinstance(answer, dict) else answer
    return found


def following(client: Client, last: int, ink: Ink, as_json: bool) -> None:
    """The stream; when it breaks off it is taken up where it was, as long as lb comes back within a minute."""
    lost_at = 0.0
    try:
        while True:
            try:
                for identity, data in client.stream("/api/v1/events", str(last)):
                    lost_at = 0.0
                    event = json.loads(data)
                    if int(identity or event["id"]) > last:
                        last = int(identity or event["id"])
                        click.echo(line_of(event, ink, as_json))
            except Failure as failure:
                lost_at = lost_at or time.monotonic()
                if time.monotonic() - lost_at > 60.0:
                    raise
                click.echo(f"lb: {failure.message.splitlines()[0]} Trying again.", err=True)
            time.sleep(1.0)
    except KeyboardInterrupt:
        return


def line_of(event: Json, ink: Ink, as_json: bool) -> str:
    if as_json:
        return json.dumps(event)
    clock = time.strftime("%m-%d %H:%M:%S", time.localtime(event["at"]))
    kind = event["kind"]
    colour = KINDS.get(kind, "")
    if kind == "transition":
        colour = "green" if event["after"] in ("ready", "slow_start") else "red"
    by = f" (by {event['actor']})" if event["actor"] else ""
    told = ink(f"{kind:10}", colour) if colour else f"{kind:10}"
    subject = event["subject"]
    text = event["text"] if event["text"].startswith(subject) or not subject else f"{subject}: {event['text']}"
    return f"{ink(clock, 'dim')}  {told} {text}{by}"
