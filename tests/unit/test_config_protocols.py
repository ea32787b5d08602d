"""The protocols of a listener in the file: what they come to, and what is an error."""

from __future__ import annotations

import pytest

from lb.config.load import load_text
from lb.config.resolve import resolve
from lb.config.yaml.problems import ConfigError
from lb.core.targets import Listener

TLS = "tls: {cert_file: c.pem, key_file: k.pem}"


def text(line: str) -> str:
    return f"listeners: [{{bind: ':443', {line}}}]\nbackends: [h:1]\n"


def listener(line: str) -> Listener:
    return resolve(load_text(text(line)), 1).snapshot.listeners[0]


@pytest.mark.parametrize(
    ("line", "http1", "http2"),
    [
        ("limits: {}", True, False),
        (TLS, True, True),
        (f"{TLS}, protocols: [http/1.1]", True, False),
        ("protocols: [h2c, http/1.1]", True, True),
        ("protocols: [h2c]", False, True),
        (f"{TLS}, protocols: [h2, http/1.1]", True, True),
        (f"{TLS}, protocols: [h2]", False, True),
    ],
)
def test_what_clients_may_speak(line: str, http1: bool, http2: bool) -> None:
    found = listener(line)
    assert (found.http1, found.http2) == (http1, http2)


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        (TLS, ("h2", "http/1.1")),
        (f"{TLS}, protocols: [http/1.1]", ("http/1.1",)),
        (f"{TLS}, protocols: [h2, http/1.1, h2]", ("h2", "http/1.1")),
        (f"{TLS}, protocols: [http/1.1, h2]", ("http/1.1", "h2")),
    ],
)
def test_what_a_handshake_offers(line: str, offered: tuple[str, ...]) -> None:
    tls = listener(line).tls
    assert tls is not None
    assert tls.policy().alpn == offered


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("protocols: []", "speaks no protocol"),
        ("protocols: [h2, http/1.1]", "has no `tls`"),
        (f"{TLS}, protocols: [h2c]", "has `tls`"),
        ("protocols: [h3]", "'h3' is not one of the choices"),
    ],
)
def test_errors(line: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_text(text(line))
    (problem,) = caught.value.problems
    assert said in problem.message
