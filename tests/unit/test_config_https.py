"""Redirects to https and HSTS in the file: what they come to, and what is an error."""

from __future__ import annotations

import pytest

from lb.config.load import load_text
from lb.config.resolve import resolve
from lb.config.yaml.problems import ConfigError
from lb.core.targets import Listener

TLS = "tls: {cert_file: c.pem, key_file: k.pem}"


def text(*listeners: str) -> str:
    return f"listeners: [{', '.join(f'{{{one}}}' for one in listeners)}]\nbackends: [h:1]\n"


def listeners(*lines: str) -> tuple[Listener, ...]:
    return resolve(load_text(text(*lines)), 1).snapshot.listeners


def errors(*lines: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load_text(text(*lines))
    return [one.message for one in caught.value.problems]


@pytest.mark.parametrize(
    ("lines", "goes_to"),
    [
        (("bind: ':80', redirect: https", f"bind: ':443', {TLS}"), "0.0.0.0:443"),
        (("bind: ':80', redirect: https", f"bind: ':8443', {TLS}", f"bind: ':443', {TLS}"), "0.0.0.0:8443"),
        (
            ("bind: '10.0.0.1:80', redirect: https", f"bind: '10.0.0.2:1', {TLS}", f"bind: '10.0.0.1:2', {TLS}"),
            "10.0.0.1:2",
        ),
        (("bind: ':80', redirect: https", f"bind: 'unix:/run/s', {TLS}", f"bind: '[::]:443', {TLS}"), "[::]:443"),
        (("bind: ':80', redirect: {to_port: 443}", f"bind: ':8443', {TLS}"), ":443"),
        (("bind: ':80', redirect: {to_port: 444}",), ":444"),
        (("bind: 'unix:/run/s', redirect: {scheme: https}", f"bind: ':8443', {TLS}"), "0.0.0.0:8443"),
        (("bind: ':80'", f"bind: ':443', {TLS}"), ""),
    ],
)
def test_where_a_redirect_goes(lines: tuple[str, ...], goes_to: str) -> None:
    assert listeners(*lines)[0].redirect == goes_to


@pytest.mark.parametrize(
    ("hsts", "value"),
    [
        ("{}", "max-age=31536000"),
        ("{max_age: 0s}", "max-age=0"),
        ("{max_age: 365d, include_subdomains: true}", "max-age=31536000; includeSubDomains"),
        ("{include_subdomains: true, preload: true}", "max-age=31536000; includeSubDomains; preload"),
    ],
)
def test_the_value_of_a_policy(hsts: str, value: str) -> None:
    assert listeners(f"bind: ':443', {TLS}, hsts: {hsts}")[0].hsts == value


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        (("bind: ':80', redirect: https",), "no port to go to"),
        (("bind: ':80', redirect: https", f"bind: 'unix:/run/s', {TLS}"), "no port to go to"),
        ((f"bind: ':443', redirect: https, {TLS}",), "would redirect its clients to where they are"),
        (("bind: ':80', redirect: http",), "'http' is not one of the choices"),
        (("bind: ':80', redirect: {to_port: 0}",), "out of range"),
        (("bind: ':80', hsts: {max_age: 1d}",), "where browsers ignore it"),
        ((f"bind: ':443', {TLS}, hsts: {{max_age: 1}}",), "max_age"),
    ],
)
def test_errors(lines: tuple[str, ...], said: str) -> None:
    found = errors(*lines)
    assert len(found) == 1
    assert said in found[0]
