"""Sets of keys that verify tokens (JWKS, RFC 7517), and the verification of one (RFC 7515).

A key fixes the algorithms that it may be used for, so that no token chooses how it is verified: a public key is never
taken for a shared secret, and `none` is no algorithm. Shared secrets (`oct`) are not taken: whoever can verify with one
can sign, too. Keys that a token brings along or points to (`jwk`, `jku`, `x5c`, `x5u`) are not looked at.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from lb.core.claims import BadToken

if TYPE_CHECKING:
    import jwt

#: Of a set and of a token, in bytes, and keys of a set.
LARGEST: Final = 1 << 20
LONGEST: Final = 16384
MOST_KEYS: Final = 100
_RSA: Final = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512")
_CURVES: Final = {"P-256": "ES256", "P-384": "ES384", "P-521": "ES512"}
#: Every algorithm that a token may have.
ALGORITHMS: Final = (*_RSA, *_CURVES.values(), "EdDSA")
#: The public parts of a key, by its type.
_PARTS: Final = {"RSA": ("n", "e"), "EC": ("crv", "x", "y"), "OKP": ("crv", "x")}
#: Bits of an RSA key at least (RFC 7518 section 3.3).
_LEAST_BITS: Final = 2048


class BadKeys(ValueError):  # noqa: N818 - it says what they are
    """No set of keys; the text says why."""


class UnknownKey(BadToken):
    """The token names a key that is not in the set, which may be older than the key."""


class KeySet:
    """The keys of one set that can verify. `left_out`: why others cannot."""

    __slots__ = ("_by_id", "left_out")

    def __init__(self) -> None:
        self._by_id: dict[str, list[dict[str, jwt.PyJWK]]] = {}  # id ("": none) → keys, each by algorithm
        self.left_out: list[str] = []

    def __len__(self) -> int:
        return sum(len(keys) for keys in self._by_id.values())

    def add(self, id: str, key: dict[str, jwt.PyJWK]) -> None:
        """Take a key."""
        self._by_id.setdefault(id, []).append(key)

    def find(self, id: str | None, algorithm: str) -> list[jwt.PyJWK]:
        """The keys that may have signed. Raises `UnknownKey`."""
        if id is None:
            keys = [key for all_of_id in self._by_id.values() for key in all_of_id]
        elif id in self._by_id:
            keys = self._by_id[id]
        else:
            raise UnknownKey("it is signed by an unknown key")
        return [key[algorithm] for key in keys if algorithm in key]


def read_keys(data: bytes) -> KeySet:
    """The set in a document. Raises `BadKeys` where it has no key that can verify."""
    import jwt  # slow to import, and most configurations have no tokens

    try:
        document = json.loads(data)
        entries = document["keys"]
    except (ValueError, KeyError, TypeError, RecursionError):
        raise BadKeys("it is no set of keys: a JSON object with a list `keys`") from None
    if not isinstance(entries, list) or len(entries) > MOST_KEYS:
        raise BadKeys(f"`keys` is no list of at most {MOST_KEYS} keys")
    made = KeySet()
    for number, entry in enumerate(entries):
        try:
            public, algorithms = _public(entry)
            id = entry.get("kid", "")
            if not isinstance(id, str):
                raise BadKeys("its `kid` is no text")
            made.add(id, {each: jwt.PyJWK(public, each) for each in algorithms})
        except (BadKeys, jwt.PyJWTError, ValueError, TypeError, KeyError) as error:
            made.left_out.append(f"keys[{number}]: {error}")
    if not len(made):
        raise BadKeys("; ".join(["it has no key that can verify", *made.left_out[:3]]))
    return made


def _public(entry: Any) -> tuple[dict[str, Any], tuple[str, ...]]:
    """The public parts of a key, and the algorithms that it is for."""
    if not isinstance(entry, dict):
        raise BadKeys("it is no object")
    kind = entry.get("kty")
    if kind == "oct":
        raise BadKeys("a shared secret (oct) is not taken")
    if kind not in _PARTS:
        raise BadKeys(f"its type {kind!r} is unknown")
    if entry.get("use", "sig") != "sig" or "verify" not in entry.get("key_ops", ("verify",)):
        raise BadKeys("it is not for signatures")
    public = {"kty": kind, **{part: entry[part] for part in _PARTS[kind] if part in entry}}
    curve = public.get("crv")
    if kind == "RSA":
        algorithms: tuple[str, ...] = _RSA
        if len(str(public.get("n", ""))) * 6 < _LEAST_BITS:
            raise BadKeys(f"an RSA key has at least {_LEAST_BITS} bits")
    elif kind == "EC":
        algorithms = (_CURVES[curve],) if curve in _CURVES else ()
    else:
        algorithms = ("EdDSA",) if curve in ("Ed25519", "Ed448") else ()
    named = entry.get("alg")
    if named is not None:
        algorithms = tuple(each for each in algorithms if each == named)
    if not algorithms:
        raise BadKeys(f"its algorithm {named or curve!r} is not taken")
    return public, algorithms


def payload_of(token: bytes, keys: KeySet, allowed: Sequence[str]) -> bytes:
    """The payload of a token whose signature is right. Raises `BadToken`. `allowed`: algorithms; empty: all."""
    import jwt

    if len(token) > LONGEST:
        raise BadToken("it is too long")
    try:
        header = jwt.get_unverified_header(token)
    except (jwt.PyJWTError, ValueError, RecursionError):
        raise BadToken("it is no signed token") from None
    algorithm, id = header.get("alg"), header.get("kid")
    if not isinstance(algorithm, str) or algorithm not in (allowed or ALGORITHMS):
        raise BadToken("its algorithm is not taken")
    if "crit" in header or "b64" in header:
        raise BadToken("it has a header that must be understood, and is not")
    if id is not None and not isinstance(id, str):
        raise BadToken("its `kid` is no text")
    for key in keys.find(id, algorithm):
        try:
            return bytes(jwt.PyJWS().decode_complete(token, key, [algorithm])["payload"])
        except (jwt.PyJWTError, ValueError, TypeError):
            continue
    raise BadToken("its signature is wrong")
