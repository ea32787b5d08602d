"""`lb reload`: the running lb reads its file again; an invalid one changes nothing, and its errors are shown."""

from __future__ import annotations

import json

import click

from lb.cli.client import Client, admin_options, json_option
from lb.cli.failure import Json
from lb.cli.terminal import wrapped


@click.command(
    epilog="""\b
Examples:
  lb plan backends.yaml && lb reload
  lb reload --force     although a service then has no target that can serve
  lb reload --json

The same as SIGHUP to the supervisor, but it tells you what came of it."""
)
@click.option("--force", is_flag=True, help="Even if a service is left without a target that can serve.")
@admin_options
@json_option
def reload(client: Client, force: bool, as_json: bool) -> None:
    """Read the file again, without losing a connection.

    The file is validated whole first. If it is wrong, nothing changes, its
    errors are listed and the exit code is 1. The same if a service that is
    served now would have no target that can serve, unless --force. The exit
    code is also 1 when a worker has not confirmed the new configuration: the
    worker is named, and will be replaced. And it is 1 when a certificate
    could not be taken: all others are, and the former one is served on.
    """
    answer = client.post("/api/v1/reload", {"force": force}, doing="reading the file again")
    if as_json:
        click.echo(json.dumps(answer, indent=2))
    else:
        for line in told(answer):
            for part in wrapped(line, "  "):
                click.echo(part)
    if answer.get("unusable"):
        raise SystemExit(1)


def told(answer: Json) -> list[str]:
    """The changes of a reload, in lines."""
    lines = ["Reloaded.", *(f"  {line}" for line in answer["lines"])] if answer["changed"] else ["Nothing to change."]
    if answer["forced"]:
        lines.append(f"Forced: {answer['forced']}")
    lines += [f"Warning: {text}" for text in answer["warnings"]]
    unusable = answer.get("unusable", [])
    if unusable:
        count = f"{len(unusable)} certificate{'s' * (len(unusable) != 1)}"
        lines.append(f"Partial: {count} could not be taken, and everything else was:")
        lines += [f"  {each['told']}" for each in unusable]
    return lines
