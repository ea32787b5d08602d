"""Targets that change reach the workers without a snapshot: names that move, replaced targets, an edited list."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from dataclasses import replace
from math import inf
from typing import Any, cast

import pytest

from lb.core.desired import Desired, ServiceDesired
from lb.core.lifecycle import Health
from lb.core.rotation import ServiceRules
from lb.core.targets import Pool, Rotation, Route, Service, Snapshot, Target, Targets
from lb.process.channel import Behind
from lb.supervisor import workers
from lb.supervisor.rotations import Rotations
from lb.supervisor.workers import Workers
from tests.support.crew import Crew, alive
from tests.support.eventually_async import eventually
from tests.support.healths import READY

Make = Callable[..., Crew]


def target(number: int) -> Target:
    return Target(f"s/p/h:{number}", "s", "p", "127.0.0.1", number)


def with_pool(one: Crew, *targets: Target) -> Snapshot:
    """The next snapshot, whose pool has these targets."""
    snapshot = one.snapshot()
    return replace(snapshot, services=(replace(snapshot.services[0], pools=(Pool("p", targets),)),))


def sent(one: Crew, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The kinds of the messages that workers are sent from now on."""
    kinds: list[str] = []
    pack = workers.pack

    def packed(message: Any) -> bytes:
        kinds.append(type(message).__name__)
        return pack(message)

    monkeypatch.setattr(workers, "pack", packed)
    return kinds


