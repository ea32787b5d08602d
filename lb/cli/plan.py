"""`lb plan`: what a reload with this file would change, before anything does.

The running lb is asked for the text that it runs; the difference is worked out here, with this environment. `--against`
compares with a file instead, and needs no running lb.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from lb.cli.client import Client, admin_options
from lb.cli.client import told as why
from lb.cli.failure import Failure
from lb.cli.terminal import Ink, aside, colours

if TYPE_CHECKING:
    from lb.config.changes import Plan
    from lb.config.resolve import World

COLOURS = {"add": "green", "drain": "red", "change": "yellow", "restart": "magenta"}


@click.command(
    epilog="""\b
Examples:
  lb plan backends.yaml                       against what is running
  lb plan new.yaml --against backends.yaml    no running lb needed
  lb plan backends.yaml && lb reload

Signs: + added, - drained, ~ changed, ! takes effect after a restart only.
Exit codes: 0 fine (even if nothing changes), 1 the file is invalid, or lb would
refuse to reload it as a service would have no target that can serve."""
)
@click.argument("file", type=click.Path(dir_okay=False))
@click.option("--against", metavar="FILE", help="Compare with this file instead of the running lb.")
@click.option("--json", "as_json", is_flag=True, help="Print the changes as JSON.")
@admin_options
def plan(client: Client, file: str, against: str | None, as_json: bool) -> None:
    """What a reload with a file would change.

    Targets, pools, services, listeners and routes that come, go or change,
    settings with their old and new values, and the detection time if it does.
    """
    from lb.config.diff import diff
    from lb.config.load import read_text

    base = str(Path(file).resolve().parent)
    new = _loaded(file, base)
    refusal = None
    if against is not None:
        found = diff(_loaded(against, base), new)
    else:
        text = str(client.get("/api/v1/config")["text"])
        found = diff(_running(text, base, client), new)
        refusal = client.post("/api/v1/config/validate", {"text": read_text(Path(file))})["refusal"]
    if as_json:
        click.echo(json.dumps({**_document(found), "refusal": refusal}, indent=2))
    else:
        click.echo("\n".join(told(found, Ink(colours()))))
        if refusal:
            aside(f"lb: a reload would be refused. {why(refusal['status'], refusal)}")
    if refusal:
        raise SystemExit(1)


def _loaded(file: str, base: str) -> World:
    from lb.config.load import examine, read_text
    from lb.config.resolve import resolve
    from lb.config.yaml.problems import ConfigError

    try:
        return resolve(examine(read_text(Path(file)), file, os.environ, base=base).config, 0)
    except ConfigError as error:
        count = len(error.problems)
        raise Failure(
            f"{file} has {count} error{'s' * (count != 1)}:\n{error}",
            errors=[asdict(problem) for problem in error.problems],
        ) from None


def _running(text: str, base: str, client: Client) -> World:
    """The running configuration. Its text was valid where it runs; here a variable may be missing."""
    from lb.config.load import load_text
    from lb.config.resolve import resolve
    from lb.config.yaml.problems import ConfigError

    try:
        return resolve(load_text(text, f"{client.where} (running)", base=base), 0)
    except ConfigError as error:
        raise Failure(
            f"what runs at {client.where} cannot be read in this environment:\n{error}\n"
            "  Set the same variables here, or compare two files with --against FILE."
        ) from None


def told(found: Plan, ink: Ink) -> list[str]:
    """The plan as lines."""
    lines = [ink(str(change), COLOURS[change.kind]) for change in found.changes]
    return [*lines, *([""] if lines else []), found.summary()]


def _document(found: Plan) -> dict[str, object]:
    return {
        "changes": [asdict(change) for change in found.changes],
        "kept": list(found.kept),
        "summary": found.summary(),
    }
