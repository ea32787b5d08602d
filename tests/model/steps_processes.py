"""Steps: what ends and begins anew: workers, supervisors, both."""

from __future__ import annotations

import asyncio
import functools
import random

from tests.model.clock import CLOCK
from tests.model.peers import Backend, asks
from tests.model.processes import inside
from tests.model.reference import Knowledge
from tests.model.rules import ORPHAN_BOUND, rule
from tests.model.steps_orders import background, order
from tests.model.world import World

#: Seconds that requests may go on in a worker that ends by itself.
OWN_DRAIN = 60.0
#: Seconds within which a worker ends whose lb was upgraded: its drain, and some more.
UPGRADED_DRAIN = 10.0
#: Turns of the loop within which most upgrades are over.
TURNS_OF_AN_UPGRADE = 600
#: Seconds within which what is known is on the disk.
REMEMBERED = 2.5


def after_restart(world: World, gap: float, unseen: bool = False, begun: bool = False) -> None:
    """What lb need not know any more; and what counts the same probes again begins anew. With `begun`, it has counted
    since its start: its first probes may be over before it serves."""
    for address, known in world.knowledge.items():
        plan = next((s for s in world.plan.services.values() if s.pool_of(address)), None)
        stable = CLOCK.now - known.since > REMEMBERED + gap
        turned = unseen and any(has_turned(backend, known) for backend in world.backends_of(address))
        if plan is None or not stable or turned or gap > 0.4 * plan.interval:
            if unseen:
                known.unseen()
            else:
                known.doubtful()
        elif not begun:
            known.streak = 0 if known.ready is None else 1 if known.ready else -1
        entered = world.entered.get(address)
        if entered is not None and entered > CLOCK.now - REMEMBERED - gap:
            world.entered[address] = None
    # No supervisor saw those end that ended meanwhile.
    world.ejected = {address: until for address, until in world.ejected.items() if until > CLOCK.now}
    world.counted_exactly = False
    world.standing.restarted()
    world.on_change()


def has_turned(backend: Backend, known: Knowledge) -> bool:
    """Whether the next probe's answer is another one than the last that was counted."""
    passes = backend.up and backend.ready == "pass"
    return passes != known.ready or (passes and asks(backend.words) != (known.share, known.asks_drain))


@rule(4, "kill")
async def step_kill_worker(world: World, dice: random.Random) -> str:
    living = [process for process in world.processes.living("worker") if process.body is not None]
    if not living:
        return "none"
    await background(world, dice)
    await asyncio.sleep(dice.choice((0.0, 0.1)))
    process = dice.choice(living)
    world.excuse("worker")
    world.workers_hurt = CLOCK.now
    world.counted_exactly = False
    process.end(-9)
    await world.settle()
    return ""


@rule(2, "kill")
async def step_fail_install(world: World, dice: random.Random) -> str:
    """One worker cannot install what it is told next; perhaps new workers cannot install their first snapshot, too."""
    living = world.processes.living("worker")
    if not living:
        return "none"
    process = dice.choice(living)
    process.fail_installs = 1
    world.processes.fail_first_installs = dice.choice((0, 0, 1, 2))
    if dice.random() < 0.5:
        return "at the next reload"
    await background(world, dice)
    world.counted_exactly = False
    supervisor = world.supervisor
    inside(supervisor.process, supervisor.installation.use_new_tls)
    await world.settle()
    return "now"


@rule(2, "restart")
async def step_kill_supervisor(world: World, dice: random.Random) -> str:
    """kill -9; the workers serve on until the next one comes."""
    await background(world, dice)
    world.kill_supervisor()
    gap = dice.choice((0.0, 0.3, 4.0))
    await asyncio.sleep(gap)
    await background(world, dice)
    await world.settle()
    after_restart(world, gap)
    await world.start()
    after_restart(world, gap, begun=True)
    return f"{gap:g} s"


