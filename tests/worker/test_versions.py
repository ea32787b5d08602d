"""What a worker confirms: a version that is in force, whole, and none other."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from lb.core.targets import AccessLog, Listener, Pool, Rotation, Route, Service, Snapshot
from lb.process.channel import Applied, Behind, Channel, Message
from lb.worker.main import Worker


class Wire(Channel):
    """A channel that keeps what a worker says."""

    def __init__(self) -> None:
        super().__init__(lambda message: None, lambda: None)
        self.sent: list[Message] = []

    def send(self, message: Message) -> bool:
        if isinstance(message, Applied | Behind):
            self.sent.append(message)
        return True


class Inside:
    """A worker without a process."""

    def __init__(self) -> None:
        self.wire = Wire()
        self.worker = Worker(0, asyncio.get_running_loop(), None)
        self.worker._channel = self.wire

    def hear(self, *messages: Message) -> None:
        for message in messages:
            self.worker._on_message(message)

    async def open_listeners(self) -> None:
        """As the worker's own loop does after a snapshot."""
        following = asyncio.ensure_future(self.worker._follow())
        await asyncio.sleep(0.01)
        following.cancel()


@pytest.fixture
async def inside() -> AsyncIterator[Inside]:
    made = Inside()
    yield made
    made.worker.plane.close()


def snapshot(version: int) -> Snapshot:
    return Snapshot(
        version,
        listeners=(Listener("127.0.0.1:0"),),
        services=(Service("s", (Pool("p", ()),)),),
        routes=(Route("s"),),
        rotations=(rotation(version),),
        access_log=AccessLog("off"),
    )


def rotation(version: int) -> Rotation:
    return Rotation("s", version, (("p", 100),), ())


def impossible(version: int) -> Snapshot:
    return replace(snapshot(version), routes=(Route("nobody"),))


async def test_a_snapshot_is_confirmed_when_its_listeners_are_open(inside: Inside) -> None:
    inside.hear(snapshot(1), rotation(2))
    assert inside.wire.sent == [], "the rotation must not confirm for the listeners"
    await inside.open_listeners()
    assert inside.wire.sent == [Applied(2)]
    inside.hear(rotation(3))
    assert inside.wire.sent == [Applied(2), Applied(3)]


async def test_a_rotation_on_top_of_a_failed_snapshot_is_not_confirmed(inside: Inside) -> None:
    inside.hear(snapshot(1))
    await inside.open_listeners()
    inside.hear(impossible(2), rotation(3))
    assert inside.wire.sent == [Applied(1), Behind(2, "KeyError: 'nobody'")]
    assert inside.worker.plane.applied == 1, "what an heir of the supervisor is told"
    await inside.open_listeners()
    assert len(inside.wire.sent) == 2
    inside.hear(snapshot(4))
    await inside.open_listeners()
    assert inside.wire.sent[2:] == [Applied(4)]


async def test_a_failed_rotation_is_not_confirmed_by_the_next_one(
    inside: Inside, monkeypatch: pytest.MonkeyPatch
) -> None:
    inside.hear(snapshot(1))
    await inside.open_listeners()
    with monkeypatch.context() as broken:
        broken.setattr(inside.worker.plane, "_rotate", lambda rotation: 1 / 0)
        inside.hear(rotation(2))
    inside.hear(rotation(3))
    assert inside.wire.sent == [Applied(1), Behind(2, "ZeroDivisionError: division by zero")]


async def test_listeners_that_cannot_be_opened_are_not_confirmed(
    inside: Inside, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail() -> None:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(inside.worker, "_listen", fail)
    inside.hear(snapshot(1))
    await inside.open_listeners()
    inside.hear(rotation(2))
    assert inside.wire.sent == [Behind(1, "OSError: [Errno 24] Too many open files")]


async def test_one_that_drains_confirms_without_opening_anything(inside: Inside) -> None:
    inside.hear(snapshot(1))
    inside.worker.plane.drain(1.0)
    await inside.open_listeners()
    inside.hear(snapshot(2))
    inside.hear(rotation(3), impossible(4), rotation(5))
    assert inside.wire.sent == [Applied(1), Applied(2), Applied(3), Behind(4, "KeyError: 'nobody'")]
