"""How long a peer may take nothing of what was written to it."""

from __future__ import annotations

from lb.proxy.sending import Sending
from tests.support.fake_transport import FakeTransport


def test_a_peer_that_takes_nothing_from_the_first_look_on_is_stalled_at_the_limit() -> None:
    sending = Sending(FakeTransport(waits=100), 10.0, 60.0)
    assert sending.due == 17.5
    assert not sending.is_stalled(17.5)
    assert not sending.is_stalled(77.4)
    assert sending.is_stalled(77.5)


def test_progress_begins_the_time_anew() -> None:
    transport = FakeTransport(waits=100)
    sending = Sending(transport, 10.0, 60.0)
    assert not sending.is_stalled(17.5)
    transport.waits = 99
    assert not sending.is_stalled(69.0)
    assert not sending.is_stalled(128.0)
    assert sending.is_stalled(129.0)


def test_a_close_gives_a_peer_that_takes_nothing_no_new_time() -> None:
    transport = FakeTransport(waits=100)
    first = Sending(transport, 10.0, 60.0)
    assert not first.is_stalled(17.5)
    closing = Sending(transport, 56.0, 60.0, 5.0).follow(first, 56.0)
    assert not closing.is_stalled(77.4)
    assert closing.is_stalled(77.5)


def test_what_the_peer_took_before_the_close_counts() -> None:
    transport = FakeTransport(waits=100)
    first = Sending(transport, 10.0, 60.0)
    assert not first.is_stalled(17.5)
    transport.waits = 50
    closing = Sending(transport, 56.0, 60.0, 5.0).follow(first, 56.0)
    assert not closing.is_stalled(115.0)
    assert closing.is_stalled(116.0)


def test_a_first_watch_follows_nothing() -> None:
    assert Sending(FakeTransport(waits=1), 10.0, 60.0).follow(None, 10.0).moved_at == 10.0
