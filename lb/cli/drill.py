"""`lb drill`: break fake targets under load behind this configuration, and hold what happens against what it promises.

A second lb is started on ports of its own, with this file's settings and fake targets, one copy of the service for
each fault. Steady load runs against a copy, its busiest target breaks, and three things are measured: how many
requests failed, when the target was out of rotation, when it was back after it was well again. Promised is what
`lb check` prints: the worst-case detection time. Also promised: once a target is out, nothing fails any more, and where
a request may be repeated and there is another target, a refused connection is never the client's problem.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import click
import yaml

from lb.cli.client import json_option
from lb.cli.failure import Failure
from lb.cli.stage import Load, Stage, free_port, running
from lb.cli.terminal import Ink, colours, span
from lb.cli.verdicts import Result, judge, report
from lb.config.load import load, load_text
from lb.config.model.config import Config
from lb.config.resolve import resolve
from lb.config.yaml.problems import ConfigError
from lb.core.detection import promised
from lb.demo.faults import FAULTS, FakeTarget
from lb.demo.rehearsal import SILENT, Rehearsal, copy_name, document, passing, rehearse, signature

#: Seconds of load before a target breaks, and after it was found out.
CALM = 1.0
#: Seconds that one which was ejected by its requests stays out (Envoy's default), and a little.
EJECTED = 35.0


def _faults(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    return [fault for fault in FAULTS if fault.startswith(incomplete)]


@click.command(
    epilog="""\b
Examples:
  lb drill                        every fault, for each kind of service
  lb drill --fault lies --service greeting
  lb drill --json > drill.json    in CI: exit code 1 if a promise was broken

