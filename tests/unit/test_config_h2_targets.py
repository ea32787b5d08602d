"""`h2c://` and `h2://` in the file: what is read, checked and compared."""

from __future__ import annotations

import pytest

from lb.config.diff import diff
from lb.config.load import load_text
from lb.config.resolve import World, resolve


def world(target: str, more: str = "") -> World:
    text = f"services:\n  a:\n    pools: {{p: {{targets: ['{target}']}}}}\n{more}routes: [{{service: a}}]\n"
    return resolve(load_text(text), 0)


@pytest.mark.parametrize(
    ("url", "http2", "tls", "id"),
    [
        ("http://h:1", False, False, "a/p/h:1"),
        ("https://h", False, True, "a/p/h:443"),
        ("h2c://h:1", True, False, "a/p/h:1"),
        ("h2c://h", True, False, "a/p/h:80"),
        ("h2://h:1", True, True, "a/p/h:1"),
        ("H2://h", True, True, "a/p/h:443"),
    ],
)
def test_the_scheme_says_how_a_target_is_spoken_to(url: str, http2: bool, tls: bool, id: str) -> None:
    target = world(url).targets[id]
    assert (target.http2, target.tls is not None) == (http2, tls)


@pytest.mark.parametrize(
    ("url", "check", "protocol", "http2"),
    [
        ("h2c://h:1", "{path: /ready}", "http", True),
        ("h2://h:1", "{path: /ready}", "https", True),
        ("h2c://h:1", "{path: /ready, port: 2}", "http", False),  # another server
        ("h2c://h:1", "{protocol: tcp}", "tcp", False),
        ("h2c://h:1", "{protocol: grpc}", "grpc", False),
        ("http://h:1", "{path: /ready}", "http", False),
    ],
)
def test_a_check_on_the_targets_own_port_uses_its_protocol(url: str, check: str, protocol: str, http2: bool) -> None:
    spec = world(url, f"    readiness: {check}\n").checks["a/p/h:1"].readiness
    assert (spec.protocol, spec.http2) == (protocol, http2)


def test_a_plan_names_the_change_of_the_protocol() -> None:
    before, after = world("http://h:1"), world("h2c://h:1")
    lines = diff(before, after).lines()
    assert any("a/p/h:1" in text and "speaks HTTP/2.0 instead of HTTP/1.1" in text for text in lines), lines
