"""What a worker confirms: a version that is in force, whole, and none other."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from typing import Any

import pytest

from lb.core.certificates import Certificate, TlsServer
from lb.core.report import Report
from lb.core.targets import AccessLog, Listener, Pool, Rotation, Route, Service, Snapshot, Target, Targets
from lb.net.tls.store import CertificateStore
from lb.process import descriptors, fd_handover
from lb.process.channel import Applied, Behind, Channel, Message, Poll, Polled, pack
from lb.worker.main import Worker
from tests.support.eventually_async import eventually

BIND = "127.0.0.1:0"


class Inside:
    """A worker without a process, and its supervisor's end of the wire."""

    def __init__(self) -> None:
        self.worker = Worker(0, asyncio.get_running_loop(), None, certificates=CertificateStore(self._build))
        self.tried: list[Sequence[Certificate]] = []
        self.refuses = True  # no context can be built
        self.sent: list[Message] = []
        self._polls = 0
        self._told: list[Message] = []
        self._polled = asyncio.Event()

    async def start(self) -> None:
        ours, theirs = socket.socketpair()
        self._fd_channel, fd_channel = fd_handover.pair()
        fd_channel.setblocking(False)
        self._channel = await Channel.over(ours, self._on_message, lambda: None)
        self._running = asyncio.ensure_future(self.worker.run(theirs, fd_channel))

    async def stop(self) -> None:
        self.worker.done.set()
        await self._running
        self._channel.close()
        self._fd_channel.close()

    def _build(self, certificates: Sequence[Certificate], policy: object, contents: object) -> ssl.SSLContext:
        self.tried.append(certificates)
        if self.refuses:
            raise OSError("no descriptor is left")
        return ssl.create_default_context()

    def _on_message(self, message: Message) -> None:
        if isinstance(message, Applied | Behind):
            self.sent.append(message)
        elif message == Polled(self._polls):
            self._told = list(self.sent)
            self._polled.set()

    async def hear(self, *messages: Message) -> list[Message]:
        """The worker reads them all at once; what it had confirmed by the time that it had."""
        self._polls += 1
        self._polled.clear()
        assert self._channel.send_frame(b"".join(map(pack, (*messages, Poll(self._polls)))))
        await asyncio.wait_for(self._polled.wait(), 20.0)
        return self._told

    def give(self, sock: socket.socket) -> None:
        """Hand it a socket of its listener."""
        fd_handover.hand(self._fd_channel, (BIND, 0), sock)

    async def look_again(self) -> None:
        """Have it look at its listeners once more: another socket comes, on which it is to answer."""
        with socket.create_server(("127.0.0.1", 0)) as given:
            self.give(given)
            address = given.getsockname()
        async with asyncio.timeout(20.0):
            reader, writer = await asyncio.open_connection(*address)
            writer.write(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
            assert (await reader.read()).startswith(b"HTTP/1.1 503 ")
            writer.close()
        await self.hear()


@pytest.fixture
async def inside() -> AsyncIterator[Inside]:
    made = Inside()
    await made.start()
    yield made
    await made.stop()


def snapshot(version: int) -> Snapshot:
    return Snapshot(
        version,
        listeners=(Listener(BIND),),
        services=(Service("s", (Pool("p", ()),)),),
        routes=(Route("s"),),
        rotations=(rotation(version),),
        access_log=AccessLog("off"),
    )


def rotation(version: int) -> Rotation:
    return Rotation("s", version, (("p", 100),), ())


def targets(version: int) -> Targets:
    return Targets(version, (Target("s/p/h:1", "s", "p", "h", 1),))


def impossible(version: int) -> Snapshot:
    return replace(snapshot(version), routes=(Route("nobody"),))


async def test_a_snapshot_is_confirmed_when_its_listeners_are_open(inside: Inside) -> None:
    before = await inside.hear(snapshot(1), rotation(2), targets(3))
    assert before == [], "neither must confirm for the listeners"
    await eventually(lambda: inside.sent == [Applied(3)])
    assert await inside.hear(rotation(4), targets(5)) == [Applied(3), Applied(4), Applied(5)]


async def test_changed_targets_are_confirmed_when_a_listener_that_could_not_be_opened_was_tried_again(
    inside: Inside,
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as given:
        inside.give(given)
        await inside.hear(
            replace(snapshot(1), listeners=(Listener(BIND, TlsServer(certificates=(Certificate("a", "b"),))),))
        )
        await eventually(lambda: inside.sent == [Applied(1)])
        assert len(inside.tried) == 1
        assert await inside.hear(rotation(2)) == [Applied(1), Applied(2)], "it has nothing to do with listeners"
        assert len(inside.tried) == 1
        inside.refuses = False
        assert await inside.hear(targets(3)) == [Applied(1), Applied(2)], "it is not open yet"
        await eventually(lambda: inside.sent[2:] == [Applied(3)])
        async with asyncio.timeout(20.0):
            _, writer = await asyncio.open_connection(*given.getsockname())
            writer.close()
    assert await inside.hear(targets(4)) == [Applied(1), Applied(2), Applied(3), Applied(4)]


@pytest.mark.parametrize("message", [Rotation, Targets])
async def test_what_comes_on_top_of_a_failed_snapshot_is_not_confirmed(
    inside: Inside, message: type[Rotation | Targets]
) -> None:
    await inside.hear(snapshot(1))
    await eventually(lambda: inside.sent == [Applied(1)])
    said = await inside.hear(impossible(2), rotation(3) if message is Rotation else targets(3))
    assert said == [Applied(1), Behind(2, "KeyError: 'nobody'")]
    assert inside.worker.plane.applied == 1, "what an heir of the supervisor is told"
    await inside.look_again()
    assert len(inside.sent) == 2
    await inside.hear(snapshot(4))
    await eventually(lambda: inside.sent[2:] == [Applied(4)])


@pytest.mark.parametrize(
    ("method", "fails", "later"),
    [("change", targets(2), [targets(3), rotation(4)]), ("rotate", rotation(2), [rotation(3)])],
    ids=["targets", "rotation"],
)
async def test_what_has_failed_is_not_confirmed_by_the_next_one(
    inside: Inside, monkeypatch: pytest.MonkeyPatch, method: str, fails: Message, later: Sequence[Message]
) -> None:
    await inside.hear(snapshot(1))
    await eventually(lambda: inside.sent == [Applied(1)])
    with monkeypatch.context() as broken:
        broken.setattr(inside.worker.plane, method, lambda message: 1 / 0)
        await inside.hear(fails)
    said = await inside.hear(*later)
    assert said == [Applied(1), Behind(2, "ZeroDivisionError: division by zero")]


async def test_listeners_that_cannot_be_opened_are_not_confirmed(
    inside: Inside, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail() -> int:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(descriptors, "connections", fail)
    await inside.hear(snapshot(1))
    await eventually(lambda: inside.sent)
    await inside.hear(rotation(2))
    assert inside.sent == [Behind(1, "OSError: [Errno 24] Too many open files")]


async def test_one_that_drains_confirms_without_opening_anything(
    inside: Inside, monkeypatch: pytest.MonkeyPatch
) -> None:
    plane, report = inside.worker.plane, inside.worker.plane.report

    def drain_and_report(*arguments: Any) -> Report:
        plane.drain(1.0)
        return report(*arguments)

    with monkeypatch.context() as patched:  # it drains when it has read the snapshot, and has opened nothing yet
        patched.setattr(plane, "report", drain_and_report)
        assert await inside.hear(snapshot(1)) == []
    await eventually(lambda: inside.sent == [Applied(1)])
    said = await inside.hear(snapshot(2), rotation(3), impossible(4), rotation(5))
    assert said == [Applied(1), Applied(2), Applied(3), Behind(4, "KeyError: 'nobody'")]
