"""`lb explain`: why a service, a target or a request was treated as it was."""

from __future__ import annotations

import json
import sys
import time

import click

from lb.cli.client import (
    Client,
    Refusal,
    admin_options,
    did_you_mean,
    in_path,
    json_option,
    match_target,
    target_ids,
)
from lb.cli.completion import names
from lb.cli.failure import Failure, Json
from lb.cli.terminal import Ink, age, colours, columns, shorten, span, width, wrapped

#: Runs of probes that are shown.
RUNS = 12


@click.command(
    epilog="""\b
Examples:
  lb explain greeting
  lb explain 127.0.0.1:5001
  lb explain 4f1c0a9be2d300000017     (the X-Request-Id of an answer)
  lb explain www.example.org

Of requests that failed, were tried again or were answered by lb itself, the
last 5,000 are known; of all others, the last two or three thousand of each
worker."""
)
@click.argument("subject", metavar="SERVICE|TARGET|REQUEST-ID|HOST", shell_complete=names)
@admin_options
@json_option
def explain(client: Client, subject: str, as_json: bool) -> None:
    """Why something is, or is not, getting traffic.

    The last probes with their errors, counters against thresholds, what has to
    happen next and when. For a request: where it went, what was tried and why.
    For a host name: which certificate it gets, and which routes it takes.
    """
    answer = asked(client, subject)
    if as_json:
        click.echo(json.dumps(answer, indent=2))
        return
    for line in told(answer, time.time(), Ink(colours())):
        click.echo(line)


def asked(client: Client, subject: str) -> Json:
    """The server knows services, full ids and request ids; a tail is completed here."""
    try:
        direct: Json = client.get(f"/api/v1/explain/{in_path(subject)}")
        return direct
    except Refusal as refusal:
        if refusal.status != 404:
            raise
        status = client.get("/api/v1/status")
        services, ids = [service["name"] for service in status["services"]], target_ids(status)
        if not any(known.endswith(subject) for known in ids):
            near = did_you_mean(subject, services) or did_you_mean(subject, ids)
            raise Failure(
                f"nothing is known of {subject!r}: no service ({', '.join(services)}), no target that ends so, "
                f"and no request of the recent past.{near}\n  `lb status` lists services and targets."
            ) from None
        known = match_target(subject, ids)
    completed: Json = client.get(f"/api/v1/explain/{in_path(known)}")
    return completed


def told(answer: Json, now: float, ink: Ink) -> list[str]:
    subject, summary = answer["subject"], answer["summary"]
    about = summary.removeprefix(subject) if summary.startswith(subject) else f": {summary}"
    first, *more = wrapped(subject + about, "  ")
    lines = [f"{ink(subject, 'bold')}{first[len(subject) :]}" if first.startswith(subject) else first, *more]
    lines += [part for line in answer["lines"] for part in wrapped(f"  {line}", "  ")]
    if answer["probes"]:
        lines += ["", "  Last probes:"]
        rows = [
            [
                ink("✔ passed", "green") if probe["ok"] else ink("✖ failed", "red"),
                f"{age(now - probe['at'])} ago",
                span(probe["seconds"]),
                shown(probe["text"]),
            ]
            for probe in answer["probes"]
        ]
        lines += [f"    {line}" for line in columns(rows, "<>><")]
    if answer.get("runs"):
        lines += ["", "  All of them, folded into runs:"]
        lines += [f"    {line}" for line in columns([folded(run, now, ink) for run in answer["runs"][:RUNS]], "<>><")]
        if len(answer["runs"]) > RUNS:
            lines.append(f"    and {len(answer['runs']) - RUNS} earlier ones: lb events --probes --since 7d")
    return lines


def folded(run: Json, now: float, ink: Ink) -> list[str]:
    """A run in columns: what it was, from when to when, how long its probes took, what the last one found."""
    colour = {"passed": "green", "failed": "red"}.get(run["result"], "yellow")
    sign = {"passed": "✔", "failed": "✖"}.get(run["result"], "·")
    name = run["kind"] if run["result"] != "mixed" else f"{run['passed']} passed, {run['failed']} failed"
    times = f" ×{run['count']}" if run["count"] > 1 and run["result"] != "mixed" else ""
    check = "liveness " if run["check"] == "liveness" else ""
    doubt = f" (not counted: {run['doubt']})" if run["doubt"] else ""
    low, high = f"{run['fastest'] * 1000:.1f}", f"{run['slowest'] * 1000:.1f}"
    return [
        f"{ink(f'{sign} {check}{name}{times}', colour)}{doubt}",
        from_to(run["first"], run["last"], now),
        f"{low} ms" if low == high else f"{low}–{high} ms",
        shown(run["text"]),
    ]


def from_to(first: float, last: float, now: float) -> str:
    """`10:00:00–10:04:00`, with the date if that is another day's."""

    def clock(at: float) -> str:
        there = time.localtime(at)
        today = there[:3] == time.localtime(now)[:3]
        return time.strftime("%H:%M:%S" if today else "%m-%d %H:%M:%S", there)

    return clock(first) if clock(first) == clock(last) else f"{clock(first)}–{clock(last)}"


def shown(text: str) -> str:
    """A probe's text, in one line; a terminal shows as much as fits beside the rest."""
    line = " ".join(text.split())
    return shorten(line, max(20, width() - 32)) if sys.stdout.isatty() else line
