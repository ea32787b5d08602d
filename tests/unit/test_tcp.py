"""What the kernel tells of a connection without its being read."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from lb.proxy.tcp import arrivals

Pair = tuple[socket.socket, socket.socket]


@pytest.fixture
def pair() -> Iterator[Pair]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours, theirs


def test_unread_bytes_and_the_end_have_come(pair: Pair) -> None:
    ours, theirs = pair
    watch = arrivals(ours)
    assert watch is not None
    assert not watch.poll(0)
    theirs.send(b"x")
    assert watch.poll(0)
    assert ours.recv(1) == b"x"
    assert not watch.poll(0)
    theirs.close()
    assert watch.poll(0)


def test_a_closed_socket_is_not_watched(pair: Pair) -> None:
    pair[0].close()
    assert arrivals(pair[0]) is None
