"""gRPC's own client and server through a real lb: all kinds of calls, deadlines, ends, large messages, many streams."""

from __future__ import annotations

import queue
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import grpc
import pytest
import trustme

from tests.support.eventually import eventually
from tests.support.grpc_target import ANY_SIZE, Talk, started
from tests.support.stage import Lb, Stage

CONFIG = """\
listeners: [{{bind: '127.0.0.1:0'{listener}}}]
admin: {{bind: '127.0.0.1:0'}}
state_dir: ./state
access_log: {{path: access.log}}
services:
  a:
    active: blue
    rollout: {{bake: 0s}}
    pools: {{blue: ['h2c://127.0.0.1:{blue}'], green: ['h2c://127.0.0.1:{green}']}}
    readiness: {{protocol: grpc, interval: 100ms, grace: 0s}}
"""
#: Streams that a channel has at one time in the test of many, and channels.
STREAMS, CHANNELS = 100, 4


class Calls:
    """An lb, two targets behind it, and a way to a channel of its own."""

    def __init__(self, lb: Lb, talks: list[Talk], authority: Path | None) -> None:
        self.lb = lb
        self.blue, self.green = talks
        self._authority = authority

    def channel(self) -> grpc.Channel:
        port = urlsplit(self.lb.url).port
        options = [*ANY_SIZE, ("grpc.use_local_subchannel_pool", 1)]
        if self._authority is None:
            return grpc.insecure_channel(f"127.0.0.1:{port}", options)
        credentials = grpc.ssl_channel_credentials(self._authority.read_bytes())
        return grpc.secure_channel(f"localhost:{port}", credentials, options)

    def streams(self) -> float:
        """Requests under way, as lb counts them."""
        return self.lb.metrics()['lb_downstream_streams{protocol="h2"}']


@pytest.fixture(params=["plain", "tls"])
def calls(request: pytest.FixtureRequest, stage: Stage) -> Iterator[Calls]:
    listener, ca = ", protocols: [h2c]", None
    if request.param == "tls":
        authority = trustme.CA()
        ca = stage.folder / "ca.pem"
        authority.cert_pem.write_to_path(ca)
        authority.issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(stage.folder / "both.pem")
        (stage.folder / "both.pem").chmod(0o600)
        listener = ", tls: {cert_file: both.pem, key_file: both.pem}"
    talks = [Talk(), Talk()]
    servers = [started(talk, 2 * STREAMS) for talk in talks]
    blue, green = (port for _, port in servers)
    lb = stage.start(stage.file(CONFIG.format(listener=listener, blue=blue, green=green)))
    yield Calls(lb, talks, ca)
    for server, _ in servers:
        server.stop(0).wait()


@pytest.fixture
def channel(calls: Calls) -> Iterator[grpc.Channel]:
    with calls.channel() as made:
        yield made


def test_all_kinds_of_calls(channel: grpc.Channel) -> None:
    answer, call = channel.unary_unary("/t/one").with_call(b"abc", timeout=10)
    assert answer == b"cba"
    assert ("x-after", "yes") in call.trailing_metadata()
    assert list(channel.unary_stream("/t/down")(b"300", timeout=30)) == [b"%d" % number for number in range(300)]
    many = [b"%d" % number for number in range(300)]
    assert channel.stream_unary("/t/up")(iter(many), timeout=30) == b",".join(many)
    assert list(channel.stream_stream("/t/both")(iter([b"a", b"b"]), timeout=30)) == [b"A", b"B"]
    with pytest.raises(grpc.RpcError) as failed:
        channel.unary_unary("/t/fail")(b"", timeout=10)
    assert (failed.value.code(), failed.value.details()) == (grpc.StatusCode.FAILED_PRECONDITION, "not today: é")


def test_messages_of_4_mib_up_and_down_at_a_time(channel: grpc.Channel) -> None:
    message = bytes(range(256)) * (1 << 14)
    ask = channel.unary_unary("/t/one")
    assert [call.result() for call in [ask.future(message, timeout=60) for _ in range(4)]] == [message[::-1]] * 4
    assert list(channel.stream_stream("/t/both")(iter([message] * 3), timeout=60)) == [message.upper()] * 3


def test_a_deadline_reaches_client_and_target(calls: Calls, channel: grpc.Channel) -> None:
    with pytest.raises(grpc.RpcError) as failed:
        channel.unary_unary("/t/wait")(b"", timeout=0.5)
    assert failed.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
    eventually(lambda: calls.blue.cancelled)
    eventually(lambda: calls.streams() == 0)


def test_a_client_that_cancels(calls: Calls, channel: grpc.Channel) -> None:
    call = channel.unary_unary("/t/wait").future(b"", timeout=30)
    eventually(lambda: calls.blue.waits)
    call.cancel()
    eventually(lambda: calls.blue.cancelled)
    eventually(lambda: calls.streams() == 0)


def test_many_small_messages_one_after_the_other(calls: Calls, channel: grpc.Channel) -> None:
    """The client widens two windows for each of them, which is no flood."""
    heard: queue.SimpleQueue[bytes] = queue.SimpleQueue()

    def ask() -> Iterator[bytes]:
        for number in range(1500):
            yield b"%d" % number
            heard.get(timeout=10)

    count = 0
    for answer in channel.stream_stream("/t/both")(ask(), timeout=60):
        count += 1
        heard.put(answer)
    assert count == 1500
    assert not [name for name in calls.lb.metrics() if name.startswith("lb_http2_refused_total")]


def test_many_streams_on_few_connections(calls: Calls) -> None:
    """All of them are open at one time; what the target does not take waits for others to end."""
    channels = [calls.channel() for _ in range(CHANNELS)]
    try:
        both = [channel.stream_stream("/t/both") for channel in channels for _ in range(STREAMS // 2)]
        messages: list[queue.SimpleQueue[bytes | None]] = [queue.SimpleQueue() for _ in both]
        open_calls = [call(iter(each.get, None), timeout=60) for call, each in zip(both, messages, strict=True)]
        for _ in range(3):
            for number, each in enumerate(messages):
                each.put(b"m%d" % number)
            assert [next(call) for call in open_calls] == [b"M%d" % number for number in range(len(both))]
        assert calls.streams() >= len(both)
        for each in messages:
            each.put(None)
        assert [list(call) for call in open_calls] == [[]] * len(both)
        ask = [channel.unary_unary("/t/one") for channel in channels]
        waiting = [ask[number % CHANNELS].future(b"%d" % number, timeout=60) for number in range(1000)]
        assert [call.result() for call in waiting] == [(b"%d" % number)[::-1] for number in range(1000)]
    finally:
        for channel in channels:
            channel.close()
    eventually(lambda: calls.streams() == 0)


def test_a_switch_moves_calls_and_leaves_streams(calls: Calls, channel: grpc.Channel) -> None:
    messages: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
    stream = channel.stream_stream("/t/both")(iter(messages.get, None), timeout=60)
    ask = channel.unary_unary("/t/one")
    messages.put(b"before")
    assert next(stream) == b"BEFORE"
    assert ask(b"ab", timeout=10) == b"ba"
    assert (calls.blue.ones, calls.green.ones) == (1, 0)
    assert calls.lb.cli("switch", "a", "green").returncode == 0
    assert ask(b"ab", timeout=10) == b"ba"
    assert (calls.blue.ones, calls.green.ones) == (1, 1)
    messages.put(b"after")
    assert next(stream) == b"AFTER"
    messages.put(None)
    assert list(stream) == []
    assert stream.code() == grpc.StatusCode.OK
