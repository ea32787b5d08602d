"""`lb events`: the timeline of state changes, switches, reloads and ejections."""

from __future__ import annotations

import json
import re
import select
import sys
import time
from collections.abc import Callable
from typing import Any

import click

from lb.cli.client import Client, Unreachable, admin_options, json_option
from lb.cli.failure import Json
from lb.cli.terminal import Ink, aside, colours, span, wrapped

#: The look of an event's kind.
_ORDERS = ("switch", "rollout", "drain", "weight", "maintenance")
KINDS = {**dict.fromkeys(_ORDERS, "blue"), "reload": "yellow", "worker": "yellow"}
#: Seconds that a follower waits for an lb that went away, and between two tries.
PATIENCE, AGAIN = 60.0, 0.5
UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def duration(value: str) -> float:
    """Seconds of a text such as 90s, 15m, 1h, 2d."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)", value)
    if not found:
        raise click.BadParameter(f"{value!r} is no duration; write it like 90s, 15m, 1h or 2d")
    return float(found[1]) * UNITS[found[2]]


def seconds(value: str) -> float:
    """A duration, or a plain number of seconds."""
    return float(value) if re.fullmatch(r"\d+(\.\d+)?", value) else duration(value)


@click.command(
    epilog="""\b
Examples:
  lb events --since 1h
  lb events --follow
  lb events --probes --since 15m
  lb events --follow --json | jq -r 'select(.kind == "switch") | .text'

With --json each line is a document. A follower outlives restarts of lb: it goes
on where it was, and says on stderr that it lost the connection and found it."""
)
@click.option("--follow", "-f", is_flag=True, help="Go on with what happens from now on.")
@click.option("--since", type=duration, metavar="DURATION", help="Not older than this, such as 1h. Default: 1d.")
@click.option("--probes", is_flag=True, help="The probes of all targets as well, folded into runs.")
@admin_options
@json_option
def events(client: Client, follow: bool, since: float | None, probes: bool, as_json: bool) -> None:
    """What happened: state changes, switches, reloads."""
    if probes and follow:
        raise click.UsageError("--probes tells of runs that are over; leave out --follow, or leave out --probes.")
    # With --follow alone: the last hour first, so that one sees where things stand.
    oldest = time.time() - (since if since is not None else 3600.0 if follow else 86400.0)
    ink = Ink(colours())
    last = 0
    try:
        found = listed(client.get(f"/api/v1/events?since={oldest:.3f}"))
        if probes:
            runs = listed(client.get(f"/api/v1/probes?since={oldest:.3f}&limit=10000"))
            found = sorted(found + [as_event(run, oldest) for run in runs], key=lambda event: float(event["at"]))
        for event in found:
            if event["at"] >= oldest:
                tell(event, ink, as_json)
                last = max(last, event["id"])
        if follow:
            following(client, last, lambda event: tell(event, ink, as_json))
    except KeyboardInterrupt:
        return


def listed(answer: Any) -> list[Json]:
    found: list[Json] = answer["events"] if isinstance(answer, dict) else answer
    return found


def as_event(run: Json, oldest: float) -> Json:
    """A run of probes among the events; one that began before the first of them stands at the beginning."""
    said = {"id": 0, "at": max(run["first"], oldest), "kind": "probes", "subject": run["target"], "text": run["told"]}
    return {**said, "actor": "", "before": "", "after": "", "run": run}


def following(client: Client, last: int, say: Callable[[Json], object]) -> None:
    """The stream; when it breaks off it is taken up after the last event, as long as lb comes back in time.

    That it broke off, and that it goes on, is said once each: silence is to mean that nothing happens.
    """
    lost_at = 0.0

    def connected() -> None:
        nonlocal lost_at
        if lost_at:
            aside(f"lb: connected again after {span(time.monotonic() - lost_at)}; going on after the last event.")
            lost_at = 0.0

    while True:
        why = "lb closed it"
        try:
            for identity, data in client.stream("/api/v1/events", str(last or ""), connected, still_read):
                event = json.loads(data)
                last = int(identity or event["id"])
                say(event)
        except Unreachable as failure:
            why = failure.why
            if lost_at and time.monotonic() - lost_at > PATIENCE:
                raise
        if not lost_at:
            lost_at = time.monotonic()
            aside(f"lb: lost the connection to {client.where} ({why}); trying again for {span(PATIENCE)}.")
        time.sleep(AGAIN)


def still_read() -> None:
    """Raise `BrokenPipeError` if the output has no reader any more (`| head`): the next event may be far away."""
    poll = select.poll()
    poll.register(sys.stdout, 0)  # (errors are always told)
    if any(what & (select.POLLERR | select.POLLHUP) for _, what in poll.poll(0)):
        raise BrokenPipeError


def tell(event: Json, ink: Ink, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(event))
        return
    line = line_of(event)
    # 16 columns are the clock's; the rest of a long line stands under its beginning.
    for number, part in enumerate(wrapped(line, " " * 27)):
        click.echo(painted(part, event, ink) if number == 0 else part)


def line_of(event: Json) -> str:
    clock = time.strftime("%m-%d %H:%M:%S", time.localtime(event["at"]))
    by = f" (by {event['actor']})" if event["actor"] else ""
    subject = event["subject"]
    text = event["text"] if event["text"].startswith(subject) or not subject else f"{subject}: {event['text']}"
    return f"{clock}  {event['kind']:10} {text}{by}"


def painted(line: str, event: Json, ink: Ink) -> str:
    """The clock and the kind in their colours."""
    kind = event["kind"]
    colour = KINDS.get(kind, "")
    if kind == "transition":
        colour = "green" if event["after"] in ("ready", "slow_start") else "red"
    told = ink(line[16:26], colour) if colour else line[16:26]
    return f"{ink(line[:14], 'dim')}  {told}{line[26:]}"