async def test_a_snapshot_with_one_more_target_is_told_as_that_target(
    crew: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    two = crew(2)
    await two.start()
    kinds = sent(two, monkeypatch)
    two.workers.apply(with_pool(two, target(1)))
    two.workers.apply(with_pool(two, target(1), target(2)))
    await two.workers.confirm(two.version)
    assert kinds == ["Targets", "Targets"]
    two.workers.apply(replace(with_pool(two, target(1)), trusted_proxies=("::1/128",)))
    await two.workers.confirm(two.version)
    assert kinds[2:] == ["Snapshot"]


def rotation(one: Crew, *ready: int) -> Rotation:
    """The next rotation of its pool."""
    one.version += 1
    members = tuple((f"s/p/h:{number}", 1.0) for number in ready)
    return Rotation("s", one.version, (("p", 100),), (("p", members),))


async def test_a_rotation_is_told_by_its_changed_members(crew: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also after a change of targets that left the rotation as it was: workers have it under its former version."""
    two = crew(2)
    await two.start()
    targets = [target(number) for number in range(4)]
    first = rotation(two, 0, 1, 2)
    two.workers.apply(replace(with_pool(two, *targets), rotations=(first,), trusted_proxies=("::1/128",)))
    kinds = sent(two, monkeypatch)
    two.workers.rotate(rotation(two, 0, 1, 2, 3))
    two.workers.rotate(now := rotation(two, 0, 1, 3))
    after = replace(with_pool(two, *targets[:3], replace(targets[3], weight=2)), trusted_proxies=("::1/128",))
    two.workers.apply(replace(after, rotations=(replace(now, version=two.version),)))
    two.workers.rotate(rotation(two, 0, 3))
    two.workers.change(Targets(two.version + 1, removed=("s/p/h:1",), rotations=(rotation(two, 0, 2, 3),)))
    await two.workers.confirm(two.version)
    assert kinds == ["RotationChange", "RotationChange", "Targets", "RotationChange", "Targets"]
    assert not two.workers.behind and not two.told
    two.workers.rotate(rotation(two, 1))
    await two.workers.confirm(two.version)
    assert kinds[5:] == ["Rotation"], "hardly one stays"


async def test_a_worker_that_lost_a_rotation_gets_a_snapshot(crew: Make) -> None:
    """It refuses what differs from a rotation that it does not have."""
    one = crew(1)
    await one.start()
    slot = one.workers.slots[0]
    slot.next_replacement = inf  # it is to stay for a while
    first = rotation(one, *range(6))
    one.workers.apply(replace(with_pool(one, *map(target, range(6))), rotations=(first,)))
    await one.workers.confirm(one.version)
    assert slot.worker is not None
    channel, slot.worker.channel = slot.worker.channel, None
    one.workers.rotate(rotation(one, *range(5)))
    slot.worker.channel = channel
    one.workers.rotate(rotation(one, *range(4)))
    await eventually(lambda: bool(one.workers.behind))
    one.workers.apply(with_pool(one, *map(target, range(7))))
    await one.workers.confirm(one.version)
    assert not one.workers.behind


async def test_a_new_worker_gets_the_targets_as_they_are(crew: Make) -> None:
    one = crew(1)
    await one.start()
    one.version += 1
    one.workers.change(Targets(one.version, (target(1),)))
    [old] = one.workers.pids
    os.kill(old, signal.SIGKILL)
    await eventually(lambda: not alive(old) and one.workers.pids not in ([old], []))
    await one.workers.confirm(one.version)
    await eventually(lambda: "s/p/h:1" in one.totals.sums().targets)


async def test_one_that_is_behind_gets_the_whole_snapshot_instead_of_a_change(crew: Make) -> None:
    one = crew(1)
    await one.start()
    slot = one.workers.slots[0]
    slot.next_replacement = inf  # it is to stay for a while
    assert slot.worker is not None
    slot.worker.say(replace(one.snapshot(), routes=(Route("nobody"),)))
    await eventually(lambda: bool(one.workers.behind))
    assert isinstance(slot.worker.behind, Behind)
    one.workers.apply(with_pool(one, target(1)))
    await one.workers.confirm(one.version)
    assert not one.workers.behind
    await eventually(lambda: "s/p/h:1" in one.totals.sums().targets)


class Names:
    """Rotations of one service, whose targets are given by name."""

    def __init__(self, addresses: dict[str, tuple[str, ...]]) -> None:
        self.told: list[Rotation | Targets] = []
        self.addresses = addresses
        self.healths: dict[str, Health] = {}
        desired = Desired(services={"s": ServiceDesired("p", "p")})
        self.rotations = Rotations(cast("Workers", self), self.healths, lambda: desired, addresses)
        targets = tuple(Target(f"s/p/web:{port}", "s", "p", "web", port) for port in (1, 2))
        snapshot = Snapshot(0, services=(Service("s", (Pool("p", targets),)),))
        self.snapshot = self.rotations.configure(snapshot, {"s": ServiceRules()}, {})

    def rotate(self, rotation: Rotation) -> None:
        self.told.append(rotation)

    def change(self, targets: Targets) -> None:
        self.told.append(targets)


async def test_a_name_that_moves_is_told_as_one_target_and_no_rotation() -> None:
    names = Names({"s/p/web:1": ("192.0.2.1",), "s/p/web:2": ("192.0.2.1",)})
    first, second = names.snapshot.services[0].pools[0].targets
    assert first.addresses == ("192.0.2.1",), "the snapshot has what is known by then"
    names.addresses["s/p/web:2"] = ("192.0.2.2",)
    names.rotations.move("s/p/web:2")
    names.rotations.move("s/p/gone:1")
    version = names.rotations.flush()
    assert names.told == [Targets(version, (replace(second, addresses=("192.0.2.2",)),))]
    assert version > names.snapshot.version and names.rotations.flush() == version


async def test_an_address_is_told_before_the_rotation_that_counts_on_it() -> None:
    names = Names({})
    names.addresses["s/p/web:1"] = ("192.0.2.1",)
    names.healths["s/p/web:1"] = READY
    names.rotations.touch(("s",))
    names.rotations.move("s/p/web:1")
    version = names.rotations.flush()
    assert [type(message) for message in names.told] == [Targets, Rotation]
    assert names.told[0].version < names.told[1].version == version
