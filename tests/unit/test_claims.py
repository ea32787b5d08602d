"""Claims of a token: when they hold, and what they tell a target."""

from __future__ import annotations

from typing import Any

import pytest

from lb.core.claims import BadToken, check_claims, read_claims, told_lines
from lb.core.guards import Jwt

RULE = Jwt(issuers=("https://id",), audiences=("shop", "pay"), leeway=60.0)
GOOD: dict[str, Any] = {"exp": 1000, "iss": "https://id", "aud": "shop"}


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({}, ""),
        ({"exp": 1000.5}, ""),
        ({"nbf": 1058}, ""),
        ({"aud": ["x", "pay"]}, ""),
        ({"exp": 939}, "has expired"),
        ({"exp": 938.9}, "has expired"),
        ({"exp": None}, "no end"),
        ({"exp": "9999999999"}, "exp is no time"),
        ({"exp": True}, "exp is no time"),
        ({"exp": 1e300}, "exp is no time"),
        ({"exp": float("nan")}, "exp is no time"),
        ({"exp": float("inf")}, "exp is no time"),
        ({"exp": [1000]}, "exp is no time"),
        ({"nbf": 1061}, "not valid yet"),
        ({"nbf": "0"}, "nbf is no time"),
        ({"iss": "https://id/"}, "another issuer"),
        ({"iss": None}, "another issuer"),
        ({"iss": ["https://id"]}, "another issuer"),
        ({"aud": "Shop"}, "another audience"),
        ({"aud": None}, "another audience"),
        ({"aud": []}, "another audience"),
        ({"aud": {"shop": 1}}, "another audience"),
        ({"aud": "shop pay"}, "another audience"),
        ({"aud": [["shop"]]}, "another audience"),
    ],
)
def test_when_claims_hold(changes: dict[str, Any], reason: str) -> None:
    claims = {**GOOD, **changes}
    if not reason:
        assert check_claims(claims, RULE, 999.0) == pytest.approx(claims["exp"] + 60)
        return
    with pytest.raises(BadToken, match=reason):
        check_claims(claims, RULE, 999.0)


def test_without_issuer_and_audience_any_will_do() -> None:
    assert check_claims({"exp": 5}, Jwt(), 5.0) == 65.0


@pytest.mark.parametrize(
    "payload",
    [b"", b"[]", b'"x"', b'{"sub": "a", "sub": "b"}', b'{"a": {"b": 1, "b": 2}}', b"\xff", b"[" * 100_000],
)
def test_what_cannot_be_read(payload: bytes) -> None:
    with pytest.raises(BadToken, match="cannot be read"):
        read_claims(payload)


def test_what_a_target_is_told() -> None:
    claims = read_claims(
        b'{"sub": "anna", "n": 5, "ok": true, "none": null, "roles": ["a", "b,c", 7, {}], "realm": {"roles": ["x"]}, '
        b'"a.b": "literal", "a": {"b": "inner"}, "name": "M\\u00fcller"}'
    )
    names = ["sub", "n", "ok", "none", "gone", "roles", "realm.roles", "realm", "a.b", "sub.x", "name"]
    assert told_lines(claims, [(f"X-{name}", name) for name in names]) == [
        b"X-sub: anna\r\n",
        b"X-n: 5\r\n",
        b"X-ok: true\r\n",
        b"X-roles: a,7\r\n",
        b"X-realm.roles: x\r\n",
        b"X-a.b: literal\r\n",
        "X-name: M\u00fcller\r\n".encode(),
    ]


@pytest.mark.parametrize("value", ["a\r\nX-Admin: 1", "a\0", "\x7f", "x" * 5000])
def test_what_no_field_can_hold(value: str) -> None:
    with pytest.raises(BadToken, match="cannot be told"):
        told_lines({"sub": value}, [("X-User", "sub")])
