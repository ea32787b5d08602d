"""`lb explain`: why a service, a target or a request was treated as it was."""

from __future__ import annotations

import json
import time

import click

from lb.cli.client import Client, Failure, Json, Refusal, admin_options, in_path, json_option, match_target, target_ids
from lb.cli.completion import names
from lb.cli.terminal import Ink, age, colours, columns, span


@click.command(
    epilog="""\b
Examples:
  lb explain greeting
  lb explain 127.0.0.1:5001
  lb explain 4f1c0a9be2d300000017     (the X-Request-Id of an answer)

Failed and retried requests of the recent past are known, and a sample of the
others."""
)
@click.argument("subject", metavar="SERVICE|TARGET|REQUEST-ID", shell_complete=names)
@admin_options
@json_option
def explain(client: Client, subject: str, as_json: bool) -> None:
    """Why something is, or is not, getting traffic.

    The last probes with their errors, counters against thresholds, what has to
    happen next and when. For a request: where it went, what was tried and why.
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
        try:
            known = match_target(subject, target_ids(status))
        except Failure as failure:
            services = ", ".join(service["name"] for service in status["services"])
            if "say more of it" in failure.message:
                raise
            raise Failure(
                f"nothing is known of {subject!r}: no service ({services}), no target that ends so, "
                "and no request of the recent past.\n  `lb status` lists services and targets."
            ) from None
    completed: Json = client.get(f"/api/v1/explain/{in_path(known)}")
    return completed


def told(answer: Json, now: float, ink: Ink) -> list[str]:
    subject, summary = answer["subject"], answer["summary"]
    about = summary.removeprefix(subject) if summary.startswith(subject) else f": {summary}"
    lines = [f"{ink(subject, 'bold')}{about}"]
    lines += [f"  {line}" for line in answer["lines"]]
    if answer["probes"]:
        lines += ["", "  Last probes:"]
        rows = [
            [
                ink("✔ passed", "green") if probe["ok"] else ink("✖ failed", "red"),
                f"{age(now - probe['at'])} ago",
                span(probe["seconds"]),
                probe["text"].strip().replace("\n", " "),
            ]
            for probe in answer["probes"]
        ]
        lines += [f"    {line}" for line in columns(rows, "<>><")]
    return lines
