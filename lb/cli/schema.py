"""`lb schema`: the JSON Schema of the file."""

from __future__ import annotations

import json

import click


@click.command(
    epilog="""\b
Examples:
  lb schema > lb.schema.json

\b
Then, as the first line of the file, for editors with yaml-language-server:
  # yaml-language-server: $schema=lb.schema.json"""
)
def schema() -> None:
    """JSON Schema of the file, for editors."""
    from lb.config.output.schema import schema as made

    click.echo(json.dumps(made(), indent=2, ensure_ascii=False))
