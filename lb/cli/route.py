"""`lb route test`: which route a request takes by a file, and what becomes of it, without any traffic."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from lb.cli.client import json_option
from lb.cli.failure import Failure
from lb.cli.terminal import Ink, colours, columns, wrapped

if TYPE_CHECKING:
    from lb.config.resolve import World
    from lb.supervisor.route_trial import Passed, Trial

#: Routes that do not take the request which are shown.
SHOWN = 12


@click.group(
    epilog="""\b
Examples:
  lb route test GET https://a.example.org/api?x=1"""
)
def route() -> None:
    """Which route a request takes, and why no other."""


@route.command(
    epilog="""\b
Examples:
  lb route test GET https://a.example.org/api?x=1
  lb route test POST /login -H 'Host: a.example.org' -H 'Cookie: beta=1'
  lb route test GET http://a.example.org/ --client 10.0.0.7 --file new.yaml

Exit codes: 0 a target would get it, or the route answers by itself; 1 lb would
refuse it, or the file is invalid."""
)
@click.argument("method")
@click.argument("url")
@click.option("-H", "fields", multiple=True, metavar="FIELD", help="A header field, NAME: VALUE. Repeatable.")
@click.option("--file", "file", default="backends.yaml", show_default=True, type=click.Path(dir_okay=False))
@click.option("--client", default="127.0.0.1", show_default=True, help="The client's address; unix for a Unix socket.")
@click.option("--http", "version", default="1.1", show_default=True, type=click.Choice(["1.0", "1.1", "2"]))
@json_option
def test(method: str, url: str, fields: tuple[str, ...], file: str, client: str, version: str, as_json: bool) -> None:
    """What a file does with a request: METHOD URL.

    Prints the route, its steps in order, where the request would go and what
    would be sent there, and why the other routes do not take it. Nothing is
    sent, and no running lb is asked.
    """
    from lb.supervisor.route_trial import BadTrial, Request, document, trial

    try:
        made = trial(_world(file), Request(method, url, fields, client, version))
    except BadTrial as error:
        raise click.UsageError(str(error)) from None
    if as_json:
        click.echo(json.dumps(document(made), indent=2))
    else:
        click.echo("\n".join(told(made, Ink(colours()))))
    if made.status and made.reason not in ("redirect", "answer"):
        raise SystemExit(1)


def _world(file: str) -> World:
    from lb.config.load import load
    from lb.config.tls_files import load_world
    from lb.config.yaml.problems import ConfigError

    try:
        return load_world(load(Path(file), check_files=False))
    except ConfigError as error:
        raise Failure(
            f"{file} is invalid: {error.problems[0].message}\n  `lb check {file}` shows all errors."
        ) from None


def told(made: Trial, ink: Ink) -> list[str]:
    """The result for people."""
    lines = [f"route    {ink(made.route, 'bold')} (routes[{made.index}])" if made.route else "route    none"]
    if made.steps:
        marks = [step if place < len(made.met) else f"({step})" for place, step in enumerate(made.steps)]
        lines.append(f"steps    {', '.join(marks)}")
    if made.status:
        what = f"{made.status} {made.reason}"
        lines += [f"answer   {ink(what, 'yellow')}, by lb itself", *(f"  {line}" for line in made.answer.splitlines())]
    else:
        lines += [f"service  {made.service}, pool {made.pool}", f"target   {' or '.join(made.targets[:8]) or 'none'}"]
        lines += ["sent", *(f"  {line}" for line in made.sent.splitlines())]
    if made.readings:
        lines += ["", "Readings of the path, and their routes:"]
        lines += [f"  {line}" for line in columns([(path, title or "none") for path, title in made.readings], "<<")]
    lines += [f"note     {note}" for note in made.notes]
    if made.others:
        lines += ["", "Why not the others:", *_others(made.others)]
    return lines


def _others(others: list[Passed]) -> list[str]:
    """The nearest ones, in the order of the file: with the fewest reasons."""
    from lb.supervisor.route_trial import nearest

    near = nearest(others, SHOWN)
    rows = [(f"{each.title} (routes[{each.index}])", "; ".join(each.reasons)) for each in near]
    lines = [part for line in columns(rows, "<<") for part in wrapped(f"  {line}", "    ")]
    if len(others) > len(near):
        lines.append(f"  and {len(others) - len(near)} more: --json lists them all.")
    return lines
