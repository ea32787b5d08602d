"""Keys and tokens for tests, made with `cryptography` and `json` alone, so that any wrong form can be made."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

RSA = rsa.generate_private_key(65537, 2048)
EC = ec.generate_private_key(ec.SECP256R1())
ED = ed25519.Ed25519PrivateKey.generate()


def b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def number(value: int, size: int = 0) -> str:
    return b64(value.to_bytes(size or (value.bit_length() + 7) // 8, "big"))


def jwk(key: Any, **more: Any) -> dict[str, Any]:
    """The public key as a JWK."""
    public = key.public_key()
    if isinstance(public, rsa.RSAPublicKey):
        numbers = public.public_numbers()
        made = {"kty": "RSA", "n": number(numbers.n), "e": number(numbers.e)}
    elif isinstance(public, ec.EllipticCurvePublicKey):
        point = public.public_numbers()
        made = {"kty": "EC", "crv": "P-256", "x": number(point.x, 32), "y": number(point.y, 32)}
    else:
        made = {"kty": "OKP", "crv": "Ed25519", "x": b64(public.public_bytes(Encoding.Raw, PublicFormat.Raw))}
    return {**made, **more}


def jwks(*keys: dict[str, Any]) -> bytes:
    return json.dumps({"keys": list(keys)}).encode()


ALL = jwks(jwk(RSA, kid="r", use="sig"), jwk(EC, kid="e", alg="ES256"), jwk(ED, kid="d"))


def sign(key: Any, text: bytes) -> bytes:
    if isinstance(key, rsa.RSAPrivateKey):
        return key.sign(text, padding.PKCS1v15(), hashes.SHA256())
    if isinstance(key, ec.EllipticCurvePrivateKey):
        r, s = decode_dss_signature(key.sign(text, ec.ECDSA(hashes.SHA256())))
        return r.to_bytes(32, "big") + s.to_bytes(32, "big")
    if isinstance(key, bytes):
        return hmac.new(key, text, hashlib.sha256).digest()
    return bytes(key.sign(text))


def claims(**changes: Any) -> dict[str, Any]:
    made = {"sub": "anna", "iss": "https://id.example", "aud": "shop", "exp": time.time() + 300, **changes}
    return {name: value for name, value in made.items() if value is not None}


def token(key: Any = RSA, payload: Any = None, **header: Any) -> str:
    """A signed token. `payload`: claims, or the bytes themselves."""
    algorithm = "EdDSA"
    if isinstance(key, rsa.RSAPrivateKey):
        algorithm = "RS256"
    elif isinstance(key, ec.EllipticCurvePrivateKey):
        algorithm = "ES256"
    made = {"alg": algorithm, "typ": "JWT", **header}
    made = {name: value for name, value in made.items() if value is not None}
    body = payload if isinstance(payload, bytes) else json.dumps(claims() if payload is None else payload).encode()
    text = f"{b64(json.dumps(made).encode())}.{b64(body)}"
    return f"{text}.{b64(sign(key, text.encode()))}"
