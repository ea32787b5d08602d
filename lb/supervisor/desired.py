"""Desired state and its one writer. A value is in the store before it is in force, so that `kill -9` loses no order.

Changes follow one another. Each is a function that is applied to the newest value when its turn has come. The change's
conditions are checked there, as another order may have come in between. The store is written in a thread of its own,
since a flush to the disk may take seconds. So a change is asked again once it is written: see `_replace`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Protocol, TypeVar

from lb.core.desired import Desired
from lb.core.refusals import Refusal, Refused
from lb.net.threads import threads
from lb.supervisor.events import Events
from lb.supervisor.state import State

Decided = TypeVar("Decided")
#: Seconds within which a value is saved that may be lost.
SOFTLY = 10.0
#: Returns the new value, or the same object when nothing is to change, and its decision. May raise.
Change = Callable[[Desired], tuple[Desired, Decided]]


class CannotSave(Exception):  # noqa: N818 - it says what happened
    """The store does not take the value; the text says why. The former value is still there."""


class OtherVersion(Exception):  # noqa: N818 - it says what happened
    """The desired state is not at the version that the order is based on."""


class Store(Protocol):
    """Keeps desired state beyond the process. Its methods block.

    It has neither compare-and-set nor watch, because the owner of a store is its only writer (`FileStore` is locked).
    So the stored value is always the one that `DesiredState` has written. A store with several writers needs both.
    """

    def load(self) -> tuple[Desired | None, str]:
        """(the newest good value, the fault of a newer one); None when there is no value at all."""

    def save(self, desired: Desired) -> None:
        """Replace the value. Raises `CannotSave`."""


class DesiredState:
    """The desired state now, and the only way to change it.

    The code after the `await` of a change runs in the same turn of the event loop in which the new value becomes
    `current`. Nothing else comes in between.
    """

    def __init__(self, store: Store, state: State, events: Events) -> None:
        self.current = Desired()
        self.trouble = ""  # why the store does not take `current`; empty: nothing is wrong with it
        self._store = store
        self._state = state
        self._events = events
        self._owned = False  # the store is this process's
        self._saved = True  # the store has `current`
        self._save_at = 0.0  # monotonic: when it is to have it, at the earliest
        self._turn = asyncio.Lock()
        self._thread = threads(1, "lb-desired")

    def load(self) -> str:
        """Take what the store has. Returns what was wrong with it; empty: nothing. Blocks."""
        persisted, complaint = self._store.load()
        self.current = persisted or Desired()
        return complaint

    async def own(self) -> None:
        """Save from now on. Until then changes stay in memory, as the store is the predecessor's."""
        async with self._turn:
            self._owned = True
            await self._save(self.current)

    async def commit(self, change: Change[Decided], expected_version: int | None = None) -> Decided:
        """Carry out an order: the version grows by one. Returns what `change` has decided.

        Raises `OtherVersion` when the version is not the expected one, `Refused` while changes are blocked, and the
        exceptions of `change`; then nothing has changed.
        """
        async with self._turn:
            if expected_version is not None and expected_version != self.current.version:
                raise OtherVersion
            wanted, decided = change(self.current)
            if wanted is self.current:
                return decided
            if self._state.blocked_by:
                raise Refused(Refusal.NOT_NOW, self._state.blocked_by)
            return await self._replace(replace(wanted, version=self.current.version + 1), decided, change)

    async def amend(
        self, change: Change[Decided], conclude: Callable[[], None] | None = None, *, new_version: bool = False
    ) -> Decided:
        """Change what is no operator's order; returns what `change` has decided, and raises what it raises.

        The version stays, so that no order is refused for it. `new_version`: orders based on the former value no
        longer fit. While changes are blocked, the new value stays in memory: `retry` saves it after that.

        `conclude` is called last, right before the new value is in force. When it raises, nothing has changed either.
        """
        async with self._turn:
            wanted, decided = change(self.current)
            if wanted is not self.current:
                wanted = replace(wanted, version=self.current.version + new_version)
                return await self._replace(wanted, decided, change, conclude)
            if conclude is not None:
                conclude()
            return decided

    async def amend_softly(self, change: Change[Decided]) -> Decided:
        """As `amend`, for what may be lost: the value is in force at once, and saved within `SOFTLY` seconds."""
        async with self._turn:
            wanted, decided = change(self.current)
            if wanted is not self.current:
                self.current = wanted
                if self._saved:
                    self._saved, self._save_at = False, time.monotonic() + SOFTLY
            return decided

    async def retry(self) -> None:
        """Save the present value if the store does not have it: the disk may have room again.

        A change that is under way saves by itself, and is not waited for.
        """
        if self._saved or self._turn.locked() or time.monotonic() < self._save_at:
            return
        async with self._turn:
            await self._save(self.current)

    async def settle(self) -> None:
        """Return when the changes under way have ended, and their writing."""
        async with self._turn:
            if not self._saved and self._save_at:
                await self._save(self.current)
            await asyncio.get_running_loop().run_in_executor(self._thread, _nothing)

    def close(self) -> None:
        """Wait for what is being written. Blocks."""
        self._thread.shutdown()

    async def _replace(
        self,
        written: Desired,
        decided: Decided,
        change: Change[Decided],
        conclude: Callable[[], None] | None = None,
    ) -> Decided:
        """Write the value that `change` asks for, and put it in force. Returns the newest decision on it.

        `change` is asked again when the value is in the store. A slow disk takes seconds, in which a target that its
        gate counted on may have been ejected.
        """
        waited = await self._save(written)
        try:
            if waited:
                again, anew = change(self.current)
                if replace(again, version=written.version) == written:
                    decided = anew  # by what gates say now
            if conclude is not None:
                conclude()
        except BaseException:
            await self._save(self.current)
            raise
        self.current = written
        return decided

    async def _save(self, desired: Desired) -> bool:
        """Write a value; trouble is told once. Returns whether the store was asked, which takes time."""
        self._saved, self._save_at = False, 0.0  # also when this is cancelled: then the store may have either value
        if not self._owned or self._state.blocked_by:
            return False
        before = self.trouble
        try:
            await asyncio.get_running_loop().run_in_executor(self._thread, self._store.save, desired)
        except CannotSave as error:
            self.trouble = str(error)
            if self.trouble != before:
                self._events.emit("state", f"{self.trouble}; changes hold until lb ends")
        else:
            self._saved, self.trouble = True, ""
            if before:
                self._events.emit("state", "the desired state can be written again, and is")
        return True


def _nothing() -> None:
    """The thread has done everything before it."""
