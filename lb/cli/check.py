"""`lb check`: is the file valid, is it wise, and how long can a dead target stay in rotation?

Nothing is started and no port is asked: the answer depends on the file, the environment and the files that it names.
"""

from __future__ import annotations

import json
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lb.cli.terminal import Ink, colours, columns

if TYPE_CHECKING:
    from lb.config.check.figures import CheckFigures, ServiceFigures
    from lb.config.load import Loaded
    from lb.config.resolve import World
    from lb.config.yaml.problems import Problem
    from lb.core.detection import Detection


def _codes(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    from lb.config.check.lint import CODES

    return sorted(code for code in CODES if code.startswith(incomplete))


@click.command(
    epilog="""\b
Examples:
  lb check                        validate backends.yaml
  lb check new.yaml --strict      warnings count as errors: for CI
  lb check --strict --ignore single-target
  lb check --json | jq '.services.greeting.detection.worst'
  cat new.yaml | lb check -       read it from stdin

Exit codes: 0 fine (there may be warnings), 1 errors."""
)
@click.argument("file", default="backends.yaml", type=click.Path(allow_dash=True))
@click.option("--strict", is_flag=True, help="Exit 1 if there are warnings, too.")
@click.option(
    "--ignore",
    multiple=True,
    metavar="CODE",
    shell_complete=_codes,
    help="Not this warning, such as single-target. Repeatable.",
)
@click.option("--no-files", is_flag=True, help="Do not look for the certificates and tokens that it names.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def check(file: str, strict: bool, ignore: tuple[str, ...], no_files: bool, as_json: bool) -> None:
    """Validate a file; say how fast trouble is noticed.

    Prints every error with its line and what is allowed there. A valid file is
    also read with a critical eye: settings that work against each other, and
    the common mistakes of health checking, are warnings. For each service it
    prints how long, at worst and on average, a dead target can stay in rotation.
    """
    from lb.config.check.lint import CODES, lint
    from lb.config.resolve import resolve
    from lb.config.yaml.problems import ConfigError

    for code in ignore:
        if code not in CODES:
            from lb.cli.client import did_you_mean  # (not needed otherwise, and it brings in TLS)

            raise click.UsageError(f"there is no warning {code!r}.{did_you_mean(code, CODES)} Its code ends a warning.")
    name = "<stdin>" if file == "-" else file
    try:
        loaded = _load(file, not no_files)
    except ConfigError as error:
        if as_json:
            click.echo(json.dumps(_document(name, errors=error.problems), indent=2))
        else:
            _tell_errors(name, error.problems)
        raise SystemExit(1) from None
    world = resolve(loaded.config, 0)
    found = lint(loaded, None if no_files else time.time(), world)
    warnings = [warning for warning in found if warning.code not in ignore]
    if as_json:
        click.echo(json.dumps(_document(name, warnings=warnings, world=world), indent=2))
    else:
        ink = Ink(colours())
        click.echo("\n".join(_told(name, world, warnings, ink)))
    if strict and warnings:
        raise SystemExit(1)


def _load(file: str, check_files: bool) -> Loaded:
    import os

    from lb.config.load import examine, load_with_source

    if file == "-":
        return examine(sys.stdin.read(), "<stdin>", os.environ, base=str(Path.cwd()), check_files=check_files)
    return load_with_source(Path(file), check_files=check_files)


def _tell_errors(name: str, problems: list[Problem]) -> None:
    from lb.config.yaml.problems import render

    ink = Ink(colours(sys.stderr))
    click.echo("\n\n".join(_painted(render(problem), ink, "red") for problem in problems), err=True)
    click.echo(f"\n{name} has {_counted(len(problems), 'error')}.", err=True)


def _painted(text: str, ink: Ink, colour: str) -> str:
    first, _, rest = text.partition("\n")
    return ink(first, colour, "bold") + (f"\n{rest}" if rest else "")


# --- for people ------------------------------------------------------------------------------------------------------


def _told(name: str, world: World, warnings: list[Problem], ink: Ink) -> list[str]:
    from lb.config.check.figures import figures
    from lb.config.yaml.problems import render

    pools = sum(len(service.pools) for service in world.snapshot.services)
    counts = (
        _counted(len(world.snapshot.services), "service"),
        _counted(pools, "pool"),
        _counted(len(world.targets), "target"),
        _counted(len(world.snapshot.routes), "route"),
    )
    lines = [f"{ink(f'{name} is valid', 'green', 'bold')}: {', '.join(counts)}."]
    for service in figures(world):
        lines += ["", *_service_lines(service, world, ink)]
    if warnings:
        lines += ["", ink(f"{_counted(len(warnings), 'warning')}:", "yellow", "bold")]
        for warning in warnings:
            lines += ["", _painted(render(warning), ink, "yellow")]
    return lines


def _service_lines(service: ServiceFigures, world: World, ink: Ink) -> list[str]:
    from lb.core.detection import promised

    rows: list[tuple[str, str]] = []
    for found in service.readiness:
        rows += _rows("readiness", found, len(service.readiness) > 1)
        if found.detection is None:
            rows.append(("", "a dead target stays in rotation: nobody looks"))
        else:
            sum_, worst = _sum(found), _seconds(promised(found.spec))
            rows.append(("", f"a dead target is out after at worst {worst} (= {sum_}),"))
            rows.append(("", f"on average {_seconds(found.detection.expected)} if it refuses connections;"))
            rows.append(("", f"one that recovers is back after at most {_seconds(found.detection.recovery)}"))
            patience = world.rules[service.name].patience
            if patience:
                late = _seconds(promised(found.spec, patience))
                rows.append(("", "one silent with most of its pool, or to its probes alone, is"))
                rows.append(("", f"doubted for {_seconds(patience)} first (patience), and out after at worst {late}"))
    for found in service.liveness:
        rows += _rows("liveness", found, len(service.liveness) > 1)
        if found.detection is None:
            rows.append(("", "never gives up on a target (fall: 0)"))
        else:
            acts = any(world.checks[id].on_failure for id in found.targets)
            what = "on_failure runs" if acts else "it is reported"
            rows.append(("", f"{what} after at worst {_seconds(found.detection.worst)} (= {_sum(found)})"))
            if not acts:
                rows.append(("", "nothing restarts it: there is no on_failure"))
    rows.append(("probes", f"{service.probes:.3g} a second"))
    active = world.config.services[service.name].first_active()
    return [
        f"{ink(service.name, 'bold')} (first active pool: {active})",
        *(f"  {line}" for line in columns(rows, "<<")),
    ]


def _rows(kind: str, found: CheckFigures, several: bool) -> list[tuple[str, str]]:
    spec = found.spec
    asked = {"http": spec.path, "https": spec.path, "grpc": spec.grpc_service, "command": " ".join(spec.command)}
    what = f"{spec.protocol} {asked.get(spec.protocol, '')}".strip()
    rows = []
    if spec.protocol == "none":
        rows.append((kind, "none: taken as ready"))
    else:
        rows.append((kind, f"{what[:60]} every {_seconds(spec.interval)}, timeout {_seconds(spec.timeout)},"))
        rows.append(("", f"rise {spec.rise}, fall {spec.fall}, grace {_seconds(spec.grace)}"))
    if several:
        of = found.targets[0] if len(found.targets) == 1 else _counted(len(found.targets), "target")
        rows.append(("", f"for {of if found.targets else 'targets that are found'}"))
    return rows


def _sum(found: CheckFigures) -> str:
    from lb.core.detection import formula

    return f"{formula(found.spec)} s"


def _seconds(seconds: float) -> str:
    from lb.config.model.units import format_duration

    return format_duration(round(seconds, 2))


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


# --- for programs ----------------------------------------------------------------------------------------------------


def _document(
    name: str, *, errors: list[Problem] | None = None, warnings: list[Problem] | None = None, world: World | None = None
) -> dict[str, Any]:
    from lb.config.check.figures import figures

    document: dict[str, Any] = {
        "file": name,
        "valid": not errors,
        "errors": [asdict(problem) for problem in errors or ()],
        "warnings": [asdict(problem) for problem in warnings or ()],
    }
    if world is not None:
        document["services"] = {service.name: _figures(service, world) for service in figures(world)}
    return document


def _figures(service: ServiceFigures, world: World) -> dict[str, Any]:
    patience = world.rules[service.name].patience
    return {
        "active": world.config.services[service.name].first_active(),
        "detection": _rounded(service.worst),
        "probes_per_second": round(service.probes, 3),
        "readiness": [_check_document(found, patience) for found in service.readiness],
        "liveness": [_check_document(found) for found in service.liveness],
    }


def _check_document(found: CheckFigures, patience: float | None = None) -> dict[str, Any]:
    from lb.core.detection import promised

    spec = found.spec
    return {
        "targets": list(found.targets),
        "protocol": spec.protocol,
        "path": spec.path if spec.protocol in ("http", "https") else None,
        "interval": spec.interval,
        "timeout": spec.timeout,
        "rise": spec.rise,
        "fall": spec.fall,
        "detection": _rounded(found.detection),
        # Of liveness nothing is doubted but what our own standstill has spoilt.
        **({"doubted": round(promised(spec, patience), 3)} if found.detection and patience is not None else {}),
    }


def _rounded(found: Detection | None) -> dict[str, float] | None:
    return {name: round(seconds, 3) for name, seconds in asdict(found).items()} if found else None
