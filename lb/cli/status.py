"""`lb status`: everything at a glance, in 80 columns."""

from __future__ import annotations

import contextlib
import json
import sys
import textwrap
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import click

from lb.cli.certificates import renewal
from lb.cli.client import Client, Unreachable, admin_options, did_you_mean, json_option
from lb.cli.completion import names
from lb.cli.failure import Failure, Json
from lb.cli.terminal import Ink, age, colours, columns, count, flowing, percent, span, width

if TYPE_CHECKING:
    from lb.cli.screen import Screen

#: Seconds between two pictures of --watch.
EVERY = 1.0
#: A pool of more targets than this shows the worst of them, and counts the rest.
FOLDED_ABOVE = 12
#: States from the worst to the best.
WORST_FIRST = ("unready", "ejected", "starting", "draining", "drained", "slow_start", "ready")


@click.command(
    epilog="""\b
Examples:
  lb status
  lb status greeting --watch
  lb status --only unready --all
  lb status --json | jq '.services[].pools[].targets[] | {id, state}'

Rates, errors and latencies are those of the last ten seconds. A pool of more
than 12 targets shows the worst of them, and counts the rest by state. While
watching, q or Ctrl-C ends, the arrow keys scroll. `--watch --json` is a
document a line."""
)
@click.argument("service", required=False, shell_complete=names)
@click.option("--watch", "-w", is_flag=True, help="Go on until q or Ctrl-C, a picture a second.")
@click.option("--only", "-o", metavar="TEXT", default="", help="Targets in this state, or with it in name or reason.")
@click.option("--all", "-a", "everything", is_flag=True, help="A line for each target, however many there are.")
@admin_options
@json_option
def status(client: Client, service: str | None, watch: bool, only: str, everything: bool, as_json: bool) -> None:
    """Services, pools and targets at a glance."""

    def ask() -> Json:
        return matching(chosen(client.get("/api/v1/status"), service), only)

    def painted(answer: Json) -> list[str]:
        lines = picture(answer, time.time(), Ink(colours()), everything)
        if only and not answer["services"]:
            lines += ["", f"No target is {only}." if only.lower() in WORST_FIRST else f"No target matches {only!r}."]
        return lines

    if watch:
        watching(client.where, ask, painted, as_json)
        return
    answer = ask()
    click.echo(json.dumps(answer, indent=2) if as_json else "\n".join(painted(answer)))


def matching(answer: Json, only: str) -> Json:
    """The status with only the targets that are in the state `only`, or have it in their name or reason."""
    if not only:
        return answer
    word = only.lower()

    def fits(target: Json) -> bool:
        if word in WORST_FIRST:  # "ready" is not to find "unready"
            return bool(target["state"] == word)
        return word in target["id"].lower() or word in target_note(target).lower()

    services = []
    for service in answer["services"]:
        pools = [{**pool, "targets": list(filter(fits, pool["targets"]))} for pool in service["pools"]]
        pools = [pool for pool in pools if pool["targets"]]
        if pools:
            services.append({**service, "pools": pools})
    return {**answer, "services": services}


def chosen(answer: Json, service: str | None) -> Json:
    """The status of one service alone, if one was named."""
    if service is None:
        return answer
    found = [known for known in answer["services"] if known["name"] == service]
    if not found:
        known_names = [known["name"] for known in answer["services"]]
        near = did_you_mean(service, known_names)
        raise Failure(f"there is no service {service!r}.{near} There are: {', '.join(known_names)}")
    return {**answer, "services": found}


def watching(where: str, ask: Callable[[], Json], painted: Callable[[Json], list[str]], as_json: bool) -> None:
    """A picture a second; a lost connection is said, and tried again."""
    with contextlib.suppress(KeyboardInterrupt):
        if sys.stdout.isatty() and not as_json:
            from lb.cli.screen import Screen

            lines = painted(ask())
            ink = Ink(colours())
            with Screen(ink) as screen:
                painting(where, lambda: painted(ask()), screen, ink, lines)
            return
        while True:
            began = time.monotonic()
            answer = ask()
            click.echo(json.dumps(answer) if as_json else "\n".join(painted(answer)) + "\n")
            time.sleep(max(0.05, EVERY - (time.monotonic() - began)))


def painting(where: str, paint: Callable[[], list[str]], screen: Screen, ink: Ink, lines: list[str]) -> None:
    """Picture after picture until the reader has had enough. While no process answers, the last one stays, and says
    so."""
    trouble: list[str] = []
    lost_at = 0.0
    while True:
        screen.show(trouble + lines)
        due = time.monotonic() + EVERY
        while (left := due - time.monotonic()) > 0:
            if not screen.wait(left):
                return
        try:
            lines = paint()
            trouble, lost_at = [], 0.0
        except Failure as failure:
            lost_at = lost_at or time.monotonic()
            why = failure.why if isinstance(failure, Unreachable) else first_line(failure.message)
            told = f"No connection to {where} for {age(time.monotonic() - lost_at)} ({why}); trying again."
            trouble = [ink(line, "red", "bold") for line in textwrap.wrap(told, width())]
            trouble += [ink("What was seen last:", "dim"), ""]


