"""Runs: one seed is one run in a process of its own, and a run is a list of steps that the seed decides.

Each step has dice of its own, so that leaving steps out changes no other one: a violation is shortened by leaving out
what it does not need.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import fcntl
import json
import os
import random
import resource
import select
import signal
import socket
import struct
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, field

from tests.model.clock import CLOCK, Circles, Dice, Loop, collect

CLONE_NEWNS, CLONE_NEWUSER, CLONE_NEWNET = 0x00020000, 0x10000000, 0x40000000
MS_BIND, MS_REC, MS_PRIVATE = 0x1000, 0x4000, 0x40000
SIOCSIFFLAGS, IFF_UP = 0x8914, 1
#: Steps between two collections of garbage.
COLLECTED = 50
#: Seconds of processor time that one run may take. They are many times what one takes, as a busy machine's do less.
RUN_LIMIT = 600


@dataclass
class Result:
    """What became of a run."""

    seed: int
    steps: int = 0
    invariant: str = ""
    text: str = ""
    told: list[str] = field(default_factory=list)  # the steps, as far as they went
    taken: list[int] = field(default_factory=list)  # their numbers
    requests: int = 0  # that were judged
    certain: int = 0  # of them those that had to be served

    @property
    def ok(self) -> bool:
        return not self.invariant


#: Takes the steps of a seed; the last argument: tell each one.
Run = Callable[[int, Iterable[int], bool], Result]


def run(seed: int, numbers: Iterable[int], verbose: bool = False) -> Result:
    """Take the steps with these numbers; to be called in a process of its own."""
    from tests.model import rules
    from tests.model.world import Violation, World

    result = Result(seed)
    Dice.source = Dice(seed)
    random.seed(seed)
    rng = Dice(f"{seed}/world")
    loop = Loop(Dice(f"{seed}/loop"))
    asyncio.set_event_loop(loop)
    world = World(rng, loop, prefix_of(seed))
    world.seed = seed
    world.processes.install()
    socket.getaddrinfo = world.resolve
    number = -1

    async def body() -> None:
        nonlocal number
        await rules.begin(world)
        for number in numbers:
            dice = Dice(f"{seed}/{number}")
            rule = rules.choose(world, dice)
            result.taken.append(number)
            result.told.append(rule.__name__.removeprefix("step_"))
            if verbose:
                print(f"  {CLOCK.now:9.3f} {number:4d} {rule.__name__}", flush=True)
            said = await rules.take(world, rule, dice)
            if said:
                result.told[-1] += f": {said}"
            if verbose:
                print(f"                {said}", flush=True)
            result.steps += 1
            if not result.steps % COLLECTED:
                collect()
        await rules.end(world)

    try:
        loop.run_until_complete(body())
    except Violation as violation:
        result.invariant, result.text = violation.invariant, violation.text
    except Circles as circles:
        result.invariant, result.text = "no circles", str(circles)
    except Exception:
        result.invariant, result.text = "model", traceback.format_exc()
    finally:
        world.close()
    return result


def prefix_of(seed: int) -> str:
    """The first three numbers of the targets' addresses: a loopback network of the run's own.

    In a network namespace it is alone. Where the kernel allows none, runs of the same seed at the same time must not
    meet: each takes the first network that no other one has.
    """
    wanted = [f"127.{1 + number // 250 % 250}.{number % 250}" for number in range(seed, seed + 60_000, 613)]
    if own_network():
        return wanted[0]
    for prefix in wanted:
        with contextlib.suppress(OSError):
            guard = socket.socket()
            guard.bind((f"{prefix}.254", 8001))
            guards.append(guard)
            return prefix
    raise RuntimeError("there is no free loopback network")


#: Held until the process ends.
guards: list[socket.socket] = []


def own_network() -> bool:
    """Move this process to a network namespace of its own (unshare(2)); False where that is not allowed."""
    libc = ctypes.CDLL(None)
    if libc.unshare(CLONE_NEWNET) and libc.unshare(CLONE_NEWUSER | CLONE_NEWNET):
        return False
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        try:
            fcntl.ioctl(sock, SIOCSIFFLAGS, struct.pack("16sH14x", b"lo", IFF_UP))
        except OSError:
            return False
    return True


def own_hosts(path: str) -> bool:
    """From now on this file is /etc/hosts for this process and its children; False where that is not allowed."""
    libc = ctypes.CDLL(None)
    if libc.unshare(CLONE_NEWNS):
        return False
    if libc.mount(b"none", b"/", None, MS_REC | MS_PRIVATE, None):
        return False
    return not libc.mount(path.encode(), b"/etc/hosts", None, MS_BIND, None)


def forked(call: Callable[[], Result]) -> tuple[int, int]:
    """Start a run in a child; returns its process id, and the descriptor where its result will come."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid:
        os.close(writing)
        return pid, reading
    code = 1
    try:
        os.close(reading)
        resource.setrlimit(resource.RLIMIT_CPU, (RUN_LIMIT, RUN_LIMIT + 5))
        data = json.dumps(asdict(call())).encode()
        while data:
            data = data[os.write(writing, data) :]
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    raise AssertionError


def one(seed: int, numbers: Iterable[int], verbose: bool = False) -> Result:
    """A run in a child, waited for."""
    return next(all_of([(seed, list(numbers))], 1, verbose))


def all_of(
    wanted: Iterable[tuple[int, list[int]]], jobs: int, verbose: bool = False, run: Run = run
) -> Iterator[Result]:
    """The results of many runs, `jobs` at a time, as they end."""
    queue = iter(wanted)
    running: dict[int, tuple[int, int, bytes]] = {}
    while True:
        while len(running) < jobs:
            following = next(queue, None)
            if following is None:
                break
            seed, numbers = following
            pid, reading = forked(lambda seed=seed, numbers=numbers: run(seed, numbers, verbose))  # type: ignore[misc]
            running[reading] = (pid, seed, b"")
        if not running:
            return
        ready, _, _ = select.select(list(running), [], [])
        for reading in ready:
            pid, seed, data = running[reading]
            more = os.read(reading, 1 << 20)
            if more:
                running[reading] = (pid, seed, data + more)
                continue
            del running[reading]
            os.close(reading)
            _, status = os.waitpid(pid, 0)
            if data:
                yield Result(**json.loads(data))
            else:
                what = f"the run ended with status {status}"
                if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGXCPU:
                    what = f"the run took more than {RUN_LIMIT} s"
                yield Result(seed, invariant="no end", text=what)


def shortened(result: Result, budget: int = 60, jobs: int = 2) -> Result:
    """The same violation with fewer steps: halves, quarters and so on are left out while it stays."""
    best = result
    size = max(1, len(best.taken) // 2)
    while size and budget > 0:
        position, changed = len(best.taken) - size, False
        position = max(0, position)
        while position >= 0 and budget > 0:
            fewer = best.taken[:position] + best.taken[position + size :]
            if not fewer and size > 1:
                break
            budget -= 1
            found = one(best.seed, fewer)
            if found.invariant == best.invariant and len(found.taken) < len(best.taken):
                best, changed = found, True
            position -= size
        if size == 1 and not changed:
            break
        size = size // 2 if size > 1 or not changed else 1
    return best
