"""The signatures of ACME (RFC 7515, RFC 7638): an account's ES256 key, and the HMAC that binds it to another account.

Pure: the nonce and the address are arguments.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import re
from typing import Any

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

#: Bytes of each of the two numbers of a P-256 signature.
HALF = 32


def encode(data: bytes) -> str:
    """base64url without padding, which is the only form in ACME."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def decode(text: str) -> bytes:
    """The bytes of a base64url text, padded or not. Raises `ValueError`."""
    # b64decode takes the characters of the other alphabet as well.
    if not re.fullmatch(r"[A-Za-z0-9_-]*={0,2}", text):
        raise ValueError("not base64url")
    text = text.rstrip("=")
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


class AccountKey:
    """The private key that an account at an authority is known by."""

    def __init__(self, key: ec.EllipticCurvePrivateKey) -> None:
        numbers = key.public_key().public_numbers()
        self._key = key
        self.jwk = {
            "crv": "P-256",
            "kty": "EC",
            "x": encode(numbers.x.to_bytes(HALF, "big")),
            "y": encode(numbers.y.to_bytes(HALF, "big")),
        }
        # RFC 7638: the members in the order of their names, without spaces.
        self.thumbprint = encode(hashlib.sha256(_compact(self.jwk)).digest())

    @classmethod
    def new(cls) -> AccountKey:
        """A key that no account has yet."""
        return cls(ec.generate_private_key(ec.SECP256R1()))

    @classmethod
    def from_pem(cls, pem: bytes) -> AccountKey:
        """Raises `ValueError` for anything but a P-256 key without a passphrase."""
        try:
            key = serialization.load_pem_private_key(pem, None)
        except TypeError as error:  # it has a passphrase
            raise ValueError(str(error)) from None
        if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(key.curve, ec.SECP256R1):
            raise ValueError("not a P-256 key")
        return cls(key)

    def pem(self) -> bytes:
        return self._key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )

    def sign(self, payload: bytes, url: str, nonce: str, account: str = "") -> bytes:
        """The body of a POST to `url`. `account`: the account's address; empty: it has none yet.

        An empty payload is a POST-as-GET.
        """
        protected: dict[str, Any] = {"alg": "ES256", "nonce": nonce, "url": url}
        protected |= {"kid": account} if account else {"jwk": self.jwk}
        head, body = encode(_compact(protected)), encode(payload)
        r, s = decode_dss_signature(self._key.sign(f"{head}.{body}".encode(), ec.ECDSA(hashes.SHA256())))
        signature = r.to_bytes(HALF, "big") + s.to_bytes(HALF, "big")
        return _compact({"protected": head, "payload": body, "signature": encode(signature)})

    def key_authorization(self, token: str) -> str:
        """The answer to a challenge: it shows that the account's owner controls the name."""
        return f"{token}.{self.thumbprint}"

    def bound_to(self, key_id: str, mac_key: bytes, url: str) -> dict[str, str]:
        """`externalAccountBinding` of RFC 8555 section 7.3.4. `url`: the authority's newAccount."""
        head = encode(_compact({"alg": "HS256", "kid": key_id, "url": url}))
        body = encode(_compact(self.jwk))
        signature = hmac.digest(mac_key, f"{head}.{body}".encode(), "sha256")
        return {"protected": head, "payload": body, "signature": encode(signature)}


def _compact(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":"), sort_keys=True).encode()