def picture(answer: Json, now: float, ink: Ink, everything: bool = False) -> list[str]:
    lines = headline(answer, now, ink)
    config = answer["config"]
    if not config["last_reload_ok"]:
        what = "certificates could not be taken" if config.get("last_reload_partial") else "the last reload was refused"
        lines.append(ink(f"! {what}: {first_line(config['last_error'])}", "red"))
    lines += [ink(f"! {text}", "red") for text in config["unconfirmed"]]
    if answer["state_trouble"]:
        lines.append(ink(f"! state cannot be written: {answer['state_trouble']}", "red"))
    if answer["access_log_trouble"]:
        lines.append(ink(f"! access log: {answer['access_log_trouble']}", "red"))
    for each in answer.get("maintenance", []):
        passes = f"; {', '.join(each['allow'])} pass" if each["allow"] else ""
        lines.append(ink(f"! route {each['route']} in maintenance for {age(now - each['since'])}{passes}", "yellow"))
    for each in answer.get("certificates", []):
        text = f"! certificate {each['name']}: {'; '.join(renewal(each, now))}"
        lines += [ink(line, "red") for line in textwrap.wrap(text, width(), subsequent_indent="  ")]
    for service in answer["services"]:
        lines += ["", *service_lines(service, now, ink, everything)]
    return lines


def headline(answer: Json, now: float, ink: Ink) -> list[str]:
    listeners = ", ".join(listener["address"] for listener in answer["listeners"])
    ready = ink("ready", "green") if answer["ready"] else ink("not ready", "red")
    rate = sum(service["rate"] for service in answer["services"])
    parts = [
        f"{ink('lb', 'bold')} {answer['version']}",
        ready,
        f"on {listeners}",
        f"up {age(now - answer['started_at'])}",
        f"{len(answer['workers'])} worker{'s' * (len(answer['workers']) != 1)}",
        f"{count(rate)} req/s",
    ]
    if answer["worker_restarts"]:
        replaced = answer["worker_restarts"]
        parts.append(ink(f"{replaced} worker{'s' * (replaced != 1)} replaced", "yellow"))
    return flowing(parts, " · ")


def service_lines(service: Json, now: float, ink: Ink, everything: bool) -> list[str]:
    facts = [f"{count(service['rate'])} req/s", f"{percent(service['error_rate'])} errors"]
    if service.get("client_error_rate"):  # an lb that is just being upgraded has neither
        facts.append(f"{percent(service['client_error_rate'])} 4xx")
    if service.get("retry_rate"):
        facts.append(f"{count(service['retry_rate'])} retries/s")
    if service["p50"] is not None:
        facts.append(f"p50 {span(service['p50'])}, p99 {span(service['p99'])}")
    lines = [f"{ink(service['name'], 'bold')}  {' · '.join(facts)}"]
    room = width()
    for note, style in notes(service, now):
        lines += [f"  {ink(line, *style)}" for line in textwrap.wrap(note, room - 2, subsequent_indent="  ")]
    addresses = [len(target["address"]) for pool in service["pools"] for target in pool["targets"]]
    size = min(max(addresses, default=0), max(15, room - 59))
    lines.append(ink(f"    {table([HEADINGS], size)[0]}", "dim"))
    for pool in service["pools"]:
        lines.append(f"  {pool_line(pool, ink, service['rollout'])}")
        lines += source_lines(pool, now, ink, room)
        shown, rest = (pool["targets"], []) if everything else folded(pool["targets"])
        lines += target_lines(shown, now, ink, room, size)
        if rest:
            lines.append(ink(f"    … and {len(rest)} more: {in_states(rest)} (--all shows each)", "dim"))
    return lines


def folded(targets: list[Json]) -> tuple[list[Json], list[Json]]:
    """The targets of which a picture has a line each, and targets that are only counted: of many the worst are
    shown."""
    if len(targets) <= FOLDED_ABOVE:
        return targets, []
    ordered = sorted(targets, key=badness)
    return ordered[: FOLDED_ABOVE - 2], ordered[FOLDED_ABOVE - 2 :]


def badness(target: Json) -> tuple[int, bool, bool, float]:
    """Sorts targets in need of a look to the front: by state, then targets that cannot serve, are on trial, or fail
    most."""
    state = target["state"]
    rank = WORST_FIRST.index(state) if state in WORST_FIRST else -1
    return rank, target["serves"], not target["trial"], -target["error_rate"]


def in_states(targets: list[Json]) -> str:
    """`3 unready, 988 ready`, worst first."""
    states = [target["state"] for target in targets]
    return ", ".join(f"{states.count(state)} {state}" for state in WORST_FIRST if state in states)