Your targets are not touched: everything happens on loopback, beside whatever
runs. It takes about ten seconds for each fault with the default checks."""
)
@click.argument("file", default="backends.yaml", type=click.Path(dir_okay=False))
@click.option("--service", "only", metavar="NAME", help="This service only.")
@click.option(
    "--fault",
    "faults",
    multiple=True,
    metavar="FAULT",
    shell_complete=_faults,
    help="This fault only; may be repeated.",
)
@click.option("--rate", default=100, type=click.IntRange(10, 2000), show_default=True, help="Requests per second.")
@json_option
def drill(file: str, only: str | None, faults: tuple[str, ...], rate: int, as_json: bool) -> None:
    """Break fake targets under load; see what gets through.

    Faults: refuse, reset, hang, slow, errors, lies, half-open, flap. For each:
    requests that failed, when the target was out of rotation against the worst
    case that `lb check` prints, and when it was back. Exit code 1 if it was
    worse than promised.
    """
    for fault in faults:
        if fault not in FAULTS:
            raise click.UsageError(f"there is no fault {fault!r}; there are {', '.join(FAULTS)}")
    try:
        config = load(Path(file))
    except ConfigError as error:
        raise Failure(f"{file} is not valid:\n{error}") from None
    if only is not None and only not in config.services:
        raise Failure(f"there is no service {only!r} in {file}. There are: {', '.join(config.services)}")
    say = (lambda _: None) if as_json else (lambda text: click.echo(text, err=True))
    results = asyncio.run(run_drill(config, only, faults or FAULTS, rate, say))
    if as_json:
        click.echo(json.dumps([asdict(result) for result in results], indent=2))
    else:
        click.echo("\n".join(report(results, Ink(colours()))))
    if any(result.broken_promises for result in results):
        raise SystemExit(1)


async def run_drill(
    config: Config, only: str | None, faults: tuple[str, ...], rate: int, say: Callable[[str], object]
) -> list[Result]:
    """All faults for all services that differ; `say` gets a line for what is under way."""
    chosen: dict[str, Rehearsal] = {}
    seen: dict[str, str] = {}
    for name in [only] if only is not None else config.services:
        rehearsal = rehearse(config, name)
        like = seen.setdefault(signature(rehearsal), name)
        if like != name:
            say(f"{name}: the same settings as {like}; one drill is enough.")
            continue
        chosen[name] = rehearsal
        for note in rehearsal.notes:
            say(f"{name}: {note}.")
    count = len(chosen) * len(faults)
    say(f"{count} fault{'s' * (count != 1)}, {rate} requests per second.")

    copies = {copy_name(name, fault): (rehearsal, fault) for name, rehearsal in chosen.items() for fault in faults}
    results: list[Result] = []
    returning: list[Return] = []
    with tempfile.TemporaryDirectory(prefix="lb-drill-") as folder:
        async with contextlib.AsyncExitStack() as stack:
            targets: dict[str, list[FakeTarget]] = {}
            for copy, (rehearsal, _) in copies.items():
                targets[copy] = await open_targets(rehearsal, config, stack)
            port = free_port()
            file = Path(folder) / "backends.yaml"
            addresses = {
                copy: (rehearsal, [target.address for target in targets[copy]])
                for copy, (rehearsal, _) in copies.items()
            }
            file.write_text(yaml.safe_dump(document(addresses, config, port, str(Path(folder) / "state"))))
            stage = await stack.enter_async_context(running(file, port))
            for number, (copy, (rehearsal, fault)) in enumerate(copies.items(), 1):
                say(f"  {number} of {len(copies)}  {rehearsal.service}: {fault}")
                result, returns = await one_fault(stage, copy, rehearsal, fault, targets[copy], rate)
                results.append(result)
                returning += returns
            if returning:
                say("  waiting for the last targets to return")
            for back in returning:
                await back.wait(stage)
    return results


@dataclass(frozen=True, slots=True)
class Return:
    """A target that is well again and has to come back into rotation."""

    target: str
    result: Result
    mended_at: float
    bound: float  # seconds

    async def wait(self, stage: Stage) -> None:
        left = self.mended_at + self.bound - time.monotonic()
        if await stage.until(lambda: stage.serving(self.target), max(0.1, left)):
            self.result.back_after = max(0.0, stage.entered_at[self.target] - self.mended_at)
        else:
            self.result.broken_promises.append(f"not back {span(self.bound)} after it was well again")


async def open_targets(rehearsal: Rehearsal, config: Config, stack: contextlib.AsyncExitStack) -> list[FakeTarget]:
    trial = document(
        {"trial": (rehearsal, [f"127.0.0.1:{port}" for port in range(1, len(rehearsal.weights) + 1)])}, config, 0, ".lb"
    )
    world = resolve(load_text(yaml.safe_dump(trial), "the rehearsal"), 1)
    spec = next(iter(world.checks.values())).readiness
    found = []
    for _ in rehearsal.weights:
        target = FakeTarget(spec.path, *passing(spec))
        target.spec = spec
        target.slowness = 2 * spec.timeout
        await target.start()
        stack.push_async_callback(target.close)
        found.append(target)
    return found


async def one_fault(
    stage: Stage, copy: str, rehearsal: Rehearsal, fault: str, targets: list[FakeTarget], rate: int
) -> tuple[Result, list[Return]]:
    """Load, break, measure, mend."""
    spec = targets[0].spec
    result = Result(rehearsal.service, fault)
    outlier = (rehearsal.model.get("outlier") or {}).get("enabled", True)
    result.noticed_by = rehearsal.sees(fault, outlier)
    if result.noticed_by == "probe" and fault != "flap":
        result.undoubted = promised(spec)
        result.promised = promised(spec, rehearsal.patience if fault in SILENT else 0.0)
    ids = {f"{copy}/drill/{target.address}": target for target in targets}
    if not await stage.until(
        lambda: all(stage.serving(known) for known in ids), 20.0 + 2 * spec.interval + spec.timeout
    ):
        raise Failure(f"{copy}: the fake targets were not taken for ready; states: {stage.states}")
    load = Load(stage.session, f"http://{stage.listener}/drill", f"{copy}.drill", rate)
    load.start()
    await asyncio.sleep(CALM)
    # The busiest one: with hashing, all requests of one client may go to one target.
    victim_id, victim = max(ids.items(), key=lambda known: known[1].requests)
    broken_at = time.monotonic()
    await victim.become(fault)
    # A little longer than promised, so that what is late is seen to be late.
    bound = 15.0 if result.noticed_by else 3.0
    if result.noticed_by == "probe":
        bound = promised(spec, rehearsal.patience if fault in SILENT else 0.0) + 5.0
    found = await stage.until(lambda: stage.left_at.get(victim_id, 0.0) > broken_at, bound)
    out_at = stage.left_at[victim_id] if found else float("inf")
    await asyncio.sleep(CALM)
    mended_at = time.monotonic()
    await victim.mend()
    await load.stop()
    judge(result, load, broken_at, out_at, rehearsal)
    if not found:
        return result, []
    bound = EJECTED + (spec.rise + 1) * (spec.interval + spec.timeout)
    return result, [Return(victim_id, result, mended_at, bound)]
