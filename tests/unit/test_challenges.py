"""Answers to challenges: before redirect and routes, exact, and only for paths that an authority was given."""

from __future__ import annotations

import pytest

from lb.core.challenges import Challenges
from lb.core.targets import Listener
from tests.support.data_plane import OK, Stage
from tests.support.fake_transport import FakeTransport

ANSWERS = Challenges(7, (("tok-1", "tok-1.thumb"), ("tok-2", "tok-2.thumb")))


def asked(path: str, method: str = "GET") -> bytes:
    return f"{method} {path} HTTP/1.1\r\nHost: a.example.org\r\n".encode()


def test_a_token_is_answered_with_its_key_authorization_and_nothing_else() -> None:
    stage = Stage()
    stage.plane.challenge(ANSWERS)
    client, _ = stage.ask(asked("/.well-known/acme-challenge/tok-2?x=1"))
    head, _, body = client.got.partition(b"\r\n\r\n")
    assert client.status == 200
    assert b"Content-Length: 11" in head
    assert body == b"tok-2.thumb"
    assert client.kept is True
    assert stage.plane.stats.rejected == {}
    assert stage.plane.applied == 7
    assert stage.at_rest()


def test_the_head_alone_of_an_answer_has_its_length() -> None:
    stage = Stage()
    stage.plane.challenge(ANSWERS)
    client, _ = stage.ask(asked("/.well-known/acme-challenge/tok-1", "HEAD"))
    assert client.got.endswith(b"\r\n\r\n")
    assert b"Content-Length: 11" in client.got


@pytest.mark.parametrize(
    ("path", "method"),
    [
        ("/.well-known/acme-challenge/other", "GET"),
        ("/.well-known/acme-challenge/", "GET"),
        ("/x/.well-known/acme-challenge/tok-1", "GET"),
        ("/.well-known/acme-challenge/tok-1", "POST"),
    ],
)
def test_anything_else_passes_to_the_service(path: str, method: str) -> None:
    stage = Stage()
    stage.plane.challenge(ANSWERS)
    client, _ = stage.ask(asked(path, method))
    upstream, _ = stage.accept()
    upstream.data_received(OK)
    assert client.got.endswith(OK[-5:])


def test_an_answer_that_is_taken_away_passes_to_the_service_again() -> None:
    stage = Stage()
    stage.plane.challenge(ANSWERS)
    stage.plane.challenge(Challenges(8))
    stage.ask(asked("/.well-known/acme-challenge/tok-1"))
    stage.accept()
    assert stage.plane.applied == 8


def test_a_listener_that_redirects_answers_challenges_first() -> None:
    stage = Stage()
    stage.plane.challenge(ANSWERS)
    client = stage.plane.downstream(Listener("test", redirect="0.0.0.0:443"))()
    transport = FakeTransport(("127.0.0.1", 1))
    client.connection_made(transport)  # type: ignore[arg-type]
    client.data_received(asked("/.well-known/acme-challenge/tok-1") + b"\r\n")  # type: ignore[attr-defined]
    client.data_received(asked("/.well-known/acme-challenge/none") + b"\r\n")  # type: ignore[attr-defined]
    written = transport.written
    assert written.startswith(b"HTTP/1.1 200 OK")
    assert b"tok-1.thumb" in written
    assert b"308 Permanent Redirect" in written