def notes(service: Json, now: float) -> list[tuple[str, tuple[str, ...]]]:
    """The remarks beyond the figures, and how they are painted."""
    found: list[tuple[str, tuple[str, ...]]] = []
    if service["since"] or service["active"] != service["configured"]:
        text = f"switched to {service['active']}"
        if service["since"]:
            text += f" {age(now - service['since'])} ago"
        if service["active"] != service["configured"]:
            text += f"; the file says {service['configured']}"
        if service["previous"]:
            text += f" (lb rollback returns to {service['previous']})"
        found.append((text, ()))
    if service["rollout"]:
        found.append((service["rollout"]["text"], ("yellow",)))
    elif (last := service["last_rollout"]) and last["result"] != "done":  # one that went through: `switched to` says it
        found.append((f"last rollout, {age(now - last['at'])} ago: {last['text']}", ("yellow",)))
    if service["detection"]:
        worst, expected = service["detection"]["worst"], service["detection"]["expected"]
        found.append((f"a dead target is out after {span(worst)} at worst, {span(expected)} on average", ("dim",)))
    return found


def pool_line(pool: Json, ink: Ink, rollout: Json | None = None) -> str:
    """A pool and its share. A pool that is not active has a share in a rollout, or as the fallback that serves
    instead."""
    share = pool["share"]
    released = rollout is not None and pool["name"] in (rollout["from"], rollout["to"])
    what = "active" if pool["active"] else "standby" if share == 0 else "rollout" if released else "fallback"
    bar = "█" * round(share / 10) + "░" * (10 - round(share / 10))
    name = ink(f"{pool['name']:12}", "bold") if pool["active"] else f"{pool['name']:12}"
    ready = f"{pool['healthy']} of {pool['requested']} ready"
    queue = ink(f" · {pool['waiting']} waiting", "yellow") if pool.get("waiting") else ""
    return f"{name} {ink(bar, 'green' if share else 'dim')} {share:3d}%  {what} · {ready}{queue}"


def source_lines(pool: Json, now: float, ink: Ink, room: int) -> list[str]:
    """Where its targets are found, and what is wrong with that."""
    source = pool.get("discovery")
    if not source:
        return []
    last = f"{age(now - source['last_success'])} ago" if source["last_success"] else "not since the start"
    facts = [(f"{source['source']} names {source['named']}, answered {last}", "dim")]
    if source["error"]:
        facts.append((f"! it does not answer, its targets stay: {source['error']}", "red"))
    facts += [(f"! a part of it cannot be used: {problem}", "yellow") for problem in source["problems"]]
    if source["kept"]:
        facts.append((f"! {len(source['kept'])} targets are kept though it no longer names them", "yellow"))
    lines = []
    for text, style in facts:
        wrapped = textwrap.wrap(text, room - 4, subsequent_indent="  ", max_lines=3, placeholder=" …")
        lines += [f"    {ink(line, style)}" for line in wrapped]
    return lines


HEADINGS = ("STATE", "TARGET", "SINCE", "FLIGHT", "REQ/S", "ERR", "P50", "P99")


def table(rows: Sequence[Sequence[str]], size: int) -> list[str]:
    """Rows with columns of one width in all pools; `size` is that of the address."""
    return columns(rows, "<<>>>>>>", " ", (12, size, 6, 6, 6, 5, 6, 6))


def target_lines(targets: list[Json], now: float, ink: Ink, room: int, size: int) -> list[str]:
    """A line for each target; one that is not plainly ready is followed by the reason."""
    rows = []
    for target in targets:
        address = target["address"]
        if len(address) > size:
            address = "…" + address[-(size - 1) :]
        rows.append(
            [
                ink.state(target["state"]),
                address,
                age(now - target["since"]) if target["since"] else "-",
                count(target["in_flight"]),
                count(target["rate"]),
                percent(target["error_rate"]) if target["rate"] else "-",
                span(target["p50"]) if target["p50"] is not None else "-",
                span(target["p99"]) if target["p99"] is not None else "-",
            ]
        )
    lines = []
    for target, line in zip(targets, table(rows, size), strict=True):
        lines.append(f"    {line}")
        reason = textwrap.wrap(target_note(target), room - 8, max_lines=3, placeholder=" …")
        lines += [ink(f"      {' ' if number else '↳'} {text}", "dim") for number, text in enumerate(reason)]
    return lines


def target_note(target: Json) -> str:
    parts = []
    odd = target["state"] != "ready" or not target["serves"] or target["replaced"] or target.get("kept")
    if odd and target["reason"]:
        parts.append(first_line(target["reason"]))
    if target["trial"]:
        parts.append(target["trial"])
    if target["configured_weight"] is not None:
        parts.append(f"weight {target['weight']} (the file says {target['configured_weight']})")
    if target["tunnels"]:
        parts.append(f"{target['tunnels']} tunnels")
    return " · ".join(parts)


def first_line(text: str) -> str:
    return text.strip().splitlines()[0] if text.strip() else ""
