"""`lb switch` and `lb rollback`: which pool gets a service's traffic."""

from __future__ import annotations

import itertools
import json
import sys
import time

import click

from lb.cli.client import Client, Failure, Json, admin_options, in_path, json_option
from lb.cli.completion import names
from lb.cli.events import duration
from lb.cli.terminal import age

#: Seconds between two looks at a rollout that is waited for.
LOOK = 0.5


def percentages(value: str) -> list[int]:
    """Percentages that grow to 100: 5,25,50,100."""
    try:
        steps = [int(part) for part in value.replace("%", "").split(",")]
    except ValueError:
        steps = []
    if not steps or any(a >= b for a, b in itertools.pairwise(steps)) or steps[0] < 1 or steps[-1] != 100:
        raise click.BadParameter(f"{value!r}: write growing percentages, the last one 100, such as 5,25,50,100")
    return steps


@click.command(
    epilog="""\b
Examples:
  lb switch greeting green
  lb switch greeting green --steps 5,25,50,100 --step-time 60s --wait
  lb switch greeting green --force     although targets are not ready

Refused unless enough of the pool's targets are ready; the reasons are listed,
one for each target. When the command returns, no new request enters the old
pool. Requests in flight there finish; it stays warm for `lb rollback`."""
)
@click.argument("service", shell_complete=names)
@click.argument("pool", shell_complete=names)
@click.option(
    "--steps", type=percentages, metavar="PERCENT,…", help="Percentages, the last one 100, such as 5,25,50,100."
)
@click.option("--step-time", type=duration, metavar="DURATION", help="Length of each step, such as 60s.")
@click.option("--force", is_flag=True, help="Even if targets are not ready.")
@click.option("--freeze-on-fail", is_flag=True, help="Stop and tell instead of rolling back.")
@click.option("--bake", type=duration, metavar="DURATION", help="How long it is watched after the last step.")
@click.option("--wait", is_flag=True, help="Show the progress; exit 1 if it was rolled back or frozen.")
@admin_options
@json_option
def switch(
    client: Client,
    service: str,
    pool: str,
    steps: list[int] | None,
    step_time: float | None,
    force: bool,
    freeze_on_fail: bool,
    bake: float | None,
    wait: bool,
    as_json: bool,
) -> None:
    """Send a service's traffic to another pool: at once, or in steps."""
    body: Json = {"to": pool, "force": force}
    if steps is not None:
        body["steps"] = steps
    if step_time is not None:
        body["step_time"] = f"{round(step_time * 1000)}ms"
    if bake is not None:
        body["bake"] = f"{round(bake * 1000)}ms"
    if freeze_on_fail:
        body["freeze_on_fail"] = True
    began = time.time()
    answer = client.post(f"/api/v1/services/{in_path(service)}/switch", body)
    if wait:
        answer = await_end(client, service, pool, began, quiet=as_json)
    if as_json:
        click.echo(json.dumps(answer, indent=2))
    elif answer["rollout"] and answer["active"] != pool and not wait:
        click.echo(f"{service}: on the way to {pool}. `lb status {service} --watch` shows it go, or --wait here.")
    else:
        click.echo(shares(answer))
    if wait and (answer["active"] != pool or answer["rollout"]):
        raise SystemExit(1)


@click.command(
    epilog="""\b
Example:
  lb rollback greeting

Nothing is asked about readiness: this is the way out. A rollout under way ends."""
)
@click.argument("service", shell_complete=names)
@admin_options
@json_option
def rollback(client: Client, service: str, as_json: bool) -> None:
    """Back to the previous pool, at once."""
    answer = client.post(f"/api/v1/services/{in_path(service)}/rollback")
    click.echo(json.dumps(answer, indent=2) if as_json else shares(answer))


def shares(service: Json) -> str:
    """Who has the traffic now, in one line."""
    parts = [f"{pool['name']} {pool['share']}%" for pool in service["pools"] if pool["share"]]
    previous = service["previous"]
    back = f" `lb rollback {service['name']}` returns to {previous}." if previous else ""
    return f"{service['name']}: {', '.join(parts)}.{back}"


def await_end(client: Client, service: str, pool: str, began: float, quiet: bool) -> Json:
    """Show each event of the rollout until it is over; on a terminal, how it stands meanwhile."""
    live = sys.stderr.isatty() and not quiet
    seen = 0
    lost = 0
    while True:
        try:
            answer: Json = client.get(f"/api/v1/services/{in_path(service)}")
            events = client.get(f"/api/v1/events?since={began:.3f}")
            lost = 0
        except Failure:
            # lb may be restarted meanwhile: a rollout survives that, and so does waiting for it.
            lost += 1
            if lost > 60 / LOOK:
                raise
            time.sleep(LOOK)
            continue
        if live:
            click.echo("\r\x1b[K", nl=False, err=True)
        for event in events["events"] if isinstance(events, dict) else events:
            if event["id"] > seen and event["kind"] in ("switch", "rollout"):
                seen = event["id"]
                if event["subject"] in (service, f"{service}/{pool}") and not quiet:
                    click.echo(f"{age(event['at'] - began):>6}  {event['text']}", err=live)
        if not answer["rollout"] or answer["rollout"]["phase"] == "frozen":
            return answer
        if live:
            click.echo(f"{age(time.time() - began):>6}  {answer['rollout']['text']}"[:100], nl=False, err=True)
        time.sleep(LOOK)
