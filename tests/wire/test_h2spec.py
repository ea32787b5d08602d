"""Cases of h2spec over a socket: those that the table of `tests/unit/test_h2_rules.py` leaves to be asked."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hyperframe.frame import PingFrame, SettingsFrame

from tests.support.eventually import eventually
from tests.support.front import Front
from tests.support.h2_client import Client
from tests.support.h2_peer import PREFACE, raw, settings
from tests.wire.h2spec_table import AFTER, ANSWER, CLOSED, PING, SETTINGS, SIZE, TABLE, Expected
from tests.wire.http2 import H2C
from tests.wire.peers import sized


@pytest.fixture(scope="module")
def front() -> Iterator[Front]:
    with Front(listener=H2C) as running:
        running.with_script(sized(SIZE))
        yield running


def check(client: Client, expected: Expected, stream: int = 1) -> None:
    if expected == ANSWER:
        assert client.answer(stream)[0] == 200
        assert not client.goaways
    elif expected == CLOSED:
        client.until_closed()
        assert not any(code for _, code in client.goaways)
    elif isinstance(expected, int):
        client.until(lambda: len(client.body(stream)) >= expected)
        client.send(raw(PING, 0, 0, b"is there"))
        client.until(lambda: any(isinstance(frame, PingFrame) for frame in client.got))
        assert len(client.body(stream)) == expected
    elif expected[0] == "stream":
        client.until(lambda: client.reset(stream) is not None)
        assert client.reset(stream) == expected[1]
        assert not client.goaways
    else:
        client.until_closed()
        assert [code for _, code in client.goaways] == [expected[1]]


@pytest.mark.parametrize("name", TABLE)
def test_case(front: Front, name: str) -> None:
    build, expected = TABLE[name]
    with Client(front) as client:
        client.send(*build(client.frames))
        check(client, expected)
    eventually(front.at_rest)


@pytest.mark.parametrize("name", AFTER)
def test_behind_an_answer(front: Front, name: str) -> None:
    build, expected = AFTER[name]
    with Client(front) as client:
        client.ask(1)
        assert client.answer(1)[0] == 200
        client.send(*build(client.frames))
        check(client, expected, 5 if expected == ANSWER else 1)
    eventually(front.at_rest)


def test_a_preface_is_answered_with_settings(front: Front) -> None:
    """generic 1/1, http2 3.5/1, generic 3.5/1, http2 6.5.3/2"""
    with Client(front, greet=False) as client:
        client.send(PREFACE, settings(window=100))
        client.until(lambda: sum(isinstance(frame, SettingsFrame) for frame in client.got) == 2)
        theirs, acknowledged = (frame for frame in client.got if isinstance(frame, SettingsFrame))
        assert "ACK" not in theirs.flags
        assert "ACK" in acknowledged.flags


def test_a_ping_is_answered_and_an_answer_is_not(front: Front) -> None:
    """generic 3.7/1, http2 6.7/1, http2 6.7/2"""
    with Client(front) as client:
        client.send(raw(PING, 1, 0, b"answered"), raw(PING, 0, 0, b"question"), raw(SETTINGS, 0, 0))
        client.until(lambda: any(isinstance(frame, PingFrame) for frame in client.got))
        [pong] = [frame for frame in client.got if isinstance(frame, PingFrame)]
        assert "ACK" in pong.flags
        assert pong.opaque_data == b"question"
