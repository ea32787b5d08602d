"""The one writer of desired state: in the store before it is in force, one change after the other, off the loop."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import pytest

from lb.core.desired import Desired, TargetDesired
from lb.core.refusals import Refusal, Refused
from lb.supervisor.desired import CannotSave, DesiredState, OtherVersion


class Memory:
    """A store whose writing waits for `go`, and fails for the reason `trouble`."""

    def __init__(self) -> None:
        self.values = [Desired(7)]
        self.trouble = ""
        self.go = threading.Event()
        self.go.set()

    def load(self) -> tuple[Desired | None, str]:
        return self.values[-1], "a complaint"

    def save(self, desired: Desired) -> None:
        assert self.go.wait(10.0)
        if self.trouble:
            raise CannotSave(self.trouble)
        self.values.append(desired)


class Parts:
    """A `DesiredState` and what is around it."""

    def __init__(self) -> None:
        self.store = Memory()
        self.state = SimpleNamespace(blocked_by="")
        self.told: list[str] = []
        events = SimpleNamespace(emit=lambda kind, text: self.told.append(f"{kind}: {text}"))
        self.desired = DesiredState(self.store, cast("Any", self.state), cast("Any", events))
        assert self.desired.load() == "a complaint"

    @property
    def saved(self) -> Desired:
        return self.store.values[-1]


@pytest.fixture
def parts() -> Iterator[Parts]:
    made = Parts()
    yield made
    made.store.go.set()
    made.desired.close()


def drain(current: Desired) -> tuple[Desired, int]:
    """One more target drains; decides how many did before."""
    targets = {**current.targets, f"t{len(current.targets)}": TargetDesired(draining=True)}
    return replace(current, targets=targets), len(current.targets)


def nothing(current: Desired) -> tuple[Desired, str]:
    return current, "nothing"


async def test_an_order_is_refused_for_what_changed_while_it_was_written(parts: Parts) -> None:
    """A gate has let it pass; then the last other target was ejected, while the disk took its time."""
    ejected = False

    def gated(current: Desired) -> tuple[Desired, int]:
        if ejected:
            raise Refused(Refusal.TOO_FEW_LEFT, "0 ready targets")
        return drain(current)

    await parts.desired.own()
    parts.store.go.clear()
    committing = asyncio.ensure_future(parts.desired.commit(gated))
    await asyncio.sleep(0.01)
    ejected = True
    parts.store.go.set()
    with pytest.raises(Refused, match="0 ready targets"):
        await committing
    assert parts.desired.current == Desired(7) == parts.saved


async def test_an_amendment_is_refused_for_what_changed_while_it_was_written(parts: Parts) -> None:
    """A reload takes a target away, and the only other one was ejected (model, seed 80063)."""
    ejected = concluded = False

    def gated(current: Desired) -> tuple[Desired, int]:
        if ejected:
            raise ValueError("0 ready targets")
        return drain(current)

    def conclude() -> None:
        nonlocal concluded
        concluded = True

    await parts.desired.own()
    parts.store.go.clear()
    amending = asyncio.ensure_future(parts.desired.amend(gated, conclude))
    await asyncio.sleep(0.01)
    ejected = True
    parts.store.go.set()
    with pytest.raises(ValueError, match="0 ready targets"):
        await amending
    assert parts.desired.current == Desired(7) == parts.saved
    assert not concluded


@pytest.mark.parametrize("owned", [True, False])
async def test_an_amendment_is_concluded_once_when_it_is_written(parts: Parts, owned: bool) -> None:
    if owned:
        await parts.desired.own()
    seen: list[tuple[int, int]] = []
    saved_before = len(parts.store.values)
    await parts.desired.amend(
        drain, lambda: seen.append((len(parts.store.values) - saved_before, len(parts.desired.current.targets)))
    )
    assert seen == [(int(owned), 0)], "written, where there is a store, and not yet in force"
    assert len(parts.desired.current.targets) == 1


async def test_an_amendment_whose_conclusion_fails_changes_nothing(parts: Parts) -> None:
    """The address of a new listener is in use, or the file cannot be replaced."""

    def conclude() -> None:
        raise OSError("address in use")

    await parts.desired.own()
    with pytest.raises(OSError, match="address in use"):
        await parts.desired.amend(drain, conclude)
    assert parts.desired.current == Desired(7) == parts.saved


async def test_what_an_order_has_decided_is_what_was_so_after_the_writing(parts: Parts) -> None:
    forced = ""

    def gated(current: Desired) -> tuple[Desired, str]:
        return drain(current)[0], forced

    await parts.desired.own()
    parts.store.go.clear()
    committing = asyncio.ensure_future(parts.desired.commit(gated))
    await asyncio.sleep(0.01)
    forced = " (forced: 0 ready targets)"
    parts.store.go.set()
    assert await committing == forced
    assert parts.desired.current.version == 8


async def test_a_value_is_in_the_store_before_it_is_in_force_and_the_loop_goes_on(parts: Parts) -> None:
    await parts.desired.own()
    parts.store.go.clear()
    committing = asyncio.ensure_future(parts.desired.commit(drain))
    for _ in range(20):
        await asyncio.sleep(0.001)
    assert parts.desired.current == Desired(7)
    parts.store.go.set()
    assert await committing == 0
    assert parts.desired.current.version == 8
    assert parts.saved is parts.desired.current


async def test_changes_follow_one_another_and_see_the_newest_value(parts: Parts) -> None:
    """What a caller does after its change comes before the next change."""
    await parts.desired.own()
    order: list[str] = []

    async def carry_out(name: str) -> None:
        def change(current: Desired) -> tuple[Desired, int]:
            order.append(f"{name} changes")
            return drain(current)

        before = await parts.desired.commit(change)
        order.append(f"{name} is in force after {before}")

    await asyncio.gather(carry_out("a"), carry_out("b"), carry_out("c"))
    assert order == [
        *("a changes", "a changes", "a is in force after 0"),  # asked again once it is written
        *("b changes", "b changes", "b is in force after 1"),
        *("c changes", "c changes", "c is in force after 2"),
    ]
    assert (parts.saved.version, len(parts.saved.targets)) == (10, 3)


async def test_of_two_orders_that_are_based_on_one_version_one_is_carried_out(parts: Parts) -> None:
    """Both were given before either was in force."""
    await parts.desired.own()
    orders = (parts.desired.commit(drain, 7), parts.desired.commit(drain, 7))
    first, second = await asyncio.gather(*orders, return_exceptions=True)
    assert first == 0
    assert isinstance(second, OtherVersion)
    assert parts.desired.current.version == 8


async def test_a_change_that_raises_changes_nothing(parts: Parts) -> None:
    await parts.desired.own()

    def refuse(current: Desired) -> tuple[Desired, None]:
        raise Refused(Refusal.NOT_READY, "nobody can serve")

    with pytest.raises(Refused):
        await parts.desired.commit(refuse)
    assert await parts.desired.commit(nothing) == "nothing"
    assert parts.desired.current == parts.saved == Desired(7)


async def test_an_amendment_keeps_the_version_unless_orders_no_longer_fit(parts: Parts) -> None:
    await parts.desired.own()
    assert await parts.desired.amend(drain) == 0
    assert (parts.saved.version, len(parts.saved.targets)) == (7, 1)
    assert await parts.desired.amend(drain, new_version=True) == 1
    assert (parts.saved.version, len(parts.saved.targets)) == (8, 2)


async def test_while_changes_are_blocked_orders_are_refused_and_nothing_is_written(parts: Parts) -> None:
    """Another lb takes over: what it has read stays in the store, unless it backs out."""
    await parts.desired.own()
    parts.state.blocked_by = "an upgrade is under way"
    with pytest.raises(Refused, match="an upgrade is under way"):
        await parts.desired.commit(drain)
    assert await parts.desired.commit(nothing) == "nothing"
    await parts.desired.amend(drain)
    await parts.desired.retry()
    assert len(parts.desired.current.targets) == 1
    assert parts.saved.targets == {}
    parts.state.blocked_by = ""
    await parts.desired.retry()
    assert parts.saved == parts.desired.current


async def test_what_is_under_way_is_over_once_it_has_settled(parts: Parts) -> None:
    await parts.desired.own()
    parts.store.go.clear()
    committing = asyncio.ensure_future(parts.desired.commit(drain))
    await asyncio.sleep(0.01)
    settling = asyncio.ensure_future(parts.desired.settle())
    await asyncio.sleep(0.01)
    assert not settling.done()
    parts.store.go.set()
    await settling
    assert committing.done()
    assert parts.saved.version == 8


async def test_until_the_store_is_owned_changes_stay_in_memory(parts: Parts) -> None:
    await parts.desired.amend(drain)
    await parts.desired.retry()
    assert parts.saved == Desired(7)
    await parts.desired.own()
    assert parts.saved == parts.desired.current
    assert len(parts.saved.targets) == 1


async def test_trouble_is_told_once_and_changes_hold_until_the_store_takes_them(parts: Parts) -> None:
    await parts.desired.own()
    parts.store.trouble = "the disk is full"
    for _ in range(3):
        await parts.desired.commit(drain)
        await parts.desired.retry()
    assert parts.told == ["state: the disk is full; changes hold until lb ends"]
    assert (parts.desired.trouble, len(parts.desired.current.targets)) == ("the disk is full", 3)
    parts.store.trouble = ""
    await parts.desired.retry()
    assert parts.told[1:] == ["state: the desired state can be written again, and is"]
    assert (parts.desired.trouble, parts.saved) == ("", parts.desired.current)
    written = len(parts.store.values)
    await parts.desired.retry()
    assert len(parts.store.values) == written


async def test_after_a_cancelled_change_the_store_gets_the_value_in_force_again(parts: Parts) -> None:
    await parts.desired.own()
    parts.store.go.clear()
    committing = asyncio.ensure_future(parts.desired.commit(drain))
    await asyncio.sleep(0.01)
    committing.cancel()
    await asyncio.wait((committing,))
    parts.store.go.set()
    await parts.desired.settle()
    assert parts.saved.version == 8, "it was being written"
    assert parts.desired.current.version == 7
    await parts.desired.retry()
    assert parts.saved == parts.desired.current