@rule(1, "restart")
async def step_supervisor_gone_for_long(world: World, dice: random.Random) -> str:
    """kill -9, and nobody starts lb again: the workers serve on for a bounded time, then end."""
    world.kill_supervisor()
    before = world.processes.living("worker")
    await asyncio.sleep(dice.choice((0.3, 0.8)) * ORPHAN_BOUND)
    if before and not world.processes.living("worker"):
        world.violate("3 served", "workers ended before their bound for the time without a supervisor")
    await background(world, dice)
    world.excuse("restart")
    await asyncio.sleep(ORPHAN_BOUND + OWN_DRAIN + 1.0)
    left = world.processes.living("worker")
    if left:
        world.violate("6 nothing is left", f"{len(left)} workers serve long after their supervisor is gone")
    after_restart(world, 2 * ORPHAN_BOUND + OWN_DRAIN)
    await world.start()
    after_restart(world, 2 * ORPHAN_BOUND + OWN_DRAIN)
    return ""


@rule(2, "restart")
async def step_restart(world: World, dice: random.Random) -> str:
    """SIGTERM, and a new start."""
    await background(world, dice)
    process = world.supervising
    assert process is not None
    world.excuse("restart")
    process.send_signal(15)
    await asyncio.wait_for(process.wait(), 60.0)
    world.supervisor = world.supervising = None
    await asyncio.sleep(0.5)
    after_restart(world, 7.0)
    await world.start()
    after_restart(world, 7.0)
    return ""


@rule(2, "restart")
async def step_upgrade(world: World, dice: random.Random) -> str:
    await background(world, dice)
    # Noted before requests that ended meanwhile are judged: the new lb may have served them by its own checks.
    note = functools.partial(after_restart, world, 0.0, unseen=True)
    answer = await order(world, world.supervisor.operations.upgrade(30.0, "model"), note)
    await world.settle()
    after_restart(world, 0.0, unseen=True)
    if isinstance(answer, Exception):
        return f"refused: {answer}"
    await asyncio.sleep(0.1)
    return "done"


@rule(2, "restart")
async def step_stop_within_an_upgrade(world: World, dice: random.Random) -> str:
    """SIGUSR2, and SIGTERM at any moment of what it begins: neither lb is left, nor a worker of either."""
    await background(world, dice)
    old, ejected = world.supervising, set(world.ejected)
    assert old is not None
    world.excuse("restart")
    old.send_signal(12)
    turns = dice.randrange(TURNS_OF_AN_UPGRADE)
    for _ in range(turns):
        await asyncio.sleep(0)
    who = old if old.returncode is None else world.supervising
    assert who is not None
    who.send_signal(15)
    until = CLOCK.now + 60.0
    while world.processes.living("supervisor") and CLOCK.now < until:  # noqa: ASYNC110 - two processes end
        await asyncio.sleep(0.1)
    # A worker of an upgrade before this one drains by itself, and the newest lb may not have heard of it in time.
    until = CLOCK.now + UPGRADED_DRAIN
    while world.processes.living("worker") and CLOCK.now < until:  # noqa: ASYNC110 - several processes end
        await asyncio.sleep(0.1)
    left = world.processes.living("supervisor") + world.processes.living("worker")
    if left:
        world.violate("6 nothing is left", f"{[each.kind for each in left]} after a stop {turns} turns into an upgrade")
    world.supervisor = world.supervising = None
    await asyncio.sleep(0.5)
    after_restart(world, 7.0)
    await world.start()
    for address in world.ejected.keys() - ejected:
        del world.ejected[address]  # the old lb ejected it, and the new one ended before it heard of that
        world.knowledge[address].doubtful()
    after_restart(world, 7.0)
    return f"after {turns} turns"


@rule(1, "restart")
async def step_upgrade_fails(world: World, dice: random.Random) -> str:
    """A new version that cannot start, or whose workers die: the lb that runs goes on as if nothing had been."""
    await background(world, dice)
    processes = world.processes
    processes.fail_starts, processes.dead_on_arrival = dice.choice(((1, 0), (0, 100)))
    answer = await order(world, world.supervisor.operations.upgrade(30.0, "model"))
    processes.fail_starts = processes.dead_on_arrival = 0
    await world.settle()
    if not isinstance(answer, Exception):
        world.violate("order", "a new lb whose workers die has taken over")
    await world.client(fresh=True)  # raises a violation when nobody listens any more
    return f"refused: {answer}"
