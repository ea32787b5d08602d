"""`lb drain`, `lb undrain`, `lb weight`, `lb probe`: one target."""

from __future__ import annotations

import json
import time

import click

from lb.cli.client import (
    Client,
    Unreachable,
    admin_options,
    dry_run_option,
    in_path,
    json_option,
    preview,
)
from lb.cli.completion import names
from lb.cli.events import PATIENCE, seconds
from lb.cli.failure import Failure, Json
from lb.cli.terminal import Ink, Ticker, aside, colours, say, span

#: Seconds between two looks at a drain that is waited for, and between two lines about it where no terminal is.
LOOK, SAY = 0.2, 10.0

target_argument = click.argument("target", shell_complete=names)


@click.command(
    epilog="""\b
Examples:
  lb drain 127.0.0.1:5001 --wait && systemctl restart greeting@5001
  lb drain greeting/blue/127.0.0.1:5001

It stays drained, also across restarts of lb, until `lb undrain`."""
)
@target_argument
@click.option("--wait", is_flag=True, help="Return when nothing is in flight there: it is safe to kill.")
@click.option("--timeout", type=seconds, default="0", metavar="DURATION", help="With --wait: give up after this long.")
@click.option("--force", is_flag=True, help="Even if fewer than min_ready targets are left.")
@dry_run_option
@admin_options
@json_option
def drain(client: Client, target: str, wait: bool, timeout: float, force: bool, dry_run: bool, as_json: bool) -> None:
    """Take a target out gently, until it is safe to kill.

    It gets no new request from now on; requests in flight finish, WebSockets are
    closed with 1001, and what is left after the drain time is cut.
    """
    known = client.target(target)
    if dry_run:
        preview(client, f"/api/v1/targets/{in_path(known)}/drain", {"force": force}, as_json)
        return
    answer = client.post(f"/api/v1/targets/{in_path(known)}/drain", {"force": force}, doing=f"draining {known}")
    if wait:
        try:
            answer = await_drain(client, known, timeout, quiet=as_json)
        except KeyboardInterrupt:
            raise Failure(f"no longer watched, but {known} goes on draining; `lb undrain {target}` ends it.") from None
    if as_json:
        click.echo(json.dumps(answer, indent=2))
    elif wait:
        say(f"{known} is drained: safe to kill. `lb undrain {target}` puts it back.")
    else:
        say(f"{known} gets no new requests. `lb drain {target} --wait` says when it is safe to kill.")


def await_drain(client: Client, target: str, timeout: float, quiet: bool) -> Json:
    """Look until the target is safe to kill; on a terminal, show what is left meanwhile."""
    began = said_at = time.monotonic()
    lost_at = 0.0
    ticker = Ticker(quiet)
    left = "not yet known what is left"
    while True:
        now = time.monotonic()
        try:
            answer: Json = client.get(f"/api/v1/targets/{in_path(target)}/drain")
        except Unreachable as failure:
            # A drain outlives a restart of lb, and so does waiting for it.
            lost_at = lost_at or now
            if now - lost_at > PATIENCE:
                raise
            ticker.show(f"draining {target}: no connection ({failure.why}); trying again")
        else:
            lost_at = 0.0
            if answer["safe"]:
                ticker.clear()
                return answer
            tunnels = f", {counted(answer['tunnels'], 'tunnel')}" if answer["tunnels"] else ""
            left = f"{counted(answer['in_flight'], 'request')}{tunnels} left"
            if answer["estimate"] is not None:
                left += f", about {span(answer['estimate'])} more"
            ticker.show(f"draining {target}: {left}, {span(now - began)}")
            if not ticker.live and not quiet and now - said_at > SAY:
                said_at = now
                aside(f"draining {target}: {left}")
        if timeout and now - began > timeout:
            ticker.clear()
            raise Failure(f"{target} is not drained after {span(timeout)}: {left}. It goes on draining.")
        time.sleep(LOOK)


def counted(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


@click.command(epilog="\b\nExample:\n  lb undrain 127.0.0.1:5001")
@target_argument
@click.option("--force", is_flag=True, help="Even if it is not ready, and its pool in panic as soon as it counts.")
@dry_run_option
@admin_options
@json_option
def undrain(client: Client, target: str, force: bool, dry_run: bool, as_json: bool) -> None:
    """Put a drained target back.

    What its probes found meanwhile holds: one that is not ready gets no traffic.
    It is refused where such a one brings its pool below panic_threshold.
    """
    known = client.target(target)
    if dry_run:
        preview(client, f"/api/v1/targets/{in_path(known)}/undrain", {"force": force}, as_json)
        return
    answer = client.post(f"/api/v1/targets/{in_path(known)}/undrain", {"force": force}, doing=f"putting {known} back")
    click.echo(json.dumps(answer, indent=2) if as_json else f"{known} may get requests again.")


@click.command(
    epilog="""\b
Examples:
  lb weight 127.0.0.1:5001 3
  lb weight 127.0.0.1:5001 0      no requests, yet still probed

Kept across restarts, until the file's own weight for this target is edited."""
)
@target_argument
@click.argument("weight", type=click.IntRange(0, 1000), metavar="N")
@click.option("--force", is_flag=True, help="Weight 0 even if fewer than min_ready targets are left.")
@dry_run_option
@admin_options
@json_option
def weight(client: Client, target: str, weight: int, force: bool, dry_run: bool, as_json: bool) -> None:
    """Give a target more or less traffic: N parts (0 to 1000).

    Weight 0 takes it out as a drain does: refused where too few would be left.
    """
    known = client.target(target)
    body: Json = {"weight": weight, "force": force}
    if dry_run:
        preview(client, f"/api/v1/targets/{in_path(known)}/weight", body, as_json)
        return
    answer = client.put(f"/api/v1/targets/{in_path(known)}/weight", body, doing=f"weighing {known}")
    click.echo(json.dumps(answer, indent=2) if as_json else f"{known} has weight {weight} now.")


@click.command(epilog="\b\nExample:\n  lb probe 127.0.0.1:5001")
@target_argument
@admin_options
@json_option
def probe(client: Client, target: str, as_json: bool) -> None:
    """Probe a target now; show asked, got and expected.

    The result counts as any other probe's. The exit code is 1 if it failed.
    """
    known = client.target(target)
    answer = client.post(f"/api/v1/targets/{in_path(known)}/probe", doing=f"probing {known}")
    if as_json:
        click.echo(json.dumps(answer, indent=2))
    else:
        for line in probed(known, answer, Ink(colours())):
            click.echo(line)
    if not answer["ok"]:
        raise SystemExit(1)


def probed(target: str, answer: Json, ink: Ink) -> list[str]:
    verdict = ink("passed", "green") if answer["ok"] else ink("failed", "red")
    lines = [f"{target}: {verdict} in {span(answer['seconds'])}: {answer['text']}"]
    for name in ("asked", "got", "expected"):
        text = str(answer[name]).rstrip().splitlines() or ["nothing"]
        lines.append(f"  {name:9} {text[0]}")
        lines += [f"            {more}" for more in text[1:8]]
    return lines
