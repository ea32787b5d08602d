"""The wire between supervisor and workers: everything comes through whole; what is no message ends the channel."""

from __future__ import annotations

import socket
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lb.core.certificates import Certificate, TlsServer
from lb.core.challenges import Challenges
from lb.core.report import BUCKETS, Alarm, PoolTally, Report, RequestRecord, TargetTally
from lb.core.targets import (
    AccessLog,
    Listener,
    Mirror,
    Pool,
    Rotation,
    Route,
    Service,
    Snapshot,
    Target,
    Targets,
)
from lb.process import channel as module
from lb.process.channel import Applied, Channel, Command, Hello, Message, Poll, Polled, TicketSecret, WorkerError, pack
from tests.support.eventually_async import eventually

SNAPSHOT = Snapshot(
    7,
    listeners=(
        Listener(
            "127.0.0.1:0",
            tls=TlsServer(certificates=(Certificate("a", "b", names=("c",)),)),
            proxy_protocol=("10.0.0.0/8",),
        ),
    ),
    services=(Service("greeting", (Pool("blue", (Target("greeting/blue/a:1", "greeting", "blue", "a", 1),)),)),),
    routes=(Route("greeting", max_body=5),),
    rotations=(Rotation("greeting", 6, (("blue", 100),), (("blue", (("greeting/blue/a:1", 1.5),)),)),),
    trusted_proxies=("127.0.0.1/32",),
    access_log=AccessLog("off"),
)
REPORT = Report(
    1, 2, 3, 4,
    targets=[TargetTally("t", codes=Counter({200: 5}), buckets=[0] * (len(BUCKETS) + 1), seconds=0.5, in_flight=2)],
    pools=[PoolTally("s", "p", codes=Counter({503: 1}), buckets=[1], requests=1, errors=1)],
    retries={"s": {"refused": 1}},
    rejected={"no_route": 2},
    records=[RequestRecord("id", 1.0, "c", "GET", "/", "s", "p", "t", 502, 0.1, "reset", ["t: reset"])],
)  # fmt: skip
MESSAGES: list[Message] = [
    SNAPSHOT,
    Rotation("s", 9, (("a", 1), ("b", 99)), (), "b", ("x",), Mirror("b", 5.0)),
    Targets(
        9, (Target("s/a/1", "s", "a", "h", 1, addresses=("::1",)),), ("s/a/2",), SNAPSHOT.rotations, (("d", b"x"),)
    ),
    Challenges(10, (("token", "token.thumb"),), (("a.example.org", b"PEM"),)),
    Poll(1),
    Polled(1),
    Command("drain", 2.5),
    Hello(1, 2, 3, 4),
    Applied(9),
    REPORT,
    Alarm(1, "t", "refused", 3, "no"),
    WorkerError("why"),
    TicketSecret(b"s" * 32),
]


class End:
    """One side, and what it has heard."""

    def __init__(self) -> None:
        self.heard: list[Message] = []
        self.lost = False
        self.channel = Channel(self.heard.append, self._on_lost)

    def _on_lost(self) -> None:
        self.lost = True


async def both() -> tuple[End, End]:
    one, other = End(), End()
    a, b = socket.socketpair()
    await one.channel.attach(a)
    await other.channel.attach(b)
    return one, other


async def test_every_message_comes_through_whole_and_in_order() -> None:
    one, other = await both()
    for message in MESSAGES:
        assert one.channel.send(message)
    await eventually(lambda: len(other.heard) == len(MESSAGES))
    assert other.heard == MESSAGES
    await one.channel.finish(1)
    await eventually(lambda: other.lost)
    await other.channel.finish(1)
    assert not one.channel.send(Poll(1)), "it says so"


async def test_what_a_process_sent_before_its_end_is_read_however_soon_its_end_is_heard_of() -> None:
    """The exit status may come first: one SIGCHLD makes libuv ask for every child."""
    one = End()
    ours, theirs = socket.socketpair()
    await one.channel.attach(ours)
    theirs.sendall(pack(REPORT) * 40)
    theirs.close()
    await one.channel.read_to_end(5.0)
    assert one.heard == [REPORT] * 40


@settings(deadline=None, max_examples=50)
@given(st.lists(st.sampled_from(MESSAGES), min_size=1, max_size=8), st.lists(st.integers(1, 400), min_size=1))
def test_it_does_not_matter_in_which_pieces_they_come(messages: list[Message], sizes: list[int]) -> None:
    end = End()
    data = b"".join(map(pack, messages))
    position = turn = 0
    while position < len(data):
        size = sizes[turn % len(sizes)]
        end.channel.data_received(data[position : position + size])
        position, turn = position + size, turn + 1
    assert end.heard == messages


@settings(deadline=None)
@given(st.binary(max_size=200))
def test_nonsense_raises_nothing(data: bytes) -> None:
    End().channel.data_received(data)


@pytest.mark.parametrize(
    "data",
    [b"\x00\x00\x00\x05?abcd", b"\xff\xff\xff\xffSabc", b"\x00\x00\x00\x03Sab", b"\x00\x00\x00\x02P\x01"],
    ids=["unknown kind", "too long", "not MessagePack", "wrong type"],
)
async def test_what_is_no_message_ends_the_channel(data: bytes) -> None:
    end = End()
    ours, theirs = socket.socketpair()
    await end.channel.attach(theirs)
    with ours:
        ours.sendall(pack(Poll(1)) + data)
        await eventually(lambda: end.lost)
        assert end.heard == [Poll(1)]
        assert ours.recv(1) == b"", "the other side is told"


async def test_one_that_does_not_read_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PENDING_LIMIT", 1 << 20)
    end = End()
    ours, theirs = socket.socketpair()
    await end.channel.attach(ours)
    frame = pack(SNAPSHOT) * 100
    for _ in range(1000):
        if not end.channel.send_frame(frame):
            break
    else:
        pytest.fail("what waits is not bounded")
    await eventually(lambda: end.lost)
    assert not end.channel.open
    theirs.close()
