"""`lb import`: a configuration made from another system's settings. Marathon's health checks, for a start."""

from __future__ import annotations

import json
import sys
import textwrap
from pathlib import Path

import click

from lb.cli.failure import Failure


@click.group(name="import", epilog="\b\nExample:\n  lb import marathon app.json > backends.yaml")
def import_() -> None:
    """Make a file from another system's settings."""


@import_.command(
    epilog="""\b
Examples:
  lb import marathon app.json > backends.yaml
  lb import marathon app.json --target http://10.0.0.7:31001
  curl -s "$MARATHON/v2/apps/x?embed=app.tasks" | lb import marathon -

Takes one app, a group, a list of apps, or the answer of /v2/apps. With
embed=app.tasks the addresses of the tasks are known and become targets."""
)
@click.argument("file", type=click.Path(dir_okay=False, allow_dash=True))
@click.option("--json", "as_json", is_flag=True, help="Print the file and the remarks as JSON.")
@click.option("--target", "targets", multiple=True, metavar="URL", help="An address of the app. May be repeated.")
def marathon(file: str, targets: tuple[str, ...], as_json: bool) -> None:
    """A Marathon app definition's health checks as a backends.yaml.

    The file goes to stdout. What has no equivalent, and what behaves otherwise
    than Marathon's documentation says, is told as comments in it and on stderr.
    """
    from lb.config.load import load_text
    from lb.config.marathon import NotMarathon, import_marathon
    from lb.config.yaml.problems import ConfigError

    try:
        imported = import_marathon(_text(file), targets)
    except NotMarathon as error:
        raise Failure(f"{file}: {error}") from None
    try:
        load_text(imported.text, "the result", {})
    except ConfigError as error:
        # Settings that Marathon takes and lb does not: an odd path, a target that was mistyped.
        raise Failure(f"{file} leads to a file that is not valid:\n{error}") from None
    if as_json:
        click.echo(json.dumps({"file": imported.text, "notes": list(imported.notes)}, indent=2))
        return
    click.echo(imported.text, nl=False)
    for note in imported.notes:
        wrapped = textwrap.fill(note, 78, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False)
        click.echo(wrapped, err=True)


def _text(file: str) -> str:
    try:
        return sys.stdin.read() if file == "-" else Path(file).read_text()
    except OSError as error:
        raise Failure(f"{file} cannot be read: {(error.strerror or str(error)).lower()}") from None
    except UnicodeDecodeError:
        raise Failure(f"{file} is not UTF-8 text") from None
