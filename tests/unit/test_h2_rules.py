"""What a server has to refuse of HTTP/2, case by case: the list that h2spec goes through, and what it leaves out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.support.h2_peer import GET, POST, PREFACE, Frames, Talk, raw, settings
from tests.unit.h2_cases import COMPRESSED, FRAMING, MESSAGES, PING, PROTOCOL, REFUSED, SERVED, SETTINGS, connection


@pytest.mark.parametrize(("name", "build", "expected"), [*FRAMING, *MESSAGES, *COMPRESSED])
def test_case(name: str, build: Callable[[Frames], list[bytes]], expected: Any) -> None:
    talk = Talk()
    talk.send(*build(talk.frames))
    if expected == SERVED:
        assert talk.error is None
        request = talk.server.requests[-1]
        assert request.reset is None
        talk.server.answer(request)
        talk.take()
        assert talk.ended(request.stream.id or 1) or talk.ended(3)
    elif isinstance(expected, int):
        assert [error.status for error in talk.server.errors] == [expected]
        assert not talk.server.requests
    elif expected is not None:
        assert talk.error == expected
        if expected[0] == "stream":
            assert talk.server.refused
            assert talk.server.connection.failed is None
            if expected[1] != REFUSED:
                talk.ask(1001)  # the connection serves on
        else:
            assert talk.server.connection.failed is not None


def test_no_case_has_two_names() -> None:
    names = [case[0] for case in (*FRAMING, *MESSAGES, *COMPRESSED)]
    assert len(names) == len(set(names))


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
        PREFACE[:-1] + b"x",
        PREFACE + raw(PING, 0, 0, bytes(8)),
        PREFACE + raw(SETTINGS, 1, 0),
    ],
)
def test_a_bad_preface_ends_the_connection(data: bytes) -> None:
    talk = Talk(greet=False)
    talk.send(data)
    assert talk.error == connection(PROTOCOL)


def test_a_request_reads_the_same_in_any_pieces() -> None:
    frames = Frames()
    data = PREFACE + settings() + frames.headers(1, POST, False) + frames.data(1, b"abc", padding=7)
    data += frames.headers(1, [("x-sum", "1")])
    for size in (1, 2, 7, 9, 64, len(data)):
        talk = Talk(greet=False)
        talk.send(*(data[at : at + size] for at in range(0, len(data), size)))
        (request,) = talk.server.requests
        assert (request.body, request.trailers, request.ended) == (b"abc", b"x-sum: 1\r\n", True)


def test_the_head_is_that_of_a_request_of_http_1() -> None:
    talk = Talk()
    request = talk.ask(1, [*POST, ("user-agent", "x"), ("cookie", "a=1"), ("te", "trailers"), ("cookie", "b=2")], False)
    head = request.head
    assert (head.method, head.target, head.host, head.protocol) == (b"POST", b"/", b"a.example", b"HTTP/2.0")
    assert head.fields.forwarded_lines == [b"user-agent: x\r\n", b"cookie: a=1; b=2\r\n"]  # crumbs: section 8.2.3
    assert head.fields.chunked
    assert head.fields.te_trailers


def test_no_target_gets_a_field_that_describes_the_client() -> None:
    talk = Talk()
    head = talk.ask(1, [*GET, ("x_forwarded_for", "1.2.3.4"), ("x-real-ip", "1.2.3.4"), ("http2-settings", "x")]).head
    assert head.fields.forwarded_lines == []
