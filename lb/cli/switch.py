"""`lb switch` and `lb rollback`: which pool gets a service's traffic."""

from __future__ import annotations

import itertools
import json
import time

import click

from lb.cli.client import (
    Client,
    Refusal,
    Unreachable,
    admin_options,
    did_you_mean,
    dry_run_option,
    in_path,
    json_option,
    preview,
)
from lb.cli.completion import names
from lb.cli.events import PATIENCE, duration, listed
from lb.cli.failure import Failure, Json
from lb.cli.terminal import Ticker, age, say, wrapped

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
  lb switch greeting green -n      what would happen, or why it would not
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
@dry_run_option
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
    dry_run: bool,
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
    if dry_run:
        preview(client, f"/api/v1/services/{in_path(service)}/switch", body, as_json)
        return
    began = time.time()
    answer = ordered(client, service, "switch", body, f"switching {service} to {pool}")
    if wait:
        try:
            answer = await_end(client, service, pool, began, quiet=as_json)
        except KeyboardInterrupt:
            raise Failure(
                f"no longer watched, but the rollout of {service} goes on.\n"
                f"  `lb status {service} --watch` shows it, `lb rollback {service}` ends it."
            ) from None
    if as_json:
        click.echo(json.dumps(answer, indent=2))
    elif answer["rollout"] and answer["active"] != pool and not wait:
        say(f"{service}: on the way to {pool}. `lb status {service} --watch` shows it go, or --wait here.")
    elif wait and (why := missed(answer, pool)):
        say(f"{shares(answer)} {why}")
    else:
        say(shares(answer))
    if wait and (answer["active"] != pool or answer["rollout"]):
        raise SystemExit(1)


@click.command(
    epilog="""\b
Examples:
  lb rollback greeting
  lb rollback greeting --force     although no target there can serve

One target there that can serve is enough: this is the way out. A rollout under
way ends."""
)
@click.argument("service", shell_complete=names)
@click.option("--force", is_flag=True, help="Even if no target there can serve.")
@dry_run_option
@admin_options
@json_option
def rollback(client: Client, service: str, force: bool, dry_run: bool, as_json: bool) -> None:
    """Back to the previous pool, at once."""
    body: Json = {"force": force}
    if dry_run:
        preview(client, f"/api/v1/services/{in_path(service)}/rollback", body, as_json)
        return
    answer = ordered(client, service, "rollback", body, f"rolling {service} back")
    click.echo(json.dumps(answer, indent=2) if as_json else shares(answer))


def ordered(client: Client, service: str, order: str, body: Json, doing: str) -> Json:
    """The answer to an order; a name that is not known is answered with the one that was probably meant."""
    try:
        answer: Json = client.post(f"/api/v1/services/{in_path(service)}/{order}", body, doing=doing)
    except Refusal as refusal:
        if refusal.status == 404 and (near := meant(client, service, body.get("to", ""))):
            raise Refusal(404, refusal.problem, near.strip()) from None
        raise
    return answer


def meant(client: Client, service: str, pool: str) -> str:
    """Which service, or which of its pools, was probably meant."""
    known = {one["name"]: one for one in client.get("/api/v1/status")["services"]}
    if service not in known:
        return did_you_mean(service, known)
    return did_you_mean(pool, [one["name"] for one in known[service]["pools"]])


def shares(service: Json) -> str:
    """The pools that have the traffic now, in one line."""
    parts = [f"{pool['name']} {pool['share']}%" for pool in service["pools"] if pool["share"]]
    previous = service["previous"]
    back = f" `lb rollback {service['name']}` returns to {previous}." if previous else ""
    return f"{service['name']}: {', '.join(parts)}.{back}"


def missed(service: Json, pool: str) -> str:
    """Why the traffic is not where a switch should have led it; empty: it is."""
    if service["rollout"]:
        return f"{service['rollout']['text']}."
    last = service["last_rollout"]
    return f"{last['text']}." if last and service["active"] != pool else ""


def await_end(client: Client, service: str, pool: str, began: float, quiet: bool) -> Json:
    """Show each event of the rollout until it is over; on a terminal, how it stands meanwhile."""
    ticker = Ticker(quiet)
    seen = 0
    lost_at = 0.0
    while True:
        try:
            answer: Json = client.get(f"/api/v1/services/{in_path(service)}")
            events = client.get(f"/api/v1/events?since={began:.3f}")
            lost_at = 0.0
        except Unreachable as failure:
            # lb may be restarted meanwhile: a rollout survives that, and so does waiting for it.
            lost_at = lost_at or time.monotonic()
            if time.monotonic() - lost_at > PATIENCE:
                raise
            ticker.show(f"{age(time.time() - began):>6}  no connection ({failure.why}); trying again")
            time.sleep(LOOK)
            continue
        ticker.clear()
        for event in listed(events):
            if event["id"] > seen and event["kind"] in ("switch", "rollout"):
                seen = event["id"]
                if event["subject"] in (service, f"{service}/{pool}") and not quiet:
                    line = f"{age(event['at'] - began):>6}  {event['text']}"
                    indent = len(line) - len(line.lstrip())
                    for part in wrapped(line, " " * (8 - indent)):
                        click.echo(part, err=ticker.live)
        if not answer["rollout"] or answer["rollout"]["phase"] == "frozen":
            return answer
        ticker.show(f"{age(time.time() - began):>6}  {answer['rollout']['text']}")
        time.sleep(LOOK)
