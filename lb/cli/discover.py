"""`lb discover`: what each source of targets says now, by a file alone; and the word of an operator on removals."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import click

from lb.cli.client import Client, admin_options, in_path, json_option
from lb.cli.failure import Failure, Json
from lb.cli.terminal import Ink, colours, columns, wrapped

if TYPE_CHECKING:
    from lb.config.model.config import Config
    from lb.config.model.discovery import Discover
    from lb.core.membership import Answer
    from lb.core.renames import Place


class Asked(NamedTuple):
    """A source, and its answer or why there is none."""

    place: Place
    settings: Discover
    answer: Answer | None
    error: str


@click.command(
    epilog="""\b
Examples:
  lb discover                            what the sources of backends.yaml say
  lb discover new.yaml --json
  lb discover --confirm greeting/green   the source is right: let kept ones go

Exit codes: 0 every source has answered, 1 one has not, or the file is invalid."""
)
@click.argument("file", default="backends.yaml", type=click.Path(dir_okay=False))
@click.option("--confirm", metavar="POOL", help="Confirm to the running lb that a pool's kept targets are to go.")
@json_option
@admin_options
def discover(client: Client, file: str, confirm: str | None, as_json: bool) -> None:
    """What each source of targets says now.

    Asks the sources of FILE (`discover` of its pools) once, and prints the
    targets that they name. Nothing is changed, and no running lb is asked.

    With --confirm SERVICE/POOL, a running lb lets the targets of this pool go
    that its source no longer names. It keeps them while they pass their
    checks, because too many were gone at one time.
    """
    if confirm is not None:
        _confirm(client, confirm)
        return
    asked = asyncio.run(_ask(_config(file)))
    if as_json:
        click.echo(json.dumps([_document(each) for each in asked], indent=2))
    else:
        click.echo("\n".join(told(file, asked, Ink(colours()))))
    if any(each.answer is None for each in asked):
        raise SystemExit(1)


def _config(file: str) -> Config:
    from lb.config.load import load
    from lb.config.yaml.problems import ConfigError

    try:
        return load(Path(file), check_files=False)
    except ConfigError as error:
        raise Failure(f"{file} cannot be used:\n{error}") from None


async def _ask(config: Config) -> list[Asked]:
    """Ask all sources at the same time."""
    pools = [
        ((service, pool), each.discover)
        for service, pools in config.services.items()
        for pool, each in pools.pools.items()
        if each.discover is not None
    ]
    return list(await asyncio.gather(*(_ask_one(place, settings) for place, settings in pools)))


async def _ask_one(place: Place, settings: Discover) -> Asked:
    from lb.discovery.providers import source_of
    from lb.discovery.source import NoAnswer

    try:
        return Asked(place, settings, await source_of(settings).ask(), "")
    except NoAnswer as error:
        return Asked(place, settings, None, str(error))


def told(file: str, asked: list[Asked], ink: Ink) -> list[str]:
    """The answers as lines."""
    if not asked:
        return [f"{file} names all targets itself: no pool has `discover`."]
    return [line for each in asked for line in _told(each, ink)]


def _told(asked: Asked, ink: Ink) -> Iterator[str]:
    name = ink("/".join(asked.place), "bold")
    if asked.answer is None:
        yield f"{name}  {asked.settings.title()} {ink('does not answer', 'red')}"
        yield from (f"  {line}" for line in wrapped(asked.error, "  "))
        return
    found = asked.answer.found
    yield f"{name}  {asked.settings.title()} names {len(found)} target{'s' * (len(found) != 1)}"
    rows = [[each.url, f"weight {each.weight}", _more(each.priority, each.name, each.settings)] for each in found]
    yield from (f"  {line}".rstrip() for line in columns(rows, "<<<"))
    for problem in asked.answer.problems:
        yield from (ink(f"  {line}", "yellow") for line in wrapped(f"! {problem}", "  "))


def _more(priority: int, name: str, settings: str) -> str:
    return ", ".join(filter(None, (name, f"priority {priority}" if priority else "", settings)))


def _document(asked: Asked) -> Json:
    answer = asked.answer
    found = answer.found if answer is not None else ()
    return {
        "service": asked.place[0],
        "pool": asked.place[1],
        "provider": asked.settings.kind(),
        "source": asked.settings.title(),
        "error": asked.error,
        "problems": list(answer.problems) if answer is not None else [],
        "targets": [
            {"url": each.url, "weight": each.weight, "priority": each.priority, "name": each.name} for each in found
        ],
    }


def _confirm(client: Client, subject: str) -> None:
    service, slash, pool = subject.partition("/")
    if not slash or "/" in pool or not pool:
        raise Failure(f"{subject!r} is no pool: a pool is SERVICE/POOL, such as greeting/green")
    before = _kept(client.get(f"/api/v1/services/{in_path(service)}"), pool)
    client.post(f"/api/v1/services/{in_path(service)}/pools/{in_path(pool)}/confirm-removals", {})
    if not before:
        click.echo(f"{subject}: no target is kept that its source no longer names")
        return
    count = len(before)
    click.echo(f"{subject}: {count} target{'s' * (count != 1)} go{'es' * (count == 1)}: {', '.join(before[:8])}")


def _kept(service: Json, pool: str) -> list[str]:
    found = next((each for each in service["pools"] if each["name"] == pool), None)
    return list(found["discovery"]["kept"]) if found and found.get("discovery") else []
