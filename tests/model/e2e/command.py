"""The command line of the end-to-end model, and how one seed is run."""

from __future__ import annotations

import argparse
import asyncio
import itertools
import os
import random
import sys
import time
import traceback
from collections.abc import Iterable, Iterator

from tests.model import clock, driver
from tests.model.driver import Result
from tests.model.e2e import look, steps
from tests.model.e2e.world import RealWorld
from tests.model.world import Violation


def run(seed: int, seconds: float, verbose: bool, leave_out: Iterable[str] = ()) -> Result:
    """One seed, for so many seconds of steps; to be called in a process of its own."""
    clock.follow_the_system()
    result = Result(seed)
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    rng = random.Random(f"{seed}/world")
    world = RealWorld(rng, loop, driver.prefix_of(seed))
    result.told = world.told
    themes = {theme for theme, often in steps.THEMES.items() if rng.random() * 100 < often} - set(leave_out)
    world.themes = themes & {"http2"}  # what the model's own steps ask for
    out = set(leave_out)
    chosen = [
        (weight, step)
        for weight, theme, step in steps.STEPS
        if theme in themes and step.__name__.removeprefix("step_") not in out
    ]

    async def body() -> None:
        await steps.begin(world)
        world.note(f"begun: {', '.join(sorted(themes))}; {world.plan.services['app'].settings}")
        at_first = await look.base(world)
        going = asyncio.ensure_future(steps.traffic(world, random.Random(f"{seed}/traffic")))
        until = clock.CLOCK.now + seconds
        try:
            for number in itertools.count():
                if clock.CLOCK.now > until:
                    break
                dice = random.Random(f"{seed}/{number}")
                step = dice.choices([step for _, step in chosen], [weight for weight, _ in chosen])[0]
                name = step.__name__.removeprefix("step_")
                world.note(f"{number} {name} …")
                said = await step(world, dice)
                world.note(f"{number} {name}: {said}")
                result.steps += 1
                world.program.reap()
                world.check()
        finally:
            going.cancel()
        await look.rest(world, at_first)
        world.check()

    try:
        loop.run_until_complete(body())
    except Violation as violation:
        result.invariant, result.text = violation.invariant, violation.text
        loop.run_until_complete(_tell_events(world))
    except Exception:
        result.invariant, result.text = "model", traceback.format_exc()
    finally:
        if result.invariant and world.file.with_suffix(".log").exists():
            result.text += f"\n--- log of lb\n{world.program.tail()}"
        world.close()
    result.requests, result.certain = world.judged, world.certain
    if verbose:
        print("\n".join(world.told), flush=True)
    if world.lateness:
        result.text += f" (the driver was late by up to {world.lateness:.2f} s)" if result.invariant else ""
    return result


async def _tell_events(world: RealWorld) -> None:
    """Add what lb says of the last while."""
    said = await world.admin("GET", f"/api/v1/events?since={time.time() - 8.0:.3f}", within=5.0)
    for event in said.body if said.ok else ():
        at = clock.CLOCK.now - time.time() + event["at"]
        world.told.append(f"{at:10.3f} lb: {event['kind']} {event['subject']}: {event['text']}")


def main() -> None:
    """Run, tell, and exit with 1 where something was found."""
    parser = argparse.ArgumentParser(prog="python -m tests.model.e2e", description=__doc__)
    parser.add_argument("--minutes", type=float, default=5.0, help="how long to begin new seeds (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=60.0, help="steps of each seed (default: %(default)s)")
    parser.add_argument("--seed", type=int, help="this one alone")
    parser.add_argument("--first", type=int, default=1, help="the first seed (default: %(default)s)")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--stop", action="store_true", help="stop at the first violation")
    parser.add_argument("--without", default="", help="themes and steps to leave out, such as restart,kill_worker")
    parser.add_argument("--lines", type=int, default=30, help="steps that a violation prints (default: %(default)s)")
    parser.add_argument("-v", "--verbose", action="store_true", help="tell each step")
    wanted = parser.parse_args()
    began = time.monotonic()

    def seeds() -> Iterator[tuple[int, list[int]]]:
        if wanted.seed is not None:
            yield wanted.seed, []
            return
        for seed in itertools.count(wanted.first):
            if time.monotonic() > began + wanted.minutes * 60:
                return
            yield seed, []

    def one(seed: int, numbers: Iterable[int], verbose: bool) -> Result:
        return run(seed, wanted.seconds, verbose, wanted.without.split(","))

    found = taken = runs = requests = certain = 0
    for result in driver.all_of(seeds(), wanted.jobs, wanted.verbose, one):
        runs += 1
        taken += result.steps
        requests += result.requests
        certain += result.certain
        if result.ok:
            continue
        found += 1
        print(f"seed {result.seed}, step {result.steps}: {result.invariant}: {result.text}", flush=True)
        print(f"again: python -m tests.model.e2e --seed {result.seed} --seconds {wanted.seconds:g}")
        for line in result.told[-wanted.lines :]:
            print(f"  {line}")
        sys.stdout.flush()
        if wanted.stop:
            break
    print(f"{requests} requests, {certain} of them with no excuse", flush=True)
    print(f"{taken} steps, {runs} seeds, {found} violations", flush=True)
    sys.stdout.flush()
    os._exit(1 if found else 0)
