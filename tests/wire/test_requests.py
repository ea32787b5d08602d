"""Every row of the request table through a real listener, whole and in pieces."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.front import Front, status_of
from tests.wire.request_table import TABLE, Row, Seen


@pytest.fixture(scope="module")
def front() -> Iterator[Front]:
    with Front() as running:
        yield running


def test_the_table_is_large_enough_and_its_names_differ() -> None:
    assert len(TABLE) >= 150
    assert len({row.name for row in TABLE}) == len(TABLE)


@pytest.mark.parametrize("row", TABLE, ids=[row.name for row in TABLE])
def test_row(front: Front, row: Row) -> None:
    front.origin.requests.clear()
    answer = front.send(row.raw)
    seen = list(front.origin.requests)
    if isinstance(row.outcome, Seen):
        assert status_of(answer) == 200, answer
        [request] = seen
        assert request.startswith(row.outcome.start)
        head = request.partition(b"\r\n\r\n")[0] + b"\r\n"
        for part in row.outcome.parts:
            assert part in head
        for part in row.outcome.without:
            assert part not in head
        assert request.endswith(row.outcome.end)
    else:
        assert status_of(answer) == row.outcome, answer
        assert b"\r\nServer: lb\r\n" in answer
        assert b"request id" in answer
        # A body that turns out to be malformed on its way may have begun to reach the target, but never its end.
        assert not seen, "the target saw a whole request"


def test_after_every_refusal_nothing_is_left_over(front: Front) -> None:
    assert front.at_rest()


@pytest.mark.parametrize("row", [row for row in TABLE if len(row.raw) < 160][::7], ids=lambda row: row.name)
def test_pieces_change_nothing(front: Front, row: Row) -> None:
    """Each byte in a packet of its own: the verdict is the same."""
    front.origin.requests.clear()
    with front.connect() as sock:
        try:
            for byte in row.raw:
                sock.sendall(bytes((byte,)))
        except OSError:
            pass
        from tests.support.front import read_answer

        answer = read_answer(sock, head_only=row.raw.startswith(b"HEAD "))
    expected = 200 if isinstance(row.outcome, Seen) else row.outcome
    assert status_of(answer) == expected, answer


def test_a_second_request_hidden_in_a_body_stays_a_body(front: Front) -> None:
    hidden = b"GET /hidden HTTP/1.1\r\nHost: a\r\n\r\n"
    front.origin.requests.clear()
    answer = front.send(b"POST /open HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % len(hidden) + hidden)
    assert status_of(answer) == 200
    assert [request.split(b" ")[1] for request in front.origin.requests] == [b"/open"]


def test_what_follows_a_refused_request_is_never_read(front: Front) -> None:
    front.origin.requests.clear()
    with front.connect() as sock:
        sock.sendall(b"GET / HTTP/1.1\r\nHost: a\r\nX : y\r\n\r\nGET /next HTTP/1.1\r\nHost: a\r\n\r\n")
        from tests.support.front import read_all

        answer = read_all(sock)
    assert answer.count(b"HTTP/1.1 ") == 1
    assert b"Connection: close\r\n" in answer
    assert not front.origin.requests
