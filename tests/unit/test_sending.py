"""How long a peer may take nothing of what was written to it."""

from __future__ import annotations

from typing import Any

from lb.proxy.sending import Sending


class Transport:
    """A Unix socket's transport: its write buffer is all that tells of progress."""

    def __init__(self, waiting: int) -> None:
        self.waiting = waiting

    def get_extra_info(self, name: str) -> Any:
        return None

    def get_write_buffer_size(self) -> int:
        return self.waiting


def test_a_peer_that_takes_nothing_from_the_first_look_on_is_stalled_at_the_limit() -> None:
    sending = Sending(Transport(100), 10.0, 60.0)
    assert sending.due == 17.5
    assert not sending.is_stalled(17.5)
    assert not sending.is_stalled(77.4)
    assert sending.is_stalled(77.5)


def test_progress_begins_the_time_anew() -> None:
    transport = Transport(100)
    sending = Sending(transport, 10.0, 60.0)
    assert not sending.is_stalled(17.5)
    transport.waiting = 99
    assert not sending.is_stalled(69.0)
    assert not sending.is_stalled(128.0)
    assert sending.is_stalled(129.0)


def test_a_close_gives_a_peer_that_takes_nothing_no_new_time() -> None:
    transport = Transport(100)
    first = Sending(transport, 10.0, 60.0)
    assert not first.is_stalled(17.5)
    closing = Sending(transport, 56.0, 60.0, 5.0).follow(first, 56.0)
    assert not closing.is_stalled(77.4)
    assert closing.is_stalled(77.5)


def test_what_the_peer_took_before_the_close_counts() -> None:
    transport = Transport(100)
    first = Sending(transport, 10.0, 60.0)
    assert not first.is_stalled(17.5)
    transport.waiting = 50
    closing = Sending(transport, 56.0, 60.0, 5.0).follow(first, 56.0)
    assert not closing.is_stalled(115.0)
    assert closing.is_stalled(116.0)


def test_a_first_watch_follows_nothing() -> None:
    assert Sending(Transport(1), 10.0, 60.0).follow(None, 10.0).moved_at == 10.0
