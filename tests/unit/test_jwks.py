"""Sets of keys and signatures: which keys verify, and every known way to have a wrong signature taken."""

from __future__ import annotations

import json
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from lb.core.claims import BadToken
from lb.net.jwks import BadKeys, KeySet, UnknownKey, payload_of, read_keys
from tests.support import tokens
from tests.support.tokens import ALL, EC, ED, RSA, b64, jwk, jwks, number, token

KEYS = read_keys(ALL)
PEM = RSA.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def taken(text: str, keys: KeySet = KEYS, allowed: tuple[str, ...] = ()) -> bool:
    try:
        payload_of(text.encode(), keys, allowed)
    except BadToken:
        return False
    return True


@pytest.mark.parametrize(("key", "kid"), [(RSA, "r"), (EC, "e"), (ED, "d")])
def test_a_right_signature(key: Any, kid: str) -> None:
    text = token(key, {"a": 1}, kid=kid)
    assert json.loads(payload_of(text.encode(), KEYS, ())) == {"a": 1}
    assert taken(token(key))  # without an id, each key of the algorithm is tried
    assert not taken(token(key, kid="e" if kid != "e" else "r"))
    head, body, signature = text.split(".")
    flipped = signature[:10] + ("A" if signature[10] != "A" else "B") + signature[11:]
    for wrong in (
        f"{head}.{b64(b'{}')}.{signature}",
        f"{head}.{body}.{flipped}",
        f"{head}.{body}.",
        f"{head}.{body}",
        f"{head}.{body}.{signature}.x",
        f"{head}..{signature}",
        f".{body}.{signature}",
        "",
        "..",
        "a.b.c",
        text + "A" * 20000,
    ):
        assert not taken(wrong), wrong


@pytest.mark.parametrize(
    "text",
    [
        token(RSA, alg="none"),
        token(RSA, alg="None"),
        token(RSA, alg="nOnE", kid="r").rpartition(".")[0] + ".",
        token(PEM, alg="HS256"),  # the public key as a shared secret
        token(PEM, alg="HS256", kid="r"),
        token(jwks(jwk(RSA)), alg="HS256"),
        token(RSA, alg="rs256"),
        token(RSA, alg=["RS256"]),
        token(RSA, alg=None),
        token(RSA, alg="PS256"),  # another algorithm than it is signed by
        token(EC, alg="RS256"),
        token(ED, alg="ES256", kid="e"),
        token(RSA, kid=["r"]),
        token(RSA, kid={"a": 1}),
        token(RSA, crit=["exp"]),
        token(RSA, crit=[]),
        token(RSA, b64=False),
        token(rsa.generate_private_key(65537, 2048)),
        # keys that the token brings along
        token(rsa.generate_private_key(65537, 2048), jwk=jwk(RSA)),
        token(rsa.generate_private_key(65537, 2048), jku="http://127.0.0.1:1/", x5u="http://127.0.0.1:1/", kid="r"),
    ],
)
def test_a_token_does_not_choose_how_it_is_verified(text: str) -> None:
    assert not taken(text)


def test_an_embedded_key_is_not_looked_at() -> None:
    stranger = rsa.generate_private_key(65537, 2048)
    assert not taken(token(stranger, jwk=jwk(stranger), kid="r"))
    assert not taken(token(stranger, jwk=jwk(stranger)))


def test_an_unknown_key_is_told_apart() -> None:
    with pytest.raises(UnknownKey):
        payload_of(token(RSA, kid="new").encode(), KEYS, ())
    with pytest.raises(UnknownKey):
        payload_of(token(RSA, kid="../../etc/passwd").encode(), KEYS, ())
    with pytest.raises(UnknownKey):
        payload_of(token(RSA, kid="").encode(), KEYS, ())


def test_the_algorithms_may_be_fewer() -> None:
    assert taken(token(EC), allowed=("ES256",))
    assert not taken(token(RSA), allowed=("ES256",))
    only = read_keys(jwks(jwk(RSA, alg="RS512")))
    assert not taken(token(RSA), only)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "no set of keys"),
        (b"[]", "no set of keys"),
        (b'{"keys": {}}', "no list"),
        (b'{"keys": []}', "no key that can verify"),
        (jwks({"kty": "oct", "k": "AAAA"}), "shared secret"),
        (jwks({"kty": "x"}), "type 'x'"),
        (jwks(jwk(RSA, use="enc")), "not for signatures"),
        (jwks(jwk(RSA, key_ops=["encrypt"])), "not for signatures"),
        (jwks(jwk(RSA, alg="HS256")), "'HS256' is not taken"),
        (jwks(jwk(EC, crv="P-192")), "'P-192' is not taken"),
        (jwks({**jwk(EC), "x": number(5, 32)}), "keys[0]"),
        (jwks({"kty": "RSA", "e": "AQAB"}), "at least 2048 bits"),
        (jwks(jwk(rsa.generate_private_key(65537, 1024))), "at least 2048 bits"),
        (jwks(jwk(RSA, kid=5)), "no text"),
        (jwks(*[jwk(RSA)] * 101), "at most 100"),
        (b"[" * 100_000, "no set of keys"),
    ],
)
def test_sets_that_cannot_be_used(data: bytes, message: str) -> None:
    with pytest.raises(BadKeys) as caught:
        read_keys(data)
    assert message in str(caught.value)


def test_keys_that_cannot_be_used_take_no_other_ones_along() -> None:
    keys = read_keys(jwks({"kty": "oct", "k": "AAAA", "kid": "o"}, jwk(ED), 5, jwk(RSA, use="enc")))  # type: ignore[arg-type]
    assert len(keys) == 1
    assert len(keys.left_out) == 3
    assert taken(token(ED), keys)


def test_private_parts_are_left_out() -> None:
    secret = {**jwk(RSA), "d": number(RSA.private_numbers().d)}
    assert taken(token(RSA), read_keys(jwks(secret)))


def test_the_helper_makes_what_a_library_takes() -> None:
    import jwt

    text = tokens.token(RSA, {"a": 1})
    assert jwt.decode(text, PEM, ["RS256"]) == {"a": 1}
