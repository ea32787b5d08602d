"""Virtual time: a clock that moves only when nothing is left to do, and an event loop that lives by it.

`install` has to come before anything of `lb` is imported, because its modules take `monotonic` by name. From then on
`time.monotonic`, `time.time` and the loop agree. All sockets are real: the kernel delivers on one machine at once, so
that a look at the selector that finds nothing means that nothing is under way. Then the clock moves to the next timer.

What a program would leave to a thread is done at once, but for the few calls that wait for another part of the same
loop (`WAITING`): those get a thread, and the clock stands still until they are over. The thread and the loop take turns
(`Aside`), so that the machine decides nothing. What writes to the disk (`SLOW`) is done at once as well, but the loop
hears of it later: other things happen meanwhile.
"""

from __future__ import annotations

import asyncio
import functools
import gc
import random
import selectors
import socket
import threading
import time
from collections.abc import Callable
from typing import Any

#: Names of functions that wait for an answer of this very loop.
WAITING = frozenset({"find_workers"})
#: Turns after which a call of such a thread has waited for too long.
PATIENCE = 1000
#: Names of functions that flush to the disk, and the seconds that it takes; a step may make the disk slow.
SLOW, LASTING, SLOW_DISK = frozenset({"save"}), (0.0, 0.001, 0.02, 0.3), (0.3, 0.6)
#: Looks at the selector within one moment of virtual time from which on the loop is taken to run in circles.
CIRCLES = 100_000
#: Unix time at the start: any, but always the same.
EPOCH = 1_800_000_000.0

_real_select = selectors.EpollSelector.select
#: The real ones, for moments that are the same in each run; by itself nothing is collected.
collect, freeze = gc.collect, gc.freeze


class Clock:
    """The time of one run."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now

    def time(self) -> float:
        return EPOCH + self.now

    def time_ns(self) -> int:
        # Two starts at the same moment are two all the same.
        self.ticks = getattr(self, "ticks", 0) + 1
        return int((EPOCH + self.now) * 1e9) + self.ticks


CLOCK = Clock()


class SystemClock(Clock):
    """The system's time, for runs against real processes."""

    @property
    def now(self) -> float:  # type: ignore[override]
        return time.monotonic()


def follow_the_system() -> None:
    """From now on the model's clock is the system's; instead of `install`."""
    CLOCK.__class__ = SystemClock


class Dice(random.Random):
    """`random.Random` whose seed is drawn from the run's own, where a program would take one from the system."""

    source = random.Random(0)

    def __new__(cls, *args: Any) -> Dice:
        return super().__new__(cls)

    def __init__(self, seed: Any = None) -> None:
        super().__init__(Dice.source.getrandbits(64) if seed is None else seed)


def install() -> None:
    """Replace the clock and the dice of this process."""
    time.monotonic = CLOCK.monotonic
    time.time = CLOCK.time
    time.time_ns = CLOCK.time_ns
    random.Random = Dice  # type: ignore[assignment, misc]
    gc.disable()
    gc.enable = lambda: None
    gc.freeze = lambda: None
    gc.collect = lambda generation=2: 0
    gc.set_threshold = lambda *numbers: None


class Aside:
    """A call in a thread. It runs as the loop looks at the selector, until it is over or has to wait for the loop."""

    here = threading.local()  # `.aside` is that of the thread

    def __init__(self, call: Callable[[Aside], None]) -> None:
        self._call = call
        self._turn, self._over = threading.Semaphore(0), threading.Semaphore(0)
        threading.Thread(target=self._run, daemon=True).start()

    def go_on(self) -> None:
        """Let the thread have its turn; returns when that is over."""
        self._turn.release()
        self._over.acquire()

    def _run(self) -> None:
        Aside.here.aside = self
        self._turn.acquire()
        self._call(self)
        self._over.release()

    def waited(self, sock: socket.socket, call: Callable[..., Any], *args: Any) -> Any:
        """Call a method of a socket that may block. Raises TimeoutError as the socket would."""
        timeout = sock.gettimeout()
        sock.setblocking(False)
        try:
            for _ in range(PATIENCE):
                try:
                    return call(sock, *args)
                except BlockingIOError:
                    self._over.release()
                    self._turn.acquire()
            raise TimeoutError("timed out")
        finally:
            sock.settimeout(timeout)


