"""Whether the claims of a token whose signature is right hold now, and what they tell targets. Pure.

RFC 7519 section 4.1. A claim of the wrong type is no claim, and what has no end is not taken: a token that is stolen
would be good for ever.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any, Final

from lb.core.guards import Jwt

_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]")
#: Bytes of one claim that a field of a request may hold.
LONGEST: Final = 4096


class BadToken(Exception):  # noqa: N818 - it says what it is
    """The token lets nobody in; the text is the reason."""


def read_claims(payload: bytes) -> dict[str, Any]:
    """The claims as they stand in a token. Raises `BadToken`. A name that is given twice is refused: lb and the target
    could go by different ones."""
    try:
        claims = json.loads(payload, object_pairs_hook=_once)
    except (ValueError, RecursionError):
        raise BadToken("its claims cannot be read") from None
    if not isinstance(claims, dict):
        raise BadToken("its claims cannot be read")
    return claims


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        raise ValueError("a name is given twice")
    return made


def check_claims(claims: dict[str, Any], rule: Jwt, now: float) -> float:
    """Raises `BadToken` unless the claims hold at `now`, in Unix seconds. Returns until when they do."""
    ends = _moment(claims, "exp")
    if ends is None:
        raise BadToken("it has no end (exp)")
    if now >= ends + rule.leeway:
        raise BadToken("it has expired")
    begins = _moment(claims, "nbf")
    if begins is not None and now < begins - rule.leeway:
        raise BadToken("it is not valid yet")
    if rule.issuers and claims.get("iss") not in rule.issuers:
        raise BadToken("it is of another issuer")
    if rule.audiences:
        named = claims.get("aud")
        audience = [named] if isinstance(named, str) else named
        if not isinstance(audience, list) or not any(each in rule.audiences for each in audience):
            raise BadToken("it is for another audience")
    return ends + rule.leeway


def _moment(claims: dict[str, Any], name: str) -> float | None:
    value = claims.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < 1e12:
        raise BadToken(f"{name} is no time")
    return float(value)


def told_lines(claims: dict[str, Any], told: Sequence[tuple[str, str]]) -> list[bytes]:
    """The lines that tell a target of claims: (field, claim) each. Raises `BadToken` for what no field can hold."""
    lines = []
    for field, name in told:
        text = _text(_claim(claims, name))
        if text is None:
            continue
        if _CONTROL.search(text) or len(text) > LONGEST:
            raise BadToken(f"the claim {name} cannot be told to the target")
        lines.append(f"{field}: {text}\r\n".encode("utf-8", "surrogatepass"))
    return lines


def _claim(claims: dict[str, Any], name: str) -> Any:
    """A claim by its name, or by the names on the way to it, with dots between them."""
    if name in claims:
        return claims[name]
    value: Any = claims
    for part in name.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    return value


def _text(value: Any) -> str | None:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str | int | float):
        return str(value)
    if isinstance(value, list):
        items = [_text(item) for item in value]
        # A comma within an item would make two of it.
        return ",".join(item for item in items if item is not None and "," not in item)
    return None
