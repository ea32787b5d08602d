"""Every row of the response table: what the client gets, and whether the connection to the target is used again."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from lb.core.targets import Retries
from tests.support.front import Front, answers, answers_ok, read_all, read_answer, status_of
from tests.wire.response_table import TABLE, Row


@pytest.fixture(scope="module")
def front() -> Iterator[Front]:
    with Front(retries=Retries(attempts=0)) as running:
        yield running


def test_the_table_is_large_enough_and_its_names_differ() -> None:
    assert len(TABLE) >= 60
    assert len({row.name for row in TABLE}) == len(TABLE)


@pytest.mark.parametrize("row", TABLE, ids=[row.name for row in TABLE])
def test_row(front: Front, row: Row) -> None:
    front.with_script(answers(row.raw, close=row.close))
    before = front.origin.connections
    outcome = row.outcome
    with front.connect() as sock:
        sock.sendall(row.request)
        old = b" HTTP/1.0\r\n" in row.request
        answer = read_all(sock) if outcome.cut or old else read_answer(sock, row.request.startswith(b"HEAD"))
    assert status_of(answer) == outcome.status, answer
    head = answer.rpartition(b"\r\n\r\n")[0] if not outcome.end else answer
    for part in outcome.parts:
        assert part in answer
    for part in outcome.without:
        assert part not in head
    assert answer.endswith(outcome.end)
    if outcome.status == 502:
        assert b"\r\nServer: lb\r\n" in answer
        assert answer.count(b"HTTP/1.1 ") == 1 + answer.count(b"HTTP/1.1 103"), "nothing of the target's answer"
    if outcome.cut:
        assert not answer.endswith(b"0\r\n\r\n"), "a cut answer must not look complete"
    if outcome.status == 101:
        return
    front.origin.script = answers_ok
    assert status_of(front.send(b"GET /next HTTP/1.1\r\nHost: a\r\n\r\n")) in (200, outcome.status, 502)
    used = front.origin.connections - before
    assert used == (1 if outcome.pooled else 2)


def test_nothing_is_left_over(front: Front) -> None:
    until = time.monotonic() + 5
    while not front.at_rest():
        assert time.monotonic() < until
        time.sleep(0.02)


def test_bytes_on_an_idle_connection_are_nobodys_answer(front: Front) -> None:
    front.with_script(
        answers(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", pause=b"HTTP/1.1 200 OK\r\nX: evil\r\n\r\n")
    )
    assert status_of(front.send(b"GET /1 HTTP/1.1\r\nHost: a\r\n\r\n")) == 200
    time.sleep(0.2)
    front.origin.script = answers_ok
    answer = front.send(b"GET /2 HTTP/1.1\r\nHost: a\r\n\r\n")
    assert status_of(answer) == 200
    assert b"evil" not in answer