def waited(sock: socket.socket, call: Callable[..., Any], *args: Any) -> Any:
    """`call`, a method of a socket; in a thread aside its waits give the turn to the loop."""
    aside = getattr(Aside.here, "aside", None)
    return call(sock, *args) if aside is None else aside.waited(sock, call, *args)


class Circles(Exception):  # noqa: N818 - it says what happened
    """The loop does not come to rest."""


class Selector(selectors.EpollSelector):
    """Looks without waiting; moves the clock when there is nothing to see. Which socket comes first is a matter of the
    dice, since the kernel promises no order."""

    def __init__(self, rng: random.Random) -> None:
        super().__init__()
        self.rng = rng
        self.asides: list[Aside] = []
        self.looks = 0

    def select(self, timeout: float | None = None) -> list[Any]:
        for aside in list(self.asides):
            aside.go_on()
        ready = _real_select(self, 0)
        if ready:
            if len(ready) > 1:
                ready.sort(key=lambda found: found[0].fd)
                self.rng.shuffle(ready)
        elif timeout != 0 and not self.asides:
            if timeout is None:
                raise Circles("nothing is left to wait for")
            CLOCK.now += timeout
            self.looks = 0
            return ready
        self.looks += 1
        if self.looks > CIRCLES:
            raise Circles(f"{CIRCLES} turns of the loop at one moment")
        return ready


class Loop(asyncio.SelectorEventLoop):
    """The event loop of all processes of a run. `current` names the one that a callback belongs to."""

    def __init__(self, rng: random.Random) -> None:
        self.looking = Selector(rng)
        self.lasting = LASTING
        super().__init__(self.looking)
        self.on_signal_handler: Callable[[int, Callable[[], object]], None] = lambda number, handler: None

    def run_in_executor(  # type: ignore[override]
        self, executor: Any, func: Callable[..., Any], *args: Any
    ) -> asyncio.Future[Any]:
        future: asyncio.Future[Any] = self.create_future()
        if _name(func) in WAITING:
            self.looking.asides.append(Aside(functools.partial(self._aside, future, func, args)))
        elif _name(func) in SLOW:
            done: asyncio.Future[Any] = self.create_future()
            _carry_out(done, func, args)
            self.call_later(self.looking.rng.choice(self.lasting), _pass_on, done, future)
        else:
            _carry_out(future, func, args)
        return future

    def _aside(self, future: asyncio.Future[Any], func: Callable[..., Any], args: Any, aside: Aside) -> None:
        found: Any = None
        wrong: Exception | None = None
        try:
            found = func(*args)
        except Exception as error:
            wrong = error
        self.call_soon_threadsafe(self._back, future, found, wrong)
        self.looking.asides.remove(aside)

    def _back(self, future: asyncio.Future[Any], found: Any, wrong: Exception | None) -> None:
        if future.done():
            return
        if wrong is not None:
            future.set_exception(wrong)
        else:
            future.set_result(found)

    def set_exception_handler(self, handler: Any) -> None:
        """The first one, the model's, stays: what no process has caught is a violation."""
        if self._exception_handler is None:  # type: ignore[has-type]
            super().set_exception_handler(handler)

    def add_signal_handler(  # type: ignore[override]
        self, sig: int, callback: Callable[..., object], *args: Any
    ) -> None:
        self.on_signal_handler(sig, functools.partial(callback, *args))

    def remove_signal_handler(self, sig: int) -> bool:
        return True


def _name(func: Any) -> str:
    while isinstance(func, functools.partial):
        func = func.args[0] if func.args else func.func
    return getattr(func, "__name__", "")


def _carry_out(future: asyncio.Future[Any], func: Callable[..., Any], args: Any) -> None:
    try:
        future.set_result(func(*args))
    except Exception as error:
        future.set_exception(error)


def _pass_on(done: asyncio.Future[Any], future: asyncio.Future[Any]) -> None:
    error = done.exception()
    if future.done():
        return
    if error is not None:
        future.set_exception(error)
    else:
        future.set_result(done.result())
