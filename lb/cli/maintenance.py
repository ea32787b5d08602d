"""`lb maintenance`: answer a route's clients with 503 and a page while something is being worked on."""

from __future__ import annotations

import json
import time
from pathlib import Path
from urllib.parse import quote

import click

from lb.cli.client import Client, admin_options, json_option
from lb.cli.events import seconds
from lb.cli.failure import Failure, Json
from lb.cli.terminal import age


@click.command(
    epilog="""\b
Examples:
  lb maintenance / on
  lb maintenance shop.example.org/api on --retry-after 120 --allow 10.0.0.0/8
  lb maintenance shop on --page maintenance.html
  lb maintenance shop off

A ROUTE is its name, or its host and path as `lb route test` prints it. Requests
under way go on. It lasts until it is turned off, also across restarts of lb."""
)
@click.argument("route", required=False)
@click.argument("state", required=False, type=click.Choice(["on", "off"]))
@click.option(
    "--retry-after", type=seconds, default="60", show_default=True, metavar="DURATION", help="When to come back."
)
@click.option("--allow", multiple=True, metavar="NET", help="A network whose clients pass. Repeatable.")
@click.option("--page", type=click.Path(exists=True, dir_okay=False), help="HTML for clients that take it.")
@admin_options
@json_option
def maintenance(
    client: Client,
    route: str | None,
    state: str | None,
    retry_after: float,
    allow: tuple[str, ...],
    page: str | None,
    as_json: bool,
) -> None:
    """Answer a route's clients with 503 and a page.

    Without arguments, the routes in maintenance are listed; with a ROUTE alone,
    its state.
    """
    if route is None:
        found: list[Json] = client.get("/api/v1/status")["maintenance"]
        lines = [_line(each) for each in found] or ["No route is in maintenance."]
        click.echo(json.dumps(found, indent=2) if as_json else "\n".join(lines))
        return
    path = f"/api/v1/maintenance/{quote(route, safe='')}"
    if state is None:
        answer = client.get(path)
    else:
        body: Json = {"on": state == "on"}
        if state == "on":
            body |= {"retry_after": max(1, round(retry_after)), "allow": list(allow), "page": _read(page)}
        answer = client.put(path, body, doing=f"turning the maintenance of {route} {state}")
    if as_json:
        click.echo(json.dumps(answer, indent=2))
    elif answer["maintenance"] is None:
        click.echo(f"{answer['route']} is not in maintenance.")
    else:
        click.echo(_line(answer["maintenance"]))


def _read(page: str | None) -> str:
    if page is None:
        return ""
    try:
        return Path(page).read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise Failure(f"{page}: {error}") from None


def _line(each: Json) -> str:
    passes = f"; {', '.join(each['allow'])} pass" if each["allow"] else ""
    by = f", by {each['actor']}" if each["actor"] else ""
    since = age(time.time() - each["since"])
    return f"{each['route']} is in maintenance for {since}{by}: 503, Retry-After {each['retry_after']}{passes}"
