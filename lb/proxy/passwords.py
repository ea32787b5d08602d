"""Passwords: checks passwords against slow hashes, off the loop, a bounded number at once.

A check that waits is bounded in number, in all and for one client address, so that nobody who tries passwords takes all
of the room. A result is kept for a moment under a keyed hash of everything that it follows from: user, password and
stored hash. So a client that repeats its password costs one slow hash, and a changed file is in force at once.
"""

from __future__ import annotations

import hashlib
import secrets
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from time import monotonic
from typing import TYPE_CHECKING, Final, Protocol

from lb.net.threads import threads

if TYPE_CHECKING:
    import asyncio

#: Hashes that are computed at once.
AT_ONCE: Final = 2
#: Checks that may wait, in all and for one client address.
MOST_WAITING = 64
MOST_OF_ONE: Final = 8
#: Seconds that a right password is taken as right, and a wrong one as wrong.
RIGHT_FOR = 60.0
WRONG_FOR = 10.0
#: Results that are kept; the oldest goes first.
MOST_KEPT = 10_000
#: bcrypt reads so many bytes of a password, as htpasswd does.
_BCRYPT_LENGTH: Final = 72


class Waiting(Protocol):
    """A request that waits for a result."""

    @property
    def peer(self) -> bytes: ...

    def decided(self, right: bool) -> None: ...


class _Check:
    """One password that is checked, for all requests that have shown it meanwhile."""

    __slots__ = ("key", "password", "peer", "stored", "waiting")

    def __init__(self, key: bytes, password: bytes, stored: bytes, peer: bytes) -> None:
        self.key = key
        self.password = password
        self.stored = stored
        self.peer = peer
        self.waiting: list[Waiting] = []


class Passwords:
    """The checks of one worker. `verify` is the slow function; it runs in threads."""

    def __init__(self, loop: asyncio.AbstractEventLoop, verify: Callable[[bytes, bytes], bool] | None = None) -> None:
        self._loop = loop
        self._verify = verify or matches
        self._secret = secrets.token_bytes(32)
        self._threads: ThreadPoolExecutor | None = None
        self._results: dict[bytes, tuple[bool, float]] = {}  # by key: (right, until when)
        self._checks: dict[bytes, _Check] = {}  # by key
        self._queue: deque[_Check] = deque()
        self._running = 0
        self._of_peer: dict[bytes, int] = {}
        self.computed = 0  # hashes so far

    def key_of(self, user: bytes, password: bytes, stored: bytes) -> bytes:
        """What a result is kept under. The length of each part is in it, so that no other parts give the same."""
        text = b"%d:%b%d:%b%b" % (len(user), user, len(password), password, stored)
        return hashlib.blake2b(text, key=self._secret, digest_size=32).digest()

    def known(self, key: bytes) -> bool | None:
        """The result that is kept; None: there is none."""
        result = self._results.get(key)
        if result is None:
            return None
        if result[1] <= monotonic():
            del self._results[key]
            return None
        return result[0]

    def check(self, key: bytes, password: bytes, stored: bytes, waiting: Waiting) -> bool:
        """Have `waiting.decided` called later. False: too many wait."""
        check = self._checks.get(key)
        peer = waiting.peer
        if check is None:
            if len(self._queue) >= MOST_WAITING or self._of_peer.get(peer, 0) >= MOST_OF_ONE:
                return False
            check = self._checks[key] = _Check(key, password, stored, peer)
            self._of_peer[peer] = self._of_peer.get(peer, 0) + 1
            self._queue.append(check)
        check.waiting.append(waiting)
        self._start()
        return True

    def forget(self, key: bytes, waiting: Waiting) -> None:
        """The request is over. A check that nobody waits for is not begun."""
        check = self._checks.get(key)
        if check is not None and waiting in check.waiting:
            check.waiting.remove(waiting)

    def close(self) -> None:
        """Begin no more."""
        self._queue.clear()
        if self._threads is not None:
            self._threads.shutdown(wait=False, cancel_futures=True)

    def _start(self) -> None:
        while self._queue and self._running < AT_ONCE:
            check = self._queue.popleft()
            if not check.waiting:
                self._end(check)
                continue
            if self._threads is None:
                self._threads = threads(AT_ONCE, "password")
            self._running += 1
            self._threads.submit(self._verify, check.stored, check.password).add_done_callback(self._hand_over(check))

    def _hand_over(self, check: _Check) -> Callable[[Future[bool]], None]:
        def done(future: Future[bool]) -> None:
            if future.cancelled() or self._loop.is_closed():
                return
            right = future.exception() is None and future.result()
            try:
                self._loop.call_soon_threadsafe(self._decided, check, right)
            except RuntimeError:  # the loop was closed meanwhile
                return

        return done

    def _decided(self, check: _Check, right: bool) -> None:
        self._running -= 1
        self.computed += 1
        if len(self._results) >= MOST_KEPT:
            del self._results[next(iter(self._results))]
        self._results[check.key] = right, monotonic() + (RIGHT_FOR if right else WRONG_FOR)
        self._end(check)
        waiting, check.waiting = check.waiting, []
        for each in waiting:
            each.decided(right)
        self._start()

    def _end(self, check: _Check) -> None:
        del self._checks[check.key]
        left = self._of_peer[check.peer] - 1
        if left:
            self._of_peer[check.peer] = left
        else:
            del self._of_peer[check.peer]


def matches(stored: bytes, password: bytes) -> bool:
    """Whether a password is the one of a stored hash. It takes a good part of a second. The libraries compare in
    constant time."""
    if stored.startswith(b"$argon2"):
        import argon2  # few installations need it

        try:
            return argon2.PasswordHasher().verify(stored, password)
        except argon2.exceptions.VerificationError:
            return False
    import bcrypt

    return bcrypt.checkpw(password[:_BCRYPT_LENGTH], stored)
