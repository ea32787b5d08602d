"""`lb upgrade`: the installed code takes over from the running one, on the same sockets."""

from __future__ import annotations

import json

import click

from lb.cli.client import Client, admin_options, json_option
from lb.cli.events import seconds

#: Seconds that the last steps of an upgrade may take, or requests of a new lb that is ended, on top of the time to get
#: ready.
LAST_STEPS = 60.0


@click.command(
    epilog="""\b
Examples:
  pip install --upgrade lb && lb upgrade
  lb upgrade --within 60s

The same as SIGUSR2 to the supervisor, but it tells you what came of it. It also
brings settings into force that a reload cannot: admin, workers, state_dir."""
)
@click.option(
    "--within",
    type=seconds,
    default="30s",
    show_default=True,
    metavar="DURATION",
    help="How long the new lb may take to get ready; at most 10m.",
)
@admin_options
@json_option
def upgrade(client: Client, within: float, as_json: bool) -> None:
    """Run the installed code, without losing a connection.

    A new lb is started beside the running one and listens on the same sockets.
    When its workers serve and it knows which targets are ready, it takes over,
    and the old workers finish what they have begun. If it does not get ready,
    it is ended, the old one goes on, and the exit code is 1.
    """
    if not 1.0 <= within <= 600.0:
        raise click.BadParameter("it is between 1s and 10m", param_hint="--within")
    answer = client.post(
        "/api/v1/upgrade", {"within": within}, doing="starting the new lb, which gets ready", within=within + LAST_STEPS
    )
    click.echo(json.dumps(answer, indent=2) if as_json else f"Upgraded: process {answer['pid']} has taken over.")
